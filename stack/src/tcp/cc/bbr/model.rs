//! What do acknowledgements tell of the path, and what follows for the mode?

use super::policer::{Step, Verdict};
use super::*;
use crate::tcp::pacing::quantum;

/// Rounds that the largest rate is remembered.
const BW_ROUNDS: u32 = CYCLE.len() as u32 + 2;
/// How long the shortest round trip is remembered, ns.
const MIN_RTT_WINDOW: u64 = 10_000_000_000;
/// How long ProbeRtt lasts at least, ns.
const PROBE_RTT_TIME: u64 = 200_000_000;
/// Rounds without a quarter more bandwidth after which the path is full.
const FULL_ROUNDS: u8 = 3;

impl Bbr {
    /// Goes on with another's model: a rate, bytes a second, the shortest round trip, µs, and whether the rate is the path's.
    pub fn learn(&mut self, bandwidth: u64, min_rtt_us: u32, full: bool, now: Instant) {
        let bandwidth = bandwidth.min(BW_MAX);
        self.bw.add(self.rounds, bandwidth, BW_ROUNDS);
        (self.min_rtt, self.min_rtt_at) = (min_rtt_us.clamp(1, RTT_MAX), now);
        if full {
            (self.full_bw, self.full_rounds) = (bandwidth, FULL_ROUNDS);
            self.assign(bits::FULL, true);
            self.begin_probing(now);
        }
        // In startup the rate only grows: a young connection's may tell of how little its program had to say.
        let rate = Self::rate_of(bandwidth, self.pacing_gain());
        if full || rate > self.pacing_rate {
            self.assign(bits::SEEN_RTT, true);
            self.pacing_rate = rate;
        }
    }

    pub(super) fn update_model(&mut self, window: &mut Window, ack: &Told) {
        self.policer.on_lost(ack.rate.newly_lost);
        self.update_bw(ack);
        self.update_aggregation(window, ack);
        self.update_cycle(ack);
        self.check_full();
        self.check_drain(window, ack);
        self.update_min_rtt(window, ack);
    }

    /// The rate of this acknowledgement, and whether it begins a round.
    fn update_bw(&mut self, ack: &Told) {
        let rate = &ack.rate;
        self.assign(bits::ROUND_START, false);
        if rate.interval == 0 {
            return;
        }
        if rate.prior_delivered >= self.round_end {
            self.round_end = rate.total_delivered;
            self.rounds = self.rounds.wrapping_add(1);
            self.assign(bits::ROUND_START, true);
            self.assign(bits::CONSERVATION, false);
        }
        self.look_for_policer(ack);
        let bw = per_second(rate.delivered, rate.interval);
        // What a program with little to say gets is no measure, unless it is more than was known.
        if !rate.is_app_limited || bw >= self.bw.max() {
            self.bw.add(self.rounds, bw, BW_ROUNDS);
        }
        if !rate.is_app_limited {
            let unfilled = u64::from(rate.tx_in_flight) <= self.bdp(self.bw.max(), GAIN_ONE * 5 / 4, ack.mss);
            self.look_whether_full(rate.is_window_limited && unfilled);
        }
    }

    fn look_for_policer(&mut self, ack: &Told) {
        let step = Step {
            now: ack.now,
            delivered: ack.rate.total_delivered,
            lost: ack.rate.newly_lost > 0,
            round_start: self.has(bits::ROUND_START),
            app_limited: ack.rate.is_app_limited,
            probing: self.mode() == Mode::ProbeBw,
        };
        if self.policer.on_ack(&step) == Verdict::Over {
            self.begin_probing(ack.now);
        }
    }

    /// Once a round of startup: was there more bandwidth? If not, that says nothing of the path where the peer's window kept it from being
    /// filled, `unfilled`. (For Linux it does: where losses hold up a window that has still to grow, startup is over with a part of the
    /// path's rate.)
    fn look_whether_full(&mut self, unfilled: bool) {
        if self.has(bits::FULL) || !self.has(bits::ROUND_START) {
            return;
        }
        let bw = self.bw.max().min(BW_MAX);
        if bw >= self.full_bw.min(BW_MAX) / 4 * 5 {
            (self.full_bw, self.full_rounds) = (bw, 0);
        } else if !unfilled {
            self.full_rounds = self.full_rounds.saturating_add(1);
        }
    }

    fn check_full(&mut self) {
        if self.full_rounds >= FULL_ROUNDS {
            self.assign(bits::FULL, true);
        }
    }

    fn update_aggregation(&mut self, window: &Window, ack: &Told) {
        if ack.rate.newly_delivered == 0 || ack.rate.interval == 0 {
            return;
        }
        let (bw, round_start) = (self.bw(), self.has(bits::ROUND_START));
        let expected = |nanos| super::target::carried(bw, nanos);
        self.aggregation.on_ack(ack.now, ack.rate.newly_delivered, round_start, window.cwnd, expected);
    }

    /// Each part of the cycle lasts a round trip. More is sent until it is in flight, unless something is lost; less, until the queue
    /// that this made is gone.
    fn update_cycle(&mut self, ack: &Told) {
        if self.mode() != Mode::ProbeBw {
            return;
        }
        let was_long = ack.now.nanos_since(self.mode_at) > u64::from(self.min_rtt) * 1_000;
        // What goes out next belongs to it while more is to be in flight (bbr_packets_in_net_at_edt).
        let next = if self.pacing_gain() > GAIN_ONE { quantum(self.pacing_rate(), ack.mss) } else { 0 };
        let in_flight = u64::from(ack.rate.prior_in_flight) + u64::from(next);
        let gain = self.pacing_gain();
        let bw = self.bw.max();
        let is_over = if gain > GAIN_ONE {
            was_long && (ack.rate.newly_lost > 0 || in_flight >= self.inflight(bw, gain, ack.mss))
        } else if gain < GAIN_ONE {
            was_long || in_flight <= self.inflight(bw, GAIN_ONE, ack.mss)
        } else {
            was_long
        };
        if is_over {
            self.cycle = self.cycle.wrapping_add(1) % CYCLE.len() as u8;
            self.mode_at = ack.now;
        }
    }

    /// Starts the cycle somewhere but at its second part, which gives way: flows shall not all probe at once.
    pub(super) fn begin_probing(&mut self, now: Instant) {
        self.mode = Mode::ProbeBw as u8;
        let chance = (now.0 ^ (now.0 >> 20)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let len = CYCLE.len() as u8;
        self.cycle = (len - (chance % u64::from(len - 1)) as u8) % len;
        self.mode_at = now;
    }

    fn check_drain(&mut self, window: &mut Window, ack: &Told) {
        let drained = self.inflight(self.bw.max(), GAIN_ONE, ack.mss);
        if self.mode() == Mode::Startup && self.has(bits::FULL) {
            self.mode = Mode::Drain as u8;
            window.ssthresh = drained.min(super::super::CWND_MAX.into()) as u32;
        }
        if self.mode() == Mode::Drain && u64::from(ack.rate.in_flight) <= drained {
            self.begin_probing(ack.now);
        }
    }

    fn update_min_rtt(&mut self, window: &mut Window, ack: &Told) {
        if !self.min_rtt_at.is_set() {
            self.min_rtt_at = ack.now;
        }
        let is_old = ack.now.nanos_since(self.min_rtt_at) > MIN_RTT_WINDOW;
        // A lone runt may have waited for a delayed acknowledgement.
        let delivered = ack.rate.newly_delivered;
        let was_delayed = delivered < ack.mss && delivered == ack.rate.prior_in_flight;
        if let Some(rtt) = ack.rate.rtt {
            let rtt = (rtt / 1_000).clamp(1, RTT_MAX.into()) as u32;
            if self.min_rtt == 0 || rtt <= self.min_rtt || (is_old && !was_delayed) {
                (self.min_rtt, self.min_rtt_at) = (rtt, ack.now);
            }
        }
        if is_old && !self.has(bits::IDLE_RESTART) && self.mode() != Mode::ProbeRtt {
            self.save_cwnd(window);
            self.mode = Mode::ProbeRtt as u8;
            self.mode_at = Instant::NEVER;
        }
        if self.mode() == Mode::ProbeRtt {
            self.probe_rtt(window, ack);
        }
        if delivered > 0 {
            self.assign(bits::IDLE_RESTART, false);
        }
    }

    /// The smallest window for 200 ms and a round.
    fn probe_rtt(&mut self, window: &mut Window, ack: &Told) {
        if !self.mode_at.is_set() {
            if ack.rate.in_flight <= CWND_MIN_SEGMENTS * ack.mss {
                self.mode_at = ack.now.after(PROBE_RTT_TIME);
                self.round_end = ack.rate.total_delivered;
                self.assign(bits::PROBE_RTT_ROUND, false);
            }
            return;
        }
        if self.has(bits::ROUND_START) {
            self.assign(bits::PROBE_RTT_ROUND, true);
        }
        if self.has(bits::PROBE_RTT_ROUND) {
            self.check_probe_rtt_done(window, ack.now);
        }
    }

    pub(super) fn check_probe_rtt_done(&mut self, window: &mut Window, now: Instant) {
        if !self.mode_at.is_set() || now <= self.mode_at {
            return;
        }
        self.min_rtt_at = now;
        self.restore_cwnd(window);
        if self.has(bits::FULL) {
            self.begin_probing(now);
        } else {
            self.mode = Mode::Startup as u8;
        }
    }
}
