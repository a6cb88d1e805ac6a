//! How large shall the buffers be? As large as the path can use: what the program reads, and what congestion control allows, in a
//! round trip (dynamic right-sizing; Linux: `tcp_rcv_space_adjust`, `tcp_sndbuf_expand`).
//!
//! The engine only decides; its owner gives it larger rings when the limits have outgrown them ([`Tcb::wanted_rings`]).

use super::connection::Connection;
use super::recovery::Recovery;
use super::segment::Timestamps;
use super::seq::SeqNr;
use super::tcb::Tcb;
use super::time::Instant;

/// µs.
const MS: u32 = 1_000;
/// Full segments beside twice what was read, for the time that a window update takes (Linux).
const SPARE_SEGMENTS: u32 = 16;
/// No ring is larger; keeps the arithmetic far from overflow.
const LIMIT_MAX: u32 = 1 << 30;

/// Below this round trip the window stays as it is, µs: 256 KiB are 1 Gbit/s there, and more on shorter paths.
const SHORT: u32 = 2 * MS;

/// What tuning has measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tuning {
    /// When the present round trip began.
    since: Instant,
    /// When `mark` was set.
    mark_at: Instant,
    /// Round-trip time as a receiver sees it, µs; 0: not known.
    rtt: u32,
    /// Without timestamps: when this has arrived, the window of then was used up, which takes a round trip. With them, the newest echo of
    /// ours that was measured.
    mark: SeqNr,
    /// What the program had read when the present round trip began.
    read: SeqNr,
    /// The most that it has read in a round trip, bytes.
    space: u32,
    /// The largest window to offer, bytes; 0: it stays as it is.
    rcv_max: u32,
    /// The longest send queue, bytes; 0: it stays as it is.
    snd_max: u32,
}

fn micros(nanos: u64) -> u32 {
    u32::try_from(nanos / 1_000).unwrap_or(u32::MAX)
}

impl Tuning {
    /// The round trip as a receiver sees it, µs, and what the program reads in one, bytes.
    pub fn measured(&self) -> (u32, u32) {
        (self.rtt, self.space)
    }
}

impl Tcb {
    /// Bytes of the receive and the send ring that the limits ask for.
    pub fn wanted_rings(&self) -> (u32, u32) {
        (self.rcvbuf, self.snd_limit)
    }

    /// The place in the receive ring where its bytes begin, and how far they reach, those out of order included.
    pub(crate) fn received_extent(&self, recovery: &Recovery) -> (u32, u32) {
        let end = recovery.highest_of(&self.ooo).unwrap_or(self.rcv_nxt).later(self.rcv_nxt);
        (self.rcv_place(self.rcv_read.0), end.ahead_of(self.rcv_read))
    }

    /// The place in the send ring where its bytes begin, and how many they are.
    pub(crate) fn queued_extent(&self) -> (u32, u32) {
        (self.snd_place(self.snd_una.0), self.snd_end.ahead_of(self.snd_una))
    }
}

impl Connection<'_> {
    /// From now on the limits of [`Tcb::limit_window`] and [`Tcb::limit_queue`] grow as the connection needs, up to these
    /// numbers of bytes; 0: they stay as they are.
    pub fn tune_buffers(&mut self, rcv_max: u32, snd_max: u32) {
        // No larger window can be told to the peer.
        let expressible = self.tcb.expressible_window().min(LIMIT_MAX);
        let (rcv_max, snd_max, space) = (rcv_max.min(expressible), snd_max.min(LIMIT_MAX), self.tcb.rcvbuf / 2);
        self.recovery.tuning = Tuning { rcv_max, snd_max, space, ..Tuning::default() };
    }

    /// The receive window is the program's choice from now on (SO_RCVBUF).
    pub fn fix_window(&mut self, bytes: u32) {
        self.recovery.tuning.rcv_max = 0;
        self.tcb.limit_window(bytes);
    }

    /// The send queue is the program's choice from now on (SO_SNDBUF).
    pub fn fix_queue(&mut self, bytes: u32) {
        self.recovery.tuning.snd_max = 0;
        self.tcb.limit_queue(bytes);
    }

    /// There are no larger rings than those that the connection has.
    pub fn stop_growing(&mut self) {
        let (rcv, snd) = (self.rcv.len() as u32, self.snd.len() as u32);
        if self.tcb.rcvbuf > rcv {
            self.fix_window(rcv);
        }
        if self.tcb.snd_limit > snd {
            self.fix_queue(snd);
        }
    }

    /// After a segment of `len` bytes: shall the limits grow?
    #[inline(always)]
    pub(crate) fn tune(&mut self, now: Instant, timestamps: Option<Timestamps>, len: u32) {
        if self.recovery.tuning.rcv_max > self.tcb.rcvbuf && len != 0 {
            self.tune_receiving(now, timestamps, len);
        }
        if self.recovery.tuning.snd_max > self.tcb.snd_limit && self.tcb.flight() != 0 {
            self.tune_queue();
        }
    }

    #[inline(never)]
    fn tune_receiving(&mut self, now: Instant, timestamps: Option<Timestamps>, len: u32) {
        self.measure(now, timestamps, len);
        self.tune_window(now);
    }

    /// `len` bytes arrived: measures the round trip from the receiving end.
    fn measure(&mut self, now: Instant, timestamps: Option<Timestamps>, len: u32) {
        if let Some(stamps) = timestamps {
            let full = len >= self.tcb.rcv_mss.into();
            let age = self.tcb.ts_clock(now).wrapping_sub(stamps.ecr);
            if full && stamps.ecr != self.recovery.tuning.mark.0 && age < 1 << 20 {
                self.recovery.tuning.mark = SeqNr(stamps.ecr);
                self.take_round_trip(age * MS);
            }
        } else if !self.recovery.tuning.mark_at.is_set() || self.tcb.rcv_nxt.ge(self.recovery.tuning.mark) {
            if self.recovery.tuning.mark_at.is_set() {
                self.take_round_trip(micros(now.nanos_since(self.recovery.tuning.mark_at)));
            }
            self.recovery.tuning.mark_at = now;
            self.recovery.tuning.mark = self.tcb.rcv_nxt.plus(self.tcb.rcv_window().max(1));
        }
    }

    /// The timestamp clock is coarse: of less than two ticks, the sender's estimate knows more.
    fn take_round_trip(&mut self, sample: u32) {
        let sample = match self.tcb.rtt.smoothed() {
            Some(srtt) if sample < 2 * MS => micros(srtt).min(2 * MS),
            _ => sample.max(MS),
        };
        let old = self.recovery.tuning.rtt;
        // A pause of the sender looks like a long round trip: short ones count more.
        self.recovery.tuning.rtt = if old == 0 || sample < old { sample } else { old - old / 8 + sample / 8 };
    }

    /// A round trip is over: has the program read so much that a larger window would have been used?
    fn tune_window(&mut self, now: Instant) {
        let Tuning { since, rtt, read, space, rcv_max, .. } = self.recovery.tuning;
        if since.is_set() && (rtt == 0 || now.nanos_since(since) < u64::from(rtt) * 1_000) {
            return;
        }
        let copied = if since.is_set() { self.tcb.rcv_read.ahead_of(read) } else { 0 };
        self.recovery.tuning.since = now;
        self.recovery.tuning.read = self.tcb.rcv_read;
        if copied <= space {
            return;
        }
        self.recovery.tuning.space = copied;
        // A sender in slow start sends twice as much in the next round trip: room for what it grows by.
        let base = 2 * u64::from(copied) + u64::from(SPARE_SEGMENTS * u32::from(self.tcb.rcv_mss));
        let growth = base * u64::from(copied - space) / u64::from(space.max(1));
        let wanted = (base + 2 * growth).min(u64::from(rcv_max)) as u32;
        if wanted > self.tcb.rcvbuf && self.has_use_for_more(rtt) {
            self.tcb.rcvbuf = wanted.next_power_of_two().min(rcv_max);
        }
    }

    /// On short paths a larger window seems to be used because our own queues make the round trip long: it would only wait there, and
    /// the kernel would have to take all of it at once in a demotion.
    fn has_use_for_more(&self, rtt: u32) -> bool {
        self.recovery.rack.min_rtt().map_or(rtt, micros).min(rtt) >= SHORT
    }

    /// The send queue holds what is in flight, and as much again to follow it.
    #[inline(never)]
    fn tune_queue(&mut self) {
        let (_, queued) = self.tcb.queued_extent();
        let useful = self.tcb.cc.cwnd().min(self.tcb.snd_wnd).min(LIMIT_MAX / 3);
        // BBR goes on sending at its rate while what is lost holds up the rest (Linux: bbr_sndbuf_expand).
        let factor = if self.tcb.cc.goes_by_rate() { 3 } else { 2 };
        let useful = (useful * factor).min(LIMIT_MAX);
        if queued < self.tcb.snd_limit / 2 || useful <= self.tcb.snd_limit {
            return;
        }
        let wanted = useful.next_power_of_two().min(self.recovery.tuning.snd_max);
        self.tcb.snd_limit = self.tcb.snd_limit.max(wanted);
    }
}
