//! What may the program choose? (tcp(7), socket(7))

use super::connection::Connection;
use super::image::flag;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use crate::wire::{ipv4, ipv6, tcp};

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
    /// Bytes of IP and TCP headers without options.
    pub(crate) fn headers(&self) -> u32 {
        let ip = if self.has(bit::IPV6) { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
        (ip + tcp::HEADER_LEN) as u32
    }

    /// Whatever is said of the path, it carries this much: every IPv6 link does (RFC 8201, section 4).
    pub(crate) fn least_mtu(&self) -> u32 {
        if self.has(bit::IPV6) { ipv6::MTU_MIN } else { 0 }
    }

    /// Sizes segments so that they fit both the path and the peer's limit.
    pub(crate) fn fit_segments(&mut self) {
        let options = if self.has(flag::TIMESTAMPS) { TIMESTAMPS } else { 0 };
        let limit = self.mss_clamp.min(self.mtu.max(self.least_mtu()).saturating_sub(self.headers()));
        self.mss = limit.saturating_sub(options).max(MSS_MIN);
        self.cc.rescale(self.mss);
    }
}
