//! The link's own error: how much later than they should frames left.

use std::fmt;
use std::time::Duration;

/// Latenesses by powers of two of nanoseconds.
#[derive(Clone, Debug)]
pub struct Lateness {
    buckets: [u64; Self::BUCKETS],
    sum_ns: u64,
    max_ns: u64,
}

impl Lateness {
    const BUCKETS: usize = 40;

    /// A frame left `nanos` too late.
    pub(super) fn record(&mut self, nanos: u64) {
        let bucket = (u64::BITS - nanos.leading_zeros()) as usize;
        self.buckets[bucket.min(Self::BUCKETS - 1)] += 1;
        self.sum_ns += nanos;
        self.max_ns = self.max_ns.max(nanos);
    }

    /// Frames recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The mean.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum_ns.checked_div(self.count()).unwrap_or(0))
    }

    /// A bound, exact to a factor of two, that `part` of all frames kept.
    pub fn quantile(&self, part: f64) -> Duration {
        let wanted = (self.count() as f64 * part).ceil() as u64;
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        Duration::from_nanos((1u64 << bucket.unwrap_or(0)).min(self.max_ns))
    }

    /// The worst.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// Adds another's records.
    pub fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(own, more)| *own += more);
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }
}

impl Default for Lateness {
    fn default() -> Self {
        Self { buckets: [0; Self::BUCKETS], sum_ns: 0, max_ns: 0 }
    }
}

impl fmt::Display for Lateness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mean, most, max) = (self.mean(), self.quantile(0.99), self.max());
        write!(
            f,
            "{} frames, late by {mean:.0?} on average, 99 % by less than {most:.0?}, {max:.0?} at worst",
            self.count()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_bound_and_worst() {
        let mut lateness = Lateness::default();
        assert_eq!((lateness.mean(), lateness.quantile(0.99)), (Duration::ZERO, Duration::ZERO));
        for nanos in [0, 1000, 1000, 3000] {
            lateness.record(nanos);
        }
        let mut twice = lateness.clone();
        twice.add(&lateness);
        assert_eq!((twice.count(), twice.mean()), (8, Duration::from_nanos(1250)));
        assert_eq!(twice.quantile(0.5), Duration::from_nanos(1024));
        assert_eq!((twice.quantile(0.99), twice.max()), (Duration::from_nanos(3000), Duration::from_nanos(3000)));
    }
}
