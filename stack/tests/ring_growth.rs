//! A stack's rings grow under data: wherever in the ring it lies, around the ring's end and out of order too, every byte is compared.

#[path = "counting_allocator/mod.rs"]
mod counting_allocator;

use counting_allocator::Counting;
use underpass_stack::tcp::{Flags, Instant};
use underpass_stack::testkit::Crowd;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const RING: u32 = 64 << 10;
const LARGEST: u32 = 1 << 20;
const CONNECTIONS: usize = 20;
const SEGMENT: usize = 1460;
/// A tenth of a millisecond; ten are the round trip that the image tells of.
const TICK: u64 = 100_000;
const SECOND: u64 = 1_000_000_000;

/// Byte `at` of connection `n`'s stream.
fn byte(n: usize, at: usize) -> u8 {
    ((at + 31 * n).wrapping_mul(2_654_435_761) >> 13) as u8
}

fn bytes(n: usize, from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| byte(n, at)).collect()
}

/// A crowd whose rings grow.
struct Growth {
    crowd: Crowd,
    now: Instant,
    frame: Vec<u8>,
    out: Vec<u8>,
}

/// What a connection's rings looked like when one had grown.
#[derive(Default, Debug)]
struct Seen {
    grown: usize,
    /// The bytes went around the end of the smaller ring.
    wrapped: usize,
    /// Bytes lay beyond a gap.
    gaps: usize,
    /// The ring's first byte was not at a multiple of its size in the sequence space.
    based: usize,
}

impl Growth {
    fn new() -> Self {
        let now = Instant(SECOND);
        let crowd = Crowd::growing(CONNECTIONS, RING, LARGEST, now).expect("room for the connections");
        Self { crowd, now, frame: vec![0; 2048], out: vec![0; LARGEST as usize] }
    }

    /// Sizes of the receive and the send ring.
    fn rings(&mut self, n: usize) -> (usize, usize) {
        let connection = self.crowd.stack.connection(n as u32).expect("a live connection");
        (connection.rcv.len(), connection.snd.len())
    }

    /// What the peer may still send, bytes.
    fn window(&mut self, n: usize) -> usize {
        let now = self.now;
        self.crowd.stack.connection(n as u32).expect("a live connection").figures(now).rcv_wnd as usize
    }

    /// Bytes that the connection has not sent yet.
    fn unsent(&mut self, n: usize) -> usize {
        self.crowd.stack.connection(n as u32).expect("a live connection").tcb.unsent()
    }

    /// The peer's segment with `data` arrives, `ahead` bytes after where it should.
    fn arrive(&mut self, n: usize, ahead: u32, data: &[u8]) {
        let seq = self.crowd.peers[n].seq;
        self.crowd.peers[n].seq = seq.wrapping_add(ahead);
        let len = self.crowd.peers[n].send(&mut self.frame, Flags::default(), data);
        if ahead != 0 {
            self.crowd.peers[n].seq = seq;
        }
        assert!(self.crowd.wire.stage(&self.frame[..len]));
        self.crowd.wire.show(1);
        self.pass(TICK);
    }

    fn pass(&mut self, nanos: u64) {
        self.now.0 += nanos;
        self.crowd.stack.pass(self.now);
        self.crowd.stack.send_touched(self.now);
    }

    /// The peer sends `total` bytes; each other segment comes before the one it follows. Of the first `slow` bytes the program leaves so
    /// much unread that no larger window would help, then a quarter of a ring.
    fn receive(&mut self, n: usize, total: usize, slow: usize) -> Seen {
        let (mut sent, mut read, mut seen) = (0, 0, Seen::default());
        let first = self.crowd.peers[n].seq as usize;
        while read < total {
            let is_over = sent + 2 * SEGMENT > total;
            if !is_over && self.window(n) >= 2 * SEGMENT {
                for (at, ahead) in [(sent + SEGMENT, SEGMENT as u32), (sent, 0)] {
                    let (ring, _) = self.rings(n);
                    self.now.0 += at as u64 * 7919 % (3 * TICK);
                    self.arrive(n, ahead, &bytes(n, at, SEGMENT));
                    let reached = at + SEGMENT;
                    if self.rings(n).0 > ring {
                        seen.grown += 1;
                        seen.gaps += usize::from(ahead != 0);
                        seen.wrapped += usize::from(read % ring + (reached - read) > ring);
                        seen.based += usize::from(first % ring != 0);
                    }
                }
                let seq = self.crowd.peers[n].seq;
                self.crowd.peers[n].seq = seq.wrapping_add(SEGMENT as u32);
                sent += 2 * SEGMENT;
            }
            self.crowd.wire.collect(|_| ());
            let (ring, _) = self.rings(n);
            let keep = match sent {
                _ if is_over => 0,
                _ if sent < slow => ring * 5 / 8,
                _ => ring / 4,
            };
            let take = (sent - read).saturating_sub(keep).min(self.out.len());
            if take == 0 && is_over {
                break;
            }
            if take > 0 {
                assert_eq!(self.crowd.stack.recv(n as u32, &mut self.out[..take], None), Some(take), "connection {n}");
                assert_eq!(self.out[..take], bytes(n, read, take), "connection {n}, from byte {read}");
                read += take;
            }
        }
        seen
    }

    /// The program fills its ring over and over; some flights are lost and have to come out of the ring again.
    fn send(&mut self, n: usize, total: usize) -> Seen {
        let (mut written, mut acked, mut repaired, mut loss_at) = (0, 0, 0, 50_000 * n);
        let mut seen = Seen::default();
        let first = self.crowd.peers[n].ack as usize;
        for round in 0.. {
            assert!(round < 10_000, "connection {n}: {acked} of {total} bytes");
            let (_, ring) = self.rings(n);
            // This peer tells of nothing beyond a gap: as long as there is one, nothing new goes out.
            if acked >= repaired {
                let data = bytes(n, written, (total - written).min(ring * (1 + (round + n) % 4) / 4));
                written += self.crowd.stack.send(n as u32, self.now, &data, false).expect("a live connection");
                self.crowd.stack.send_touched(self.now);
            }
            let mut frames = Vec::new();
            self.crowd.wire.collect(|frame| frames.push(frame.to_vec()));
            if acked >= loss_at && !frames.is_empty() && self.unsent(n) == 0 {
                frames.clear();
                (repaired, loss_at) = (written, loss_at + total / 6);
            }
            for (at, frame) in frames.iter().enumerate() {
                if let Some(data) = self.crowd.peers[n].receive(frame) {
                    assert_eq!(data, bytes(n, acked, data.len()), "connection {n}, from byte {acked}");
                    acked += data.len();
                }
                if at % 4 == 3 || at + 1 == frames.len() {
                    let (_, ring) = self.rings(n);
                    self.arrive(n, 0, &[]);
                    if self.rings(n).1 > ring {
                        seen.grown += 1;
                        seen.wrapped += usize::from(acked % ring + (written - acked) > ring);
                        seen.based += usize::from(first % ring != 0);
                    }
                }
            }
            if acked == total {
                break;
            }
            // Nothing came: the retransmission timer has to run out.
            self.pass(if frames.is_empty() { SECOND } else { TICK });
        }
        seen
    }
}

#[test]
fn received_bytes_survive_wherever_they_lie() {
    let mut growth = Growth::new();
    let mut all = Seen::default();
    for n in 0..CONNECTIONS {
        let seen = growth.receive(n, 6 << 20, 200_000 + n * 7919);
        assert!(seen.grown > 0 && growth.rings(n).0 > RING as usize, "connection {n}: {seen:?}");
        all.wrapped += seen.wrapped;
        all.gaps += seen.gaps;
        all.based += seen.based;
    }
    println!("{all:?}");
    assert!(all.wrapped > 0 && all.gaps > 0 && all.based > 0, "{all:?}");
}

#[test]
fn sent_bytes_survive_wherever_they_lie() {
    let mut growth = Growth::new();
    let mut all = Seen::default();
    for n in 0..CONNECTIONS {
        let seen = growth.send(n, 3 << 20);
        assert!(seen.grown > 0 && growth.rings(n).1 > RING as usize, "connection {n}: {seen:?}");
        all.wrapped += seen.wrapped;
        all.based += seen.based;
    }
    println!("{all:?}");
    assert!(all.wrapped > 0 && all.based > 0, "{all:?}");
}

/// Rings are of the arena; the lists of its free places have their room once some ring has grown.
#[test]
fn growth_takes_nothing_from_the_heap() {
    let mut growth = Growth::new();
    growth.receive(0, 6 << 20, 0);
    let (mut now, mut frame) = (growth.now, vec![0; 2048]);
    let (data, mut out) = (bytes(1, 0, SEGMENT), vec![0; LARGEST as usize]);
    let before = counting_allocator::count();
    let crowd = &mut growth.crowd;
    for _ in 0..3000 {
        let len = crowd.peers[1].send(&mut frame, Flags::default(), &data);
        assert!(crowd.wire.stage(&frame[..len]));
        crowd.wire.show(1);
        now.0 += TICK;
        crowd.stack.pass(now);
        crowd.stack.send_touched(now);
        crowd.wire.collect(|_| ());
        assert_eq!(crowd.stack.recv(1, &mut out, None), Some(SEGMENT));
    }
    assert_eq!(counting_allocator::count() - before, 0, "allocations");
    assert!(growth.rings(1).0 > RING as usize, "{:?}", growth.rings(1));
}
