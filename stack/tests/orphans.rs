//! A connection that nobody holds a socket for ends where the kernel would have to go on: what it left undone is the kernel's at once.

use underpass_stack::stack::Keeper;
use underpass_stack::tcp::{Flags, Instant};
use underpass_stack::testkit::Crowd;

#[test]
fn an_urgent_segment_is_not_kept_for_a_slot_that_is_free() {
    let now = Instant(1_000_000_000);
    let mut crowd = Crowd::new(1, 64 << 10, now).expect("room for a connection");
    let mut frame = vec![0; 2048];
    crowd.stack.orphan(0, now);
    let len = crowd.peers[0].send(&mut frame, Flags::URG, b"now");
    assert!(crowd.wire.stage(&frame[..len]));
    crowd.wire.show(1);
    assert_eq!(crowd.stack.pass(now), 1);
    assert_eq!(crowd.stack.live(), 0);
    let keepers: Vec<Keeper> = crowd.stack.kept_frames().into_iter().map(|(keeper, _)| keeper).collect();
    assert_eq!(keepers, [Keeper::Kernel]);
    crowd.wire.collect(|_| ());
    let leftovers = crowd.stack.take_leftovers();
    leftovers.into_iter().for_each(|leftover| crowd.stack.recycle(leftover));
    crowd.wire.assert_accounted(&crowd.stack, []);
}

/// A peer's segment for connection 0 arrives; returns how many frames went out.
fn arrive(crowd: &mut Crowd, now: Instant, flags: Flags) -> usize {
    let mut frame = vec![0; 2048];
    let len = crowd.peers[0].send(&mut frame, flags, b"");
    assert!(crowd.wire.stage(&frame[..len]));
    crowd.wire.show(1);
    assert_eq!(crowd.stack.pass(now), 1);
    crowd.wire.collect(|_| ())
}

#[test]
fn a_connection_that_has_ended_already_leaves_its_slot_at_once() {
    let now = Instant(1_000_000_000);
    for reset in [false, true] {
        let mut crowd = Crowd::new(1, 64 << 10, now).expect("room for a connection");
        if reset {
            arrive(&mut crowd, now, Flags::RST);
        } else {
            arrive(&mut crowd, now, Flags::FIN);
            crowd.stack.connection(0).expect("a live connection").shutdown_write(now);
            crowd.stack.touch(0);
            crowd.stack.send_touched(now);
            crowd.peers[0].seq = crowd.peers[0].seq.wrapping_add(1);
            crowd.peers[0].ack = crowd.peers[0].ack.wrapping_add(1);
            arrive(&mut crowd, now, Flags::default());
        }
        assert_eq!(crowd.stack.live(), 1);
        crowd.stack.orphan(0, now);
        assert_eq!(crowd.stack.live(), 0, "reset: {reset}");
    }
}

#[test]
fn a_peer_that_never_closes_is_not_waited_for() {
    let mut now = Instant(1_000_000_000);
    let mut crowd = Crowd::new(1, 64 << 10, now).expect("room for a connection");
    crowd.stack.orphan(0, now);
    crowd.stack.send_touched(now);
    assert_eq!(crowd.wire.collect(|_| ()), 1, "FIN");
    crowd.peers[0].ack = crowd.peers[0].ack.wrapping_add(1);
    arrive(&mut crowd, now, Flags::default());
    assert_eq!(crowd.stack.live(), 1, "the peer may still close");
    for _ in 0..59 {
        now = now.after(1_000_000_000);
        crowd.stack.pass(now);
    }
    assert_eq!(crowd.stack.live(), 1);
    now = now.after(1_100_000_000);
    crowd.stack.pass(now);
    assert_eq!(crowd.stack.live(), 0);
}

#[test]
fn a_window_that_stays_closed_is_not_waited_for() {
    let mut now = Instant(1_000_000_000);
    let mut crowd = Crowd::new(1, 64 << 10, now).expect("room for a connection");
    crowd.peers[0].window = 0;
    arrive(&mut crowd, now, Flags::default());
    assert_eq!(crowd.stack.send(0, now, &[7; 1000], false), Some(1000));
    crowd.stack.orphan(0, now);
    let mut probes = 0;
    while crowd.stack.live() == 1 {
        assert!(probes < 20, "it is probed for ever");
        now = crowd.stack.next_deadline().expect("a timer").max(now.after(1_000_000));
        crowd.stack.pass(now);
        if crowd.wire.collect(|_| ()) > 0 {
            probes += 1;
            arrive(&mut crowd, now, Flags::default());
        }
    }
    assert!(probes > 5, "{probes} probes");
}

#[test]
fn a_window_that_shrank_over_what_is_in_flight_is_not_waited_for() {
    let mut now = Instant(1_000_000_000);
    let mut crowd = Crowd::new(1, 64 << 10, now).expect("room for a connection");
    assert_eq!(crowd.stack.send(0, now, &[7; 2000], false), Some(2000));
    crowd.stack.send_touched(now);
    assert_eq!(crowd.wire.collect(|_| ()), 2);
    crowd.peers[0].window = 0;
    crowd.peers[0].ack = crowd.peers[0].ack.wrapping_add(1000);
    arrive(&mut crowd, now, Flags::default());
    crowd.stack.orphan(0, now);
    let mut again = 0;
    while crowd.stack.live() == 1 {
        assert!(again < 20, "it is sent again for ever");
        now = crowd.stack.next_deadline().expect("a timer").max(now.after(1_000_000));
        crowd.stack.pass(now);
        if crowd.wire.collect(|_| ()) > 0 {
            again += 1;
            arrive(&mut crowd, now, Flags::default());
        }
    }
    assert!(again > 5, "{again} times sent again");
}

#[test]
fn one_that_is_frozen_goes_on_when_it_is_thawed() {
    let now = Instant(1_000_000_000);
    let mut crowd = Crowd::new(1, 64 << 10, now).expect("room for a connection");
    crowd.stack.freeze(0).expect("a live connection");
    crowd.stack.orphan(0, now);
    crowd.stack.send_touched(now);
    assert_eq!(crowd.wire.collect(|_| ()), 0);
    crowd.stack.thaw(0, now);
    crowd.stack.send_touched(now);
    assert_eq!(crowd.wire.collect(|_| ()), 1, "FIN");
    crowd.peers[0].ack = crowd.peers[0].ack.wrapping_add(1);
    let mut later = now.after(1_000_000);
    arrive(&mut crowd, later, Flags::FIN);
    crowd.peers[0].seq = crowd.peers[0].seq.wrapping_add(1);
    // TIME-WAIT, with its whole time.
    later = later.after(59_000_000_000);
    crowd.stack.pass(later);
    assert_eq!(crowd.stack.live(), 1);
    crowd.stack.pass(later.after(1_100_000_000));
    assert_eq!(crowd.stack.live(), 0);
}
