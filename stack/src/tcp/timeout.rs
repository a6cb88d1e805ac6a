//! What if no answer comes?

use super::connection::Connection;
use super::outcome::Outcome;
use super::rtt::Rtt;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;
use super::undo::Frto;
use crate::stats::Counter;

const MS: u64 = 1_000_000;
/// Retransmission timeouts, or unanswered window probes, in a row after which the kernel shall go on.
pub(super) const GIVE_UP: u32 = 5;

impl Connection<'_> {
    /// Carries out what [`Tcb::deadline`] announced; harmless at any other time. What it decides to send comes out of
    /// [`Connection::poll_transmit`].
    pub fn on_timer(&mut self, now: Instant) -> Outcome {
        let mut out = Outcome::default();
        while let Some(timer) = self.tcb.timers.take_expired(now) {
            match timer {
                Timer::Retransmit => self.on_timeout(now, &mut out),
                Timer::Reorder => self.on_reorder(now, &mut out),
                Timer::LossProbe => self.tcb.set(bit::LOSS_PROBE),
                Timer::Persist => self.tcb.on_persist(now, &mut out),
                Timer::DelayedAck => self.tcb.ack_late(),
                Timer::Cork => self.tcb.push(),
                Timer::Keepalive => self.tcb.on_keepalive(now, &mut out),
                // What it waited for, `poll_transmit` finds.
                Timer::Pace => (),
                Timer::TimeWait => self.expire(&mut out),
            }
        }
        out
    }
}

/// Nothing was heard of a peer that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// For how long, ns.
    pub nanos: u64,
    /// Nothing waits to be sent or acknowledged: keepalive probes asked.
    pub idle: bool,
}

impl Tcb {
    /// Is the peer silent?
    pub fn silence(&self, now: Instant) -> Option<Silence> {
        let idle = self.flight() == 0 && self.unsent() == 0;
        let asked = self.unanswered_since.is_set() || self.probes != 0;
        let since = if idle || !self.unanswered_since.is_set() { self.heard_at } else { self.unanswered_since };
        asked.then(|| Silence { nanos: now.nanos_since(since), idle })
    }

    /// When the retransmission timer, started now, runs out: the user timeout may cut it short.
    #[inline]
    pub(crate) fn timeout_at(&self, now: Instant) -> Instant {
        self.timeout_after(now, self.rtt.rto())
    }

    /// Something is in flight: the retransmission timer runs.
    #[inline(always)]
    pub(super) fn watch_timeout(&mut self, now: Instant) {
        if !self.timers.is_set(Timer::Retransmit) {
            self.timers.set(Timer::Retransmit, self.timeout_at(now));
        }
    }

    /// When a timer of `rto` ns, started now, runs out: not beyond the user timeout, which would be reported late.
    #[inline]
    pub(super) fn timeout_after(&self, now: Instant, rto: u64) -> Instant {
        let at = now.after(rto);
        match self.user_deadline() {
            Some(limit) if limit > now => at.min(limit),
            _ => at,
        }
    }

    /// As [`Connection::rearm`] where nothing is lost, no probe is out, and the peer does SACK. After something new was acknowledged, no user timeout
    /// is running.
    #[inline(always)]
    pub(super) fn rearm_calmly(&mut self, now: Instant, rto: u64) {
        self.unanswered_since = Instant::NEVER;
        if self.flight() == 0 {
            self.timers.stop(Timer::LossProbe);
            self.timers.stop(Timer::Retransmit);
            self.timers.stop(Timer::Reorder);
        } else {
            let timeout = now.after(rto);
            match self.rtt.smoothed().map(|srtt| self.tail_probe_at(now, srtt)) {
                Some(probe) if probe < timeout => {
                    self.timers.set_both((Timer::LossProbe, probe), (Timer::Retransmit, timeout))
                }
                _ => {
                    self.timers.stop(Timer::LossProbe);
                    self.timers.set(Timer::Retransmit, timeout);
                }
            }
        }
    }

    /// The retransmission timer runs out now: since when is nothing answered?
    fn silent_since(&self, now: Instant) -> Instant {
        Instant(now.0.saturating_sub(self.rtt.rto()).max(1))
    }

    /// The peer's window is closed, and it says so. The user timeout runs on: nothing is acknowledged (Linux: tcp_rtx_probe0_timed_out).
    pub(super) fn answered_by_window(&mut self) {
        if self.user_timeout_ms == 0 {
            self.unanswered_since = Instant::NEVER;
        }
    }

    /// When the user timeout of what is unanswered ends (TCP_USER_TIMEOUT, RFC 5482).
    pub(super) fn user_deadline(&self) -> Option<Instant> {
        let counts = self.user_timeout_ms != 0 && self.unanswered_since.is_set();
        counts.then(|| self.unanswered_since.after(u64::from(self.user_timeout_ms) * MS))
    }
}

impl Connection<'_> {
    /// When the retransmission timer, started now, runs out.
    pub(crate) fn timeout_at(&self, now: Instant) -> Instant {
        self.tcb.timeout_at(now)
    }

    /// Something is in flight: sees to its timers.
    #[inline(always)]
    pub(crate) fn watch_flight(&mut self, now: Instant) {
        self.tcb.watch_timeout(now);
        self.plan_tail_probe(now);
    }

    /// The peer acknowledged something new: the timers of what is still in flight start anew (RFC 6298, 5.2 and 5.3);
    /// `rto` is the retransmission timeout, ns.
    #[inline]
    pub(crate) fn rearm(&mut self, now: Instant, rto: u64) {
        let tcb = &mut *self.tcb;
        tcb.unanswered_since = Instant::NEVER;
        tcb.timers.stop(Timer::LossProbe);
        if tcb.flight() == 0 {
            tcb.timers.stop(Timer::Retransmit);
            tcb.timers.stop(Timer::Reorder);
        } else {
            tcb.timers.set(Timer::Retransmit, tcb.timeout_after(now, rto));
            self.plan_tail_probe(now);
        }
    }

    /// Will something else do about what is unanswered: the reordering timer or a tail loss probe, which replace this timer while they run (RFC
    /// 8985, section 8), or a fast retransmission that has not gone out yet? Who comes late finds them due together.
    fn has_gentler_remedy(&self) -> bool {
        let (tcb, recovery) = (&*self.tcb, &*self.recovery);
        let is_planned = tcb.timers.is_set(Timer::Reorder) || tcb.timers.is_set(Timer::LossProbe);
        let is_urgent = recovery.loss.urgent && recovery.sent.lost() != 0 && recovery.frto != Frto::New;
        is_planned || tcb.has(bit::LOSS_PROBE) || is_urgent
    }

    /// The retransmission timer ran out (RFC 6298, 5.4 to 5.7).
    fn on_timeout(&mut self, now: Instant, out: &mut Outcome) {
        if self.tcb.flight() == 0 {
            return;
        }
        if !self.tcb.unanswered_since.is_set() && self.has_gentler_remedy() {
            // Once: what has not gone out by then, will not. The user timeout runs from here all the same.
            self.tcb.unanswered_since = self.tcb.silent_since(now);
            return self.tcb.timers.set(Timer::Retransmit, self.timeout_at(now));
        }
        let tcb = &mut *self.tcb;
        if !tcb.unanswered_since.is_set() {
            tcb.unanswered_since = tcb.silent_since(now);
        }
        let before = self.recovery.rate.lost();
        let first = self.recovery.loss.timeouts == 0;
        self.recovery.seldom().time_out(now, first);
        self.recovery.begin_loss(tcb, now);
        // A small last segment gets through any hole; one as large as those that are missing does not.
        let one_arrived = self.recovery.sent.records().any(|record| record.sacked && record.len() >= tcb.mss);
        let silent = if one_arrived { 0 } else { self.recovery.loss.silent };
        tcb.suspect_black_hole(silent.into(), out);
        tcb.rtt.back_off();
        tcb.clear(bit::LOSS_PROBE);
        tcb.timers.stop(Timer::LossProbe);
        tcb.timers.stop(Timer::Reorder);
        out.count(Counter::Timeouts);
        let gave_up = u32::from(self.recovery.loss.silent) >= GIVE_UP;
        out.timed_out |= gave_up || tcb.user_deadline().is_some_and(|limit| limit <= now);
        tcb.timers.set(Timer::Retransmit, tcb.timeout_at(now));
        self.report_loss(now, before);
    }
}

impl Tcb {
    /// Time in which nothing was sent is no time in which the window could have grown; and after a long silence, the window
    /// that was found before says little (RFC 5681, section 4.1).
    pub(crate) fn restart_after_idle(&mut self, now: Instant, app_limited: bool) {
        if self.flight() == 0 {
            self.restart(now, app_limited);
        }
    }

    /// The same where nothing is in flight.
    #[inline(always)]
    pub(crate) fn restart(&mut self, now: Instant, app_limited: bool) {
        // What a closed window left unanswered is over.
        self.unanswered_since = Instant::NEVER;
        self.cc.on_restart(now, app_limited);
        if self.cc.goes_by_rate() {
            self.take_pacing_rate();
        }
        let silent = now.nanos_since(self.data_sent_at);
        if silent >= Rtt::RTO_MIN {
            self.stay_idle(silent);
        }
    }

    #[inline(never)]
    fn stay_idle(&mut self, silent: u64) {
        let rto = self.rtt.rto().max(1);
        if silent >= rto {
            self.cc.on_idle(silent / rto, self.mss);
        }
    }
}
