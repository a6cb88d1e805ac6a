//! Paths that carry less than their ends believe.

use underpass_stack::stats::Counter;
use underpass_stack::tcp::SeqNr;
use underpass_stack::testkit::traffic::Traffic;
use underpass_stack::testkit::{A, B, LinkSpec, Pair, Setup};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Bytes of an Ethernet header.
const ETHERNET: u64 = 14;

/// A link of 10 ms that carries packets of `mtu` bytes and says nothing of others.
fn narrow(mtu: usize) -> LinkSpec {
    let mtu = if mtu == 0 { 0 } else { mtu as u64 + ETHERNET };
    LinkSpec { delay: 10 * MS, mtu, ..LinkSpec::default() }
}

/// Sends `bytes` from A to B.
fn transfer(pair: &mut Pair, bytes: u64, limit: u64) -> u64 {
    Traffic::new([bytes, 0], 20_000, 5).run(pair, limit, |_| ())
}

#[test]
fn a_black_hole_costs_a_second_and_no_demotion() {
    for mtu in [1492usize, 1480, 1420, 1400, 1300, 1280] {
        let mut pair = Pair::new(&Setup::default(), narrow(mtu), 1);
        let nanos = transfer(&mut pair, 4 << 20, 20 * SECOND);
        let host = &pair.hosts[A];
        let found = host.tcb.path_mtu() as usize;
        println!("{mtu}: {found} found, {} ms, {} probes lost", nanos / MS, host.count(Counter::MtuProbesLost));
        assert!(!host.seen.timed_out && host.count(Counter::BlackHoles) == 1, "{mtu}");
        assert!(found <= mtu && mtu - found < 8, "{mtu}: {found}");
        // The connection keeps what it knows when the kernel, which would not find it out, takes it.
        let (image, ..) = host.export(pair.now);
        assert_eq!(usize::from(image.mss_clamp), found - 40, "{mtu}");
    }
}

#[test]
fn the_small_end_of_a_message_does_not_hide_a_black_hole() {
    for len in [1500, 3000, 12_000, 14_000] {
        let mut pair = Pair::new(&Setup::default(), narrow(1400), 1);
        let now = pair.now;
        pair.hosts[A].connection().send(now, &vec![7; len], false);
        pair.flush();
        let done = pair.run(5 * SECOND, |pair| pair.hosts[B].tcb.readable() == len);
        let host = &pair.hosts[A];
        assert!(done && !host.seen.timed_out && host.count(Counter::BlackHoles) == 1, "{len} bytes");
    }
}

#[test]
fn a_narrow_black_hole_is_got_through_as_well() {
    for mtu in [1100usize, 1030, 700, 590] {
        let mut pair = Pair::new(&Setup::default(), narrow(mtu), 1);
        transfer(&mut pair, 4 << 20, 30 * SECOND);
        let host = &pair.hosts[A];
        let found = host.tcb.path_mtu() as usize;
        assert!(!host.seen.timed_out && found <= mtu && mtu - found < 8, "{mtu}: {found}");
    }
}

#[test]
fn a_path_that_becomes_narrow_and_wide_again() {
    let mut pair = Pair::new(&Setup::default(), narrow(0), 1);
    transfer(&mut pair, 1 << 20, 10 * SECOND);
    assert_eq!(pair.hosts[A].tcb.path_mtu(), 1500);
    pair.links[A].spec.mtu = 1400 + ETHERNET;
    transfer_more(&mut pair, 1 << 20);
    assert!((1393..=1400).contains(&pair.hosts[A].tcb.path_mtu()));
    pair.links[A].spec.mtu = 0;
    transfer_more(&mut pair, 1 << 20);
    assert!((1393..=1400).contains(&pair.hosts[A].tcb.path_mtu()), "not before ten minutes are over");
    pair.pass(600 * SECOND);
    transfer_more(&mut pair, 1 << 20);
    assert_eq!(pair.hosts[A].tcb.path_mtu(), 1500);
}

/// Bytes without a checked pattern: the streams have gone on since the checked ones.
fn transfer_more(pair: &mut Pair, bytes: u64) {
    let (mut left, mut read) = (bytes, 0);
    let done = pair.run(30 * SECOND, |pair| {
        let now = pair.now;
        left -= pair.hosts[A].connection().send(now, &vec![7; left as usize], false) as u64;
        let readable = pair.hosts[B].tcb.readable();
        read += pair.hosts[B].connection().discard(readable) as u64;
        pair.flush();
        read == bytes
    });
    assert!(done, "{read} of {bytes} bytes in 30 s");
}

#[test]
fn an_outage_is_no_black_hole_for_long() {
    let mut pair = Pair::new(&Setup::default(), narrow(0), 1);
    transfer(&mut pair, 1 << 20, 10 * SECOND);
    // Nothing passes for two seconds: as silent as a black hole.
    let now = pair.now;
    pair.hosts[A].connection().send(now, &[7; 60_000], false);
    pair.links[A].spec.loss = 1000;
    pair.pass(2 * SECOND);
    assert!(pair.hosts[A].tcb.path_mtu() < 1500);
    pair.links[A].spec.loss = 0;
    pair.run(10 * SECOND, |pair| pair.hosts[A].tcb.unacked() + pair.hosts[A].tcb.unsent() == 0);
    let readable = pair.hosts[B].tcb.readable();
    pair.hosts[B].connection().discard(readable);
    transfer_more(&mut pair, 1 << 20);
    assert_eq!((pair.hosts[A].tcb.path_mtu(), pair.hosts[A].count(Counter::MtuProbesLost)), (1500, 0));
}

#[test]
fn probes_do_not_slow_a_transfer_down() {
    // The same bytes over a path whose MTU is known, and over a black hole of that size.
    let time = |silent: bool| {
        let mut pair = Pair::new(&Setup::default(), narrow(1400), 1);
        pair.hosts[A].tcb.know_path_mtu(pair.now, if silent { 1500 } else { 1400 }, false);
        transfer(&mut pair, 8 << 20, 60 * SECOND)
    };
    let (known, found) = (time(false), time(true));
    // Two timeouts, of one second and of two, then slow start anew and a search.
    assert!(found < known + 4 * SECOND, "{} ms, {} ms", known / MS, found / MS);
}

#[test]
fn loss_beside_a_black_hole_does_not_end_the_search_too_low() {
    for seed in 0..10 {
        let mut pair = Pair::new(&Setup::default(), LinkSpec { loss: 10, ..narrow(1400) }, seed);
        transfer(&mut pair, 8 << 20, 300 * SECOND);
        let found = pair.hosts[A].tcb.path_mtu();
        assert!((1280..=1400).contains(&found), "seed {seed}: {found}");
        println!("seed {seed}: {found}");
    }
}

#[test]
fn a_router_that_speaks_costs_a_round_trip() {
    let mut pair = Pair::new(&Setup::default(), narrow(1400), 1);
    let now = pair.now;
    pair.hosts[A].connection().send(now, &[7; 30_000], false);
    pair.flush();
    let first = SeqNr(Setup::default().isn[A]);
    pair.pass(5 * MS);
    let now = pair.now;
    assert!(pair.hosts[A].connection().packet_too_big(now, first, 1400).path_mtu);
    let done = pair.run(200 * MS, |pair| pair.hosts[B].tcb.readable() == 30_000);
    assert!(done && pair.hosts[A].count(Counter::Timeouts) == 0);
    assert_eq!(pair.hosts[A].tcb.path_mtu(), 1400);
}
