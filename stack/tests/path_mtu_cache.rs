//! What a connection has found out about its path counts for the next one to the same peer (RFC 1191, section 3; RFC 8899, section 6.1.4).

use underpass_stack::stats::Counter;
use underpass_stack::tcp::{Flags, Instant};
use underpass_stack::testkit::crowd::{Crowd, PORTS};

const MS: u64 = 1_000_000;
const MINUTE: u64 = 60_000 * MS;
const RING: u32 = 64 << 10;
const ETHERNET: usize = 14;
const WHOLE: usize = 1500;
/// Bytes that a transfer takes: several full segments.
const BYTES: usize = 14_600;

/// A connection and the network that it is in, which swallows packets of more than `fits` bytes.
struct Path {
    crowd: Crowd,
    fits: usize,
    now: Instant,
}

/// How a transfer went.
#[derive(Debug, PartialEq)]
struct Transfer {
    /// Bytes of the largest packet.
    largest: usize,
    /// Packets that were swallowed.
    lost: usize,
}

impl Path {
    fn new(fits: usize) -> Self {
        let now = Instant(1_000 * MS);
        Self { crowd: Crowd::new(0, RING, now).expect("a stack"), fits, now }
    }

    fn join(&mut self, n: usize) -> u32 {
        self.crowd.join(n, RING, self.now).expect("room for a connection")
    }

    fn count(&self, counter: Counter) -> u64 {
        self.crowd.stack.stats().get(counter)
    }

    /// The newest connection's program sends; time goes on until the peer has everything.
    fn transfer(&mut self, slot: u32) -> Transfer {
        let mut seen = Transfer { largest: 0, lost: 0 };
        self.crowd.stack.send(slot, self.now, &[7; BYTES], false).expect("a live connection");
        self.crowd.stack.send_touched(self.now);
        for _ in 0..10_000 {
            let answers = self.deliver(&mut seen);
            let connection = self.crowd.stack.connection(slot).expect("a live connection");
            if connection.tcb.unacked() == 0 && connection.tcb.unsent() == 0 {
                return seen;
            }
            let deadline = self.crowd.stack.next_deadline().expect("something is under way");
            self.now = if answers { self.now.after(MS) } else { deadline.max(self.now.after(MS)) };
            self.crowd.stack.pass(self.now);
        }
        panic!("the transfer does not end: {seen:?}");
    }

    /// What fits arrives, and is acknowledged. False if nothing did.
    fn deliver(&mut self, seen: &mut Transfer) -> bool {
        let Self { crowd: Crowd { wire, peers, .. }, fits, .. } = self;
        let peer = peers.last_mut().expect("a connection");
        let (mut answers, mut frame) = (0, vec![0; 2048]);
        let mut staged = Vec::new();
        wire.collect(|sent| {
            let bytes = sent.len() - ETHERNET;
            seen.largest = seen.largest.max(bytes);
            if bytes > *fits {
                seen.lost += 1;
            } else if peer.receive(sent).is_some_and(|data| !data.is_empty()) {
                let len = peer.send(&mut frame, Flags::default(), b"");
                staged.push(frame[..len].to_vec());
            }
        });
        for frame in staged {
            assert!(wire.stage(&frame));
            answers += 1;
        }
        wire.show(answers);
        answers > 0
    }
}

#[test]
fn what_a_router_has_said_counts_for_the_next_connection() {
    let mut path = Path::new(1300);
    let first = path.join(0);
    path.crowd.stack.send(first, path.now, &[7; 100], false).expect("a live connection");
    path.crowd.stack.send_touched(path.now);
    let record = *path.crowd.stack.record(first).expect("a record");
    let seq = path.crowd.peers[0].ack;
    path.crowd.stack.packet_too_big(first, record.generation, seq, 1300, path.now);
    assert_eq!(path.transfer(first), Transfer { largest: 1300, lost: 0 });

    let next = path.join(1);
    assert_eq!(path.transfer(next), Transfer { largest: 1300, lost: 0 }, "the same peer");

    path.fits = WHOLE;
    let elsewhere = path.join(PORTS);
    assert_eq!(path.transfer(elsewhere), Transfer { largest: WHOLE, lost: 0 }, "another peer");

    path.now = path.now.after(10 * MINUTE + MS);
    let later = path.join(2);
    assert_eq!(path.transfer(later), Transfer { largest: WHOLE, lost: 0 }, "ten minutes later");
}

#[test]
fn a_black_hole_is_found_once() {
    let mut path = Path::new(1300);
    let first = path.join(0);
    let seen = path.transfer(first);
    assert!(seen.largest == WHOLE && seen.lost > 0, "{seen:?}");
    assert!(path.count(Counter::BlackHoles) > 0);

    let (holes, resent) = (path.count(Counter::BlackHoles), path.count(Counter::Retransmits));
    let next = path.join(1);
    let seen = path.transfer(next);
    assert!(seen.largest <= 1300 && seen.lost == 0, "{seen:?}");
    assert_eq!((path.count(Counter::BlackHoles), path.count(Counter::Retransmits)), (holes, resent));
}
