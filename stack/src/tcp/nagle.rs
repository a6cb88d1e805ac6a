//! May a segment that is less than full go out? (RFC 9293, sections 3.7.4 and 3.8.6.2.1)

use super::connection::Connection;
use super::image::flag;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;

/// Data held back by TCP_CORK goes out after this long, ns (tcp(7)).
const CORK_MAX: u64 = 200_000_000;

/// What to do with the bytes at the end of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Partial {
    /// Send them.
    Send,
    /// Wait for an acknowledgement or more data.
    Wait,
    /// Wait for more data, at most until the cork's time is up.
    Corked,
}

impl Tcb {
    /// The rest of the queue makes less than a full segment.
    pub(crate) fn partial(&self) -> Partial {
        if self.fin_queued() || self.has(bit::OVERRIDE) || self.snd_end.le(self.push_end) {
            return Partial::Send;
        }
        if self.has(flag::CORK | bit::MORE) {
            return Partial::Corked;
        }
        if self.is_partial_free() { Partial::Send } else { Partial::Wait }
    }

    /// May they be sent, where there is no FIN, no cork and no [`bit::OVERRIDE`]?
    #[inline(always)]
    pub(crate) fn is_partial_free(&self) -> bool {
        // Minshall: only another partial segment in flight holds this one back, so that a last full segment does not.
        let small_in_flight = self.snd_sml.gt(self.snd_una);
        self.has(flag::NODELAY) || !small_in_flight || self.snd_end.le(self.push_end)
    }

    /// Starts the clock of data that is held back.
    pub(crate) fn cork(&mut self, now: Instant) {
        if !self.timers.is_set(Timer::Cork) {
            self.timers.set(Timer::Cork, now.after(CORK_MAX));
        }
    }

    /// Sends what is queued now without waiting for more.
    pub(crate) fn push(&mut self) {
        self.push_end = self.snd_end;
        self.timers.stop(Timer::Cork);
    }
}

impl Connection<'_> {
    /// TCP_NODELAY. Switching it on sends what waits, as in Linux.
    pub fn set_nodelay(&mut self, on: bool) {
        self.tcb.assign(flag::NODELAY, on);
        if on {
            self.tcb.push();
        }
    }

    /// TCP_CORK. Taking the cork out sends what waits.
    pub fn set_cork(&mut self, on: bool) {
        let was = self.tcb.has(flag::CORK);
        self.tcb.assign(flag::CORK, on);
        if was && !on {
            self.tcb.push();
        }
    }
}
