//! When to look at the connection again.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::time::Instant;

/// What the engine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Unacknowledged data: retransmit (RFC 6298).
    Retransmit,
    /// Unacknowledged data at the end of a flight: probe (RFC 8985, section 7).
    LossProbe,
    /// Data that something sent later has overtaken: lost (RFC 8985, section 6.3).
    Reorder,
    /// Data and no window: probe (RFC 9293, section 3.8.6.1).
    Persist,
    /// Received data: acknowledge.
    DelayedAck,
    /// Data held back by TCP_CORK or MSG_MORE: send.
    Cork,
    /// Silence: probe.
    Keepalive,
    /// Data that pacing holds back: send.
    Pace,
    /// 2 MSL after the close (RFC 9293, section 3.6.1).
    TimeWait,
}

impl Timer {
    pub const ALL: [Self; 9] = [
        Self::Retransmit,
        Self::LossProbe,
        Self::Reorder,
        Self::Persist,
        Self::DelayedAck,
        Self::Cork,
        Self::Keepalive,
        Self::Pace,
        Self::TimeWait,
    ];
}

/// A deadline for each [`Timer`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Timers {
    at: [Instant; Timer::ALL.len()],
    /// No deadline is earlier; never: none is set. Stopping a timer does not move it: see [`Timers::settle`].
    bound: Instant,
}

/// For comparing points in time where "never" is later than all others.
fn rank(at: Instant) -> u64 {
    at.0.wrapping_sub(1)
}

impl Timers {
    /// Sets or moves a deadline.
    pub fn set(&mut self, timer: Timer, at: Instant) {
        self.at[timer as usize] = at;
        if rank(at) < rank(self.bound) {
            self.bound = at;
        }
    }

    /// Sets two, of which the first is the earlier one.
    #[inline(always)]
    pub fn set_both(&mut self, earlier: (Timer, Instant), later: (Timer, Instant)) {
        self.at[later.0 as usize] = later.1;
        self.set(earlier.0, earlier.1);
    }

    /// Forgets a deadline.
    pub fn stop(&mut self, timer: Timer) {
        self.at[timer as usize] = Instant::NEVER;
    }

    /// A deadline, if set.
    pub fn get(&self, timer: Timer) -> Option<Instant> {
        Some(self.at[timer as usize]).filter(|at| at.is_set())
    }

    /// Is a deadline set?
    pub fn is_set(&self, timer: Timer) -> bool {
        self.at[timer as usize].is_set()
    }

    /// Is a deadline set that is later than `at`?
    #[inline]
    pub fn is_set_after(&self, timer: Timer, at: Instant) -> bool {
        // Never is before all others.
        self.at[timer as usize] > at
    }

    /// The earliest deadline.
    pub fn earliest(&self) -> Option<Instant> {
        self.at.iter().copied().min_by_key(|&at| rank(at)).filter(|at| at.is_set())
    }

    /// A point in time before which no deadline lies; one look, where [`Timers::earliest`] looks at all.
    pub fn bound(&self) -> Option<Instant> {
        Some(self.bound).filter(|at| at.is_set())
    }

    /// Moves the bound up to the earliest deadline.
    pub fn settle(&mut self) {
        self.bound = self.earliest().unwrap_or(Instant::NEVER);
    }

    /// Takes one deadline that has passed.
    pub fn take_expired(&mut self, now: Instant) -> Option<Timer> {
        let timer = Timer::ALL.into_iter().find(|&timer| self.get(timer).is_some_and(|at| at <= now))?;
        self.stop(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_counts_and_each_is_taken_once() {
        let mut timers = Timers::default();
        assert_eq!(timers.earliest(), None);
        timers.set(Timer::Keepalive, Instant(30));
        timers.set(Timer::Retransmit, Instant(20));
        assert_eq!(timers.earliest(), Some(Instant(20)));
        assert_eq!(timers.take_expired(Instant(19)), None);
        assert_eq!(timers.bound(), Some(Instant(20)));
        assert_eq!(timers.take_expired(Instant(40)), Some(Timer::Retransmit));
        assert_eq!(timers.bound(), Some(Instant(20)), "a bound, not the deadline");
        timers.settle();
        assert_eq!(timers.bound(), Some(Instant(30)));
        assert_eq!(timers.take_expired(Instant(40)), Some(Timer::Keepalive));
        timers.settle();
        assert_eq!(timers.bound(), None);
        assert_eq!(timers.take_expired(Instant(40)), None);
    }

    #[test]
    fn each_timer_has_its_own_place() {
        for (place, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!(timer as usize, place);
        }
    }
}
