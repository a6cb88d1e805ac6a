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
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Timers([Instant; Timer::ALL.len()]);

impl Timers {
    /// Sets or moves a deadline.
    pub fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = at;
    }

    /// Forgets a deadline.
    pub fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = Instant::NEVER;
    }

    /// A deadline, if set.
    pub fn get(&self, timer: Timer) -> Option<Instant> {
        Some(self.0[timer as usize]).filter(|at| at.is_set())
    }

    /// Is a deadline set?
    pub fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_set()
    }

    /// The earliest deadline.
    pub fn earliest(&self) -> Option<Instant> {
        let at = self.0.iter().map(|at| at.0.wrapping_sub(1)).min()?;
        Some(Instant(at.wrapping_add(1))).filter(|at| at.is_set())
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
        assert_eq!(timers.take_expired(Instant(40)), Some(Timer::Retransmit));
        assert_eq!(timers.take_expired(Instant(40)), Some(Timer::Keepalive));
        assert_eq!(timers.take_expired(Instant(40)), None);
    }

    #[test]
    fn each_timer_has_its_own_place() {
        for (place, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!(timer as usize, place);
        }
    }
}
