//! Flow control: the windows of both sides.

use proptest::prelude::*;
use underpass_stack::stats::Counter;
use underpass_stack::tcp::Kind;
use underpass_stack::tcp::image::flag;
use underpass_stack::testkit::traffic::Traffic;
use underpass_stack::testkit::{A, B, LinkSpec, Pair, Setup};

const SECOND: u64 = 1_000_000_000;
const RING: u64 = 64 << 10;

#[test]
fn a_full_receiver_stops_the_sender_and_is_probed() {
    let mut pair = Pair::new(&Setup::default(), LinkSpec::default(), 1);
    let mut traffic = Traffic::new([200_000, 0], 4000, 1);
    traffic.reads[B] = false;
    assert!(!pair.run(60 * SECOND, |p| {
        traffic.work(p);
        traffic.is_done()
    }));
    // The window field counts in units of 128 bytes.
    assert!(RING - pair.hosts[B].tcb.readable() as u64 <= 128, "the ring is full");
    assert!(pair.hosts[A].count(Counter::ZeroWindowProbes) >= 5, "probed");
    assert!(pair.hosts[A].count(Counter::ZeroWindowProbes) <= 12, "ever more rarely");
    assert!(!pair.hosts[A].seen.timed_out, "the probes are answered");
    traffic.reads[B] = true;
    let nanos = traffic.run(&mut pair, 60 * SECOND, |_| ());
    assert!(nanos < SECOND / 10, "reading opens the window at once: {nanos}");
}

#[test]
fn a_lost_window_update_is_found_by_a_probe() {
    let mut pair = Pair::new(&Setup::default(), LinkSpec::default(), 1);
    let mut traffic = Traffic::new([100_000, 0], 4000, 1);
    traffic.reads[B] = false;
    pair.run(SECOND, |p| {
        traffic.work(p);
        false
    });
    pair.links[B].spec.loss = 1000;
    traffic.reads[B] = true;
    traffic.work(&mut pair);
    pair.links[B].spec.loss = 0;
    traffic.run(&mut pair, 10 * SECOND, |_| ());
}

#[test]
fn unanswered_window_probes_give_the_connection_up() {
    let mut pair = Pair::new(&Setup::default(), LinkSpec::default(), 1);
    let mut traffic = Traffic::new([100_000, 0], 4000, 1);
    traffic.reads[B] = false;
    pair.run(SECOND, |p| {
        traffic.work(p);
        false
    });
    pair.links[B].spec.loss = 1000;
    assert!(pair.run(100 * SECOND, |p| p.hosts[A].seen.timed_out));
}

#[test]
fn a_slow_reader_causes_no_silly_windows() {
    let mut pair = Pair::new(&Setup::default(), LinkSpec::default(), 1);
    pair.log = Some(Vec::new());
    let mut traffic = Traffic::new([300_000, 0], 50, 1);
    traffic.reads[B] = false;
    for _ in 0..1000 {
        traffic.work(&mut pair);
        pair.pass(1_000_000);
        let mut bite = [0; 50];
        for _ in 0..80 {
            traffic.received[B] += pair.hosts[B].connection().recv(&mut bite) as u64;
        }
    }
    assert_eq!(traffic.received[B], 300_000);
    let log = pair.log.take().unwrap();
    let small = log.iter().filter(|(_, side, s)| *side == A && s.kind == Kind::Data && s.len < 1000).count();
    let all = log.iter().filter(|(_, side, s)| *side == A && s.kind == Kind::Data).count();
    assert!(small * 10 < all, "{small} of {all} segments are small");
}

/// What one side has promised and what it could hold, followed over a whole run.
fn watch_edges(setup: &Setup, link: LinkSpec, seed: u64) {
    let mut pair = Pair::new(setup, link, seed);
    pair.log = Some(Vec::new());
    let mut traffic = Traffic::new([150_000, 150_000], 3000, seed);
    let mut edges = [None; 2];
    let mut segments = 0u64;
    traffic.run(&mut pair, 1000 * SECOND, |pair| {
        for (_, side, segment) in pair.log.replace(Vec::new()).unwrap() {
            let scale = if setup.flags & flag::WSCALE != 0 { setup.wscale } else { 0 };
            let edge = segment.ack.plus(u32::from(segment.window) << scale);
            let before = *edges[side].get_or_insert(edge);
            let slack = (1u32 << scale) - 1;
            assert!(edge.plus(slack).ge(before), "the edge moved back by {}", before.since(edge));
            let (image, ..) = pair.hosts[side].export(pair.now);
            let room = image.rcv_read.wrapping_add(setup.ring as u32);
            assert!((room.wrapping_sub(edge.0) as i32) >= 0, "promised more than the ring holds");
            edges[side] = Some(before.later(edge));
            segments += 1;
        }
    });
    assert!(segments > 100, "{segments}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_right_edge_never_moves_back_nor_beyond_the_ring(
        seed: u64, wscale in 0u8..11, loss in 0u64..50, isn_a: u32, isn_b: u32,
    ) {
        let flags = flag::SACK | flag::TIMESTAMPS | if wscale > 0 { flag::WSCALE } else { 0 };
        let setup = Setup { wscale, flags, isn: [isn_a, isn_b], ..Setup::default() };
        watch_edges(&setup, LinkSpec { loss, ..LinkSpec::default() }, seed);
    }
}
