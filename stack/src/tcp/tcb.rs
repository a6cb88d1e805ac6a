//! The transmission control block (RFC 9293, section 3.3.1) as it lies in the arena.
//!
//! The daemon reads it after a `kill -9` at any instruction. So the state of the connection is never stored beside the
//! numbers that it follows from: whether a FIN was sent, acknowledged or received is read off the sequence numbers, and
//! each of these is published by one store, after the bytes that it speaks for.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::cc::{Algorithm, Congestion, Learnt};
use super::ecn::Ecn;
use super::image::flag;
use super::mtu::PathMtu;
use super::pacing::Pacing;
use super::ranges::{Range, Ranges};
use super::rtt::Rtt;
use super::segment::SackBlocks;
use super::seq::SeqNr;
use super::time::Instant;
use super::timer::Timers;

/// Bits of [`Tcb::bits`] beyond those of [`flag`], which mean the same here.
pub(crate) mod bit {
    /// The packets have IPv6 headers.
    pub const IPV6: u32 = 1 << 15;
    /// The last send said that more will follow (MSG_MORE).
    pub const MORE: u32 = 1 << 16;
    /// A FIN of the peer was seen at `rcv_fin`.
    pub const FIN_SEEN: u32 = 1 << 17;
    /// The peer closed before we did: LAST-ACK and CLOSED instead of CLOSING and TIME-WAIT.
    pub const PASSIVE: u32 = 1 << 18;
    /// TIME-WAIT is over.
    pub const DONE: u32 = 1 << 19;
    /// An acknowledgement is due in this pass.
    pub const ACK_NOW: u32 = 1 << 20;
    /// That acknowledgement is a challenge (RFC 5961).
    pub const CHALLENGE: u32 = 1 << 21;
    /// The due acknowledgement was put off until its timer ran out.
    pub const ACK_LATE: u32 = 1 << 22;
    /// The program answers what it receives, so an acknowledgement can wait for the answer.
    pub const PINGPONG: u32 = 1 << 23;
    /// TCP_QUICKACK: do not delay acknowledgements.
    pub const QUICKACK: u32 = 1 << 24;
    /// A probe of the peer's window is due.
    pub const WINDOW_PROBE: u32 = 1 << 25;
    /// A keepalive probe is due.
    pub const KEEPALIVE_PROBE: u32 = 1 << 26;
    /// A tail loss probe is due.
    pub const LOSS_PROBE: u32 = 1 << 27;
    /// The persist timer ran out: send what little the window allows.
    pub const OVERRIDE: u32 = 1 << 28;
    /// The newest of [`Tcb::delivery_rate`] is the program's rate, not the path's.
    pub const RATE_APP_LIMITED: u32 = 1 << 29;
    /// The peer pushed data that is not acknowledged yet.
    pub const PUSHED: u32 = 1 << 30;
    /// A duplicate arrived: tell the peer in a D-SACK block (RFC 2883).
    pub const DUPLICATE: u32 = 1 << 31;
}

/// All state of one connection. Units are those of [`super::image::Image`].
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Tcb {
    pub(crate) timers: Timers,
    pub(crate) rtt: Rtt,
    pub(crate) cc: Congestion,
    pub(crate) ecn: Ecn,
    /// Out-of-order data in the receive ring, the lowest pieces.
    pub(crate) ooo: Ranges,
    pub(crate) pacing: Pacing,
    pub(crate) pmtu: PathMtu,

    /// Last acceptable segment from the peer.
    pub(crate) heard_at: Instant,
    /// Last segment with data from the peer.
    pub(crate) data_heard_at: Instant,
    /// Last segment with data to the peer.
    pub(crate) data_sent_at: Instant,
    /// Since when the peer leaves data or probes unanswered.
    pub(crate) unanswered_since: Instant,
    /// When `ts_recent` was taken.
    pub(crate) ts_recent_at: Instant,
    /// Start of the current second of challenge ACKs.
    pub(crate) challenge_at: Instant,

    pub(crate) snd_una: SeqNr,
    pub(crate) snd_nxt: SeqNr,
    /// One past the last byte queued by the program.
    pub(crate) snd_end: SeqNr,
    pub(crate) snd_wl1: SeqNr,
    pub(crate) snd_wnd: u32,
    pub(crate) max_window: u32,
    /// End of the last segment sent that was less than full (Minshall's variant of Nagle's rule).
    pub(crate) snd_sml: SeqNr,
    /// Bytes before this are sent without waiting for more.
    pub(crate) push_end: SeqNr,

    pub(crate) rcv_nxt: SeqNr,
    pub(crate) rcv_read: SeqNr,
    /// `rcv_nxt` at our last advertisement (RFC 7323 Last.ACK.sent).
    pub(crate) rcv_wup: SeqNr,
    /// The right window edge that we promised.
    pub(crate) rcv_adv: SeqNr,
    /// Sequence number of the peer's FIN, with [`bit::FIN_SEEN`].
    pub(crate) rcv_fin: SeqNr,
    /// Those blocks of out-of-order data that grew last, the newest first: so the SACK option lists them. Empty ones are none.
    pub(crate) ooo_recent: [Range; SackBlocks::MAX],
    /// The newest duplicate, with [`bit::DUPLICATE`].
    pub(crate) duplicate: Range,
    /// Largest segment received of late.
    pub(crate) rcv_mss: u16,
    /// The peer's MSS option.
    pub(crate) mss_clamp: u16,

    /// Added to the clock in milliseconds to give TSval.
    pub(crate) ts_offset: u32,
    pub(crate) ts_recent: u32,
    /// Bits of [`flag`] and [`bit`].
    pub(crate) bits: u32,
    /// TCP_NOTSENT_LOWAT, bytes; 0: none.
    pub(crate) notsent_lowat: u32,
    /// Bytes of data in a full segment.
    pub(crate) mss: u32,

    pub(crate) keep_idle_ms: u32,
    pub(crate) keep_interval_ms: u32,
    pub(crate) user_timeout_ms: u32,
    /// Largest window to offer, bytes; 0 for the whole ring.
    pub(crate) rcvbuf: u32,
    /// Most bytes to queue for sending; 0 for the whole ring.
    pub(crate) snd_limit: u32,
    /// As asked for, not used by the engine: carried from image to image.
    pub(crate) sndbuf: u32,
    /// Segments sent again, for people.
    pub(crate) retransmits: u32,
    /// The number whose byte lies first in the receive ring. It follows the stream whenever the ring is empty, so that a connection
    /// with little under way stays in few cache lines and few pages.
    pub(crate) rcv_base: SeqNr,
    /// The same for the send ring.
    pub(crate) snd_base: SeqNr,
    /// Duplicate acknowledgements still to be sent, when they are all that the peer goes by.
    pub(crate) dup_acks_due: u16,
    pub(crate) snd_wscale: u8,
    pub(crate) rcv_wscale: u8,
    pub(crate) keep_count: u8,
    /// Window or keepalive probes that the peer has not answered.
    pub(crate) probes: u8,
    /// Doublings of the persist timer.
    pub(crate) persist_backoff: u8,
    /// Challenge ACKs sent in the current second.
    pub(crate) challenges: u8,
    /// Bytes a second; 0: not measured.
    pub(crate) delivery_rate: u64,
}

/// The states of a connection (RFC 9293, section 3.3.2), from ESTABLISHED on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Both directions are open.
    Established,
    /// We closed; neither our FIN's acknowledgement nor the peer's FIN has come.
    FinWait1,
    /// We closed and the peer knows.
    FinWait2,
    /// The peer closed.
    CloseWait,
    /// Both closed at once; the acknowledgement of our FIN has not come.
    Closing,
    /// The peer closed, then we; the acknowledgement of our FIN has not come.
    LastAck,
    /// Both closed, we first; waiting for old segments to die out.
    TimeWait,
    /// Nothing is left.
    Closed,
}

impl Tcb {
    pub(crate) fn has(&self, bit: u32) -> bool {
        self.bits & bit != 0
    }

    pub(crate) fn set(&mut self, bit: u32) {
        self.bits |= bit;
    }

    pub(crate) fn clear(&mut self, bit: u32) {
        self.bits &= !bit;
    }

    pub(crate) fn assign(&mut self, bit: u32, on: bool) {
        if on { self.set(bit) } else { self.clear(bit) }
    }

    /// Has the program closed its sending side?
    pub(crate) fn fin_queued(&self) -> bool {
        self.has(flag::FIN_QUEUED)
    }

    /// Was our FIN sent?
    pub(crate) fn fin_sent(&self) -> bool {
        self.fin_queued() && self.snd_nxt == self.snd_end.plus(1)
    }

    /// Was our FIN acknowledged?
    pub(crate) fn fin_acked(&self) -> bool {
        self.fin_queued() && self.snd_una == self.snd_end.plus(1)
    }

    /// Did the peer's FIN arrive in order?
    pub(crate) fn fin_received(&self) -> bool {
        self.has(bit::FIN_SEEN) && self.rcv_nxt == self.rcv_fin.plus(1)
    }

    /// One past the last data byte received in order: the peer's FIN does not count.
    pub(crate) fn rcv_end(&self) -> SeqNr {
        if self.fin_received() { self.rcv_fin } else { self.rcv_nxt }
    }

    /// One past the last sequence number that the peer's window allows.
    pub(crate) fn snd_edge(&self) -> SeqNr {
        self.snd_una.plus(self.snd_wnd)
    }

    /// Where a bare acknowledgement stands: a peer that shrank its window would not look at it beyond. But a window that lost less than a unit
    /// of its scale did not shrink, and a peer that has everything would not look at it before SND.NXT (as Linux: tcp_acceptable_seq).
    pub(crate) fn ack_seq(&self) -> SeqNr {
        let edge = self.snd_edge().later(self.snd_una);
        if self.snd_nxt.ahead_of(edge) >> self.snd_wscale.min(14) == 0 { self.snd_nxt } else { edge }
    }

    /// Sent and not acknowledged, in the sequence space.
    pub(crate) fn flight(&self) -> u32 {
        self.snd_nxt.since(self.snd_una)
    }

    /// Where the connection stands.
    pub fn state(&self) -> State {
        let dead = self.has(flag::RESET_RECEIVED | bit::DONE);
        match (self.fin_queued(), self.fin_acked(), self.fin_received()) {
            _ if dead => State::Closed,
            (false, _, false) => State::Established,
            (false, _, true) => State::CloseWait,
            (true, false, false) => State::FinWait1,
            (true, true, false) => State::FinWait2,
            (true, false, true) if self.has(bit::PASSIVE) => State::LastAck,
            (true, false, true) => State::Closing,
            (true, true, true) if self.has(bit::PASSIVE) => State::Closed,
            (true, true, true) => State::TimeWait,
        }
    }

    /// Is this the state [`State::Closed`]?
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.has(flag::RESET_RECEIVED | bit::DONE | flag::FIN_QUEUED) && self.state() == State::Closed
    }

    /// Did the peer's valid reset end the connection?
    pub fn is_reset(&self) -> bool {
        self.has(flag::RESET_RECEIVED)
    }

    /// Earliest time at which [`super::Connection::on_timer`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.earliest()
    }

    /// A point in time before which [`Tcb::deadline`] does not lie, at the cost of one look.
    pub(crate) fn deadline_bound(&self) -> Option<Instant> {
        self.timers.bound()
    }

    /// Makes [`Tcb::deadline_bound`] exact.
    pub(crate) fn settle_timers(&mut self) {
        self.timers.settle();
    }

    /// Smoothed round-trip time and its variation, µs; 0 when unknown.
    pub fn rtt_us(&self) -> (u32, u32) {
        self.rtt.micros()
    }

    /// Congestion window and slow-start threshold, bytes; the threshold is `u32::MAX` when not set.
    pub fn congestion(&self) -> (u32, u32) {
        (self.cc.cwnd(), self.cc.ssthresh())
    }

    /// The congestion window, segments, for whoever goes on without what congestion control knows beside it.
    pub fn plain_window(&self) -> u32 {
        self.cc.plain_segments(self.mss)
    }

    /// Which congestion control to go on with; a fresh import has the default one. What was found before stays.
    pub fn choose_congestion(&mut self, algorithm: Algorithm) {
        self.cc.choose(algorithm, self.mss, self.rtt.smoothed());
        self.take_pacing_rate();
    }

    /// What the kernel's congestion control has learnt of the path; counts if the same goes on here.
    pub fn learn_congestion(&mut self, learnt: &Learnt, now: Instant) {
        self.cc.learn(learnt, now);
        self.take_pacing_rate();
    }

    /// The congestion control in use.
    pub fn algorithm(&self) -> Algorithm {
        self.cc.algorithm()
    }

    /// The newest rate at which the peer received, bytes a second, and whether it tells of the program rather than the path (as
    /// tcpi_delivery_rate and tcpi_delivery_rate_app_limited do).
    pub fn delivery_rate(&self) -> (u64, bool) {
        (self.delivery_rate, self.has(bit::RATE_APP_LIMITED))
    }

    /// Segments sent again since the import.
    pub fn retransmits(&self) -> u32 {
        self.retransmits
    }

    /// The place of a received byte in the receive ring, modulo the ring's size.
    pub fn rcv_place(&self, seq: u32) -> u32 {
        SeqNr(seq).since(self.rcv_base)
    }

    /// The place of a byte to be sent in the send ring, modulo the ring's size.
    pub fn snd_place(&self, seq: u32) -> u32 {
        SeqNr(seq).since(self.snd_base)
    }

    /// Bytes that can be read now.
    pub fn readable(&self) -> usize {
        self.rcv_end().ahead_of(self.rcv_read) as usize
    }

    /// Is an acknowledgement due at once, for instance because the window has opened?
    pub fn owes_ack(&self) -> bool {
        self.has(bit::ACK_NOW)
    }

    /// Bytes queued that were never sent.
    pub fn unsent(&self) -> usize {
        self.snd_end.ahead_of(self.snd_nxt) as usize
    }

    /// Bytes sent that the peer has not acknowledged (our FIN is not a byte).
    pub fn unacked(&self) -> usize {
        self.snd_nxt.earlier(self.snd_end).ahead_of(self.snd_una) as usize
    }

    /// The peer has closed and everything was read.
    pub fn at_eof(&self) -> bool {
        self.fin_received() && self.readable() == 0
    }

    /// Bytes of data in a full segment.
    pub fn mss(&self) -> u32 {
        self.mss
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    /// Every combination of what the numbers can say of our FIN (not queued, queued, sent, acknowledged), of the peer's
    /// (missing, received) and of who was first (RFC 9293, figure 5).
    #[test]
    fn the_state_follows_from_the_numbers() {
        use State::*;
        let table = [
            // peer's FIN missing; received after ours; received before ours
            [Established, CloseWait, CloseWait],
            [FinWait1, Closing, LastAck],
            [FinWait1, Closing, LastAck],
            [FinWait2, TimeWait, Closed],
        ];
        for (ours, row) in table.into_iter().enumerate() {
            for (peers, expected) in row.into_iter().enumerate() {
                let mut tcb = Tcb::new_zeroed();
                (tcb.snd_una, tcb.snd_nxt, tcb.snd_end) = (SeqNr(u32::MAX), SeqNr(u32::MAX), SeqNr(u32::MAX));
                tcb.assign(flag::FIN_QUEUED, ours >= 1);
                tcb.snd_nxt = tcb.snd_nxt.plus(u32::from(ours >= 2));
                tcb.snd_una = tcb.snd_una.plus(u32::from(ours >= 3));
                tcb.assign(bit::FIN_SEEN, peers >= 1);
                tcb.rcv_nxt = tcb.rcv_fin.plus(u32::from(peers >= 1));
                tcb.assign(bit::PASSIVE, peers == 2);
                assert_eq!(tcb.state(), expected, "ours {ours}, the peer's {peers}");
                tcb.set(flag::RESET_RECEIVED);
                assert_eq!(tcb.state(), Closed);
            }
        }
    }
}
