//! Buffers that grow with what a path can use, and stay small where it cannot.

use underpass_stack::tcp::image::flag;
use underpass_stack::testkit::traffic::Traffic;
use underpass_stack::testkit::{A, B, LinkSpec, Pair, Setup};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const MEGABIT: u64 = 1_000_000;
const KIB: usize = 1 << 10;

fn setup() -> Setup {
    Setup { largest: 8 << 20, ..Setup::default() }
}

/// A path with a bandwidth and a round-trip time, whose queue holds a round trip.
fn path(rate: u64, rtt: u64) -> LinkSpec {
    LinkSpec { delay: rtt / 2, rate, queue: rate / 8 * rtt / SECOND, ..LinkSpec::default() }
}

#[test]
fn a_long_fat_path_is_filled() {
    // 2.5 MB are on their way; a queue that holds them all, so that only the buffers limit.
    let link = LinkSpec { queue: 64 << 20, ..path(200 * MEGABIT, 100 * MS) };
    let bytes = 48 << 20;
    for flags in [Setup::default().flags, flag::WSCALE | flag::SACK] {
        let transfer = |setup: Setup| {
            let mut pair = Pair::new(&Setup { flags, ..setup }, link, 1);
            let nanos = Traffic::new([bytes, 0], 200_000, 1).run(&mut pair, 60 * SECOND, |_| ());
            (pair, bytes * 8 * SECOND / nanos / MEGABIT)
        };
        let (_, best) = transfer(Setup { ring: 8 << 20, ..Setup::default() });
        let (pair, rate) = transfer(setup());
        let rings = (pair.hosts[A].rings().1 / KIB, pair.hosts[B].rings().0 / KIB);
        println!("{rate} Mbit/s, with large rings from the beginning {best}; rings {rings:?} KiB");
        assert!(rate >= 100 && rate * 10 >= best * 9, "{rate} Mbit/s of {best}, rings {rings:?} KiB");
        // What is not used does not grow: the other direction of each.
        assert_eq!((pair.hosts[A].rings().0, pair.hosts[B].rings().1), (64 * KIB, 64 * KIB));
    }
}

#[test]
fn a_short_path_needs_no_more_than_it_uses() {
    // 1 Gbit/s and 0.2 ms: 25 KB.
    let mut pair = Pair::new(&setup(), path(1000 * MEGABIT, MS / 5), 1);
    // As after a handshake, the receiver knows the round-trip time.
    Traffic::new([0, 5_000], 5_000, 1).run(&mut pair, SECOND, |_| ());
    pair.pass(SECOND);
    let mut read = 0;
    pair.run(SECOND, |pair| {
        let now = pair.now;
        pair.hosts[A].connection().send(now, &[7; 100_000], false);
        read += pair.hosts[B].connection().discard(usize::MAX);
        pair.flush();
        false
    });
    assert!(read > 50 << 20, "{read}");
    let (sender, receiver) = (pair.hosts[A].rings().1, pair.hosts[B].rings().0);
    println!("rings {sender} {receiver}");
    // The receiver's clock ticks in milliseconds: it may take what arrives in two of them for a round trip.
    assert!(sender <= 256 * KIB && receiver <= 512 * KIB, "{sender}, {receiver}");
}

#[test]
fn questions_and_answers_grow_nothing() {
    let mut pair = Pair::new(&setup(), path(200 * MEGABIT, 100 * MS), 1);
    let mut buffer = [0; 2000];
    for round in 0..200 {
        let now = pair.now;
        pair.hosts[A].connection().send(now, &[1; 1000], false);
        assert!(pair.run(SECOND, |pair| pair.hosts[B].tcb.readable() == 1000), "round {round}");
        pair.hosts[B].connection().recv(&mut buffer);
        let now = pair.now;
        pair.hosts[B].connection().send(now, &[2; 2000], false);
        assert!(pair.run(SECOND, |pair| pair.hosts[A].tcb.readable() == 2000), "round {round}");
        pair.hosts[A].connection().recv(&mut buffer);
    }
    for host in &pair.hosts {
        assert_eq!(host.rings(), (64 * KIB, 64 * KIB));
    }
}

#[test]
fn a_program_that_does_not_read_gets_no_larger_window() {
    let mut pair = Pair::new(&setup(), path(200 * MEGABIT, 20 * MS), 1);
    let mut traffic = Traffic::new([64 << 20, 0], 200_000, 1);
    traffic.reads[B] = false;
    pair.run(20 * SECOND, |pair| {
        traffic.work(pair);
        false
    });
    assert_eq!(pair.hosts[B].rings().0, 64 * KIB);
    assert!(pair.hosts[B].tcb.readable() <= 64 * KIB);
    // And the sender queues no more than a window's double for it.
    assert!(pair.hosts[A].rings().1 <= 256 * KIB, "{}", pair.hosts[A].rings().1);
}

#[test]
fn the_bound_holds() {
    let bound = 512 * KIB;
    let mut pair = Pair::new(&Setup { largest: bound, ..setup() }, path(1000 * MEGABIT, 50 * MS), 1);
    Traffic::new([64 << 20, 0], 200_000, 1).run(&mut pair, 60 * SECOND, |_| ());
    assert_eq!((pair.hosts[A].rings().1, pair.hosts[B].rings().0), (bound, bound));
}

#[test]
fn bytes_survive_growing_in_every_disorder() {
    for seed in 0..6 {
        let link =
            LinkSpec { loss: 5, duplication: 10, reordering: 50, jitter: 3 * MS, ..path(100 * MEGABIT, 40 * MS) };
        let isn = [u32::MAX - 300_000, u32::MAX - 3_000_000];
        let mut pair = Pair::new(&Setup { isn, ..setup() }, link, seed);
        Traffic::new([6 << 20, 6 << 20], 100_000, seed).run(&mut pair, 600 * SECOND, |_| ());
    }
}

#[test]
fn what_the_program_chose_stays() {
    let mut pair = Pair::new(&setup(), path(200 * MEGABIT, 100 * MS), 1);
    pair.hosts[B].connection().fix_window(16_384);
    let mut traffic = Traffic::new([2 << 20, 0], 200_000, 1);
    let mut most = 0;
    traffic.run(&mut pair, 600 * SECOND, |pair| {
        if pair.now.0 > 2 * SECOND {
            most = most.max(pair.hosts[A].tcb.unacked());
        }
    });
    // What had been promised before is used up in the first round trips.
    assert!((8_000..=16_384).contains(&most), "{most} bytes in flight");
    assert_eq!(pair.hosts[B].rings().0, 64 * KIB);
}
