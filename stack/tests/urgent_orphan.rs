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
