//! What may the program choose? (tcp(7), socket(7))

use super::cc::Algorithm;
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
        tcb.keep_count = u8::try_from(count).unwrap_or(u8::MAX);
        tcb.start_keepalive(now);
    }

    /// TCP_CONGESTION: as [`Tcb::choose_congestion`], in the midst of things. What another algorithm has left is of no use to this one.
    pub fn choose_congestion(&mut self, algorithm: Algorithm) {
        self.tcb.choose_congestion(algorithm);
        self.recovery.sent.forget_departures();
        if let Some(rare) = &mut self.recovery.rare {
            rare.saved = self.tcb.cc.unsaved();
        }
    }

    /// TCP_USER_TIMEOUT, ms; 0: none.
    pub fn set_user_timeout(&mut self, ms: u32) {
        self.tcb.user_timeout_ms = ms;
    }

    /// TCP_NOTSENT_LOWAT, bytes: the program is asked for more only when less waits to be sent; 0: whenever there is room.
    pub fn set_notsent_lowat(&mut self, bytes: u32) {
        self.tcb.notsent_lowat = bytes;
    }

    /// TCP_QUICKACK: whether acknowledgements go out at once. Switching it on sends one that is pending.
    pub fn set_quickack(&mut self, on: bool) {
        self.tcb.assign(bit::QUICKACK, on);
        if on && self.tcb.rcv_wup != self.tcb.rcv_nxt {
            self.tcb.set(bit::ACK_NOW);
        }
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
        let before = self.mss;
        self.mss = self.segment_in(self.pmtu.current().min(self.largest_packet()));
        // Smaller segments are no reason to send more at once: after a timeout the window is one of the old size.
        if self.mss > before {
            self.cc.rescale(self.mss);
        }
    }

    /// The largest packet that the peer's MSS option allows, bytes.
    pub(crate) fn largest_packet(&self) -> u32 {
        u32::from(self.mss_clamp).saturating_add(self.headers())
    }

    /// Bytes of data in a full packet of this size.
    pub(crate) fn segment_in(&self, packet: u32) -> u32 {
        packet.saturating_sub(self.headers() + self.timestamps_len()).max(MSS_MIN)
    }

    /// The size of a packet with so much data, bytes.
    pub(crate) fn packet_of(&self, data: u32) -> u32 {
        data.saturating_add(self.headers() + self.timestamps_len())
    }

    /// The MSS option of a peer that takes packets of this size at most.
    pub(crate) fn mss_clamp_of(&self, packet: u32) -> u32 {
        packet.saturating_sub(self.headers()).max(MSS_MIN)
    }

    fn timestamps_len(&self) -> u32 {
        if self.has(flag::TIMESTAMPS) { TIMESTAMPS } else { 0 }
    }
}
