//! For how long has there been no room in a TX ring, or no frame to send in?

use crate::tcp::Instant;

/// What takes nothing for so long is not just busy, ns.
const LASTING: u64 = 10_000_000;
/// Looks that are further apart say nothing of the time between, ns.
const APART: u64 = 1_000_000;

/// When a want was found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stall {
    since: Instant,
    last: Instant,
    /// What the card had taken, or given back, then.
    moved: u32,
}

impl Stall {
    /// It is wanting now, too, and `moved` counts what the card took or gave back. Has it done nothing for so long that what is sent counts as
    /// lost? Then timers run, and a connection ends that would otherwise wait for ever.
    pub fn is_lasting(&mut self, now: Instant, moved: u32) -> bool {
        if !self.last.is_set() || now.nanos_since(self.last) > APART || moved != self.moved {
            self.since = now;
        }
        (self.last, self.moved) = (now, moved);
        now.nanos_since(self.since) > LASTING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_wanting_all_the_time_lasts() {
        let (mut stall, ms) = (Stall::default(), 1_000_000);
        assert!((100..=110).all(|at| !stall.is_lasting(Instant(at * ms), 7)));
        assert!(stall.is_lasting(Instant(111 * ms), 7));
        assert!(!stall.is_lasting(Instant(113 * ms), 7), "there may have been room meanwhile");
    }

    #[test]
    fn what_goes_on_moving_is_busy() {
        let (mut stall, ms) = (Stall::default(), 1_000_000);
        assert!((100..200).all(|at| !stall.is_lasting(Instant(at * ms), at as u32 / 5)));
        assert!((200..=210).all(|at| !stall.is_lasting(Instant(at * ms), 40)));
        assert!(stall.is_lasting(Instant(211 * ms), 40));
    }
}
