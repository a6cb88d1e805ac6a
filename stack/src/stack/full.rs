//! For how long has a TX ring been full?

use crate::tcp::Instant;

/// A ring that takes nothing for so long is not just busy, ns.
const STUCK: u64 = 10_000_000;
/// Looks that are further apart say nothing of the time between, ns.
const APART: u64 = 1_000_000;

/// When a ring was found full.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Full {
    since: Instant,
    last: Instant,
    /// What the card had taken then.
    taken: u32,
}

impl Full {
    /// The ring is full now, too, and `taken` counts what the card took. Has it taken nothing for so long that what is sent counts as lost? Then
    /// timers run, and a connection ends that would otherwise wait for ever.
    pub fn is_stuck(&mut self, now: Instant, taken: u32) -> bool {
        if !self.last.is_set() || now.nanos_since(self.last) > APART || taken != self.taken {
            self.since = now;
        }
        (self.last, self.taken) = (now, taken);
        now.nanos_since(self.since) > STUCK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_full_all_the_time_is_stuck() {
        let (mut full, ms) = (Full::default(), 1_000_000);
        assert!((100..=110).all(|at| !full.is_stuck(Instant(at * ms), 7)));
        assert!(full.is_stuck(Instant(111 * ms), 7));
        assert!(!full.is_stuck(Instant(113 * ms), 7), "it may have had room meanwhile");
    }

    #[test]
    fn what_goes_on_taking_is_busy() {
        let (mut full, ms) = (Full::default(), 1_000_000);
        assert!((100..200).all(|at| !full.is_stuck(Instant(at * ms), at as u32 / 5)));
        assert!((200..=210).all(|at| !full.is_stuck(Instant(at * ms), 40)));
        assert!(full.is_stuck(Instant(211 * ms), 40));
    }
}
