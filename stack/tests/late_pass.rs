//! The thread that makes a pass may lose its processor after it has looked at the clock.

use underpass_stack::stats::Counter;
use underpass_stack::tcp::{Flags, Instant};
use underpass_stack::testkit::Crowd;

const MS: u64 = 1_000_000;

#[test]
fn frames_are_as_old_as_the_clock_says_when_all_of_them_have_arrived() {
    let start = Instant(1_000 * MS);
    let mut crowd = Crowd::new(1, 64 << 10, start).expect("room for a connection");
    let mut frame = vec![0; 2048];
    crowd.stack.send(0, start, &[7; 100], false).expect("a live connection");
    crowd.stack.send_touched(start);
    assert_eq!(crowd.wire.collect(|_| ()), 1);
    crowd.peers[0].ack = crowd.peers[0].ack.wrapping_add(100);
    let len = crowd.peers[0].send(&mut frame, Flags::default(), b"");
    assert!(crowd.wire.stage(&frame[..len]));
    crowd.wire.show(1);
    // Looked at the clock after 1 ms, went on after 80.
    assert_eq!(crowd.stack.pass_by(start.after(MS), || start.after(80 * MS)), 1);
    let connection = crowd.stack.connection(0).expect("a live connection");
    assert_eq!(connection.tcb.unacked(), 0);
    // An eighth of the sample and seven of the millisecond that was known before.
    assert_eq!(connection.tcb.rtt_us().0, (80_000 + 7 * 1_000) / 8);
}

/// What a timer waits for may lie behind more frames than one batch holds.
#[test]
fn no_timer_runs_before_what_had_arrived_is_read() {
    let start = Instant(1_000 * MS);
    let mut crowd = Crowd::new(2, 64 << 10, start).expect("room for two connections");
    let mut frame = vec![0; 2048];
    crowd.stack.send(0, start, &[7; 100], false).expect("a live connection");
    crowd.stack.send_touched(start);
    assert_eq!(crowd.wire.collect(|_| ()), 1);
    for _ in 0..1000 {
        let len = crowd.peers[1].send(&mut frame, Flags::default(), b"x");
        assert!(crowd.wire.stage(&frame[..len]));
    }
    crowd.peers[0].ack = crowd.peers[0].ack.wrapping_add(100);
    let len = crowd.peers[0].send(&mut frame, Flags::default(), b"");
    assert!(crowd.wire.stage(&frame[..len]));
    crowd.wire.show(1001);
    // Long after the retransmission timer ran out.
    assert_eq!(crowd.stack.pass(start.after(900 * MS)), 1001);
    let counters = crowd.stack.stats();
    let sent_again = [Counter::Timeouts, Counter::Retransmits].map(|counter| counters.get(counter));
    assert_eq!(sent_again, [0, 0]);
    assert_eq!(crowd.stack.connection(0).expect("a live connection").tcb.unacked(), 0);
}
