//! A hundred thousand connections in one stack: every one of them carries data, and what an idle one costs is bounded.

#[path = "counting_allocator/mod.rs"]
mod counting_allocator;

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use counting_allocator::Counting;
use underpass_stack::arena::{CONN_STRIDE, ConnRecord};
use underpass_stack::tcp::{Flags, Instant, Tcb};
use underpass_stack::testkit::Crowd;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONNECTIONS: usize = 100_000;
/// What the shim asks for unless told otherwise; once half of the space is taken, the stack hands out smaller ones.
const RING: u32 = 256 << 10;
/// Bytes of a request and of a response.
const MESSAGE: usize = 200;
const TICK: u64 = 1_000;
const SECOND: u64 = 1_000_000_000;

/// Bytes of memory behind the arena.
fn arena_bytes(crowd: &Crowd) -> usize {
    let fd = crowd.stack.arena().fd().expect("an arena has a descriptor").try_clone_to_owned().unwrap();
    File::from(fd).metadata().unwrap().blocks() as usize * 512
}

fn message(n: usize, response: bool) -> [u8; MESSAGE] {
    std::array::from_fn(|at| (n.wrapping_mul(2_654_435_761) >> (8 * (at % 4))) as u8 ^ at as u8 ^ u8::from(response))
}

/// A request of the peer is read and answered; all bytes are compared.
fn exchange(crowd: &mut Crowd, n: usize, now: &mut Instant, frame: &mut [u8]) {
    let (request, response) = (message(n, false), message(n, true));
    let len = crowd.peers[n].send(frame, Flags::PSH, &request);
    assert!(crowd.wire.stage(&frame[..len]));
    crowd.wire.show(1);
    now.0 += TICK;
    assert_eq!(crowd.stack.pass(*now), 1, "connection {n}");
    let mut out = [0; MESSAGE + 1];
    assert_eq!(crowd.stack.recv(n as u32, &mut out, None), Some(MESSAGE), "connection {n}");
    assert_eq!(out[..MESSAGE], request, "connection {n}");
    assert_eq!(crowd.stack.send(n as u32, *now, &response, false), Some(MESSAGE));
    crowd.stack.send_touched(*now);
    let Crowd { wire, peers, .. } = crowd;
    let mut answers = 0;
    wire.collect(|frame| {
        assert_eq!(peers[n].receive(frame), Some(&response[..]), "connection {n}");
        answers += 1;
    });
    assert_eq!(answers, 1, "connection {n}");
    // The peer acknowledges.
    let len = crowd.peers[n].send(frame, Flags::default(), &[]);
    assert!(crowd.wire.stage(&frame[..len]));
    crowd.wire.show(1);
    crowd.stack.pass(*now);
}

#[test]
fn a_hundred_thousand_connections_carry_data() {
    let (before, mut now) = (counting_allocator::live(), Instant(1_000_000_000));
    let mut frame = vec![0; 2048];
    let mut crowd = Crowd::new(CONNECTIONS, RING, now).expect("room for the connections");
    crowd.stack.send_touched(now);
    assert_eq!(crowd.stack.live(), CONNECTIONS);
    // The peers are not the stack's.
    let peers = crowd.peers.capacity() * size_of_val(&crowd.peers[0]);
    let heap = (counting_allocator::live() - before) as usize - peers;
    let arena = arena_bytes(&crowd);
    let fresh = (heap as f64 / CONNECTIONS as f64, arena as f64 / CONNECTIONS as f64);
    for round in 0..3 {
        (0..CONNECTIONS).for_each(|n| exchange(&mut crowd, (n * 7919 + round) % CONNECTIONS, &mut now, &mut frame));
    }
    let used = arena_bytes(&crowd) as f64 / CONNECTIONS as f64;
    // All are idle again: what they were lent while busy has been given back, once their timers were looked at.
    now.0 += 10 * SECOND;
    crowd.stack.pass(now);
    let heap_used = ((counting_allocator::live() - before) as usize - peers) as f64 / CONNECTIONS as f64;
    println!(
        "an idle connection: {:.0} bytes of record and {:.0} of heap; {:.0} of the arena and {heap_used:.0} of heap once it has carried data; \
         Tcb {}, record {}, stride {CONN_STRIDE}",
        fresh.1,
        fresh.0,
        used,
        size_of::<Tcb>(),
        size_of::<ConnRecord>()
    );
    assert!(size_of::<ConnRecord>() <= 704, "a record of {} bytes", size_of::<ConnRecord>());
    assert!(fresh.0 + CONN_STRIDE as f64 <= 1024.0, "{} bytes of record and {} of heap", CONN_STRIDE, fresh.0);
    assert!(fresh.1 < 1.05 * CONN_STRIDE as f64 + 64.0, "{} bytes of the arena", fresh.1);
    assert!(fresh.0 < 312.0, "{} bytes of the heap", fresh.0);
    assert!(heap_used < fresh.0 + 64.0, "{heap_used} bytes of the heap after data");
    // One page of each ring, however much went through it, and the record.
    assert!(used < fresh.1 + 2.0 * 4096.0 + 64.0, "{used} bytes of the arena after data");
    // All of it comes back.
    for slot in 0..CONNECTIONS as u32 {
        crowd.stack.freeze(slot);
        crowd.stack.release(slot);
    }
    assert_eq!(crowd.stack.live(), 0);
    let left = arena_bytes(&crowd) as f64 / CONNECTIONS as f64;
    assert!(left < fresh.1 + 64.0, "{left} bytes of the arena are left");
}
