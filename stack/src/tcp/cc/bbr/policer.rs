//! Does somebody police the flow? A token bucket lets a burst pass and then drops whatever is above its rate. Two intervals in a row
//! with much loss and the same throughput are taken for one, and its rate is kept to for a while (Linux: bbr_lt_bw_sampling).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{BW_MAX, GAIN_ONE, per_second};
use crate::tcp::time::Instant;

/// Rounds of an interval, at least and at most.
const ROUNDS_MIN: u16 = 4;
const ROUNDS_MAX: u16 = 4 * ROUNDS_MIN;
/// Loss of which an interval tells of a policer, of 256.
const LOSS: u64 = 50;
/// Two rates are the same if they differ by this part, or so many bytes a second.
const RATIO: u64 = 8;
const DIFFERENCE: u64 = 4_000 / 8;
/// For so many rounds a rate is kept to.
const KEPT_ROUNDS: u16 = 48;
const MS: u64 = 1_000_000;

/// What has become of the suspicion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing new.
    None,
    /// A rate is kept to from now on.
    Policed,
    /// It was kept to for long enough: the path shall be probed again.
    Over,
}

/// What one acknowledgement brings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub now: Instant,
    /// Bytes delivered so far.
    pub delivered: u64,
    /// Did it bring news of a loss?
    pub lost: bool,
    pub round_start: bool,
    pub app_limited: bool,
    /// Is bandwidth being probed?
    pub probing: bool,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(super) struct Policer {
    /// The rate of the last interval, or the one to be kept to, bytes a second.
    rate: u64,
    /// When the interval began, and how much had been delivered then.
    since: Instant,
    delivered: u64,
    /// Bytes found lost since then.
    lost: u32,
    /// Rounds of the interval, or of keeping to the rate.
    rounds: u16,
    /// 0: no loss was seen; 1: an interval goes on; 2: the rate is kept to.
    phase: u16,
}

impl Policer {
    /// The rate to be kept to, bytes a second.
    pub fn rate(&self) -> Option<u64> {
        (self.phase == 2).then_some(self.rate.min(BW_MAX))
    }

    /// So many bytes were found lost.
    pub fn on_lost(&mut self, bytes: u32) {
        self.lost = self.lost.wrapping_add(bytes);
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    fn begin(&mut self, step: &Step) {
        (self.since, self.delivered, self.lost) = (step.now, step.delivered, 0);
        (self.rounds, self.phase) = (0, 1);
    }

    pub fn on_ack(&mut self, step: &Step) -> Verdict {
        if self.phase == 2 {
            self.rounds = self.rounds.saturating_add(u16::from(step.probing && step.round_start));
            if self.rounds < KEPT_ROUNDS {
                return Verdict::None;
            }
            self.reset();
            return Verdict::Over;
        }
        if self.phase != 1 {
            // The bucket has to be empty first.
            if step.lost {
                self.begin(step);
            }
            return Verdict::None;
        }
        self.rounds = self.rounds.saturating_add(u16::from(step.round_start));
        if step.app_limited || self.rounds > ROUNDS_MAX {
            self.reset();
            return Verdict::None;
        }
        // An interval ends with a loss, when the bucket is as empty as at its beginning.
        if self.rounds < ROUNDS_MIN || !step.lost {
            return Verdict::None;
        }
        self.end_interval(step)
    }

    fn end_interval(&mut self, step: &Step) -> Verdict {
        let delivered = step.delivered.saturating_sub(self.delivered);
        let lost = u64::from(self.lost);
        let time = step.now.nanos_since(self.since);
        if delivered == 0 || lost * GAIN_ONE < LOSS * delivered.min(1 << 40) || time < MS {
            return Verdict::None;
        }
        let rate = per_second(delivered, time);
        let before = self.rate.min(BW_MAX);
        let difference = rate.abs_diff(before);
        self.rate = rate;
        if before != 0 && (difference * RATIO <= before || difference <= DIFFERENCE) {
            (self.rate, self.rounds, self.phase) = ((rate + before) / 2, 0, 2);
            return Verdict::Policed;
        }
        self.begin(step);
        Verdict::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of 100 ms in each of which `delivered` bytes arrive and a quarter as many are lost, until there is a verdict.
    fn play(policer: &mut Policer, rates: impl IntoIterator<Item = u64>) -> Option<(usize, Verdict)> {
        let mut step = Step {
            now: Instant(1_000 * MS),
            delivered: 0,
            lost: true,
            round_start: true,
            app_limited: false,
            probing: true,
        };
        rates.into_iter().enumerate().find_map(|(round, rate)| {
            step.now = step.now.after(100 * MS);
            step.delivered += rate / 10;
            policer.on_lost((rate / 40) as u32);
            Some((round, policer.on_ack(&step))).filter(|(_, verdict)| *verdict != Verdict::None)
        })
    }

    #[test]
    fn a_steady_rate_with_much_loss_is_a_policer_for_a_while() {
        let mut policer = Policer::default();
        assert_eq!(play(&mut policer, [1_000_000; 20]), Some((8, Verdict::Policed)));
        assert_eq!(policer.rate(), Some(1_000_000));
        assert_eq!(play(&mut policer, [1_000_000; 100]), Some((47, Verdict::Over)));
        assert_eq!(policer.rate(), None);
    }

    #[test]
    fn a_rate_that_changes_is_none() {
        let growing = (0..30).map(|n| 1_000_000 + n * 200_000);
        assert_eq!(play(&mut Policer::default(), growing), None);
    }

    #[test]
    fn little_loss_is_none() {
        let mut policer = Policer::default();
        let mut step =
            Step { now: Instant(MS), delivered: 0, lost: true, round_start: true, app_limited: false, probing: true };
        for _ in 0..100 {
            step.now = step.now.after(100 * MS);
            step.delivered += 100_000;
            policer.on_lost(10_000);
            assert_eq!(policer.on_ack(&step), Verdict::None);
        }
    }
}
