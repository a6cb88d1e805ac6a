//! Bulk transfers: hundreds of segments in flight, losses that the peer tells of in SACK blocks, and data that arrives behind many gaps.

use underpass_stack::ip::input::parse;
use underpass_stack::stats::Counter;
use underpass_stack::tcp::segment::SackBlocks;
use underpass_stack::tcp::{Flags, Instant, SeqNr};
use underpass_stack::testkit::Crowd;

use super::counting_allocator;

const CONNECTIONS: usize = 4;
const RING: u32 = 1 << 20;
const SEGMENT: usize = 1460;
/// Segments of one transfer; they fit into the ring.
const SEGMENTS: usize = 700;
/// Segments that are in flight at first: the congestion window.
const FLIGHT: usize = 256;
/// Of the segments sent, one of so many is lost.
const LOST: usize = 2;
/// Gaps in what is received; the record has room for one piece.
const GAPS: usize = 120;
const TICK: u64 = 20_000;

struct Bulk {
    crowd: Crowd,
    now: Instant,
    frame: Vec<u8>,
    data: Vec<u8>,
    out: Vec<u8>,
    /// Of the present transfer: what has arrived, what was lost once, and what is arriving.
    arrived: Vec<bool>,
    lost: Vec<bool>,
    arriving: Vec<usize>,
}

impl Bulk {
    fn new() -> Self {
        let now = Instant(1_000_000_000);
        let crowd = Crowd::new(CONNECTIONS, RING, now).expect("room for the connections");
        let data = (0..SEGMENT * SEGMENTS).map(|n| ((n * 31) >> 3) as u8).collect();
        let [arrived, lost] = [0; 2].map(|_| vec![false; SEGMENTS]);
        let (frame, out, arriving) = (vec![0; 2048], vec![0; RING as usize], Vec::with_capacity(SEGMENTS));
        Self { crowd, now, frame, data, out, arrived, lost, arriving }
    }

    fn pass(&mut self, nanos: u64) {
        self.now.0 += nanos;
        self.crowd.stack.pass(self.now);
    }

    /// The first `len` bytes of the frame arrive.
    fn arrive(&mut self, len: usize) {
        assert!(self.crowd.wire.stage(&self.frame[..len]));
        assert_eq!(self.crowd.wire.show(1), 1);
        self.pass(TICK);
    }

    /// The program writes a whole transfer; the network loses some of it.
    fn send(&mut self, n: usize) {
        let first = self.crowd.peers[n].ack;
        self.arrived.fill(false);
        self.lost.fill(false);
        assert_eq!(self.crowd.stack.send(n as u32, self.now, &self.data, false), Some(self.data.len()));
        self.crowd.stack.send_touched(self.now);
        let connection = self.crowd.stack.connection(n as u32).expect("a live connection");
        assert_eq!(connection.tcb.unacked(), FLIGHT * SEGMENT);
        while self.crowd.peers[n].ack != first.wrapping_add(self.data.len() as u32) {
            self.collect(first);
            if self.arriving.is_empty() {
                self.pass(50 * TICK);
            }
            for at in 0..self.arriving.len() {
                self.answer(n, first, self.arriving[at]);
            }
        }
    }

    /// Which segments the network carries now.
    fn collect(&mut self, first: u32) {
        self.arriving.clear();
        let Self { crowd, lost, arriving, data, .. } = self;
        crowd.wire.collect(|frame| {
            let segment = parse(frame, 1514).expect("a sound frame").segment;
            let from = segment.seq.0.wrapping_sub(first) as usize;
            assert_eq!(segment.payload, &data[from..from + segment.payload.len()]);
            for at in (from..from + segment.payload.len()).step_by(SEGMENT).map(|from| from / SEGMENT) {
                if at % LOST == 1 && !lost[at] {
                    lost[at] = true;
                } else {
                    arriving.push(at);
                }
            }
        });
    }

    /// The peer has got segment `at`, and says what it has.
    fn answer(&mut self, n: usize, first: u32, at: usize) {
        self.arrived[at] = true;
        let whole = self.arrived.iter().position(|arrived| !arrived).unwrap_or(SEGMENTS);
        let number = |at: usize| SeqNr(first.wrapping_add((at * SEGMENT) as u32));
        self.crowd.peers[n].ack = number(whole).0;
        let mut blocks = SackBlocks::default();
        let mut end = self.arrived[at..].iter().position(|arrived| !arrived).map_or(SEGMENTS, |len| at + len);
        // The newest piece first, then those below.
        while end > whole {
            let start = self.arrived[..end].iter().rposition(|arrived| !arrived).map_or(0, |gap| gap + 1);
            if !blocks.push(number(start), number(end)) {
                break;
            }
            end = self.arrived[..start].iter().rposition(|arrived| *arrived).map_or(0, |last| last + 1);
        }
        let len = self.crowd.peers[n].report(&mut self.frame, blocks);
        self.arrive(len);
    }

    /// The peer's data arrives, each other segment only after all the rest.
    fn receive(&mut self, n: usize) {
        let first = self.crowd.peers[n].seq;
        for at in [0, 1].into_iter().chain((0..GAPS).map(|gap| 2 * gap + 3)).chain((0..GAPS).map(|gap| 2 * gap + 2)) {
            self.crowd.peers[n].seq = first.wrapping_add((at * SEGMENT) as u32);
            let data = &self.data[at * SEGMENT..][..SEGMENT];
            let len = self.crowd.peers[n].send(&mut self.frame, Flags::default(), data);
            self.arrive(len);
            if at == 2 * GAPS + 1 {
                let connection = self.crowd.stack.connection(n as u32).expect("a live connection");
                assert_eq!(connection.recovery.beyond().len(), GAPS - 1, "pieces beyond those in the record");
            }
        }
        let len = (2 * GAPS + 2) * SEGMENT;
        self.crowd.peers[n].seq = first.wrapping_add(len as u32);
        assert_eq!(self.crowd.stack.recv(n as u32, &mut self.out, None), Some(len));
        assert_eq!(self.out[..len], self.data[..len]);
        self.pass(TICK);
        self.crowd.wire.collect(|_| ());
    }
}

/// The first transfer brings the memory for records, which connections with nothing in flight leave to those that send; each connection
/// has its own for pieces. The others send with their first, large congestion window.
#[test]
fn bulk_transfers_allocate_nothing_once_warm() {
    let mut bulk = Bulk::new();
    bulk.send(0);
    (0..CONNECTIONS).for_each(|n| bulk.receive(n));
    let before = (counting_allocator::count(), bulk.crowd.stack.stats().get(Counter::Retransmits));
    for n in 1..CONNECTIONS {
        bulk.receive(n);
        bulk.send(n);
        bulk.receive(n);
    }
    let allocations = counting_allocator::count() - before.0;
    let stats = bulk.crowd.stack.stats();
    let resent = stats.get(Counter::Retransmits) - before.1;
    assert_eq!((allocations, stats.get(Counter::Timeouts)), (0, 0), "allocations and timeouts");
    assert!(resent as usize >= (CONNECTIONS - 1) * FLIGHT / LOST, "{resent} segments sent again");
}
