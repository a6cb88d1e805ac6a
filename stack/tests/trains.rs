//! Segments that come, or leave, many in one pass: every byte arrives, whatever they are mixed with, and every frame is accounted for.

use underpass_stack::stats::Counter;
use underpass_stack::tcp::{Flags, Instant};
use underpass_stack::testkit::Crowd;
use underpass_stack::testkit::crowd::Manner;
use underpass_stack::testkit::random::Random;

const CONNECTIONS: usize = 3;
const RING: u32 = 256 << 10;
const TICK: u64 = 50_000;
/// Where the data of a segment without options begins, and where its checksum lies.
const CHECKSUM_AT: usize = 50;

/// The stream in both directions is this, at any place.
fn byte(n: usize, at: usize) -> u8 {
    (at.wrapping_mul(31) ^ at >> 8 ^ n.wrapping_mul(77)) as u8
}

fn bytes(n: usize, from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| byte(n, at)).collect()
}

#[derive(Clone, Copy, Default)]
struct Progress {
    /// Bytes that the peer has sent, and that the program has read.
    sent: usize,
    read: usize,
    /// Bytes that the program has written, and that the peer has received.
    written: usize,
    received: usize,
}

struct Play {
    crowd: Crowd,
    random: Random,
    now: Instant,
    progress: [Progress; CONNECTIONS],
    frame: Vec<u8>,
    full: usize,
    corrupt: usize,
    /// Segments that no peer waits for.
    resent: u64,
}

impl Play {
    fn new(crowd: Crowd, full: usize, seed: u64) -> Self {
        let (random, now) = (Random::new(seed), Instant(2_000_000_000));
        Self { crowd, random, now, progress: Default::default(), frame: vec![0; 2048], full, corrupt: 0, resent: 0 }
    }

    /// A segment with up to `len` bytes, or an acknowledgement of all that was received; now and then a corrupt copy comes before it.
    fn stage(&mut self, n: usize, len: usize) {
        let progress = &mut self.progress[n];
        let data = bytes(n, progress.sent, len);
        let flags = if self.random.chance(100) { Flags::PSH } else { Flags::default() };
        let mut peer = self.crowd.peers[n];
        let frame_len = peer.send(&mut self.frame, flags, &data);
        if self.random.chance(30) {
            self.corrupt += 1;
            let at = if len == 0 { CHECKSUM_AT } else { frame_len - 1 };
            self.frame[at] ^= 0x55;
            self.crowd.wire.stage(&self.frame[..frame_len]);
            self.frame[at] ^= 0x55;
        }
        if self.crowd.wire.stage(&self.frame[..frame_len]) {
            progress.sent += len;
            self.crowd.peers[n] = peer;
        }
    }

    /// Bursts of several connections, one after the other or mixed, arrive in one pass.
    fn burst(&mut self) {
        let mixed = self.random.chance(200);
        let mut n = self.random.below(CONNECTIONS as u64) as usize;
        let has_data = self.random.chance(600);
        for _ in 0..self.random.below(80) {
            if mixed || self.random.chance(30) {
                n = self.random.below(CONNECTIONS as u64) as usize;
            }
            // No more than the window that was offered.
            let room = 50_000_usize.saturating_sub(self.progress[n].sent - self.progress[n].read);
            let size = if self.random.chance(900) { self.full } else { 1 + self.random.below(100) as usize };
            self.stage(n, if has_data { size.min(room) } else { 0 });
        }
        self.crowd.wire.show(usize::MAX);
        self.pass();
    }

    fn pass(&mut self) {
        self.now.0 += TICK;
        self.crowd.stack.pass(self.now);
        self.collect();
    }

    /// The peers take what was sent, which has to be the next bytes.
    fn collect(&mut self) {
        let Self { crowd: Crowd { wire, peers, stack, .. }, progress, resent, .. } = self;
        wire.collect(|frame| {
            let taken = (0..CONNECTIONS).any(|n| {
                let Some(data) = peers[n].receive(frame) else { return false };
                assert!(data == bytes(n, progress[n].received, data.len()), "connection {n}");
                progress[n].received += data.len();
                true
            });
            *resent += u64::from(!taken);
        });
        // Acknowledgements that found no room in the ring are missed.
        let known = stack.stats().get(Counter::Retransmits);
        assert!(*resent <= known, "{resent} segments that nobody waits for, {known} retransmissions");
    }

    fn write(&mut self, n: usize) {
        let data = bytes(n, self.progress[n].written, self.random.below(120_000) as usize);
        self.now.0 += TICK;
        let written = self.crowd.stack.send(n as u32, self.now, &data, false).expect("a live connection");
        self.progress[n].written += written;
        self.crowd.stack.send_touched(self.now);
        self.collect();
    }

    fn read(&mut self, n: usize) {
        let mut out = vec![0; self.random.below(100_000) as usize];
        let len = self.crowd.stack.recv(n as u32, &mut out, None).expect("a live connection");
        assert_eq!(out[..len], bytes(n, self.progress[n].read, len), "connection {n}");
        self.progress[n].read += len;
    }

    fn run(mut self, steps: usize) {
        for _ in 0..steps {
            let n = self.random.below(CONNECTIONS as u64) as usize;
            match self.random.below(4) {
                0 => self.write(n),
                1 => self.read(n),
                _ => self.burst(),
            }
            self.crowd.wire.assert_accounted(&self.crowd.stack, []);
        }
        self.finish();
    }

    /// Everything that was written arrives.
    fn finish(mut self) {
        for _ in 0..200 {
            for n in 0..CONNECTIONS {
                self.stage(n, 0);
                while self.progress[n].read < self.progress[n].sent {
                    self.read(n);
                }
            }
            self.crowd.wire.show(usize::MAX);
            self.pass();
        }
        for (n, progress) in self.progress.iter().enumerate() {
            assert_eq!(progress.received, progress.written, "connection {n}");
            assert!(progress.sent > 100_000 && progress.written > 100_000, "connection {n} has done little");
        }
        let dropped = self.crowd.stack.stats().get(Counter::RxBadChecksum);
        assert!(dropped > 0 && dropped <= self.corrupt as u64, "{dropped} of {} corrupt frames", self.corrupt);
    }
}

#[test]
fn every_byte_of_a_burst_arrives() {
    let (v6, timestamps) = (true, true);
    for (number, manner) in [
        Manner::default(),
        Manner { timestamps, ..Manner::default() },
        Manner { v6, ..Manner::default() },
        Manner { v6, timestamps, ..Manner::default() },
    ]
    .into_iter()
    .enumerate()
    {
        let crowd = Crowd::speaking(CONNECTIONS, RING, manner, Instant(1_000_000_000)).expect("room");
        Play::new(crowd, manner.full(), number as u64).run(400);
    }
}

/// Fewer places in the TX ring than there are segments to send.
#[test]
fn every_byte_of_a_burst_leaves_through_a_small_ring() {
    for entries in [16, 64] {
        let crowd = Crowd::behind(entries, CONNECTIONS, RING, Instant(1_000_000_000)).expect("room");
        Play::new(crowd, 1460, entries.into()).run(800);
    }
}
