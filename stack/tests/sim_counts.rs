//! What TCP_INFO counts over a connection's life: is it what has happened, and does it never go back?

use underpass_stack::stats::Counter;
use underpass_stack::tcp::image::flag;
use underpass_stack::tcp::tally::Seldom;
use underpass_stack::tcp::{Kind, SegmentOut};
use underpass_stack::testkit::traffic::Traffic;
use underpass_stack::testkit::{A, B, LinkSpec, Pair, Setup};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
const MSS: u64 = 1448;

fn pair(link: LinkSpec, flags: u32) -> Pair {
    let setup = Setup { flags: Setup::default().flags | flags, ..Setup::default() };
    let mut pair = Pair::new(&setup, link, 5);
    pair.log = Some(Vec::new());
    pair
}

/// Segments with data that A has sent for the first time.
fn originals(pair: &Pair) -> u32 {
    let is_one = |side: usize, kind: Kind, len: u32| side == A && kind != Kind::Retransmission && len > 0;
    pair.log.as_ref().unwrap().iter().filter(|(_, side, s)| is_one(*side, s.kind, s.len)).count() as u32
}

/// `bytes` from A to B, in writes of up to `chunk`; what has been delivered never becomes less.
fn transfer(pair: &mut Pair, bytes: u64, chunk: u64) -> Seldom {
    let (mut traffic, mut before) = (Traffic::new([bytes, 0], chunk, 1), 0);
    traffic.run(pair, 600 * SECOND, |pair| {
        let delivered = pair.hosts[A].connection().delivered();
        assert!(delivered >= before, "{delivered} after {before}");
        before = delivered;
    });
    assert!(traffic.is_done());
    assert!(pair.run(60 * SECOND, |pair| pair.hosts[A].tcb.unacked() == 0));
    pair.hosts[A].connection().seldom()
}

#[test]
fn what_was_sent_and_is_no_longer_out_was_delivered() {
    let lossy =
        LinkSpec { loss: 20, duplication: 10, reordering: 30, jitter: 2 * MS, delay: 5 * MS, ..LinkSpec::CLEAN };
    for (link, chunk) in [(LinkSpec::CLEAN, 300), (LinkSpec::CLEAN, 20_000), (lossy, 300), (lossy, 20_000)] {
        let mut pair = pair(link, 0);
        transfer(&mut pair, 500_000, chunk);
        assert_eq!(pair.hosts[A].connection().delivered(), originals(&pair), "{link:?}, {chunk}");
    }
}

#[test]
fn what_was_in_flight_at_an_import_is_delivered_too() {
    let mut pair = pair(LinkSpec { delay: 5 * MS, ..LinkSpec::CLEAN }, 0);
    let now = pair.now;
    pair.hosts[A].connection().send(now, &[1; 4 * MSS as usize], false);
    pair.flush();
    pair.hosts[A].change_hands(now);
    assert_eq!(pair.hosts[A].connection().delivered(), 0);
    assert!(pair.run(SECOND, |pair| pair.hosts[A].tcb.unacked() == 0));
    assert_eq!(pair.hosts[A].connection().delivered(), 4);
}

/// What is out looks like more segments when they must be smaller.
#[test]
fn smaller_segments_take_nothing_back() {
    let mut pair = pair(LinkSpec { delay: 5 * MS, ..LinkSpec::CLEAN }, 0);
    transfer(&mut pair, 10 * MSS, 20_000);
    let now = pair.now;
    let seq = pair.log.as_ref().unwrap().last().unwrap().2.ack;
    pair.hosts[A].connection().send(now, &[1; 4 * MSS as usize], false);
    pair.flush();
    let delivered = pair.hosts[A].connection().delivered();
    pair.hosts[A].packet_too_big(now, seq, 600);
    assert!(pair.hosts[A].tcb.mss() < 600);
    assert_eq!(pair.hosts[A].connection().delivered(), delivered);
}

#[test]
fn segments_that_overtake_others_are_counted_at_both_ends() {
    let link = LinkSpec { reordering: 20, jitter: MS, delay: 5 * MS, ..LinkSpec::CLEAN };
    let mut pair = pair(link, 0);
    let sender = transfer(&mut pair, 10_000_000, 20_000);
    let receiver = pair.hosts[B].connection().seldom();
    assert_eq!(u64::from(receiver.out_of_order), pair.hosts[B].count(Counter::RxOutOfOrder));
    assert!(receiver.out_of_order > 10, "{receiver:?}");
    assert!(sender.reordered > sender.data_resent, "most of it makes nothing go again: {sender:?}");
    assert!(sender.reordered <= receiver.out_of_order, "an acknowledgement each at most");
    assert_eq!(transfer(&mut self::pair(LinkSpec::CLEAN, 0), 1_000_000, 20_000).reordered, 0);
}

#[test]
fn what_arrives_twice_comes_back_as_duplicate() {
    let mut pair = pair(LinkSpec { delay: 5 * MS, ..LinkSpec::CLEAN }, 0);
    pair.links[A].spec.duplication = 20;
    let sender = transfer(&mut pair, 1_000_000, 20_000);
    // A report's first block lies before what its segment acknowledges (RFC 2883, section 4).
    let is_report = |s: &SegmentOut| s.sack.as_slice().first().is_some_and(|(_, end)| end.le(s.ack));
    let reports = pair.log.as_ref().unwrap().iter().filter(|(_, side, s)| *side == B && is_report(s)).count();
    assert!(reports > 5, "{reports}");
    assert_eq!(sender.dsack_dups as usize, reports, "a segment each");
}

#[test]
fn marked_segments_are_some_of_those_delivered() {
    let link = LinkSpec { delay: 5 * MS, rate: 10_000_000, queue: 100_000, mark: 20_000, ..LinkSpec::CLEAN };
    let mut pair = pair(link, flag::ECN);
    let sender = transfer(&mut pair, 1_000_000, 20_000);
    let marked = pair.links[A].marked();
    // The receiver says so until it is answered, so more are than were marked.
    assert!(marked > 0 && u64::from(sender.delivered_ce) >= marked, "{marked} {sender:?}");
    assert!(sender.delivered_ce < pair.hosts[A].connection().delivered());
    assert_eq!(transfer(&mut self::pair(LinkSpec::CLEAN, flag::ECN), 1_000_000, 20_000).delivered_ce, 0);
}

#[test]
fn timeouts_and_the_time_until_they_are_repaired() {
    let mut pair = pair(LinkSpec { delay: 5 * MS, ..LinkSpec::CLEAN }, 0);
    transfer(&mut pair, 100_000, 1_000);
    assert_eq!(pair.hosts[A].connection().seldom().timeouts, 0);
    pair.links[A].spec.loss = 1000;
    let now = pair.now;
    pair.hosts[A].connection().send(now, &[1; 10], false);
    assert!(pair.run(60 * SECOND, |pair| pair.hosts[A].count(Counter::Timeouts) == 1));
    let first = pair.now;
    assert!(pair.run(60 * SECOND, |pair| pair.hosts[A].count(Counter::Timeouts) == 3));
    let now = pair.now;
    let so_far = pair.hosts[A].connection().figures(now).timeout_time;
    assert_eq!(u64::from(so_far), now.nanos_since(first) / MS);
    pair.links[A].spec.loss = 0;
    assert!(pair.run(60 * SECOND, |pair| pair.hosts[A].tcb.unacked() == 0));
    let (took, tally) = (pair.now.nanos_since(first), pair.hosts[A].connection().seldom());
    assert_eq!((u64::from(tally.timeouts), tally.timeout_recoveries), (pair.hosts[A].count(Counter::Timeouts), 1));
    assert_eq!(u64::from(tally.timeout_time), took / MS);
    pair.pass(SECOND);
    let now = pair.now;
    assert_eq!(u64::from(pair.hosts[A].connection().figures(now).timeout_time), took / MS, "it is over");
}

#[test]
fn the_shortest_round_trip_is_told_when_one_was_measured() {
    let mut pair = pair(LinkSpec { delay: 5 * MS, ..LinkSpec::CLEAN }, 0);
    let now = pair.now;
    assert_eq!(pair.hosts[A].connection().figures(now).min_rtt, None);
    transfer(&mut pair, 100_000, 20_000);
    let now = pair.now;
    assert_eq!(pair.hosts[A].connection().figures(now).min_rtt, Some(10_000));
}
