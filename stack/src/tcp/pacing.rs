//! When may the next segment leave? (draft-ietf-ccwg-bbr, section 5.6.2; SO_MAX_PACING_RATE of socket(7))
//!
//! A paced sender may send a quantum, about a millisecond's worth, and then waits until the time that this takes at its rate has passed.
//! So a timer is needed once a quantum, not once a segment, and who sends less than the rate never waits.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::connection::Connection;
use super::rate::Measured;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;

const NANOS: u64 = 1_000_000_000;
/// Quanta that fit into a second, unless they become too small or too large.
const QUANTA: u64 = 1_000;
/// Largest quantum, bytes: what the kernel hands to a card at once.
const QUANTUM_MAX: u64 = 64 << 10;
/// Below this rate, bytes a second, a quantum may be a single segment (Linux: bbr_min_tso_rate).
const SLOW: u64 = 150_000;

/// Bytes that leave at once when `rate` bytes leave in a second.
pub(crate) fn quantum(rate: u64, mss: u32) -> u32 {
    let least = if rate < SLOW { u64::from(mss) } else { 2 * u64::from(mss) };
    (rate / QUANTA).min(QUANTUM_MAX).max(least) as u32
}

/// Pacing of one connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Pacing {
    /// Bytes a second; 0: not paced.
    rate: u64,
    /// SO_MAX_PACING_RATE, bytes a second; 0: no limit.
    limit: u64,
    /// When the time is over that everything sent so far takes.
    next: Instant,
    /// Bytes that may leave before that.
    burst: u32,
    /// Always zero.
    pad: u32,
}

impl Pacing {
    /// May a segment leave now? Else at [`Pacing::next`].
    pub fn is_due(&mut self, now: Instant, mss: u32) -> bool {
        if self.rate == 0 || self.burst > 0 {
            return true;
        }
        if now < self.next {
            return false;
        }
        self.burst = quantum(self.rate, mss);
        true
    }

    /// When a segment may leave.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// `len` bytes leave now.
    #[inline]
    pub fn on_sent(&mut self, now: Instant, len: u32, mss: u32) {
        if self.rate == 0 {
            return;
        }
        // Half a quantum that a late timer left unused is made up for.
        let credit = self.time_of(quantum(self.rate, mss) / 2);
        let from = self.next.0.max(now.0.saturating_sub(credit));
        self.next = Instant(from).after(self.time_of(len));
        self.burst = self.burst.saturating_sub(len);
    }

    /// How long `len` bytes take, ns.
    fn time_of(&self, len: u32) -> u64 {
        u64::from(len) * NANOS / self.rate.max(1)
    }

    /// The rate that congestion control asks for, bytes a second; 0: none.
    fn ask(&mut self, rate: u64) {
        self.rate = match (rate, self.limit) {
            (rate, 0) => rate,
            (0, limit) => limit,
            (rate, limit) => rate.min(limit),
        };
    }

    /// Bytes a second; 0: not paced.
    pub fn rate(&self) -> u64 {
        self.rate
    }
}

impl Tcb {
    /// SO_MAX_PACING_RATE, bytes a second; `u64::MAX`: no limit.
    pub fn limit_pacing(&mut self, rate: u64) {
        self.pacing.limit = if rate == u64::MAX { 0 } else { rate.max(1) };
        self.take_pacing_rate();
    }

    /// Congestion control may have another rate in mind now.
    pub(crate) fn take_pacing_rate(&mut self) {
        self.pacing.ask(self.cc.pacing_rate());
    }

    /// Remembers at what rate the peer received: the program's own only if it is larger than what was known (as Linux does).
    #[inline]
    pub(crate) fn note_rate(&mut self, sample: &Measured) {
        if sample.interval == 0 {
            return;
        }
        let rate = sample.delivered.min(1 << 33) * NANOS / sample.interval;
        if !sample.is_app_limited || rate >= self.delivery_rate {
            self.delivery_rate = rate;
            self.assign(bit::RATE_APP_LIMITED, sample.is_app_limited);
        }
    }

    /// The rate that is kept, bytes a second; 0: none.
    pub fn kept_rate(&self) -> u64 {
        self.pacing.rate()
    }

    /// What TCP_INFO calls the pacing rate, bytes a second: the one that is kept, else the one that the kernel would keep, were it
    /// asked to (twice the window in a round trip in slow start, 1.2 times later: tcp_update_pacing_rate).
    pub fn pacing_rate(&self) -> u64 {
        if self.pacing.rate() != 0 {
            return self.pacing.rate();
        }
        let (cwnd, ssthresh) = self.congestion();
        let percent = if cwnd < ssthresh / 2 { 200 } else { 120 };
        let window = u64::from(cwnd.max(self.flight()));
        self.rtt.smoothed().map_or(u64::MAX, |srtt| window * percent / 100 * NANOS / srtt)
    }
}

impl Connection<'_> {
    /// May a segment leave now? If not, the connection is looked at again when it may.
    pub(crate) fn is_paced_out(&mut self, now: Instant) -> bool {
        let tcb = &mut *self.tcb;
        if tcb.pacing.is_due(now, tcb.mss) {
            return false;
        }
        tcb.timers.set(Timer::Pace, tcb.pacing.next());
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MSS: u32 = 1448;
    const START: Instant = Instant(NANOS);

    /// Sends segments of `len` bytes as soon as may be, at the earliest every `gap` ns, for a second, with timers `late` ns late. Returns
    /// bytes sent and the longest burst.
    fn run(rate: u64, len: u32, gap: u64, late: u64) -> (u64, u64) {
        let mut pacing = Pacing { rate, ..Pacing::default() };
        let (mut now, mut sent, mut longest, mut burst) = (START, 0, 0, 0);
        while now.nanos_since(START) < NANOS {
            if pacing.is_due(now, MSS) {
                pacing.on_sent(now, len, MSS);
                sent += u64::from(len);
                burst += u64::from(len);
                longest = longest.max(burst);
                now = now.after(gap);
            } else {
                now = pacing.next().after(late).max(now.after(gap));
                burst = 0;
            }
        }
        (sent, longest)
    }

    #[test]
    fn the_rate_is_kept_in_quanta() {
        for rate in [20_000, 200_000, 12_500_000, 1_250_000_000u64] {
            let (sent, longest) = run(rate, MSS, 0, 0);
            let quantum = u64::from(quantum(rate, MSS));
            // Whole nanoseconds are a thousandth at most.
            assert!(sent.abs_diff(rate) <= 2 * quantum + u64::from(MSS) + rate / 1000, "{rate}: {sent}");
            assert!(longest <= 2 * quantum + u64::from(MSS), "{rate}: {longest} of {quantum}");
        }
    }

    #[test]
    fn late_timers_cost_nothing_up_to_half_a_quantum() {
        let rate = 12_500_000;
        let (sent, _) = run(rate, MSS, 0, 400_000);
        assert!(sent >= rate * 97 / 100, "{sent}");
        let (sent, _) = run(rate, MSS, 0, 2_000_000);
        assert!(sent <= rate, "{sent}");
    }

    #[test]
    fn who_sends_less_than_the_rate_never_waits() {
        let mut pacing = Pacing { rate: 1_000_000, ..Pacing::default() };
        let mut now = START;
        for _ in 0..10_000 {
            assert!(pacing.is_due(now, MSS));
            pacing.on_sent(now, 64, MSS);
            now = now.after(100_000);
        }
    }

    #[test]
    fn the_limit_holds_with_and_without_a_rate() {
        let mut pacing = Pacing::default();
        for (limit, asked, rate) in [(0, 0, 0), (0, 7, 7), (5, 0, 5), (5, 7, 5), (5, 3, 3)] {
            pacing.limit = limit;
            pacing.ask(asked);
            assert_eq!(pacing.rate(), rate);
        }
    }

    proptest! {
        /// The arena can be scribbled on.
        #[test]
        fn any_record_is_survived(bytes: [u8; size_of::<Pacing>()], now: u64, len: u32, mss: u32) {
            let mut pacing = Pacing::read_from_bytes(&bytes).unwrap();
            let _ = pacing.is_due(Instant(now), mss);
            pacing.on_sent(Instant(now), len, mss);
            let _ = pacing.is_due(Instant(now), mss);
        }
    }
}
