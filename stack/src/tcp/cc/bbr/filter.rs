//! The largest value of late: of the last so many rounds.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A value of 40 bits above the low 24 bits of its round.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(super) struct Sample(u64);

const ROUND_BITS: u32 = 24;
const ROUND_MASK: u32 = (1 << ROUND_BITS) - 1;
/// Largest value.
pub(super) const VALUE_MAX: u64 = u64::MAX >> ROUND_BITS;

impl Sample {
    fn new(round: u32, value: u64) -> Self {
        Self(value.min(VALUE_MAX) << ROUND_BITS | u64::from(round & ROUND_MASK))
    }

    fn value(&self) -> u64 {
        self.0 >> ROUND_BITS
    }

    fn round(&self) -> u32 {
        self.0 as u32 & ROUND_MASK
    }
}

/// A windowed maximum in constant space (Kathleen Nichols' estimator, win_minmax of Linux): the best sample, the best one since,
/// and the best one since that. When the best leaves the window, the second takes its place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(super) struct MaxFilter {
    best: [Sample; 3],
}

impl MaxFilter {
    /// The largest value in the window.
    pub fn max(&self) -> u64 {
        self.best[0].value()
    }

    /// Takes a sample of `round`; the window is `length` rounds long.
    pub fn add(&mut self, round: u32, value: u64, length: u32) {
        let age = |sample: &Sample| round.wrapping_sub(sample.round()) & ROUND_MASK;
        let new = Sample::new(round, value);
        if value >= self.best[0].value() || age(&self.best[2]) > length {
            *self = Self { best: [new; 3] };
            return;
        }
        if value >= self.best[1].value() {
            self.best[1] = new;
            self.best[2] = new;
        } else if value >= self.best[2].value() {
            self.best[2] = new;
        }
        for _ in 0..2 {
            if age(&self.best[0]) > length {
                self.best = [self.best[1], self.best[2], new];
            }
        }
        // The places shall not all stand for the same moment: who is second after a quarter of the window, and third after half?
        if self.best[1].round() == self.best[0].round() && age(&self.best[1]) > length / 4 {
            self.best[1] = new;
            self.best[2] = new;
        } else if self.best[2].round() == self.best[1].round() && age(&self.best[2]) > length / 2 {
            self.best[2] = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maximum_lasts_as_long_as_the_window() {
        let mut filter = MaxFilter::default();
        filter.add(1, 100, 10);
        for round in 2..=11 {
            filter.add(round, 50, 10);
            assert_eq!(filter.max(), 100, "{round}");
        }
        filter.add(12, 50, 10);
        assert_eq!(filter.max(), 50);
        filter.add(12, 70, 10);
        assert_eq!(filter.max(), 70);
    }

    #[test]
    fn it_is_never_below_what_was_seen_in_the_newest_half_of_the_window_nor_above_what_was_seen_in_all_of_it() {
        let mut random = crate::testkit::random::Random::new(7);
        let mut filter = MaxFilter::default();
        let mut seen: Vec<(u32, u64)> = Vec::new();
        for n in 0..2000u32 {
            let (round, value) = ((u32::MAX - 500).wrapping_add(n / 3), random.below(1000));
            filter.add(round, value, 10);
            seen.push((round, value));
            let best = |rounds| {
                let late = seen.iter().filter(|(at, _)| round.wrapping_sub(*at) <= rounds);
                late.map(|(_, value)| *value).max().unwrap()
            };
            assert!((best(2)..=best(10)).contains(&filter.max()), "{n}: {} {} {}", best(2), best(10), filter.max());
        }
    }
}
