//! What may the program choose? (tcp(7), socket(7))

use super::connection::Connection;
use super::image::flag;
use super::outcome::Outcome;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;

const MS: u64 = 1_000_000;
/// Headers of IPv4 and TCP without options, bytes.
const HEADERS: u32 = 40;
/// Bytes that timestamps take of every segment.
const TIMESTAMPS: u32 = 12;
/// Linux: TCP_MIN_SND_MSS. Smaller segments would be all header.
const MSS_MIN: u32 = 48;

impl Connection<'_> {
    /// SO_KEEPALIVE with TCP_KEEPIDLE and TCP_KEEPINTVL (ms) and TCP_KEEPCNT.
    pub fn set_keepalive(&mut self, now: Instant, on: bool, idle_ms: u32, interval_ms: u32, count: u32) {
        let tcb = &mut *self.tcb;
        tcb.assign(flag::KEEPALIVE, on);
        tcb.keep_idle_ms = idle_ms;
        tcb.keep_interval_ms = interval_ms;
        tcb.keep_count = count;
        tcb.start_keepalive(now);
    }

    /// TCP_USER_TIMEOUT, ms; 0: none.
    pub fn set_user_timeout(&mut self, ms: u32) {
        self.tcb.user_timeout_ms = ms;
    }

    /// TCP_QUICKACK: whether acknowledgements go out at once. Switching it on sends one that is pending.
    pub fn set_quickack(&mut self, on: bool) {
        self.tcb.assign(bit::QUICKACK, on);
        if on && self.tcb.rcv_wup != self.tcb.rcv_nxt {
            self.tcb.set(bit::ACK_NOW);
        }
    }

    /// The path's MTU is another now, bytes.
    pub fn set_mtu(&mut self, mtu: u32) {
        self.tcb.mtu = mtu;
        self.tcb.fit_segments();
    }
}

impl Tcb {
    /// Sizes segments so that they fit both the path and the peer's limit.
    pub(crate) fn fit_segments(&mut self) {
        let options = if self.has(flag::TIMESTAMPS) { TIMESTAMPS } else { 0 };
        let limit = self.mss_clamp.min(self.mtu.saturating_sub(HEADERS));
        self.mss = limit.saturating_sub(options).max(MSS_MIN);
        self.cc.rescale(self.mss);
    }

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
        if self.probes == 0 {
            self.unanswered_since = now;
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
