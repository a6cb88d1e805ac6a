//! Data moves without the allocator: receiving, acknowledging, sending, requests and responses, timers included; and bulk transfers, with
//! losses, once they have got what memory they need.

#[path = "no_allocation/bulk.rs"]
mod bulk;
#[path = "counting_allocator/mod.rs"]
mod counting_allocator;

use counting_allocator::Counting;
use underpass_stack::stack::Event;
use underpass_stack::tcp::{Algorithm, Flags, Instant};
use underpass_stack::testkit::crowd::{Crowd, Manner};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONNECTIONS: usize = 300;
const RING: u32 = 64 << 10;
/// A microsecond, and longer than any delayed acknowledgement.
const TICK: u64 = 1_000;
const DELAY: u64 = 50_000_000;

struct Bench {
    crowd: Crowd,
    now: Instant,
    events: Vec<Event>,
    frame: Vec<u8>,
    out: Vec<u8>,
    data: Vec<u8>,
    /// Bytes of data in a full segment.
    full: usize,
}

impl Bench {
    fn new(manner: Manner) -> Self {
        let (now, full) = (Instant(1_000_000_000), manner.full());
        let crowd = Crowd::speaking(CONNECTIONS, RING, manner, now).expect("room for the connections");
        let data = (0..full).map(|n| n as u8).collect();
        let events = Vec::with_capacity(CONNECTIONS);
        Self { crowd, now, events, frame: vec![0; 2048], out: vec![0; full], data, full }
    }

    fn pass(&mut self, nanos: u64) {
        self.now.0 += nanos;
        self.crowd.stack.pass(self.now);
        self.events.clear();
        self.crowd.stack.take_events(&mut self.events);
    }

    /// The peer's next segment arrives.
    fn arrive(&mut self, n: usize, flags: Flags, len: usize) {
        let size = self.crowd.peers[n].send(&mut self.frame, flags, &self.data[..len]);
        assert!(self.crowd.wire.stage(&self.frame[..size]));
        assert_eq!(self.crowd.wire.show(1), 1);
        self.pass(TICK);
    }

    fn read(&mut self, n: usize, len: usize) {
        assert_eq!(self.crowd.stack.recv(n as u32, &mut self.out, None), Some(len));
        assert_eq!(self.out[..len], self.data[..len]);
    }

    fn write(&mut self, n: usize, len: usize) {
        assert_eq!(self.crowd.stack.send(n as u32, self.now, &self.data[..len], false), Some(len));
        self.crowd.stack.send_touched(self.now);
    }

    /// What was sent reaches the peers: frames, and bytes of data.
    fn collect(&mut self, n: usize) -> (usize, usize) {
        let Crowd { wire, peers, .. } = &mut self.crowd;
        let mut bytes = 0;
        let frames = wire.collect(|frame| bytes += peers[n].receive(frame).expect("the next segment").len());
        (frames, bytes)
    }

    fn everything(&mut self, n: usize) {
        self.arrive(n, Flags::default(), self.full);
        self.arrive(n, Flags::default(), self.full);
        self.read(n, self.full);
        self.read(n, self.full);
        assert_eq!(self.collect(n), (1, 0), "one acknowledgement of two segments");
        self.write(n, self.full);
        assert_eq!(self.collect(n), (1, self.full));
        self.arrive(n, Flags::default(), 0);
        self.arrive(n, Flags::PSH, 64);
        self.read(n, 64);
        self.write(n, 64);
        assert_eq!(self.collect(n), (1, 64));
        self.arrive(n, Flags::PSH, 64);
        self.read(n, 64);
        self.pass(DELAY);
        assert_eq!(self.collect(n), (1, 0), "a delayed acknowledgement");
    }
}

fn moves_without_allocating(manner: Manner) {
    let mut bench = Bench::new(manner);
    (0..CONNECTIONS).for_each(|n| bench.everything(n));
    let before = counting_allocator::count();
    for _ in 0..3 {
        (0..CONNECTIONS).for_each(|n| bench.everything(n));
    }
    assert_eq!(counting_allocator::count() - before, 0, "allocations, {manner:?}");
}

#[test]
fn moving_data_allocates_nothing() {
    for v6 in [false, true] {
        for timestamps in [false, true] {
            for &congestion in Algorithm::ALL {
                moves_without_allocating(Manner { v6, timestamps, ecn: false, congestion });
                moves_without_allocating(Manner { v6, timestamps, ecn: true, congestion });
            }
        }
    }
    // The counter does count.
    let before = counting_allocator::count();
    let boxed = std::hint::black_box(Box::new(1));
    assert_eq!(counting_allocator::count() - before, *boxed);
}
