//! The interface's MTU bounds what is sent, not what is received: it may be raised while queues are attached.

use underpass_stack::stats::Counter;
use underpass_stack::tcp::{Flags, Instant};
use underpass_stack::testkit::Crowd;
use underpass_stack::testkit::wire::FRAME;

#[test]
fn a_frame_may_be_as_long_as_its_buffer() {
    let start = Instant(1_000_000_000);
    let mut crowd = Crowd::new(1, 64 << 10, start).expect("room for a connection");
    let mut frame = vec![0; FRAME as usize];
    let data = vec![7; FRAME as usize - 54];
    let len = crowd.peers[0].send(&mut frame, Flags::default(), &data);
    assert_eq!(len, FRAME as usize);
    assert!(crowd.wire.stage(&frame[..len]));
    crowd.wire.show(1);
    assert_eq!(crowd.stack.pass(start), 1);
    assert_eq!(crowd.stack.stats().get(Counter::RxOversize), 0);
    assert_eq!(crowd.stack.connection(0).expect("a live connection").tcb.readable(), data.len());
}
