//! One end of a simulated connection.

use std::net::{IpAddr, SocketAddr};

use zerocopy::{FromZeros, IntoBytes};

use crate::ip::flow::FlowKey;
use crate::ip::output::FromPeer;
use crate::ip::path::Path;
use crate::ip::{input, late, output};
use crate::stats::Counter;
use crate::tcp::image::{Image, flag};
use crate::tcp::scoreboard::{Piece, fate};
use crate::tcp::{Algorithm, Connection, ImportError, Instant, Outcome, Recovery, Scoreboard, SegmentOut, SeqNr, Tcb};

/// How two simulated ends are set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Bytes of each ring.
    pub ring: usize,
    /// First sequence numbers of both.
    pub isn: [u32; 2],
    /// [`flag`] bits of both.
    pub flags: u32,
    /// What the rings may grow to, bytes; 0: they stay.
    pub largest: usize,
    /// Window scale of both.
    pub wscale: u8,
    /// MTU of the path.
    pub mtu: u32,
    /// Over IPv6.
    pub v6: bool,
    /// Congestion control of both.
    pub congestion: Algorithm,
}

impl Default for Setup {
    fn default() -> Self {
        let flags = flag::WSCALE | flag::SACK | flag::TIMESTAMPS;
        Self {
            ring: 64 << 10,
            largest: 0,
            isn: [1_000, 2_000_000_000],
            flags,
            wscale: 7,
            mtu: 1500,
            v6: false,
            congestion: Algorithm::default(),
        }
    }
}

impl Setup {
    /// The image of end `side`, fresh after a handshake, with the whole ring as window.
    pub fn image(&self, side: usize) -> Image {
        let (own, peer) = (self.isn[side], self.isn[1 - side]);
        let ip = |n: usize| match (self.v6, 1 + n as u8) {
            (false, host) => IpAddr::from([10, 0, 0, host]),
            (true, host) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)]),
        };
        let address = |n: usize| SocketAddr::new(ip(n), 4000 + n as u16);
        let window = (self.ring as u32).min(u32::from(u16::MAX) << self.wscale);
        Image {
            flow: FlowKey::tcp(address(side), address(1 - side)),
            snd_una: own,
            snd_nxt: own,
            snd_end: own,
            rcv_nxt: peer,
            rcv_read: peer,
            snd_wl1: peer,
            snd_wnd: window,
            max_window: window,
            rcv_wnd: window,
            rcv_wup: peer,
            mss_clamp: 1460,
            snd_wscale: self.wscale,
            rcv_wscale: self.wscale,
            flags: self.flags,
            ts_val: own ^ 0x5555,
            ts_recent: 0,
            cwnd: 10,
            ssthresh: u32::MAX,
            keep_idle_ms: 7_200_000,
            keep_interval_ms: 75_000,
            keep_count: 9,
            ..Image::default()
        }
    }
}

/// One end: record, rings, and what its engine has reported.
#[derive(Debug)]
pub struct Host {
    /// The record.
    pub tcb: Box<Tcb>,
    snd: Vec<u8>,
    rcv: Vec<u8>,
    pub(super) recovery: Recovery,
    flow: FlowKey,
    path: Path,
    congestion: Algorithm,
    largest: u32,
    ip_id: u16,
    /// All outcomes so far, joined.
    pub seen: Outcome,
    counted: Vec<u64>,
}

impl Host {
    /// An end of `side` as `setup` says.
    pub fn new(setup: &Setup, side: usize, now: Instant) -> Self {
        let image = setup.image(side);
        let path = Path { ifindex: 1, mtu: setup.mtu, ttl: 64, ..Path::default() };
        let mut host = Self {
            tcb: Box::new(Tcb::new_zeroed()),
            snd: vec![0; setup.ring],
            rcv: vec![0; setup.ring],
            recovery: Recovery::default(),
            flow: image.flow,
            path,
            congestion: setup.congestion,
            largest: setup.largest as u32,
            ip_id: 0,
            seen: Outcome::default(),
            counted: vec![0; Counter::ALL.len()],
        };
        host.import(&image, &[], &[], now);
        host
    }

    /// The engine, for calls.
    pub fn connection(&mut self) -> Connection<'_> {
        Connection { tcb: &mut self.tcb, snd: &mut self.snd, rcv: &mut self.rcv, recovery: &mut self.recovery }
    }

    /// How often something was counted.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counted[counter as usize]
    }

    /// The image as the daemon would take it, with the bytes beside it.
    pub fn export(&self, now: Instant) -> (Image, Vec<u8>, Vec<u8>) {
        let image = self.tcb.image(self.flow, now);
        let (rcv_len, snd_len) = (self.rcv.len() as u32, self.snd.len() as u32);
        assert!(image.is_sound(rcv_len, snd_len), "unsound image {image:?}");
        let mut unread = vec![0; image.unread() as usize];
        crate::mem::ring::read(&self.rcv, self.tcb.rcv_place(image.rcv_read), &mut unread);
        let mut unacked = vec![0; image.unacknowledged() as usize];
        let start = image.snd_end.wrapping_sub(image.unacknowledged());
        crate::mem::ring::read(&self.snd, self.tcb.snd_place(start), &mut unacked);
        (image, unread, unacked)
    }

    /// Where data lies that arrived out of order, `[start, end)` of the sequence space, as the daemon would find it.
    pub fn ahead(&self) -> Vec<(u32, u32)> {
        let beyond: Vec<[u32; 2]> = self.recovery.beyond().collect();
        self.tcb.ahead(self.rcv.len() as u32, beyond.as_bytes())
    }

    /// Takes an image over into fresh rings.
    pub fn import(&mut self, image: &Image, unread: &[u8], unacked: &[u8], now: Instant) {
        self.try_import(image, unread, unacked, now).expect("a sound image");
    }

    /// The same, of an image that may be unsound.
    pub fn try_import(
        &mut self,
        image: &Image,
        unread: &[u8],
        unacked: &[u8],
        now: Instant,
    ) -> Result<(), ImportError> {
        self.snd.fill(0xee);
        self.rcv.fill(0xdd);
        let Self { tcb, snd, rcv, recovery, path, .. } = self;
        Connection::import(tcb, snd, rcv, recovery, image, unread, unacked, path.mtu, now)?;
        self.tcb.choose_congestion(self.congestion);
        if self.largest != 0 {
            self.tcb.limit_window(self.rcv.len() as u32);
            self.tcb.limit_queue(self.snd.len() as u32);
            let largest = self.largest;
            self.connection().tune_buffers(largest, largest);
        }
        Ok(())
    }

    /// Bytes of the receive and the send ring.
    pub fn rings(&self) -> (usize, usize) {
        (self.rcv.len(), self.snd.len())
    }

    /// Do they grow?
    pub fn grows(&self) -> bool {
        self.largest != 0
    }

    /// Gives the engine the rings that it has come to want.
    fn fit_rings(&mut self) {
        if !self.grows() {
            return;
        }
        let (rcv, snd) = self.tcb.wanted_rings();
        let extents = [self.tcb.received_extent(&self.recovery), self.tcb.queued_extent()];
        for ((ring, wanted), (place, held)) in [(&mut self.rcv, rcv), (&mut self.snd, snd)].into_iter().zip(extents) {
            let wanted = (wanted as usize).next_power_of_two();
            if wanted > ring.len() {
                let mut bytes = vec![0; held as usize];
                crate::mem::ring::read(ring, place, &mut bytes);
                *ring = vec![0; wanted];
                crate::mem::ring::write(ring, place, &bytes);
            }
        }
    }

    /// Gives the connection away and takes it back, as a demotion and promotion would. What arrived out of order is no part of the image: as by
    /// the daemon, it is told the new owner once more, as if it came just now. What the peer has acknowledged selectively is told, too.
    pub fn change_hands(&mut self, now: Instant) {
        let frames = self.frames_ahead(now);
        let sacked = self.recovery.sacked().map(|[start, end]| Piece { start, end, fate: fate::SACKED });
        let sacked: Vec<Piece> = sacked.collect();
        self.change_hands_by_image(now);
        self.connection().resume(&Scoreboard { pieces: &sacked, ..Scoreboard::default() });
        frames.iter().for_each(|frame| self.frame_in(now, frame));
    }

    /// The image alone goes over, and what arrived out of order goes nowhere, though the peer was told of it: as where the owner died, who may
    /// have been about to write it.
    pub fn change_hands_by_image(&mut self, now: Instant) {
        let (image, unread, unacked) = self.export(now);
        self.import(&image, &unread, &unacked, now);
    }

    /// What arrived out of order, as segments of the peer, without timestamps: these would be older than what it has just sent.
    fn frames_ahead(&self, now: Instant) -> Vec<Vec<u8>> {
        let image = self.tcb.image(self.flow, now);
        let image = Image { flags: image.flags & !flag::TIMESTAMPS, ..image };
        // Room for all headers.
        let room = self.path.mtu - if self.flow.is_v6() { 72 } else { 52 };
        let mut frames = Vec::new();
        for (start, end) in self.ahead() {
            for at in (0..end.wrapping_sub(start)).step_by(room as usize) {
                let (seq, len) = (start.wrapping_add(at), room.min(end.wrapping_sub(start) - at));
                let mut data = vec![0; len as usize];
                crate::mem::ring::read(&self.rcv, self.tcb.rcv_place(seq), &mut data);
                let mut frame = vec![0; 14 + self.path.mtu as usize];
                let what = FromPeer::Data(seq, &data);
                let len = output::synthesize(&mut frame, &self.path, &image, what).expect("room for a segment");
                frame.truncate(len);
                frames.push(frame);
            }
        }
        frames
    }

    /// A frame arrived. Frames that are damaged are dropped and counted.
    pub fn frame_in(&mut self, now: Instant, frame: &[u8]) {
        // Nobody sends mere sums of the pseudo-header here: damage has made it look so, as it does once in 2^16 times.
        if late::complete_checksum(&mut frame.to_vec()) {
            self.counted[Counter::RxBadChecksum as usize] += 1;
            return;
        }
        match input::parse(frame, 14 + self.path.mtu as usize) {
            Ok(incoming) if incoming.flow == self.flow => {
                let outcome = self.connection().on_segment(now, &incoming.segment);
                self.fit_rings();
                self.note(&outcome);
            }
            Ok(_) => self.counted[Counter::RxNoConnection as usize] += 1,
            Err(drop) => self.counted[drop.counter() as usize] += 1,
        }
    }

    /// A router says that the packet whose segment began at `seq` was too large for `mtu`.
    pub fn packet_too_big(&mut self, now: Instant, seq: SeqNr, mtu: u32) {
        let outcome = self.connection().packet_too_big(now, seq, mtu);
        self.note(&outcome);
    }

    /// Runs the timers that are due.
    pub fn timers(&mut self, now: Instant) {
        if self.tcb.deadline().is_some_and(|at| at <= now) {
            let outcome = self.connection().on_timer(now);
            self.note(&outcome);
        }
    }

    /// The next frame to send.
    pub fn frame_out(&mut self, now: Instant) -> Option<(SegmentOut, Vec<u8>)> {
        let segment = self.connection().poll_transmit(now)?;
        self.counted[Counter::SegmentsSent as usize] += 1;
        if let Some(counter) = segment.counter() {
            self.counted[counter as usize] += 1;
        }
        let mut frame = vec![0; 14 + self.path.mtu as usize];
        let (path, flow, ip_id) = (self.path, self.flow, self.ip_id);
        let payload = self.connection();
        let payload = payload.payload(segment.seq, segment.len);
        let len = output::build(&mut frame, &path, &flow, &segment, payload, ip_id).expect("a segment fits the MTU");
        self.ip_id = ip_id.wrapping_add(1);
        frame.truncate(len);
        Some((segment, frame))
    }

    fn note(&mut self, outcome: &Outcome) {
        let seen = &mut self.seen;
        seen.readable |= outcome.readable;
        seen.writable |= outcome.writable;
        seen.peer_fin |= outcome.peer_fin;
        seen.reset |= outcome.reset;
        seen.timed_out |= outcome.timed_out;
        seen.urgent |= outcome.urgent;
        seen.closed |= outcome.closed;
        for counter in outcome.counts.iter() {
            self.counted[counter as usize] += 1;
        }
    }
}
