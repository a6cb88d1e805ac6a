//! How does a connection end? (RFC 9293, sections 3.6 and 3.10.4)

use std::sync::atomic::{Ordering, compiler_fence};

use super::connection::Connection;
use super::image::flag;
use super::outcome::Outcome;
use super::tcb::{State, bit};
use super::time::Instant;
use super::timer::Timer;

/// 2 MSL as Linux has it (TCP_TIMEWAIT_LEN), ns.
pub(crate) const TIME_WAIT: u64 = 60_000_000_000;

impl Connection<'_> {
    /// Closes the sending side: FIN follows the bytes queued so far. A second call changes nothing.
    pub fn shutdown_write(&mut self, _now: Instant) {
        if self.tcb.fin_queued() {
            return;
        }
        self.tcb.push();
        self.tcb.clear(bit::MORE);
        if self.tcb.fin_received() {
            self.tcb.set(bit::PASSIVE);
        }
        compiler_fence(Ordering::Release);
        self.tcb.set(flag::FIN_QUEUED);
    }

    /// After a segment: has it ended the connection?
    pub(crate) fn settle(&mut self, now: Instant, out: &mut Outcome) {
        match self.tcb.state() {
            State::TimeWait if !self.tcb.timers.is_set(Timer::TimeWait) => {
                self.tcb.timers = Default::default();
                self.linger(now);
            }
            State::Closed => {
                self.tcb.timers = Default::default();
                out.closed = true;
            }
            _ => (),
        }
    }

    /// In TIME-WAIT, starts the wait anew.
    pub(crate) fn linger(&mut self, now: Instant) {
        if self.tcb.state() == State::TimeWait {
            self.tcb.timers.set(Timer::TimeWait, now.after(TIME_WAIT));
        }
    }

    /// Nobody will read what still comes: the peer has as long to close its side as TIME-WAIT lasts (Linux: tcp_fin_timeout).
    pub(crate) fn hurry_peer(&mut self, now: Instant) {
        if self.tcb.state() == State::FinWait2 && !self.tcb.timers.is_set(Timer::TimeWait) {
            self.tcb.timers.set(Timer::TimeWait, now.after(TIME_WAIT));
        }
    }

    /// TIME-WAIT is over.
    pub(crate) fn expire(&mut self, out: &mut Outcome) {
        self.tcb.set(bit::DONE);
        self.tcb.timers = Default::default();
        out.closed = true;
    }
}
