//! How much more than expected is acknowledged at once? Where acknowledgements come in bunches (wireless links, offloads), so much more
//! has to be in flight for the path not to run empty in between (Linux: bbr_update_ack_aggregation).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tcp::time::Instant;

/// After so many rounds the older of two maxima is forgotten.
const WINDOW_ROUNDS: u32 = 5;
/// An epoch with more bytes than this is too old.
const EPOCH_MAX: u32 = 1 << 30;
/// Not more than the path carries in this time, ns, is made up for.
const TIME_MAX: u64 = 100_000_000;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(super) struct Aggregation {
    /// Since when acknowledgements come faster than expected, and how many bytes since.
    epoch: Instant,
    acked: u32,
    /// The most beyond what was expected, bytes, in this window of rounds and the one before.
    extra: [u32; 2],
    rounds: u32,
}

impl Aggregation {
    /// An acknowledgement of `acked` bytes; `expected` bytes arrive in so many ns.
    pub fn on_ack(&mut self, now: Instant, acked: u32, round_start: bool, cwnd: u32, expected: impl Fn(u64) -> u64) {
        if round_start {
            self.rounds = self.rounds.saturating_add(1);
            if self.rounds >= WINDOW_ROUNDS {
                self.rounds = 0;
                self.extra = [0, self.extra[0]];
            }
        }
        let mut due = expected(now.nanos_since(self.epoch));
        if u64::from(self.acked) <= due || self.acked.saturating_add(acked) >= EPOCH_MAX {
            (self.acked, self.epoch, due) = (0, now, 0);
        }
        self.acked = self.acked.saturating_add(acked).min(EPOCH_MAX);
        let extra = u64::from(self.acked).saturating_sub(due).min(cwnd.into()) as u32;
        self.extra[0] = self.extra[0].max(extra);
    }

    /// The program was silent: a new epoch.
    pub fn restart(&mut self, now: Instant) {
        (self.epoch, self.acked) = (now, 0);
    }

    /// Bytes to have in flight beyond the rest.
    pub fn extra(&self, expected: impl Fn(u64) -> u64) -> u64 {
        u64::from(self.extra[0].max(self.extra[1])).min(expected(TIME_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn bunches_are_made_up_for_and_forgotten() {
        // 1 MB/s: 1000 bytes a millisecond. In bunches of ten.
        let expected = |nanos: u64| nanos / 1_000;
        let mut aggregation = Aggregation::default();
        let mut now = Instant(1_000 * MS);
        for round in 0..10 {
            now = now.after(10 * MS);
            for _ in 0..10 {
                aggregation.on_ack(now, 1_000, false, 1_000_000, expected);
            }
            aggregation.on_ack(now, 0, round % 2 == 0, 1_000_000, expected);
        }
        let extra = aggregation.extra(expected);
        assert!((9_000..=20_000).contains(&extra), "{extra}");
        for _ in 0..3 * WINDOW_ROUNDS {
            now = now.after(5 * MS);
            aggregation.on_ack(now, 1_000, true, 1_000_000, expected);
        }
        assert!(aggregation.extra(expected) <= 1_000, "{aggregation:?}");
    }

    #[test]
    fn it_is_bounded_by_the_window_and_a_tenth_of_a_second() {
        let mut aggregation = Aggregation::default();
        aggregation.on_ack(Instant(MS), 500_000, false, 100_000, |_| 0);
        assert_eq!(aggregation.extra(|_| u64::MAX), 100_000);
        assert_eq!(aggregation.extra(|nanos| nanos / 10_000), 10_000);
    }
}
