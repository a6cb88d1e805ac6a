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

#[test]
fn each_queue_that_takes_nothing_any_more_is_noticed() {
    let mut now = Instant(1_000_000_000);
    let mut crowd = Crowd::behind(ENTRIES, 0, 256 << 10, now).expect("a stack");
    crowd.stack.detach(0);
    let mut wires: [Wire; 2] = Wire::attach_queues(&mut crowd.stack, 0, 256, ENTRIES, 1500).expect("two queues");
    let mut frame = vec![0; 2048];
    // What one ring's card has taken before is not what the other's has.
    for (n, taken) in [(0, 0), (1, 5)] {
        for slot in [2 * n, 2 * n + 1] {
            assert_eq!(crowd.join(slot, 256 << 10, now).expect("a connection"), slot as u32);
            let len = crowd.peers[slot].send(&mut frame, Flags::default(), b"which queue I come by");
            assert!(wires[n].stage(&frame[..len]));
        }
        assert_eq!(wires[n].show(2), 2);
        crowd.stack.pass(now);
        assert!(crowd.stack.send(2 * n as u32, now, &[7; SEGMENT * SEGMENTS], false).is_some());
        crowd.stack.pass(now);
        assert_eq!(wires[n].take_sent(taken, |_| ()), taken);
        wires[n].complete(taken);
        crowd.stack.pass(now);
        // This one finds the ring full and has nothing under way.
        assert!(crowd.stack.send(2 * n as u32 + 1, now, &[8; SEGMENT], false).is_some());
    }
    let (mut events, mut given_up) = (Vec::<Event>::new(), [false; 4]);
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
