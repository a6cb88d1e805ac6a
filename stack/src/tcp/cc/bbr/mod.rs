//! BBR, version 1, as in Linux (tcp_bbr.c; Cardwell and others, "BBR: Congestion-Based Congestion Control", ACM Queue 14-5;
//! draft-cardwell-iccrg-bbr-congestion-control-00). The path is modelled by two numbers, the largest rate at which it delivered of late
//! and the shortest round trip of late; the sender paces at the one and keeps their product in flight, twice it at most.
//!
//! Rates are bytes a second and windows bytes where Linux counts packets. Pacing holds segments back before they are sent, so nothing has
//! to be taken off for what is only planned. Loss changes the model only where it looks like a policer's. Beyond Linux, a round of startup that the
//! peer's window kept from filling the path does not count as one without more bandwidth.

mod aggregation;
mod filter;
mod model;
mod policer;
mod target;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use self::aggregation::Aggregation;
use self::filter::MaxFilter;
use self::policer::Policer;
use super::{Told, Window};
use crate::tcp::loss::Phase;
use crate::tcp::time::Instant;

/// Gains are counted in parts of this.
const GAIN_ONE: u64 = 256;
/// 2/ln(2): the smallest gain that doubles the rate each round.
const HIGH_GAIN: u64 = GAIN_ONE * 2885 / 1000 + 1;
/// What takes the queue away in a round that the rounds of startup have built.
const DRAIN_GAIN: u64 = GAIN_ONE * 1000 / 2885;
/// The window allows for acknowledgements that come late or in bunches.
const CWND_GAIN: u64 = 2 * GAIN_ONE;
/// The gains of a cycle of probing: more, less, as measured.
const CYCLE: [u64; 8] =
    [GAIN_ONE * 5 / 4, GAIN_ONE * 3 / 4, GAIN_ONE, GAIN_ONE, GAIN_ONE, GAIN_ONE, GAIN_ONE, GAIN_ONE];
/// The window never falls below so many segments, for peers that acknowledge every other one.
const CWND_MIN_SEGMENTS: u32 = 4;
/// Rates above this are not believed, bytes a second (4 Tbit/s).
const BW_MAX: u64 = 1 << 39;
/// Round trips above this are not believed, µs (a minute).
const RTT_MAX: u32 = 1 << 26;

/// `bytes` in `nanos`, bytes a second.
fn per_second(bytes: u64, nanos: u64) -> u64 {
    (bytes.min(1 << 33) * 1_000_000_000 / nanos.max(1)).min(BW_MAX)
}

/// What the sender is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Looks for the path's rate, doubling its own.
    Startup,
    /// Gets rid of the queue that this has built.
    Drain,
    /// Keeps to the rate, looking now and then whether there is more.
    ProbeBw,
    /// Looks how short the round trip is without a queue.
    ProbeRtt,
}

/// Bits of [`Bbr::bits`].
mod bits {
    /// The path's rate was found (full_bw_reached).
    pub const FULL: u8 = 1;
    /// This acknowledgement begins a round.
    pub const ROUND_START: u8 = 1 << 1;
    /// The first round of recovery: send what is acknowledged, no more.
    pub const CONSERVATION: u8 = 1 << 2;
    /// The program was silent.
    pub const IDLE_RESTART: u8 = 1 << 3;
    /// A round has passed with the smallest window.
    pub const PROBE_RTT_ROUND: u8 = 1 << 4;
    /// The pacing rate comes from a measured round trip.
    pub const SEEN_RTT: u8 = 1 << 5;
    /// Fast recovery, or one after a timeout, was under way at the last acknowledgement.
    pub const IN_RECOVERY: u8 = 1 << 6;
    pub const IN_LOSS: u8 = 1 << 7;
}

/// What BBR remembers beside the window. Names are Linux's where they say what is meant.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Bbr {
    /// The largest delivery rate of the last rounds, bytes a second.
    bw: MaxFilter,
    policer: Policer,
    aggregation: Aggregation,
    /// Everything delivered when the round ends (next_rtt_delivered).
    round_end: u64,
    min_rtt_at: Instant,
    /// In ProbeBw, when this part of the cycle began; in ProbeRtt, when it ends, never: it has not begun to count.
    mode_at: Instant,
    /// The rate that the next rounds have to exceed by a quarter (full_bw).
    full_bw: u64,
    /// Bytes a second.
    pacing_rate: u64,
    /// Shortest round trip of late, µs; 0: unknown.
    min_rtt: u32,
    rounds: u32,
    /// The window before it was reduced for a while.
    prior_cwnd: u32,
    /// A [`Mode`].
    mode: u8,
    /// Bits of [`bits`].
    bits: u8,
    /// Rounds without more bandwidth.
    full_rounds: u8,
    /// Place in [`CYCLE`].
    cycle: u8,
}

impl Bbr {
    /// Begins in startup, pacing so that the window goes out in a round trip.
    pub fn new(window: &Window, srtt: Option<u64>) -> Self {
        let mut bbr = Self::default();
        bbr.start_pacing(window, srtt);
        bbr
    }

    fn mode(&self) -> Mode {
        match self.mode {
            1 => Mode::Drain,
            2 => Mode::ProbeBw,
            3 => Mode::ProbeRtt,
            _ => Mode::Startup,
        }
    }

    /// Where recovery stood at the last acknowledgement.
    fn phase(&self) -> Phase {
        match (self.has(bits::IN_LOSS), self.has(bits::IN_RECOVERY)) {
            (true, _) => Phase::Loss,
            (_, true) => Phase::Recovery,
            _ => Phase::Open,
        }
    }

    fn set_phase(&mut self, phase: Phase) {
        self.assign(bits::IN_LOSS, phase == Phase::Loss);
        self.assign(bits::IN_RECOVERY, phase == Phase::Recovery);
    }

    fn has(&self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    fn assign(&mut self, bit: u8, on: bool) {
        if on { self.bits |= bit } else { self.bits &= !bit }
    }

    /// Bytes a second at which to send.
    pub fn pacing_rate(&self) -> u64 {
        self.pacing_rate.clamp(1, BW_MAX)
    }

    /// Is little sent on purpose, so that what is measured is not the path's rate?
    pub fn is_probing_rtt(&self) -> bool {
        self.mode() == Mode::ProbeRtt
    }

    /// The peer has taken something, or something was found lost.
    pub fn on_delivery(&mut self, window: &mut Window, ack: &Told, phase: Phase) {
        self.update_model(window, ack);
        self.set_pacing_rate(window, ack);
        self.set_cwnd(window, ack, phase);
    }

    /// Recovery begins. The window of before comes back when it ends.
    pub fn on_loss(&mut self, window: &Window) {
        self.save_cwnd(window);
    }

    /// The retransmission timer ran out: startup, if it goes on, has to find anew what the path carries.
    pub fn on_timeout(&mut self, window: &Window) {
        self.save_cwnd(window);
        self.set_phase(Phase::Loss);
        self.full_bw = 0;
    }

    /// The program was silent, and everything is acknowledged: no faster than the path is known to be.
    pub fn on_restart(&mut self, window: &mut Window, now: Instant) {
        self.assign(bits::IDLE_RESTART, true);
        self.aggregation.restart(now);
        match self.mode() {
            Mode::ProbeBw => self.pace(self.bw(), GAIN_ONE),
            Mode::ProbeRtt => self.check_probe_rtt_done(window, now),
            Mode::Startup | Mode::Drain => (),
        }
    }

    /// The reduction was a mistake: what was learnt from it is forgotten.
    pub fn on_undo(&mut self) {
        (self.full_bw, self.full_rounds) = (0, 0);
        self.policer.reset();
    }

    /// Remembers a window that may come back.
    fn save_cwnd(&mut self, window: &Window) {
        let good = self.phase() == Phase::Open && self.mode() != Mode::ProbeRtt;
        self.prior_cwnd = if good { window.cwnd } else { self.prior_cwnd.max(window.cwnd) };
    }

    fn restore_cwnd(&self, window: &mut Window) {
        window.cwnd = window.cwnd.max(self.prior_cwnd);
    }
}

#[cfg(test)]
mod tests;
