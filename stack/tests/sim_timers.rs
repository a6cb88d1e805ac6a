//! What happens by itself as time passes, and what is held back for a while.

use underpass_stack::stats::Counter;
use underpass_stack::tcp::Kind;
use underpass_stack::testkit::{A, B, LinkSpec, Pair, Setup};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
const FULL: usize = 1448;

fn pair() -> Pair {
    let mut pair = Pair::new(&Setup::default(), LinkSpec::default(), 1);
    pair.log = Some(Vec::new());
    pair
}

fn send(pair: &mut Pair, side: usize, len: usize, more: bool) {
    let now = pair.now;
    assert_eq!(pair.hosts[side].connection().send(now, &vec![1; len], more), len);
    pair.flush();
}

fn read(pair: &mut Pair, side: usize) -> usize {
    let len = pair.hosts[side].connection().recv(&mut vec![0; 1 << 16]);
    pair.flush();
    len
}

/// Lengths of the data segments that A has sent so far.
fn sent(pair: &Pair) -> Vec<u32> {
    let log = pair.log.as_ref().unwrap();
    log.iter().filter(|(_, side, s)| *side == A && s.len > 0).map(|(.., s)| s.len).collect()
}

#[test]
fn an_unanswered_segment_is_acknowledged_after_40_ms() {
    let mut pair = pair();
    send(&mut pair, A, 100, false);
    let start = pair.now;
    assert!(pair.run(SECOND, |p| p.hosts[A].tcb.unacked() == 0));
    let took = pair.now.nanos_since(start);
    assert!((40 * MS..41 * MS).contains(&took), "{took}");
    assert_eq!(pair.hosts[B].count(Counter::DelayedAcks), 1);
}

#[test]
fn two_full_segments_are_acknowledged_at_once() {
    let mut pair = pair();
    send(&mut pair, A, 2 * FULL, false);
    assert!(pair.run(MS, |p| p.hosts[A].tcb.unacked() == 0));
    assert_eq!(pair.hosts[B].count(Counter::SegmentsSent), 1, "one acknowledgement for both");
}

#[test]
fn an_answer_carries_the_acknowledgement() {
    let mut pair = pair();
    for _ in 0..50 {
        send(&mut pair, A, 64, false);
        assert!(pair.run(MS, |p| p.hosts[B].tcb.readable() == 64));
        let mut request = [0; 64];
        pair.hosts[B].connection().recv(&mut request);
        send(&mut pair, B, 64, false);
        assert!(pair.run(MS, |p| p.hosts[A].tcb.readable() == 64));
        pair.hosts[A].connection().recv(&mut request);
    }
    let bare = pair.log.as_ref().unwrap().iter().filter(|(.., s)| s.kind != Kind::Data).count();
    assert_eq!(bare, 0, "100 segments carry 100 messages");
}

#[test]
fn a_message_that_is_read_but_not_answered_is_acknowledged_on_reading() {
    let mut pair = pair();
    send(&mut pair, A, 64, false);
    assert!(pair.run(MS, |p| p.hosts[B].tcb.readable() == 64));
    read(&mut pair, B);
    assert!(pair.run(MS, |p| p.hosts[A].tcb.unacked() == 0));
}

#[test]
fn nagle_holds_the_second_small_segment() {
    let mut pair = pair();
    send(&mut pair, A, 10, false);
    send(&mut pair, A, 20, false);
    send(&mut pair, A, 30, false);
    assert_eq!(sent(&pair), [10]);
    assert!(pair.run(SECOND, |p| p.hosts[B].tcb.readable() == 60));
    assert_eq!(sent(&pair), [10, 50]);
}

#[test]
fn a_full_segment_in_flight_holds_nothing_back() {
    let mut pair = pair();
    send(&mut pair, A, FULL + 10, false);
    assert_eq!(sent(&pair), [FULL as u32, 10], "Minshall: only a small one does");
}

#[test]
fn nodelay_sends_at_once_and_pushes_what_waits() {
    let mut pair = pair();
    send(&mut pair, A, 10, false);
    send(&mut pair, A, 20, false);
    pair.hosts[A].connection().set_nodelay(true);
    pair.flush();
    assert_eq!(sent(&pair), [10, 20]);
    send(&mut pair, A, 30, false);
    assert_eq!(sent(&pair), [10, 20, 30]);
}

#[test]
fn cork_holds_partial_segments_for_200_ms() {
    let mut pair = pair();
    pair.hosts[A].connection().set_nodelay(true);
    pair.hosts[A].connection().set_cork(true);
    send(&mut pair, A, FULL + 10, false);
    assert_eq!(sent(&pair), [FULL as u32], "the cork is stronger than NODELAY");
    pair.pass(199 * MS);
    assert_eq!(sent(&pair).len(), 1);
    pair.pass(2 * MS);
    assert_eq!(sent(&pair), [FULL as u32, 10]);
    send(&mut pair, A, 20, false);
    assert_eq!(sent(&pair).len(), 2);
    pair.hosts[A].connection().set_cork(false);
    pair.flush();
    assert_eq!(sent(&pair), [FULL as u32, 10, 20], "out with the cork");
}

#[test]
fn msg_more_waits_for_the_next_send() {
    let mut pair = pair();
    send(&mut pair, A, 10, true);
    assert_eq!(sent(&pair), []);
    send(&mut pair, A, 20, false);
    assert_eq!(sent(&pair), [30]);
    pair.pass(SECOND);
    send(&mut pair, A, 10, true);
    pair.pass(201 * MS);
    assert_eq!(sent(&pair), [30, 10], "or for 200 ms");
}

#[test]
fn closing_sends_what_waits() {
    let mut pair = pair();
    send(&mut pair, A, 10, true);
    let now = pair.now;
    pair.hosts[A].connection().shutdown_write(now);
    assert!(pair.run(MS, |p| p.hosts[B].seen.peer_fin && p.hosts[B].tcb.readable() == 10));
    assert_eq!(pair.hosts[A].count(Counter::SegmentsSent), 1, "FIN rides on the data");
}

#[test]
fn timeouts_double_and_then_give_up() {
    let mut pair = pair();
    pair.links[A].spec.loss = 1000;
    send(&mut pair, A, 100, false);
    let start = pair.now;
    assert!(pair.run(100 * SECOND, |p| p.hosts[A].seen.timed_out));
    assert_eq!(pair.hosts[A].count(Counter::Timeouts), 5);
    let log = pair.log.take().unwrap();
    let times: Vec<u64> = log.iter().map(|(at, ..)| at.nanos_since(start)).collect();
    let gaps: Vec<u64> = times.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(gaps.windows(2).all(|w| w[1] == 2 * w[0]), "{gaps:?}");
    // A peer that comes back is served all the same.
    pair.links[A].spec.loss = 0;
    assert!(pair.run(100 * SECOND, |p| p.hosts[B].tcb.readable() == 100));
}

#[test]
fn the_user_timeout_comes_first() {
    let mut pair = pair();
    pair.hosts[A].connection().set_user_timeout(1500);
    pair.links[A].spec.loss = 1000;
    send(&mut pair, A, 100, false);
    let start = pair.now;
    assert!(pair.run(100 * SECOND, |p| p.hosts[A].seen.timed_out));
    let took = pair.now.nanos_since(start);
    assert!((1400 * MS..2100 * MS).contains(&took), "{took}");
}

#[test]
fn keepalive_probes_a_silent_peer_and_gives_up() {
    let mut pair = pair();
    let now = pair.now;
    pair.hosts[A].connection().set_keepalive(now, true, 10_000, 1000, 3);
    pair.pass(95 * SECOND);
    let probes = pair.hosts[A].count(Counter::KeepaliveProbes);
    assert_eq!(probes, 9, "a living peer answers each");
    assert!(!pair.hosts[A].seen.timed_out);
    pair.links[B].spec.loss = 1000;
    let start = pair.now;
    assert!(pair.run(100 * SECOND, |p| p.hosts[A].seen.timed_out));
    assert!(pair.now.nanos_since(start) < 14 * SECOND);
    let now = pair.now;
    pair.hosts[A].connection().set_keepalive(now, false, 10_000, 1000, 3);
    assert_eq!(pair.hosts[A].tcb.deadline(), None);
}

#[test]
fn a_lost_tail_is_found_before_the_timeout() {
    let mut pair = pair();
    // A round trip to learn how long one is.
    send(&mut pair, A, 4 * FULL, false);
    assert!(pair.run(SECOND, |p| p.hosts[A].tcb.unacked() == 0));
    read(&mut pair, B);
    pair.pass(MS);
    send(&mut pair, A, 2 * FULL, false);
    pair.links[A].cut();
    let start = pair.now;
    assert!(pair.run(SECOND, |p| p.hosts[B].tcb.readable() == 2 * FULL));
    assert!(pair.now.nanos_since(start) < 20 * MS);
    assert_eq!(pair.hosts[A].count(Counter::Timeouts), 0);
}

#[test]
fn an_idle_connection_needs_no_timer() {
    let mut pair = pair();
    send(&mut pair, A, 60_000, false);
    while pair.hosts[A].tcb.unacked() + pair.hosts[A].tcb.unsent() > 0 {
        assert!(pair.step());
        read(&mut pair, B);
    }
    pair.pass(SECOND);
    assert_eq!((pair.hosts[A].tcb.deadline(), pair.hosts[B].tcb.deadline()), (None, None));
}
