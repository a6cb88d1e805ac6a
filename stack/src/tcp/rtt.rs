//! How long is a round trip, and how long to wait before sending again? (RFC 6298)

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::seq::SeqNr;
use super::time::Instant;

const MS: u64 = 1_000_000;
/// Linux: TCP_RTO_MIN. The variation term never falls below it.
const VARIATION_MIN: u64 = 200 * MS;
/// Linux: TCP_RTO_MAX.
const RTO_MAX: u64 = 120_000 * MS;
/// Before the first sample (RFC 6298, section 2.1).
const RTO_INITIAL: u64 = 1_000 * MS;
/// Beyond so many doublings every timeout is the longest.
const BACKOFF_MAX: u32 = 16;
/// Longer round trips than this are not believed.
const SAMPLE_MAX: u64 = RTO_MAX;

/// The estimator of one connection. One segment in a round trip is timed, with the precise clock; timestamps only serve
/// where retransmissions make that one ambiguous (Karn's rule).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Rtt {
    /// Smoothed round-trip time, ns; 0: none yet.
    srtt: u64,
    /// Its variation, ns.
    rttvar: u64,
    /// When the last sample was taken.
    sampled_at: Instant,
    /// The acknowledgement of this gives the next one.
    next: SeqNr,
    /// Doublings of the timeout since the last sample.
    backoff: u32,
}

impl Rtt {
    /// No retransmission timeout is shorter, ns.
    pub const RTO_MIN: u64 = VARIATION_MIN;

    /// Takes over what the kernel had measured, µs, and how often it had doubled the timeout since.
    pub fn new(srtt_us: u32, rttvar_us: u32, backoff: u8) -> Self {
        let nanos = |us: u32| (u64::from(us) * 1000).min(SAMPLE_MAX);
        let backoff = u32::from(backoff).min(BACKOFF_MAX);
        Self { srtt: nanos(srtt_us), rttvar: nanos(rttvar_us), backoff, ..Self::default() }
    }

    /// Doublings of the timeout since the last sample.
    pub fn backoff(&self) -> u8 {
        self.backoff.min(BACKOFF_MAX) as u8
    }

    /// Smoothed round-trip time and variation, µs.
    pub fn micros(&self) -> (u32, u32) {
        let us = |nanos: u64| u32::try_from(nanos / 1000).unwrap_or(u32::MAX);
        (us(self.srtt), us(self.rttvar))
    }

    /// Smoothed round-trip time, ns, if any was measured.
    pub fn smoothed(&self) -> Option<u64> {
        (self.srtt != 0).then_some(self.srtt)
    }

    /// Is a sample wanted? One in a round trip is, or in the time of one.
    pub fn is_due(&self, una: SeqNr, now: Instant) -> bool {
        !self.sampled_at.is_set() || una.ge(self.next) || now.nanos_since(self.sampled_at) >= self.srtt
    }

    /// A sample was taken; the next one shall be of what is sent from `nxt` on.
    pub fn next_after(&mut self, nxt: SeqNr, now: Instant) {
        (self.next, self.sampled_at) = (nxt.plus(1), now);
    }

    /// One measured round trip, ns (RFC 6298, section 2).
    pub fn sample(&mut self, nanos: u64) {
        let r = nanos.clamp(1, SAMPLE_MAX);
        if self.srtt == 0 {
            self.srtt = r;
            self.rttvar = r / 2;
        } else {
            self.rttvar = (3 * self.rttvar + self.srtt.abs_diff(r)) / 4;
            self.srtt = ((7 * self.srtt + r) / 8).max(1);
        }
        self.backoff = 0;
    }

    /// The timeouts were spurious.
    pub fn forget_back_off(&mut self) {
        self.backoff = 0;
    }

    /// Doubles the timeout.
    pub fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1).min(BACKOFF_MAX);
    }

    /// The retransmission timeout, ns.
    #[inline(always)]
    pub fn rto(&self) -> u64 {
        // At most sixteen doublings: no bit is lost, unless somebody has scribbled here.
        self.rto_base().wrapping_shl(self.backoff).min(RTO_MAX)
    }

    /// The retransmission timeout without back-off, ns.
    pub fn rto_base(&self) -> u64 {
        match self.smoothed() {
            None => RTO_INITIAL,
            // Neither product nor sum overflows, unless somebody has scribbled here.
            Some(srtt) => srtt.wrapping_add(self.rttvar.wrapping_mul(4).max(VARIATION_MIN)).min(RTO_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_sample_a_round_trip() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.rto(), RTO_INITIAL);
        assert!(rtt.is_due(SeqNr(10), Instant(100_000)));
        rtt.sample(100_000);
        rtt.next_after(SeqNr(20), Instant(100_000));
        assert_eq!(rtt.micros(), (100, 50));
        assert!(!rtt.is_due(SeqNr(20), Instant(150_000)), "sent before the last one");
        assert!(rtt.is_due(SeqNr(21), Instant(150_000)));
        assert!(rtt.is_due(SeqNr(20), Instant(200_000)));
    }

    #[test]
    fn back_off_doubles_until_a_sample() {
        let mut rtt = Rtt::new(1000, 100, 0);
        let base = rtt.rto();
        rtt.back_off();
        assert_eq!(rtt.rto(), 2 * base);
        rtt.back_off();
        assert_eq!(rtt.rto(), 4 * base);
        for _ in 0..40 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(), RTO_MAX);
        rtt.sample(1_000_000);
        assert!(rtt.rto() <= base);
    }

    #[test]
    fn a_back_off_is_taken_over_until_a_sample() {
        let base = Rtt::new(1000, 100, 0).rto();
        let mut rtt = Rtt::new(1000, 100, 2);
        assert_eq!((rtt.rto(), rtt.backoff()), (4 * base, 2));
        rtt.back_off();
        assert_eq!((rtt.rto(), rtt.backoff()), (8 * base, 3));
        rtt.sample(1_000_000);
        assert_eq!((rtt.rto(), rtt.backoff()), (base, 0));
        assert_eq!(Rtt::new(1000, 100, u8::MAX).rto(), RTO_MAX, "nor does a hostile one shift bits out");
    }

    proptest! {
        #[test]
        fn the_timeout_stays_in_bounds(samples in proptest::collection::vec(any::<u64>(), 1..50)) {
            let mut rtt = Rtt::default();
            for sample in samples {
                rtt.sample(sample);
                prop_assert!((VARIATION_MIN..=RTO_MAX).contains(&rtt.rto()));
            }
        }
    }
}
