//! Is the peer still there? (RFC 9293, section 3.8.4)

use super::image::flag;
use super::outcome::Outcome;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;

const MS: u64 = 1_000_000;

impl Tcb {
    /// Starts or stops the keepalive timer as the settings say.
    pub(crate) fn start_keepalive(&mut self, now: Instant) {
        if self.has(flag::KEEPALIVE) {
            self.timers.set(Timer::Keepalive, now.after((u64::from(self.keep_idle_ms) * MS).max(MS)));
        } else {
            self.timers.stop(Timer::Keepalive);
        }
    }

    /// The keepalive timer ran out: probe if the peer was silent all the time (RFC 9293, section 3.8.4).
    pub(crate) fn on_keepalive(&mut self, now: Instant, out: &mut Outcome) {
        let idle = u64::from(self.keep_idle_ms) * MS;
        // Data in flight or waiting for the window is watched by its own timer.
        if self.flight() != 0 || self.unsent() != 0 {
            return self.timers.set(Timer::Keepalive, now.after(idle.max(MS)));
        }
        if now.nanos_since(self.heard_at) < idle {
            return self.timers.set(Timer::Keepalive, self.heard_at.after(idle));
        }
        let limit = u64::from(self.user_timeout_ms) * MS;
        let by_time = limit != 0 && self.probes > 0 && now.nanos_since(self.heard_at) >= limit;
        let by_count = limit == 0 && self.probes >= self.keep_count.max(1);
        out.timed_out |= by_time || by_count;
        self.probes = self.probes.saturating_add(1);
        self.set(bit::KEEPALIVE_PROBE);
        self.timers.set(Timer::Keepalive, now.after((u64::from(self.keep_interval_ms) * MS).max(MS)));
    }
}
