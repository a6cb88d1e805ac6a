//! A card that does not take packets as quickly as they are made: nothing is lost for that.

use underpass_stack::stack::Event;
use underpass_stack::stack::event::TIMED_OUT;
use underpass_stack::stats::Counter;
use underpass_stack::tcp::{Flags, Instant};
use underpass_stack::testkit::{Crowd, Wire};

const ENTRIES: u32 = 16;
const SEGMENT: usize = 1460;
const SEGMENTS: usize = 100;

#[test]
fn segments_wait_for_room_in_the_ring() {
    let mut now = Instant(1_000_000_000);
    let mut crowd = Crowd::behind(ENTRIES, 1, 256 << 10, now).expect("room for a connection");
    let data: Vec<u8> = (0..SEGMENT * SEGMENTS).map(|n| ((n * 31) >> 3) as u8).collect();
    assert_eq!(crowd.stack.send(0, now, &data, false), Some(data.len()));
    let (mut arrived, mut frame) = (Vec::<u8>::new(), vec![0; 2048]);
    while arrived.len() < data.len() {
        // The card takes nothing for several passes, then all at once.
        for _ in 0..5 {
            now = now.after(1_000);
            crowd.stack.pass(now);
        }
        let peer = &mut crowd.peers[0];
        let took = crowd.wire.collect(|sent| arrived.extend(peer.receive(sent).expect("the next segment")));
        assert!(took > 0 && took <= ENTRIES as usize, "{took} frames");
        let len = crowd.peers[0].send(&mut frame, Flags::default(), b"");
        assert!(crowd.wire.stage(&frame[..len]));
        crowd.wire.show(1);
    }
    assert!(arrived == data);
    assert_eq!(crowd.stack.stats().get(Counter::Retransmits), 0);
}

#[test]
fn a_card_that_takes_nothing_any_more_is_a_connection_without_answers() {
    let mut now = Instant(1_000_000_000);
    let mut crowd = Crowd::behind(ENTRIES, 1, 256 << 10, now).expect("room for a connection");
    assert!(crowd.stack.send(0, now, &vec![7; SEGMENT * SEGMENTS], false).is_some());
    let mut events = Vec::new();
    let mut passes = 0;
    while !events.iter().any(|event: &Event| event.bits & TIMED_OUT != 0) {
        crowd.stack.pass(now);
        crowd.stack.take_events(&mut events);
        passes += 1;
        assert!(passes < 10_000, "{passes} passes in {} ms", now.0 / 1_000_000);
        now = crowd.stack.next_deadline().expect("something to wait for").max(now.after(20_000));
    }
}

/// A card of two queues with so many frames, and connections by turns on the first and on the second.
fn two_queues(frames: u32, connections: usize, now: Instant) -> (Crowd, Vec<Wire>) {
    let mut crowd = Crowd::behind(ENTRIES, 0, 256 << 10, now).expect("a stack");
    crowd.stack.detach(0);
    let mut wires = Wire::attach_queues(&mut crowd.stack, 0, frames, ENTRIES, 1500, 2).expect("two queues");
    let mut frame = vec![0; 2048];
    for slot in 0..connections {
        assert_eq!(crowd.join(slot, 256 << 10, now).expect("a connection"), slot as u32);
        let len = crowd.peers[slot].send(&mut frame, Flags::default(), b"which queue I come by");
        assert!(wires[slot % 2].stage(&frame[..len]));
    }
    wires.iter_mut().for_each(|wire| assert!(wire.show(connections) > 0));
    crowd.stack.pass(now);
    (crowd, wires)
}

/// Passes, as often as a program that waits by looking would, until all have timed out.
fn pass_until_all_give_up(crowd: &mut Crowd, mut now: Instant) {
    let (mut events, mut given_up) = (Vec::<Event>::new(), vec![false; crowd.peers.len()]);
    let mut passes = 0;
    while given_up.contains(&false) {
        crowd.stack.pass(now);
        crowd.stack.take_events(&mut events);
        for event in events.drain(..).filter(|event| event.bits & TIMED_OUT != 0) {
            given_up[event.slot as usize] = true;
        }
        passes += 1;
        assert!(passes < 20_000, "given up {given_up:?} after {passes} passes in {} ms", now.0 / 1_000_000);
        now = crowd.stack.next_deadline().expect("something to wait for").max(now.after(20_000));
    }
}

#[test]
fn each_queue_that_takes_nothing_any_more_is_noticed() {
    let now = Instant(1_000_000_000);
    let (mut crowd, mut wires) = two_queues(256, 4, now);
    // What one ring's card has taken before is not what the other's has.
    for (n, taken) in [(0, 0), (1, 5)] {
        assert!(crowd.stack.send(n, now, &[7; SEGMENT * SEGMENTS], false).is_some());
        crowd.stack.pass(now);
        let wire = &mut wires[n as usize];
        assert_eq!(wire.take_sent(taken, |_| ()), taken);
        wire.complete(taken);
        crowd.stack.pass(now);
        // This one finds the ring full and has nothing under way.
        assert!(crowd.stack.send(n + 2, now, &[8; SEGMENT], false).is_some());
    }
    pass_until_all_give_up(&mut crowd, now);
}

/// Half of the frames are for receiving.
const FEW: u32 = 2 * ENTRIES;

/// A connection of the first queue sends as much as there are frames for, and the card takes it. Returns how many frames that were.
fn use_up(crowd: &mut Crowd, wire: &mut Wire, now: Instant) -> usize {
    assert!(crowd.stack.send(0, now, &[7; SEGMENT * ENTRIES as usize], false).is_some());
    crowd.stack.pass(now);
    let sent = wire.take_sent(usize::MAX, |_| ());
    assert!(sent > 0 && !crowd.stack.free_frames(0).contains(&true), "{sent} frames, and there are others");
    sent
}

#[test]
fn frames_that_another_queue_has_sent_are_found() {
    let now = Instant(1_000_000_000);
    let (mut crowd, mut wires) = two_queues(FEW, 2, now);
    let sent = use_up(&mut crowd, &mut wires[0], now);
    wires[0].complete(sent);
    assert!(crowd.stack.send(1, now, b"without a frame?", false).is_some());
    crowd.stack.pass(now);
    let mut data = Vec::<u8>::new();
    wires[1].collect(|sent| data.extend(crowd.peers[1].receive(sent).expect("the next segment")));
    assert!(data == b"without a frame?", "{data:?}");
}

#[test]
fn without_a_frame_for_long_a_connection_is_one_without_answers() {
    let now = Instant(1_000_000_000);
    let (mut crowd, mut wires) = two_queues(FEW, 2, now);
    use_up(&mut crowd, &mut wires[0], now);
    // They never come back.
    assert!(crowd.stack.send(1, now, b"without a frame", false).is_some());
    pass_until_all_give_up(&mut crowd, now);
}
