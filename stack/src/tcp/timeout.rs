//! What if no answer comes?

use super::connection::Connection;
use super::image::flag;
use super::loss::Phase;
use super::outcome::Outcome;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;
use crate::stats::Counter;

const MS: u64 = 1_000_000;
/// Retransmission timeouts, or unanswered window probes, in a row after which the kernel shall go on.
pub(super) const GIVE_UP: u32 = 5;
/// Added to the probe timeout: for the peer's processing; and for its delayed acknowledgement if one segment is out.
const PROBE_SLACK: u64 = 2 * MS;
const PROBE_SLACK_SINGLE: u64 = 45 * MS;

impl Connection<'_> {
    /// Carries out what [`Tcb::deadline`] announced; harmless at any other time. What it decides to send comes out of
    /// [`Connection::poll_transmit`].
    pub fn on_timer(&mut self, now: Instant) -> Outcome {
        let mut out = Outcome::default();
        while let Some(timer) = self.tcb.timers.take_expired(now) {
            match timer {
                Timer::Retransmit => self.tcb.on_timeout(now, &mut out),
                Timer::LossProbe => self.tcb.set(bit::LOSS_PROBE),
                Timer::Persist => self.tcb.on_persist(now, &mut out),
                Timer::DelayedAck => self.tcb.ack_late(),
                Timer::Cork => self.tcb.push(),
                Timer::Keepalive => self.tcb.on_keepalive(now, &mut out),
                Timer::TimeWait => self.expire(&mut out),
            }
        }
        out
    }
}

impl Tcb {
    /// When the retransmission timer, started now, runs out: the user timeout may cut it short.
    pub(crate) fn timeout_at(&self, now: Instant) -> Instant {
        let at = now.after(self.rtt.rto());
        self.user_deadline().filter(|limit| *limit > now).map_or(at, |limit| at.min(limit))
    }

    /// When the user timeout of what is unanswered ends (TCP_USER_TIMEOUT, RFC 5482).
    pub(super) fn user_deadline(&self) -> Option<Instant> {
        let counts = self.user_timeout_ms != 0 && self.unanswered_since.is_set();
        counts.then(|| self.unanswered_since.after(u64::from(self.user_timeout_ms) * MS))
    }

    /// Something is in flight: sees to its timers.
    pub(crate) fn watch_flight(&mut self, now: Instant) {
        if !self.timers.is_set(Timer::Retransmit) {
            self.timers.set(Timer::Retransmit, self.timeout_at(now));
        }
        self.plan_loss_probe(now);
    }

    /// The peer acknowledged something new: the timers of what is still in flight start anew (RFC 6298, 5.2 and 5.3).
    pub(crate) fn rearm(&mut self, now: Instant) {
        self.unanswered_since = Instant::NEVER;
        self.timers.stop(Timer::LossProbe);
        if self.flight() == 0 {
            self.timers.stop(Timer::Retransmit);
        } else {
            self.timers.set(Timer::Retransmit, self.timeout_at(now));
            self.plan_loss_probe(now);
        }
    }

    /// Plans a tail loss probe, which finds a lost end of a flight long before a timeout does (RFC 8985, section 7.2).
    fn plan_loss_probe(&mut self, now: Instant) {
        let suits = self.has(flag::SACK) && !self.has(bit::PROBED) && !self.loss.has_sacked();
        let Some(srtt) = self.rtt.smoothed().filter(|_| suits && self.loss.phase() == Phase::Open) else { return };
        let slack = if self.flight() <= self.mss { PROBE_SLACK_SINGLE } else { PROBE_SLACK };
        let at = now.after(2 * srtt + slack);
        if self.timers.get(Timer::Retransmit).is_some_and(|timeout| at < timeout) {
            self.timers.set(Timer::LossProbe, at);
        }
    }

    /// The retransmission timer ran out (RFC 6298, 5.4 to 5.7).
    fn on_timeout(&mut self, now: Instant, out: &mut Outcome) {
        if self.flight() == 0 {
            return;
        }
        if !self.unanswered_since.is_set() {
            self.unanswered_since = Instant(now.0.saturating_sub(self.rtt.rto()).max(1));
        }
        let first = self.loss.timeouts() == 0;
        self.cc.on_timeout(self.pipe(), self.mss, first);
        self.loss.timeout(self.flight_view());
        self.suspect_black_hole(out);
        self.rtt.cancel();
        self.rtt.back_off();
        self.clear(bit::PROBED | bit::LOSS_PROBE);
        self.timers.stop(Timer::LossProbe);
        out.count(Counter::Timeouts);
        out.timed_out |= self.loss.timeouts() >= GIVE_UP || self.user_deadline().is_some_and(|limit| limit <= now);
        self.timers.set(Timer::Retransmit, self.timeout_at(now));
    }

    /// Time in which nothing was sent is no time in which the window could have grown; and after a long silence, the window
    /// that was found before says little (RFC 5681, section 4.1).
    pub(crate) fn restart_after_idle(&mut self, now: Instant) {
        if self.flight() != 0 {
            return;
        }
        self.cc.on_restart(now);
        if now.nanos_since(self.data_sent_at) > self.rtt.rto() {
            self.cc.on_idle(self.mss);
        }
    }
}
