//! At what rate to send, and how much to have in flight?

use super::*;
use crate::tcp::cc::{CWND_MAX, INITIAL_SEGMENTS};
use crate::tcp::pacing::quantum;

/// The pacing rate is one percent below the measured rate, so that queues get shorter on average.
const MARGIN_PERCENT: u64 = 1;
/// Assumed before a round trip was measured, ns.
const RTT_NOMINAL: u64 = 1_000_000;

/// Bytes that a path of `bw` bytes a second carries in `nanos`.
pub(super) fn carried(bw: u64, nanos: u64) -> u64 {
    // 2^39 times 2^24 µs; beyond, nobody needs to know.
    bw.min(BW_MAX) * (nanos / 1_000).min(1 << 24) / 1_000_000
}

impl Bbr {
    /// The path's rate, bytes a second: the policer's, if there is one.
    pub(super) fn bw(&self) -> u64 {
        self.policer.rate().unwrap_or(self.bw.max()).min(BW_MAX)
    }

    pub(super) fn pacing_gain(&self) -> u64 {
        match self.mode() {
            Mode::Startup => HIGH_GAIN,
            Mode::Drain => DRAIN_GAIN,
            Mode::ProbeBw if self.policer.rate().is_some() => GAIN_ONE,
            Mode::ProbeBw => CYCLE[self.cycle as usize % CYCLE.len()],
            Mode::ProbeRtt => GAIN_ONE,
        }
    }

    fn cwnd_gain(&self) -> u64 {
        match self.mode() {
            Mode::Startup | Mode::Drain => HIGH_GAIN,
            Mode::ProbeBw => CWND_GAIN,
            Mode::ProbeRtt => GAIN_ONE,
        }
    }

    pub(super) fn rate_of(bw: u64, gain: u64) -> u64 {
        (bw.min(BW_MAX) * gain / GAIN_ONE * (100 - MARGIN_PERCENT) / 100).clamp(1, BW_MAX)
    }

    /// Paces at the rate `bw` times `gain`.
    pub(super) fn pace(&mut self, bw: u64, gain: u64) {
        self.pacing_rate = Self::rate_of(bw, gain);
    }

    /// Before anything was delivered: the window in a round trip, with startup's gain.
    pub(super) fn start_pacing(&mut self, window: &Window, srtt: Option<u64>) {
        self.assign(bits::SEEN_RTT, srtt.is_some());
        self.pace(per_second(window.cwnd.into(), srtt.unwrap_or(RTT_NOMINAL)), HIGH_GAIN);
    }

    /// In startup the rate only grows.
    pub(super) fn set_pacing_rate(&mut self, window: &Window, ack: &Told) {
        if !self.has(bits::SEEN_RTT) && ack.srtt.is_some() {
            self.start_pacing(window, ack.srtt);
        }
        let rate = Self::rate_of(self.bw(), self.pacing_gain());
        if self.has(bits::FULL) || rate > self.pacing_rate {
            self.pacing_rate = rate;
        }
    }

    /// The bandwidth-delay product times `gain`; the initial window while no round trip is known.
    pub(super) fn bdp(&self, bw: u64, gain: u64, mss: u32) -> u64 {
        if self.min_rtt == 0 {
            return u64::from(INITIAL_SEGMENTS * mss);
        }
        // At most 2^39 bytes a second times 2^26 µs: below 2^65, so the rate gives way.
        let rtt = u64::from(self.min_rtt.min(RTT_MAX));
        let product = bw.min(BW_MAX).min(u64::MAX / rtt) * rtt;
        (product.div_ceil(1_000_000) * gain).div_ceil(GAIN_ONE)
    }

    /// The window, in bytes, for whoever goes on without the model: what the path holds, of which [`Window::cwnd`] is twice as much, or
    /// next to nothing while the shortest round trip is looked for.
    pub fn without_model(&self, window: &Window, mss: u32) -> u32 {
        if !self.has(bits::FULL) || self.min_rtt == 0 {
            return window.cwnd;
        }
        let path = self.bdp(self.bw(), GAIN_ONE, mss).min(CWND_MAX.into()) as u32;
        let room = if self.mode() == Mode::ProbeRtt { window.cwnd.max(self.prior_cwnd) } else { window.cwnd };
        // No less than where everybody begins, unless it has come down to that.
        path.max(INITIAL_SEGMENTS.saturating_mul(mss)).min(room)
    }

    /// Room for what sender and receiver handle at once (quantization_budget).
    fn with_quanta(&self, bytes: u64, mss: u32) -> u64 {
        let pair = u64::from(2 * mss);
        let mut target = (bytes + 3 * u64::from(quantum(self.pacing_rate(), mss))).next_multiple_of(pair);
        if self.mode() == Mode::ProbeBw && self.pacing_gain() > GAIN_ONE {
            target += pair;
        }
        target
    }

    /// What is in flight at rate `bw` times `gain`.
    pub(super) fn inflight(&self, bw: u64, gain: u64, mss: u32) -> u64 {
        self.with_quanta(self.bdp(bw, gain, mss), mss)
    }

    pub(super) fn set_cwnd(&mut self, window: &mut Window, ack: &Told, phase: Phase) {
        let acked = ack.rate.newly_delivered;
        let least = CWND_MIN_SEGMENTS * ack.mss;
        if acked > 0 && !self.recover_or_restore(window, ack, phase) {
            let bw = self.bw();
            let mut target = self.bdp(bw, self.cwnd_gain(), ack.mss);
            if self.has(bits::FULL) {
                target += self.aggregation.extra(|nanos| carried(bw, nanos));
            }
            let target = self.with_quanta(target, ack.mss).min(CWND_MAX.into()) as u32;
            let grown = window.cwnd.saturating_add(acked);
            if self.has(bits::FULL) {
                window.cwnd = grown.min(target);
            } else if window.cwnd < target || ack.rate.total_delivered < u64::from(INITIAL_SEGMENTS * ack.mss) {
                window.cwnd = grown;
            }
            window.cwnd = window.cwnd.max(least);
        }
        window.cwnd = window.cwnd.min(CWND_MAX);
        if self.mode() == Mode::ProbeRtt {
            window.cwnd = window.cwnd.min(least);
        }
    }

    /// The first round of recovery sends what is acknowledged and no more; afterwards the window of before comes back. True if that
    /// decides.
    fn recover_or_restore(&mut self, window: &mut Window, ack: &Told, now: Phase) -> bool {
        let before = self.phase();
        self.set_phase(now);
        let (acked, in_flight) = (ack.rate.newly_delivered, ack.rate.in_flight);
        window.cwnd = window.cwnd.saturating_sub(ack.rate.newly_lost).max(ack.mss);
        if now == Phase::Recovery && before != Phase::Recovery {
            self.assign(bits::CONSERVATION, true);
            self.round_end = ack.rate.total_delivered;
            window.cwnd = in_flight.saturating_add(acked);
        } else if now == Phase::Open && before != Phase::Open {
            self.restore_cwnd(window);
            self.assign(bits::CONSERVATION, false);
        }
        if self.has(bits::CONSERVATION) {
            window.cwnd = window.cwnd.max(in_flight.saturating_add(acked));
        }
        self.has(bits::CONSERVATION)
    }
}
