//! How a run begins: the card, and its connections.

use std::net::{IpAddr, SocketAddr};

use underpass_stack::ip::flow::FlowKey;
use underpass_stack::ip::path::Path;
use underpass_stack::tcp::Algorithm;
use underpass_stack::tcp::image::{Image, flag};

use super::input::Input;

/// Window scale of all ends.
const WSCALE: u8 = 7;

/// What the connections run on.
#[derive(Clone, Copy, Debug)]
pub struct Card {
    pub frames: u32,
    pub entries: u32,
    pub mtu: u32,
    pub queues: usize,
}

impl Card {
    pub fn read(input: &mut Input<'_>) -> Self {
        let kind = usize::from(input.byte());
        Self {
            frames: [128, 256, 64, 40][kind % 4],
            entries: [64, 128, 32, 16][kind / 4 % 4],
            mtu: [1500, 1500, 1400, 1280][kind / 16 % 4],
            queues: [1, 1, 2, 3][kind / 64],
        }
    }
}

/// One connection as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub flow: FlowKey,
    pub flags: u32,
    /// First sequence numbers, ours and the peer's.
    pub isn: [u32; 2],
    /// Buffers wanted, bytes, and what they may grow to; 0: they stay.
    pub rings: (u32, u32),
    pub largest: (u32, u32),
    pub congestion: Algorithm,
    pub mtu: u32,
}

impl Setup {
    pub fn read(number: usize, card: &Card, input: &mut Input<'_>) -> Self {
        let (kind, size) = (input.byte(), usize::from(input.byte()));
        let mut flags = flag::WSCALE;
        for (bit, on) in [(flag::SACK, 2), (flag::TIMESTAMPS, 4), (flag::NODELAY, 8)] {
            flags |= if kind & on == 0 { bit } else { 0 };
        }
        let ring = |n: usize| [64 << 10, 64 << 10, 128 << 10, 16 << 10][n % 4];
        let most = |n: usize| [1 << 20, 0, 256 << 10, 4 << 20][n % 4];
        Self {
            flow: flow(number, kind & 1 != 0),
            flags,
            isn: isn(input.byte()),
            rings: (ring(size), ring(size / 4)),
            largest: (most(size / 16), most(size / 64)),
            congestion: Algorithm::ALL[usize::from(kind / 16) % Algorithm::ALL.len()],
            mtu: card.mtu,
        }
    }

    /// Established, nothing under way.
    pub fn image(&self) -> Image {
        let [own, peer] = self.isn;
        let window = u32::from(u16::MAX) << WSCALE;
        Image {
            flow: self.flow,
            snd_una: own,
            snd_nxt: own,
            snd_end: own,
            rcv_nxt: peer,
            rcv_read: peer,
            snd_wl1: peer,
            snd_wnd: window,
            max_window: window,
            rcv_wnd: self.rings.0.min(60_000),
            rcv_wup: peer,
            mss_clamp: 1460,
            snd_wscale: WSCALE,
            rcv_wscale: WSCALE,
            flags: self.flags,
            srtt_us: 1000,
            rttvar_us: 500,
            cwnd: 64,
            ssthresh: u32::MAX,
            keep_idle_ms: 7_200_000,
            keep_interval_ms: 75_000,
            keep_count: 9,
            ..Image::default()
        }
    }

    pub fn path(&self) -> Path {
        let (dst_mac, src_mac) = ([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
        Path { ifindex: 1, dst_mac, src_mac, mtu: self.mtu, ttl: 64, ..Path::default() }
    }
}

/// Flows that differ in little.
pub fn flow(number: usize, v6: bool) -> FlowKey {
    let ip = |host: u8| match v6 {
        false => IpAddr::from([10, 0, 0, host]),
        true => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)]),
    };
    FlowKey::tcp(SocketAddr::new(ip(1), 80), SocketAddr::new(ip(2), 10_000 + number as u16))
}

/// Alike for all connections more often than not, so that a segment in the wrong one is taken for right; and near the wrap.
fn isn(kind: u8) -> [u32; 2] {
    match kind % 4 {
        0 | 1 => [1000, 2_000_000_000],
        2 => [0u32.wrapping_sub(u32::from(kind) * 200); 2],
        _ => [1_000_003, 77_777_777].map(|n: u32| n.wrapping_mul(kind.into())),
    }
}
