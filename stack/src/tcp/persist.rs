//! What if the peer's window stays closed? (RFC 9293, sections 3.8.6.1 and 3.8.6.2.1)

use super::connection::Connection;
use super::nagle::Partial;
use super::outcome::Outcome;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timeout::GIVE_UP;
use super::timer::Timer;

/// Linux: TCP_RTO_MAX, also the longest wait between window probes, ns.
const WAIT_MAX: u64 = 120_000_000_000;
/// Linux: what tcp_orphan_retries is where nobody has set it.
const ORPHAN_PROBES: u8 = 8;

impl Tcb {
    /// Is this much data worth a segment now (sender's side of the silly window syndrome, RFC 9293, section 3.8.6.2.1)?
    pub(crate) fn is_worth_sending(&mut self, now: Instant, len: u32, unsent: u32, full: u32) -> bool {
        if len == full {
            return true;
        }
        if len < unsent {
            return self.has(bit::OVERRIDE) || len >= self.max_window / 2;
        }
        match self.partial() {
            Partial::Send => true,
            Partial::Wait => false,
            Partial::Corked => {
                self.cork(now);
                false
            }
        }
    }

    /// Data waits. If it waits for the peer's window and nothing is in flight whose acknowledgement could open it, the
    /// peer has to be asked.
    pub(crate) fn wait_for_window(&mut self, now: Instant, window: u32, unsent: u32) {
        if window != 0 && self.flight() == 0 {
            self.unanswered_since = Instant::NEVER;
        }
        let is_short = window == 0 || window < unsent.min(self.mss);
        if is_short && self.flight() == 0 && !self.timers.is_set(Timer::Persist) {
            self.start_persist(now);
        }
    }

    fn start_persist(&mut self, now: Instant) {
        self.timers.set(Timer::Persist, self.timeout_after(now, self.persist_wait()));
    }

    fn persist_wait(&self) -> u64 {
        (self.rtt.rto_base() << self.persist_backoff.min(16)).min(WAIT_MAX)
    }

    /// The persist timer ran out: send what little the window allows, or ask.
    pub(crate) fn on_persist(&mut self, now: Instant, out: &mut Outcome) {
        let waits = self.snd_nxt.lt(self.snd_end) || (self.fin_queued() && !self.fin_sent());
        if self.flight() != 0 || !waits {
            return;
        }
        if self.snd_wnd != 0 {
            self.set(bit::OVERRIDE);
            return;
        }
        // Answers that leave the window closed do not stop the user timeout (Linux: icsk_probes_tstamp).
        if !self.unanswered_since.is_set() {
            self.unanswered_since = now;
        }
        out.timed_out |= u32::from(self.probes) >= GIVE_UP || self.user_deadline().is_some_and(|limit| limit <= now);
        self.set(bit::WINDOW_PROBE);
        self.probes = self.probes.saturating_add(1);
        self.persist_backoff = self.persist_backoff.saturating_add(1);
        self.start_persist(now);
    }
}

impl Connection<'_> {
    /// Has the peer's window been closed for so many probes, or retransmissions of what was sent before it shrank, that nobody should wait for
    /// it whose program is gone (Linux: tcp_orphan_retries)?
    pub(crate) fn is_shut_out(&self) -> bool {
        let shrunk = self.tcb.snd_wnd == 0 && self.recovery.loss.timeouts > ORPHAN_PROBES;
        shrunk || self.tcb.persist_backoff > ORPHAN_PROBES
    }
}
