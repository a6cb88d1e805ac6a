//! How does a connection change hands? From the kernel to the engine, and back.

use std::sync::atomic::{Ordering, compiler_fence};

use zerocopy::FromZeros;

use super::cc::Congestion;
use super::connection::Connection;
use super::image::{Image, WINDOW_MAX, flag};
use super::mtu::PathMtu;
use super::ranges::Range;
use super::recovery::Recovery;
use super::rtt::Rtt;
use super::seq::SeqNr;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use crate::ip::flow::FlowKey;
use crate::mem::ring;

/// Bits that mean the same in an image and in a record.
const COMMON: u32 = flag::WSCALE
    | flag::SACK
    | flag::TIMESTAMPS
    | flag::TS_RECENT
    | flag::NODELAY
    | flag::CORK
    | flag::KEEPALIVE
    | flag::RESET_RECEIVED
    | flag::ECN;
/// Bits of an image which say that the program closed its sending side.
const CLOSED_BY_US: u32 = flag::FIN_QUEUED | flag::FIN_SENT | flag::FIN_ACKED;
/// A path must carry at least this, bytes: full headers and the smallest segment.
const MTU_MIN: u32 = 128;
/// Assumed before the peer has sent anything (RFC 9293, section 3.7.1).
pub(crate) const RCV_MSS_INITIAL: u16 = 536;

/// Why an image cannot be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportError {
    /// A ring's size is not a power of two, or none that the sequence space can address.
    RingSize,
    /// The image's numbers contradict each other or the bytes beside it.
    Unsound,
    /// The window that the kernel advertised does not fit into the receive ring.
    WindowTooLarge,
    /// The path's MTU leaves no room for data.
    Mtu,
}

impl std::fmt::Display for ImportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::RingSize => "a ring's size is not a power of two",
            Self::Unsound => "the connection's numbers contradict each other",
            Self::WindowTooLarge => "the advertised window does not fit into the receive ring",
            Self::Mtu => "the path's MTU leaves no room for data",
        })
    }
}

impl std::error::Error for ImportError {}

impl<'a> Connection<'a> {
    /// Takes a connection over: fills in `tcb` and both rings, and begins `recovery`. `recv_bytes` are the unread bytes, `send_bytes` the
    /// unacknowledged and unsent ones; `mtu` is that of the path.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a different part of the connection, and there is one caller"
    )]
    pub fn import(
        tcb: &'a mut Tcb,
        snd: &'a mut [u8],
        rcv: &'a mut [u8],
        recovery: &'a mut Recovery,
        image: &Image,
        recv_bytes: &[u8],
        send_bytes: &[u8],
        mtu: u32,
        now: Instant,
    ) -> Result<(), ImportError> {
        let sizes = (ring_size(rcv)?, ring_size(snd)?);
        check(image, sizes, (recv_bytes.len(), send_bytes.len()))?;
        if mtu < MTU_MIN {
            return Err(ImportError::Mtu);
        }
        ring::write(rcv, 0, recv_bytes);
        ring::write(snd, 0, send_bytes);
        compiler_fence(Ordering::Release);
        *tcb = Tcb::from_image(image, mtu, now);
        recovery.begin(tcb, now);
        if tcb.flight() != 0 {
            Connection { tcb, snd, rcv, recovery }.watch_flight(now);
        }
        Ok(())
    }
}

fn ring_size(ring: &[u8]) -> Result<u32, ImportError> {
    u32::try_from(ring.len()).ok().filter(|len| len.is_power_of_two() && *len <= 1 << 30).ok_or(ImportError::RingSize)
}

/// Do the image's numbers agree with each other, with the bytes beside it and with the rings?
fn check(image: &Image, (rcv, snd): (u32, u32), (unread, unacked): (usize, usize)) -> Result<(), ImportError> {
    let wup = SeqNr(image.rcv_wup);
    let lengths_agree = image.unread() as usize == unread && image.unacknowledged() as usize == unacked;
    if !image.is_sound(rcv, snd) || !lengths_agree || wup.gt(SeqNr(image.rcv_nxt)) {
        return Err(ImportError::Unsound);
    }
    let used_up = image.rcv_nxt.wrapping_sub(image.rcv_wup);
    // No more can have come than was ever offered.
    if used_up > WINDOW_MAX {
        return Err(ImportError::Unsound);
    }
    let window = image.rcv_wnd.saturating_sub(used_up);
    match image.unread().checked_add(window) {
        Some(need) if need <= rcv => Ok(()),
        _ => Err(ImportError::WindowTooLarge),
    }
}

impl Tcb {
    fn from_image(image: &Image, mtu: u32, now: Instant) -> Self {
        let has = |bits: u32| image.flags & bits != 0;
        let mut tcb = Self::new_zeroed();
        tcb.bits = image.flags & COMMON;
        tcb.assign(flag::FIN_QUEUED, has(CLOSED_BY_US));
        tcb.assign(bit::FIN_SEEN, has(flag::FIN_RECEIVED));
        tcb.assign(bit::PASSIVE, has(flag::FIN_RECEIVED) && !has(flag::FIN_SENT | flag::FIN_ACKED));
        tcb.take_numbers(image);
        tcb.take_settings(image, mtu, now);
        // With nothing in flight the kernel counts probes of a closed window there.
        let backoff = if tcb.flight() == 0 { 0 } else { image.backoff };
        tcb.rtt = Rtt::new(image.srtt_us, image.rttvar_us, backoff);
        tcb.cc = Congestion::new(image.cwnd, image.ssthresh, tcb.mss);
        tcb.heard_at = now;
        tcb.data_sent_at = now;
        if has(flag::FIN_RECEIVED) || tcb.rcv_wup != tcb.rcv_nxt {
            tcb.set(bit::ACK_NOW);
        }
        tcb
    }

    fn take_numbers(&mut self, image: &Image) {
        self.snd_una = SeqNr(image.snd_una);
        self.snd_nxt = SeqNr(image.snd_nxt);
        self.snd_end = SeqNr(image.snd_end);
        self.snd_wl1 = SeqNr(image.snd_wl1);
        self.snd_wnd = image.snd_wnd;
        self.max_window = image.max_window.max(image.snd_wnd);
        self.snd_sml = self.snd_una;
        self.push_end = self.snd_una;
        self.snd_base = SeqNr(image.snd_end.wrapping_sub(image.unacknowledged()));
        self.rcv_base = SeqNr(image.rcv_read);
        self.rcv_nxt = SeqNr(image.rcv_nxt);
        self.rcv_read = SeqNr(image.rcv_read);
        self.rcv_wup = SeqNr(image.rcv_wup);
        self.rcv_adv = self.rcv_wup.plus(image.rcv_wnd).later(self.rcv_nxt);
        self.rcv_fin = self.rcv_nxt.minus(1);
        self.rcv_mss = RCV_MSS_INITIAL;
    }

    fn take_settings(&mut self, image: &Image, mtu: u32, now: Instant) {
        self.ts_offset = image.ts_val.wrapping_sub(now.millis());
        self.ts_recent = image.ts_recent;
        self.ts_recent_at = now;
        self.mss_clamp = image.mss_clamp;
        self.assign(bit::IPV6, image.flow.is_v6());
        self.pmtu = PathMtu::new(mtu.max(self.least_mtu()));
        self.snd_wscale = image.snd_wscale;
        self.rcv_wscale = image.rcv_wscale;
        self.keep_idle_ms = image.keep_idle_ms;
        self.keep_interval_ms = image.keep_interval_ms;
        self.keep_count = u8::try_from(image.keep_count).unwrap_or(u8::MAX);
        self.user_timeout_ms = image.user_timeout_ms;
        self.rcvbuf = 0;
        self.sndbuf = image.sndbuf;
        self.fit_segments();
        self.start_keepalive(now);
    }

    /// The state as an image: a pure read that takes any record, even one that its owner left in the middle of a step
    /// (check the result with [`Image::is_sound`]). Out-of-order data is not part of it: see [`Tcb::ahead`].
    pub fn image(&self, flow: FlowKey, now: Instant) -> Image {
        let (srtt_us, rttvar_us) = self.rtt.micros();
        let (cwnd, ssthresh) = self.cc.segments(self.mss);
        Image {
            flow,
            snd_una: self.snd_una.0,
            snd_nxt: self.snd_nxt.0,
            snd_end: self.snd_end.0,
            rcv_nxt: self.rcv_nxt.0,
            rcv_read: self.rcv_read.0,
            snd_wl1: self.snd_wl1.0,
            snd_wnd: self.snd_wnd,
            max_window: self.max_window.max(self.snd_wnd),
            rcv_wnd: self.rcv_adv.ahead_of(self.rcv_wup),
            rcv_wup: self.rcv_wup.0,
            mss_clamp: self.proven_clamp(),
            snd_wscale: self.snd_wscale.min(14),
            rcv_wscale: self.rcv_wscale.min(14),
            flags: self.image_flags(),
            ts_val: self.ts_clock(now),
            ts_recent: self.ts_recent,
            srtt_us,
            rttvar_us,
            cwnd,
            ssthresh,
            keep_idle_ms: self.keep_idle_ms,
            keep_interval_ms: self.keep_interval_ms,
            keep_count: self.keep_count.into(),
            backoff: self.rtt.backoff(),
            pad: 0,
            user_timeout_ms: self.user_timeout_ms,
            rcvbuf: self.rcvbuf,
            sndbuf: self.sndbuf,
        }
    }

    /// The peer's MSS; less, if the path is a black hole for packets that large: no router would tell the kernel.
    fn proven_clamp(&self) -> u16 {
        let clamp = u32::from(self.mss_clamp);
        let proven = self.pmtu.black_hole().map_or(clamp, |size| self.mss_clamp_of(size).min(clamp));
        u16::try_from(proven).unwrap_or(u16::MAX)
    }

    /// Where, in a receive ring of `ring` bytes, data lies that arrived out of order: `[start, end)` of the sequence space, ascending.
    /// `beyond` are the pieces that the record has no room for ([`Recovery::beyond`]), as words in memory. Like [`Tcb::image`], takes any
    /// record; what contradicts the numbers is left out.
    pub fn ahead(&self, ring: u32, beyond: &[u8]) -> Vec<(u32, u32)> {
        // Distances from the first unread byte: sequence numbers themselves have no order.
        let distance = |seq: SeqNr| seq.0.wrapping_sub(self.rcv_read.0);
        let mut last = distance(self.rcv_nxt);
        let mut found = Vec::new();
        let word = |bytes: &[u8]| bytes.try_into().map(|bytes| SeqNr(u32::from_ne_bytes(bytes))).unwrap_or_default();
        let beyond = beyond.chunks_exact(8).map(|pair| Range { start: word(&pair[..4]), end: word(&pair[4..]) });
        for range in self.ooo.as_slice().iter().copied().chain(beyond) {
            let (start, end) = (distance(range.start), distance(range.end));
            if last < start && start < end && end <= ring {
                found.push((range.start.0, range.end.0));
                last = end;
            }
        }
        found
    }

    fn image_flags(&self) -> u32 {
        let ends = [
            (self.fin_queued() && !self.fin_sent(), flag::FIN_QUEUED),
            (self.fin_sent(), flag::FIN_SENT),
            (self.fin_acked(), flag::FIN_ACKED),
            (self.fin_received(), flag::FIN_RECEIVED),
        ];
        ends.into_iter().filter(|(on, _)| *on).fold(self.bits & COMMON, |flags, (_, bit)| flags | bit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::{FromBytes, FromZeros};

    use super::*;
    use crate::tcp::ranges::Ranges;

    /// Numbers near each other and near the ends of what a comparison of sequence numbers can tell.
    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..200_000, 0x7fff_f000u32..0x8400_1000, any::<u32>()]
    }

    proptest! {
        #[test]
        fn what_lies_ahead_lies_in_the_ring(
            read in number(), next in 0u32..2000, at in proptest::collection::vec((number(), number()), 0..16),
            beyond in proptest::collection::vec((number(), number()), 0..16),
        ) {
            const RING: u32 = 1 << 17;
            let mut tcb = Tcb::new_zeroed();
            (tcb.rcv_read, tcb.rcv_nxt) = (SeqNr(read), SeqNr(read.wrapping_add(next)));
            // As a hostile owner of the arena writes it.
            let mut bytes = [0; size_of::<Ranges>()];
            for (place, (start, end)) in bytes.chunks_exact_mut(8).zip(&at) {
                place[..4].copy_from_slice(&start.to_ne_bytes());
                place[4..].copy_from_slice(&end.to_ne_bytes());
            }
            let len_at = bytes.len() - 8;
            bytes[len_at..len_at + 4].copy_from_slice(&(at.len() as u32).to_ne_bytes());
            tcb.ooo = Ranges::read_from_bytes(&bytes).unwrap();
            let mut last = next;
            let beyond: Vec<u8> = beyond.iter().flat_map(|(start, end)| [*start, *end]).flat_map(u32::to_ne_bytes).collect();
            for (start, end) in tcb.ahead(RING, &beyond) {
                let (start, end) = (start.wrapping_sub(read), end.wrapping_sub(read));
                prop_assert!(last < start && start < end && end <= RING, "{last}, {start}..{end}");
                last = end;
            }
        }

        #[test]
        fn what_was_received_out_of_order_lies_ahead(read in any::<u32>(), gap in 1u32..1000, len in 1u32..1000) {
            let mut tcb = Tcb::new_zeroed();
            (tcb.rcv_read, tcb.rcv_nxt) = (SeqNr(read), SeqNr(read));
            let start = SeqNr(read).plus(gap);
            tcb.ooo.insert(start, start.plus(len));
            prop_assert_eq!(tcb.ahead(1 << 16, &[]), vec![(start.0, start.plus(len).0)]);
        }
    }
}
