//! How much of the daemon's time looks at all sockets may take.

use std::time::{Duration, Instant};

/// Saved up at most.
const MOST: Duration = Duration::from_millis(50);
/// One part in so many of the time.
const SHARE: u32 = 20;

/// Time that may be spent, and what a look has cost of late.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    left: Duration,
    usual: Duration,
    at: Instant,
}

impl Allowance {
    /// A look is taken to cost `usual`.
    pub fn new(usual: Duration, now: Instant) -> Self {
        Self { left: MOST, usual, at: now }
    }

    /// What a look costs: what the last one did, and half of it for each second that has passed since. One that was held up by something else
    /// does not count for ever.
    pub fn usual(&self, now: Instant) -> Duration {
        let seconds = now.saturating_duration_since(self.at).as_secs().min(20) as u32;
        self.usual / (1 << seconds)
    }

    /// Is there time for one?
    pub fn has_time(&self, now: Instant) -> bool {
        self.saved(now) >= self.usual(now)
    }

    /// One took so long.
    pub fn spend(&mut self, took: Duration, now: Instant) {
        self.left = self.saved(now).saturating_sub(took);
        (self.usual, self.at) = (took, now);
    }

    fn saved(&self, now: Instant) -> Duration {
        (self.left + now.saturating_duration_since(self.at) / SHARE).min(MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_looks_take_a_twentieth_of_the_time_in_the_end() {
        let begin = Instant::now();
        let look = Duration::from_millis(2);
        let mut allowance = Allowance::new(look, begin);
        let (mut now, mut spent) = (begin, Duration::ZERO);
        while now < begin + Duration::from_secs(10) {
            if allowance.has_time(now) {
                now += look;
                spent += look;
                allowance.spend(look, now);
            } else {
                now += Duration::from_millis(1);
            }
        }
        let fair = Duration::from_millis(500) + MOST;
        assert!(spent <= fair + look && spent >= fair / 2, "{spent:?}");
    }

    #[test]
    fn one_that_was_held_up_does_not_count_for_ever() {
        let begin = Instant::now();
        let mut allowance = Allowance::new(Duration::from_millis(1), begin);
        allowance.spend(Duration::from_secs(1), begin);
        assert!(!allowance.has_time(begin + Duration::from_millis(900)));
        let later = begin + Duration::from_secs(10);
        assert!(allowance.usual(later) < Duration::from_millis(1) && allowance.has_time(later));
    }
}
