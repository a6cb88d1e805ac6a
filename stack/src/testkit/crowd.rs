//! A whole [`Stack`] with any number of connections on a [`Wire`], and the peers of all of them.

use std::io;
use std::net::SocketAddr;

use super::wire::Wire;
use crate::ip::flow::FlowKey;
use crate::ip::path::Path;
use crate::ip::{input, output};
use crate::stack::{ImportRequest, Stack};
use crate::tcp::image::{Image, flag};
use crate::tcp::segment::{SackBlocks, Timestamps};
use crate::tcp::{Algorithm, Codepoint, Flags, Instant, Kind, Learnt, SegmentOut, SeqNr};

/// Frames of the card.
const FRAMES: u32 = 4096;
/// Entries of each of its rings.
const ENTRIES: u32 = 2048;
/// Connections that differ only in the peer's port: number `n` and `n` plus this have different peers.
pub const PORTS: usize = 50_000;
/// The peers' clock, which stands still.
const TS_PEER: u32 = 77;
/// Window scale of both ends.
const WSCALE: u8 = 7;
/// Bytes of an Ethernet header, and of a packet.
const ETHERNET: usize = 14;
const MTU: u32 = 1500;

/// How connections speak, beside SACK and window scaling.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// IPv6 instead of IPv4.
    pub v6: bool,
    /// With timestamps (RFC 7323).
    pub timestamps: bool,
    /// With ECN (RFC 3168); the peer's data is marked by the network then.
    pub ecn: bool,
    /// The congestion control.
    pub congestion: Algorithm,
}

impl Manner {
    /// Bytes of data in a full segment.
    pub fn full(self) -> usize {
        MTU as usize - 40 - if self.v6 { 20 } else { 0 } - if self.timestamps { 12 } else { 0 }
    }
}

/// The peer of one connection: just the numbers that its next segment needs.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its end is `local`.
    pub flow: FlowKey,
    /// Its SND.NXT.
    pub seq: u32,
    /// Its RCV.NXT.
    pub ack: u32,
    /// The window field of its segments.
    pub window: u16,
    /// What its segments have.
    manner: Manner,
    /// The newest TSval of the host.
    heard: u32,
}

/// The flow of connection `n` as its host sees it.
pub fn flow(n: usize) -> FlowKey {
    let peer = ([10, 0, 1, (n / PORTS) as u8 + 1], (n % PORTS) as u16 + 10_000);
    FlowKey::tcp(SocketAddr::from(([10, 0, 0, 1], 80)), SocketAddr::from(peer))
}

/// The same over IPv6.
fn flow_v6(n: usize) -> FlowKey {
    let peer = ([0xfd00, 0, 0, 0, 0, 0, 1, (n / PORTS) as u16 + 1], (n % PORTS) as u16 + 10_000);
    FlowKey::tcp(SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], 80)), SocketAddr::from(peer))
}

impl Peer {
    /// The peer of connection `n`.
    pub fn of(n: usize, seq: u32, ack: u32) -> Self {
        Self::speaking(flow(n), seq, ack, Manner::default())
    }

    fn speaking(host: FlowKey, seq: u32, ack: u32, manner: Manner) -> Self {
        let flow = FlowKey {
            local: host.remote,
            remote: host.local,
            local_port: host.remote_port,
            remote_port: host.local_port,
            ..host
        };
        Self { flow, seq, ack, window: u16::MAX, manner, heard: 0 }
    }

    /// The number of the connection that a frame of the host belongs to, whatever else is in it.
    pub fn number(frame: &[u8]) -> Option<usize> {
        let (&octet, port) = (frame.get(33)?, frame.get(36..38)?);
        let port = usize::from(u16::from_be_bytes([port[0], port[1]]));
        Some(usize::from(octet).checked_sub(1)? * PORTS + port.checked_sub(10_000)?)
    }

    /// Writes its next segment into `frame`; returns the frame's length. The peer's numbers move on.
    pub fn send(&mut self, frame: &mut [u8], flags: Flags, data: &[u8]) -> usize {
        let len = self.write(frame, flags, SackBlocks::default(), data);
        self.seq = self.seq.wrapping_add(data.len() as u32);
        len
    }

    /// Writes an acknowledgement that tells of data beyond a gap into `frame`; returns the frame's length.
    pub fn report(&self, frame: &mut [u8], sack: SackBlocks) -> usize {
        self.write(frame, Flags::default(), sack, &[])
    }

    fn write(&self, frame: &mut [u8], flags: Flags, sack: SackBlocks, data: &[u8]) -> usize {
        let segment = SegmentOut {
            seq: SeqNr(self.seq),
            ack: SeqNr(self.ack),
            flags: Flags::ACK.with(flags),
            window: self.window,
            ecn: if self.manner.ecn && !data.is_empty() { Codepoint::Ce } else { Codepoint::NotEct },
            timestamps: self.manner.timestamps.then_some(Timestamps { val: TS_PEER, ecr: self.heard }),
            sack,
            len: data.len() as u32,
            kind: Kind::Data,
        };
        let path =
            Path { dst_mac: [2, 0, 0, 0, 0, 1], src_mac: [2, 0, 0, 0, 0, 2], mtu: MTU, ttl: 64, ..Path::default() };
        output::build(frame, &path, &self.flow, &segment, (data, &[]), 0).unwrap_or(0)
    }

    /// Reads a frame that was sent to it, checking addresses and checksums; returns its data. `None`: not the next one.
    pub fn receive<'a>(&mut self, frame: &'a [u8]) -> Option<&'a [u8]> {
        let incoming = input::parse(frame, ETHERNET + MTU as usize).ok()?;
        let data = incoming.segment.payload;
        if incoming.flow != self.flow || (incoming.segment.seq.0 != self.ack && !data.is_empty()) {
            return None;
        }
        self.ack = self.ack.wrapping_add(data.len() as u32);
        self.heard = incoming.segment.timestamps.map_or(self.heard, |stamps| stamps.val);
        Some(data)
    }
}

/// A stack with connections in slots `0..`, all idle, and what is at their other ends.
pub struct Crowd {
    /// The stack.
    pub stack: Stack,
    /// Its network.
    pub wire: Wire,
    /// One for each connection.
    pub peers: Vec<Peer>,
    manner: Manner,
}

impl Crowd {
    /// `count` connections whose rings are `ring` bytes each.
    pub fn new(count: usize, ring: u32, now: Instant) -> io::Result<Self> {
        Self::growing(count, ring, 0, now)
    }

    /// The same with rings that may grow to `largest` bytes.
    pub fn growing(count: usize, ring: u32, largest: u32, now: Instant) -> io::Result<Self> {
        Self::make(count, (ring, largest), Manner::default(), ENTRIES, now)
    }

    /// As [`Crowd::new`], speaking in this manner.
    pub fn speaking(count: usize, ring: u32, manner: Manner, now: Instant) -> io::Result<Self> {
        Self::make(count, (ring, 0), manner, ENTRIES, now)
    }

    /// As [`Crowd::new`], behind a card whose rings have so many entries.
    pub fn behind(entries: u32, count: usize, ring: u32, now: Instant) -> io::Result<Self> {
        Self::make(count, (ring, 0), Manner::default(), entries, now)
    }

    fn make(count: usize, rings: (u32, u32), manner: Manner, entries: u32, now: Instant) -> io::Result<Self> {
        let mut stack = Stack::new("crowd", std::process::id(), 0, |fd| fd)?;
        let wire = Wire::attach(&mut stack, 0, FRAMES, entries, MTU)?;
        let mut crowd = Self { stack, wire, peers: Vec::with_capacity(count), manner };
        for n in 0..count {
            let slot = crowd.import(n, rings, now)?;
            if slot as usize != n {
                return Err(io::Error::other(format!("connection {n} is in slot {slot}")));
            }
        }
        Ok(crowd)
    }

    /// One more connection, number `n`, whose peer is the last of [`Crowd::peers`] then; returns its slot.
    pub fn join(&mut self, n: usize, ring: u32, now: Instant) -> io::Result<u32> {
        self.import(n, (ring, 0), now)
    }

    fn import(&mut self, n: usize, (ring, largest): (u32, u32), now: Instant) -> io::Result<u32> {
        let (own, peer) = ((n as u32).wrapping_mul(0x9e37_79b9), (n as u32).wrapping_mul(0x85eb_ca6b));
        let image = image(self.manner, n, own, peer, ring);
        let path = Path {
            ifindex: 1,
            dst_mac: [2, 0, 0, 0, 0, 2],
            src_mac: [2, 0, 0, 0, 0, 1],
            mtu: MTU,
            ttl: 64,
            ..Path::default()
        };
        let request = ImportRequest {
            scoreboard: Default::default(),
            image: &image,
            recv: &[],
            send: &[],
            port: 0,
            path,
            fd: n as i32,
            inode: n as u64,
            rings: (ring, ring),
            largest: (largest, largest),
            congestion: self.manner.congestion,
            learnt: Learnt::Nothing,
            pacing_limit: u64::MAX,
        };
        let full = || io::Error::other(format!("connection {n} was not taken"));
        let (slot, _) = self.stack.reserve().ok_or_else(full)?;
        self.stack.import(slot, &request, now).map_err(|_| full())?;
        self.peers.push(Peer { heard: image.ts_val, ..Peer::speaking(image.flow, peer, own, self.manner) });
        Ok(slot)
    }
}

/// Established, nothing under way, windows wide open, SACK.
fn image(manner: Manner, n: usize, own: u32, peer: u32, ring: u32) -> Image {
    let window = u32::from(u16::MAX) << WSCALE;
    let timestamps = if manner.timestamps { flag::TIMESTAMPS | flag::TS_RECENT } else { 0 };
    let flags = flag::WSCALE | flag::SACK | timestamps | if manner.ecn { flag::ECN } else { 0 };
    Image {
        flow: if manner.v6 { flow_v6(n) } else { flow(n) },
        snd_una: own,
        snd_nxt: own,
        snd_end: own,
        rcv_nxt: peer,
        rcv_read: peer,
        snd_wl1: peer,
        snd_wnd: window,
        max_window: window,
        // What the kernel has promised of late has to fit even where rings are small.
        rcv_wnd: ring.min(60_000),
        rcv_wup: peer,
        mss_clamp: 1460,
        snd_wscale: WSCALE,
        rcv_wscale: WSCALE,
        flags,
        ts_val: 1,
        ts_recent: TS_PEER,
        srtt_us: 1000,
        rttvar_us: 500,
        cwnd: 256,
        ssthresh: u32::MAX,
        keep_idle_ms: 7_200_000,
        keep_interval_ms: 75_000,
        keep_count: 9,
        ..Image::default()
    }
}
