//! The state of one connection while it crosses between tiers.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ip::flow::FlowKey;

/// Largest window that a peer can offer (RFC 7323, section 2.3), bytes.
pub(crate) const WINDOW_MAX: u32 = (u16::MAX as u32) << 14;

/// Bits of [`Image::flags`].
pub mod flag {
    /// Window scaling was negotiated (RFC 7323).
    pub const WSCALE: u32 = 1;
    /// SACK was negotiated (RFC 2018).
    pub const SACK: u32 = 1 << 1;
    /// Timestamps were negotiated (RFC 7323).
    pub const TIMESTAMPS: u32 = 1 << 2;
    /// `ts_recent` is known.
    pub const TS_RECENT: u32 = 1 << 3;
    /// We have sent FIN (its sequence number is `snd_end`, and `snd_nxt` is one past it).
    pub const FIN_SENT: u32 = 1 << 4;
    /// The program closed its sending side, FIN has still to be sent after `snd_end`.
    pub const FIN_QUEUED: u32 = 1 << 5;
    /// Our FIN was acknowledged (`snd_una` is one past `snd_end`).
    pub const FIN_ACKED: u32 = 1 << 6;
    /// The peer's FIN was received in order (`rcv_nxt` is one past it).
    pub const FIN_RECEIVED: u32 = 1 << 7;
    /// TCP_NODELAY.
    pub const NODELAY: u32 = 1 << 8;
    /// TCP_CORK.
    pub const CORK: u32 = 1 << 9;
    /// SO_KEEPALIVE.
    pub const KEEPALIVE: u32 = 1 << 10;
    /// The peer's valid RST ended the connection (its sequence number is `rcv_nxt`).
    pub const RESET_RECEIVED: u32 = 1 << 11;
    /// ECN was negotiated (RFC 3168).
    pub const ECN: u32 = 1 << 12;
}

/// A connection's numbers, in units of the sequence space (bytes) unless said otherwise. The unread bytes
/// `[rcv_read, rcv_nxt)` and the unacknowledged or unsent bytes `[snd_una, snd_end)` travel beside it.
///
/// Names are those of RFC 9293 and of `struct tcp_repair_window`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Image {
    /// The connection's addresses.
    pub flow: FlowKey,
    /// Oldest unacknowledged sequence number.
    pub snd_una: u32,
    /// Next sequence number to send.
    pub snd_nxt: u32,
    /// One past the last byte queued by the program (FIN not counted).
    pub snd_end: u32,
    /// Next sequence number expected from the peer.
    pub rcv_nxt: u32,
    /// First byte that the program has not read.
    pub rcv_read: u32,
    /// Segment sequence number of the last window update (SND.WL1).
    pub snd_wl1: u32,
    /// The peer's window, scaled, bytes.
    pub snd_wnd: u32,
    /// The largest window that the peer ever offered, bytes.
    pub max_window: u32,
    /// The window that we last advertised, bytes, counted from `rcv_wup`.
    pub rcv_wnd: u32,
    /// `rcv_nxt` at our last advertisement.
    pub rcv_wup: u32,
    /// The peer's MSS option (bytes of TCP payload without options).
    pub mss_clamp: u16,
    /// Shift of the windows that the peer sends.
    pub snd_wscale: u8,
    /// Shift of the windows that we send.
    pub rcv_wscale: u8,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Our timestamp clock (TSval, milliseconds) at the moment of the image.
    pub ts_val: u32,
    /// The peer's newest TSval (RFC 7323 TS.Recent), if `TS_RECENT`.
    pub ts_recent: u32,
    /// Smoothed round-trip time, µs; 0 when unknown.
    pub srtt_us: u32,
    /// Round-trip variation, µs.
    pub rttvar_us: u32,
    /// Congestion window, segments.
    pub cwnd: u32,
    /// Slow-start threshold, segments; `u32::MAX` when not set.
    pub ssthresh: u32,
    /// TCP_KEEPIDLE, ms.
    pub keep_idle_ms: u32,
    /// TCP_KEEPINTVL, ms.
    pub keep_interval_ms: u32,
    /// TCP_KEEPCNT.
    pub keep_count: u16,
    /// Doublings of the retransmission timeout (RFC 6298, section 5.5) that no acknowledgement has undone yet.
    pub backoff: u8,
    /// Always zero.
    pub pad: u8,
    /// TCP_USER_TIMEOUT, ms; 0 for none.
    pub user_timeout_ms: u32,
    /// Receive buffer wanted (SO_RCVBUF as the kernel counts it), bytes.
    pub rcvbuf: u32,
    /// Send buffer wanted (SO_SNDBUF as the kernel counts it), bytes.
    pub sndbuf: u32,
}

impl Image {
    /// Bytes received in order that the program has not read (the peer's FIN is not a byte).
    pub fn unread(&self) -> u32 {
        let fin = u32::from(self.flags & flag::FIN_RECEIVED != 0);
        self.rcv_nxt.wrapping_sub(fin).wrapping_sub(self.rcv_read)
    }

    /// Bytes queued that the peer has not acknowledged (our FIN is not a byte).
    pub fn unacknowledged(&self) -> u32 {
        let fin = u32::from(self.flags & flag::FIN_ACKED != 0);
        self.snd_end.wrapping_sub(self.snd_una.wrapping_sub(fin))
    }

    /// The image of a connection whose timestamp clock (RFC 7323) has gone on for so many nanoseconds, and a little.
    pub fn after(self, nanos: u64) -> Self {
        let millis = (nanos / 1_000_000) as u32 + 1;
        Self { ts_val: self.ts_val.wrapping_add(millis), ..self }
    }

    /// Is the image consistent with itself and with rings of these sizes? Everything read from an arena passes here first.
    pub fn is_sound(&self, rcv_ring: u32, snd_ring: u32) -> bool {
        let fin = u32::from(self.flags & (flag::FIN_SENT | flag::FIN_ACKED) != 0);
        let sent = self.snd_nxt.wrapping_sub(self.snd_una);
        self.unread() <= rcv_ring
            && self.unacknowledged() <= snd_ring
            && sent <= self.unacknowledged() + fin
            && self.snd_wscale <= 14
            && self.rcv_wscale <= 14
            && self.mss_clamp >= 8
            && self.snd_wnd.max(self.max_window) <= WINDOW_MAX
            && self.fin_is_in_place()
    }

    /// Is our FIN where the flags say that it is?
    fn fin_is_in_place(&self) -> bool {
        let past_fin = self.snd_end.wrapping_add(1);
        let acked = self.flags & flag::FIN_ACKED == 0 || self.snd_una == past_fin;
        let sent = self.flags & (flag::FIN_ACKED | flag::FIN_SENT) == 0 || self.snd_nxt == past_fin;
        acked && sent
    }
}
