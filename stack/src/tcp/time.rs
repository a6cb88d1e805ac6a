//! Points in time of the engine.

use std::ops::{Add, Sub};
use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Nanoseconds of CLOCK_MONOTONIC (clock_gettime(2)), which all processes of a host share. Zero stands for "never".
#[repr(transparent)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct Instant(pub u64);

impl Instant {
    /// No point in time.
    pub const NEVER: Self = Self(0);

    /// Time passed since `earlier`; zero if that lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Nanoseconds passed since `earlier`; zero if that lies ahead.
    pub fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The clock in milliseconds, modulo 2^32, as TCP timestamps count it.
    pub fn millis(self) -> u32 {
        (self.0 / 1_000_000) as u32
    }

    /// Is this a point in time at all?
    pub fn is_set(self) -> bool {
        self != Self::NEVER
    }

    /// `nanos` later.
    pub fn after(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, d: Duration) -> Self {
        self.after(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let t = Instant(5);
        assert_eq!(t + Duration::from_nanos(7), Instant(12));
        assert_eq!(t - Duration::from_secs(1), Instant::NEVER);
        assert_eq!(Instant(u64::MAX) + Duration::MAX, Instant(u64::MAX));
        assert_eq!(t.since(Instant(9)), Duration::ZERO);
        assert_eq!(Instant(9).nanos_since(t), 4);
    }
}
