//! CUBIC congestion control (RFC 9438). The window follows a cubic function of the time since the last reduction, flat
//! where the window was when loss came, so its growth does not depend on the round-trip time as Reno's does.
//!
//! Windows are bytes where the RFC counts segments, times are whole milliseconds, all arithmetic is integer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::hystart::{Departures, HyStart};
use super::{Ack, CWND_MAX, Window};
use crate::tcp::seq::SeqNr;
use crate::tcp::time::Instant;

/// beta_cubic = 0.7 (RFC 9438, section 4.6), in tenths.
const BETA_TENTHS: u32 = 7;
/// C = 0.4 (RFC 9438, section 5), as 4 / 10 below.
const C_TENTHS: i64 = 4;
/// alpha_cubic = 3 (1 - beta) / (1 + beta) = 9 / 17 (RFC 9438, section 4.3), and 1.
const ALPHA: u64 = 9;
const ALPHA_FULL: u64 = 17;
/// Times farther from K than this are not believed, ms (nine minutes); with it, no product overflows.
const TIME_MAX: i64 = 1 << 19;
const NANOS_PER_MS: u64 = 1_000_000;

/// What CUBIC remembers beside the window. Names are the RFC's (section 4.1.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Cubic {
    /// t_epoch: when this stage of congestion avoidance began, moved on by the time in which the window was not the limit; never:
    /// not begun.
    epoch: Instant,
    /// Until when `epoch` takes such time into account.
    accounted: Instant,
    /// What is left of growth smaller than a byte: of the window, in parts of the window ...
    credit: u64,
    /// ... and of `w_est`, in seventeenths of that.
    est_credit: u64,
    /// W_max, bytes; 0: unknown, the next stage begins on the plateau.
    w_max: u32,
    /// W_est, bytes.
    w_est: u32,
    /// cwnd_prior, bytes.
    prior: u32,
    /// K, ms.
    k: u32,
    hystart: HyStart,
    /// Always zero.
    pad: u32,
}

/// What a mistaken reduction has to bring back (RFC 9438, section 4.9).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Before {
    epoch: Instant,
    w_max: u32,
    w_est: u32,
    prior: u32,
    k: u32,
}

/// K = cbrt((W_max - cwnd_epoch) / C) (RFC 9438, section 4.2), ms; `short` is the difference in bytes.
fn k(short: u32, mss: u32) -> u32 {
    // 1000^3 / 0.4 = 2.5e9, and `short` is at most 2^30: below 2^62.
    cube_root(u64::from(short.min(CWND_MAX)) * 2_500_000_000 / u64::from(mss.max(1)))
}

/// The largest number whose cube is at most `n`, bit by bit.
fn cube_root(n: u64) -> u32 {
    (0..22).rev().map(|bit| 1u64 << bit).fold(0, |root: u64, bit| {
        let next = root | bit;
        if next.checked_pow(3).is_some_and(|cube| cube <= n) { next } else { root }
    }) as u32
}

/// W_cubic(t) = C (t - K)^3 + W_max (RFC 9438, section 4.2), bytes; `t` and `k` in ms.
fn w_cubic(t: u64, k: u32, w_max: u32, mss: u32) -> u32 {
    let t = i64::try_from(t).unwrap_or(i64::MAX);
    let d = t.saturating_sub(i64::from(k)).clamp(-TIME_MAX, TIME_MAX);
    // Millionths of a segment: |d|^3 is at most 2^57, with four tenths of it and 16 bits of `mss` the product stays below 2^63.
    let micro_segments = d * d * d * C_TENTHS / 10_000;
    let bytes = micro_segments * i64::from(mss) / 1_000_000;
    (i64::from(w_max) + bytes).clamp(0, i64::from(CWND_MAX)) as u32
}

impl Cubic {
    /// Goes on from a window that another stack found. A threshold is what some CUBIC left of W_max at its last loss, so W_max
    /// follows from it; with it K does too, wherever on the curve the window is. (Reno leaves less: then W_max is guessed too low, and
    /// the plateau comes early.)
    pub fn new(window: &Window) -> Self {
        let w_max = if window.is_first_slow_start() { 0 } else { undo_beta(window.ssthresh) };
        Self { w_max, prior: w_max, ..Self::default() }
    }

    /// New data `[start, end)` goes out.
    pub fn on_sent(&mut self, window: &Window, now: Instant, start: SeqNr, end: SeqNr, departures: &mut Departures) {
        if window.is_first_slow_start() {
            self.hystart.on_sent(now, start, end, departures);
        }
    }

    /// The same of `count` segments of `each` bytes from `start` on.
    pub fn on_train_sent(
        &mut self,
        window: &Window,
        now: Instant,
        start: SeqNr,
        (each, count): (u32, u32),
        departures: &mut Departures,
    ) {
        if window.is_first_slow_start() {
            self.hystart.on_train_sent(now, start, (each, count), departures);
        }
    }

    /// New data was acknowledged; `limited`: the window is the limit.
    #[inline(always)]
    pub fn on_ack(&mut self, window: &mut Window, ack: &Ack, limited: bool, departures: &mut Departures) {
        if window.is_slow_start() {
            self.slow_start(window, ack, limited, departures);
        } else {
            let Ack { now, acked, mss, srtt, .. } = *ack;
            self.avoid_congestion(window, limited, (now, acked, mss), srtt.unwrap_or(0));
        }
    }

    /// RFC 9438, section 4.10: HyStart++ in the first slow start, the standard one in all others (RFC 9406, section 4.3).
    #[inline(always)]
    fn slow_start(&mut self, window: &mut Window, ack: &Ack, limited: bool, departures: &mut Departures) {
        self.epoch = Instant::NEVER;
        if !window.is_first_slow_start() {
            if limited {
                window.grow_in_slow_start(ack, ack.acked);
            }
            return;
        }
        let growth = self.hystart.on_ack(ack, departures);
        if limited {
            window.grow_in_slow_start(ack, growth.bytes);
        }
        if growth.done {
            window.ssthresh = window.cwnd;
            self.prior = window.cwnd;
            self.w_max = 0;
        }
    }

    /// RFC 9438, sections 4.2 to 4.5.
    #[inline(never)]
    fn avoid_congestion(
        &mut self,
        window: &mut Window,
        limited: bool,
        (now, acked, mss): (Instant, u32, u32),
        srtt: u64,
    ) {
        if !self.epoch.is_set() {
            self.begin_stage(window, now, mss);
        }
        if !limited {
            self.exclude(now);
            return;
        }
        self.accounted = now;
        self.grow_estimate(window, acked, mss);
        let t = now.nanos_since(self.epoch) / NANOS_PER_MS;
        let rtt = srtt / NANOS_PER_MS;
        if w_cubic(t, self.k, self.w_max, mss) < self.w_est {
            // The Reno-friendly region (section 4.3).
            window.cwnd = window.cwnd.max(self.w_est);
            self.credit = 0;
            return;
        }
        // The target is where the curve will be a round trip from now, between cwnd and 1.5 cwnd (section 4.2); each window of
        // acknowledged data goes all the way there (sections 4.4 and 4.5).
        let cwnd = u64::from(window.cwnd.max(1));
        let ahead = u64::from(w_cubic(t.saturating_add(rtt), self.k, self.w_max, mss));
        let target = ahead.clamp(cwnd, cwnd + cwnd / 2);
        self.credit = self.credit.saturating_add(u64::from(acked) * (target - cwnd));
        let step = (self.credit / cwnd).min(target - cwnd);
        self.credit %= cwnd;
        window.grow(step as u32);
    }

    /// A stage begins: where on the curve is the window? Without W_max, or above it, on the plateau (sections 4.2 and 4.8).
    fn begin_stage(&mut self, window: &Window, now: Instant, mss: u32) {
        self.epoch = now;
        self.accounted = now;
        self.w_max = self.w_max.clamp(window.cwnd, window.cwnd.max(CWND_MAX));
        self.k = k(self.w_max - window.cwnd, mss);
        self.w_est = window.cwnd;
        self.credit = 0;
        self.est_credit = 0;
    }

    /// The time since the last look does not count: the window was not the limit (section 4.2, on t).
    fn exclude(&mut self, now: Instant) {
        self.epoch = self.epoch.after(now.nanos_since(self.accounted));
        self.accounted = now;
    }

    /// W_est += alpha_cubic * segments_acked / cwnd (RFC 9438, section 4.3); alpha is 1 from where the last reduction came on.
    fn grow_estimate(&mut self, window: &Window, acked: u32, mss: u32) {
        let alpha = if self.w_est >= self.prior { ALPHA_FULL } else { ALPHA };
        let divisor = ALPHA_FULL * u64::from(window.cwnd.max(1));
        let gain = u64::from(acked.min(CWND_MAX)) * u64::from(mss) * alpha;
        self.est_credit = self.est_credit.saturating_add(gain);
        let step = (self.est_credit / divisor).min(u64::from(CWND_MAX)) as u32;
        self.est_credit %= divisor;
        self.w_est = self.w_est.saturating_add(step).min(CWND_MAX);
    }

    /// RFC 9438, section 4.6, and fast convergence (section 4.7): a window that did not come back to where it was before leaves
    /// room for others by aiming lower.
    pub fn on_loss(&mut self, window: &mut Window, mss: u32) {
        let cwnd = window.cwnd.min(CWND_MAX);
        self.w_max = if cwnd < self.w_max { (u64::from(cwnd) * 17 / 20) as u32 } else { cwnd };
        self.prior = cwnd;
        self.epoch = Instant::NEVER;
        window.reduce(BETA_TENTHS, mss);
    }

    /// RFC 9438, section 4.8: as Reno, with beta_cubic; the stage after it begins with K = 0 at its own window.
    pub fn on_timeout(&mut self, window: &mut Window, mss: u32, first: bool) {
        if first {
            self.prior = window.cwnd.min(CWND_MAX);
            window.reduce(BETA_TENTHS, mss);
        }
        self.w_max = 0;
        self.epoch = Instant::NEVER;
    }

    /// RFC 9438, section 4.9: a reduction follows that may turn out to be a mistake.
    pub fn save(&self) -> Before {
        let Self { epoch, w_max, w_est, prior, k, .. } = *self;
        Before { epoch, w_max, w_est, prior, k }
    }

    /// It was one.
    pub fn undo(&mut self, before: &Before) {
        let Before { epoch, w_max, w_est, prior, k } = *before;
        (self.epoch, self.w_max, self.w_est, self.prior, self.k) = (epoch, w_max, w_est, prior, k);
    }

    /// Data goes out again after everything was acknowledged: the silence does not count (section 4.2, on t).
    pub fn on_restart(&mut self, now: Instant) {
        if self.epoch.is_set() {
            self.exclude(now);
        }
    }

    /// The window fell because of silence. W_max stays: where loss came before, it may come again.
    pub fn on_idle(&mut self) {
        self.hystart = HyStart::default();
        self.epoch = Instant::NEVER;
    }

    /// The window fell because the program used little of it.
    pub fn on_validation(&mut self) {
        self.epoch = Instant::NEVER;
    }
}

/// What beta_cubic made this of it.
fn undo_beta(ssthresh: u32) -> u32 {
    (u64::from(ssthresh) * 10 / u64::from(BETA_TENTHS)).min(u64::from(CWND_MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::super::{Algorithm, Congestion};
    use super::*;

    const MSS: u32 = 1000;
    const MS: u64 = 1_000_000;
    const START: Instant = Instant(5_000 * MS);

    /// W_cubic and K straight from the RFC, in segments and seconds.
    fn rfc_k(w_max: f64, cwnd: f64) -> f64 {
        ((w_max - cwnd) / 0.4).cbrt()
    }

    fn rfc_w(t: f64, k: f64, w_max: f64) -> f64 {
        0.4 * (t - k).powi(3) + w_max
    }

    #[test]
    fn cube_roots() {
        for (n, root) in [(0, 0), (1, 1), (7, 1), (8, 2), (26, 2), (27, 3), (u64::MAX, 2_642_245)] {
            assert_eq!(cube_root(n), root, "{n}");
        }
        for root in (1..2_642_245u64).step_by(9_973) {
            assert_eq!((cube_root(root.pow(3)), cube_root(root.pow(3) - 1)), (root as u32, root as u32 - 1));
        }
    }

    #[test]
    fn k_and_the_curve_follow_the_formulas() {
        // W_max 100 segments, cut to 70: K = cbrt(30 / 0.4) = 4.217 s.
        assert_eq!(k(30 * MSS, MSS), 4217);
        assert_eq!(k(0, MSS), 0);
        for w_max in [20u32, 100, 1_000, 20_000] {
            let cwnd = w_max / 10 * 7;
            let k_ms = k((w_max - cwnd) * MSS, MSS);
            let exact_k = rfc_k(w_max.into(), cwnd.into());
            assert!((f64::from(k_ms) / 1000.0 - exact_k).abs() < 0.001, "{w_max}: {k_ms}");
            for t_ms in [0u64, 1, 10, 100, 1_000, 2_500, 4_217, 5_000, 10_000, 30_000] {
                let exact = rfc_w(t_ms as f64 / 1000.0, exact_k, w_max.into()) * f64::from(MSS);
                let got = f64::from(w_cubic(t_ms, k_ms, w_max * MSS, MSS));
                // A millisecond of K makes the difference.
                assert!((got - exact).abs() <= 4.0 + exact.abs() * 0.001, "{w_max} at {t_ms} ms: {got}, not {exact}");
            }
        }
    }

    #[test]
    fn the_curve_has_its_plateau_at_w_max_and_never_leaves_the_bounds() {
        assert_eq!(w_cubic(4217, 4217, 100 * MSS, MSS), 100 * MSS);
        assert_eq!(w_cubic(0, 4217, 100 * MSS, MSS), 100 * MSS - 29_996);
        assert_eq!(w_cubic(0, u32::MAX, 100 * MSS, MSS), 0);
        assert_eq!(w_cubic(u64::MAX, 0, u32::MAX, super::super::MSS_MAX), CWND_MAX);
    }

    /// A connection in congestion avoidance, driven by a clock: its window is acknowledged once every round trip, segment by segment.
    struct Drive {
        cc: Congestion,
        now: Instant,
        rtt: u64,
    }

    impl Drive {
        fn new(cwnd: u32, ssthresh: u32, rtt_ms: u64) -> Self {
            let mut cc = Congestion::new(cwnd, ssthresh, MSS);
            cc.choose(Algorithm::Cubic, MSS, None);
            Self { cc, now: START, rtt: rtt_ms * MS }
        }

        fn ack(&mut self, acked: u32, flight: u32) {
            let (una, nxt) = (SeqNr(0), SeqNr(0));
            let ack = Ack { now: self.now, acked, acks: 1, flight, mss: MSS, srtt: Some(self.rtt), una, nxt };
            // No timeout is so long: how much of the window is used is looked at elsewhere.
            self.cc.on_ack(&ack, u64::MAX, &mut Departures::default());
        }

        fn cubic(&mut self) -> Cubic {
            *self.cc.state.get::<Cubic>().unwrap()
        }

        fn round(&mut self) {
            let cwnd = self.cc.cwnd();
            let segments = cwnd / MSS;
            for _ in 0..segments {
                self.ack(MSS, cwnd.max(self.cc.cwnd()));
                self.now = self.now.after(self.rtt / u64::from(segments));
            }
        }

        fn run(&mut self, ms: u64) {
            let end = self.now.after(ms * MS);
            while self.now < end {
                self.round();
            }
        }

        fn segments(&self) -> u32 {
            self.cc.cwnd() / MSS
        }
    }

    #[test]
    fn after_a_loss_the_window_comes_back_to_w_max_at_k_and_then_goes_on() {
        let mut drive = Drive::new(1000, u32::MAX, 100);
        drive.cc.on_loss(MSS);
        assert_eq!((drive.segments(), drive.cubic().w_max), (700, 1000 * MSS));
        // K = cbrt(300 / 0.4) = 9.086 s.
        drive.run(4_500);
        assert_eq!(drive.cubic().k, 9085);
        for tolerance in [3, 2, 12] {
            // The window is where the curve will be within a round trip.
            let t = drive.now.nanos_since(START) as f64 / 1e9;
            let exact = rfc_w(t, rfc_k(1000.0, 700.0), 1000.0) as u32;
            assert!(drive.segments().abs_diff(exact) <= tolerance, "{}, not {exact}", drive.segments());
            drive.run(4_500);
        }
    }

    #[test]
    fn fast_convergence_aims_lower_when_the_window_did_not_come_back() {
        let mut drive = Drive::new(1000, u32::MAX, 100);
        drive.cc.on_loss(MSS);
        drive.cc.on_loss(MSS);
        // 700 * (1 + 0.7) / 2
        assert_eq!((drive.segments(), drive.cubic().w_max), (490, 595 * MSS));
        let mut drive = Drive::new(1000, u32::MAX, 100);
        drive.cc.on_loss(MSS);
        drive.run(15_000);
        let cwnd = drive.cc.cwnd();
        assert!(cwnd > 1000 * MSS);
        drive.cc.on_loss(MSS);
        assert_eq!(drive.cubic().w_max, cwnd, "it came back");
    }

    #[test]
    fn on_short_round_trips_it_grows_like_reno_with_alpha() {
        // 1 ms: the cubic curve is far below. W_est starts at 14 and gains 9/17 of a segment a round up to 20, then one.
        let mut drive = Drive::new(20, u32::MAX, 1);
        drive.cc.on_loss(MSS);
        for _ in 0..17 {
            drive.round();
        }
        // 17 rounds give 9 segments at alpha; from 20 on it is quicker: 11.3 rounds to 20, the others one each.
        assert!(drive.segments().abs_diff(25) <= 1, "{}", drive.segments());
        let before = drive.cc.cwnd();
        for _ in 0..10 {
            drive.round();
        }
        assert!((drive.cc.cwnd() - before).abs_diff(10 * MSS) <= MSS, "alpha is 1 above cwnd_prior");
    }

    #[test]
    fn alpha_is_what_makes_it_as_fast_as_reno() {
        let alpha = ALPHA as f64 / ALPHA_FULL as f64;
        assert!((alpha - 3.0 * (1.0 - 0.7) / (1.0 + 0.7)).abs() < 1e-12);
        let mut cubic = Cubic { w_est: 10 * MSS, prior: 100 * MSS, ..Cubic::default() };
        let window = Window { cwnd: 10 * MSS, ssthresh: 10 * MSS };
        for _ in 0..170 {
            cubic.grow_estimate(&window, MSS, MSS);
        }
        assert_eq!(cubic.w_est, 19 * MSS, "17 windows give 9 segments");
    }

    #[test]
    fn no_acknowledgement_takes_the_window_farther_than_half_of_it_in_a_round() {
        let mut drive = Drive::new(100, 100, 100);
        drive.round();
        // Long after: the curve has gone through the roof, but the window was the limit all the time.
        drive.now = drive.now.after(60_000 * MS);
        let before = drive.cc.cwnd();
        for _ in 0..before / MSS {
            drive.ack(MSS, before.max(drive.cc.cwnd()));
        }
        assert!(drive.cc.cwnd() > before && drive.cc.cwnd() <= before + before / 2 + MSS, "{}", drive.cc.cwnd());
    }

    #[test]
    fn time_in_which_the_window_was_not_the_limit_does_not_count() {
        let mut steady = Drive::new(1000, u32::MAX, 100);
        steady.cc.on_loss(MSS);
        steady.run(2_000);
        let mut paused = Drive { ..steady };
        // A program that sends little for a minute, then nothing for another.
        for _ in 0..600 {
            paused.now = paused.now.after(100 * MS);
            paused.ack(MSS, MSS);
        }
        assert_eq!(paused.cc.cwnd(), steady.cc.cwnd());
        paused.now = paused.now.after(60_000 * MS);
        paused.cc.on_restart(paused.now, true);
        steady.run(2_000);
        paused.run(2_000);
        assert!(paused.segments().abs_diff(steady.segments()) <= 2, "{} {}", paused.segments(), steady.segments());
    }

    #[test]
    fn after_a_timeout_the_plateau_is_where_slow_start_ended() {
        let mut drive = Drive::new(1000, u32::MAX, 100);
        drive.cc.on_timeout(MSS, true);
        assert_eq!((drive.cc.cwnd(), drive.cc.ssthresh()), (MSS, 700 * MSS));
        while drive.cc.cwnd() < drive.cc.ssthresh() {
            drive.round();
        }
        drive.round();
        assert_eq!(drive.cubic().k, 0);
        assert!(drive.cubic().w_max.abs_diff(drive.cc.cwnd()) < 10 * MSS);
    }

    #[test]
    fn the_place_on_the_curve_survives_a_change_of_hands() {
        let mut drive = Drive::new(1000, u32::MAX, 100);
        drive.cc.on_loss(MSS);
        drive.run(3_000);
        let (cwnd, ssthresh) = drive.cc.segments(MSS);
        let mut other = Drive::new(cwnd, ssthresh, 100);
        other.now = drive.now;
        assert_eq!(other.cubic().w_max, 1000 * MSS);
        for _ in 0..3 {
            drive.run(3_000);
            other.run(3_000);
            assert!(other.segments().abs_diff(drive.segments()) <= 10, "{} {}", other.segments(), drive.segments());
        }
    }
}
