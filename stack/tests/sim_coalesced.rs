//! Hosts that look seldom: what arrives, arrives together. A network card gathers interrupts, a busy program comes late, and acknowledgements
//! come in batches or are one for many segments. Nothing but the time spent waiting may be lost by it.

use underpass_stack::stats::Counter;
use underpass_stack::tcp::Algorithm;
use underpass_stack::testkit::{A, B, LinkSpec, Pair, Setup};

const US: u64 = 1000;
const MS: u64 = 1000 * US;
const SECOND: u64 = 1000 * MS;
const ALGORITHMS: [Algorithm; 4] = [Algorithm::Cubic, Algorithm::Reno, Algorithm::Bbr, Algorithm::Dctcp];
/// How often each of the two hosts looks, ns: the sender sees acknowledgements together, the receiver segments, or both.
const SELDOM: [[u64; 2]; 5] = [[200 * US, 0], [2 * MS, 0], [0, 200 * US], [0, 2 * MS], [2 * MS, 2 * MS]];
/// A round trip without waiting, ns.
const RTT: u64 = 20 * MS;

/// A path of `rate` bits a second with a queue of `queue` bytes, between hosts that look every `seldom` ns.
fn pair(algorithm: Algorithm, [sender, receiver]: [u64; 2], rate: u64, queue: u64, seed: u64) -> Pair {
    let setup = Setup { ring: 8 << 20, wscale: 8, congestion: algorithm, ..Setup::default() };
    let link = LinkSpec { delay: RTT / 2, rate, queue, ..LinkSpec::CLEAN };
    let mut pair = Pair::new(&setup, link, seed);
    pair.links[A].spec.coalesce = receiver;
    pair.links[B].spec.coalesce = sender;
    pair
}

/// Carries bytes until `done` says so of their number, or `nanos` have passed. Returns bytes and time.
fn carry(pair: &mut Pair, nanos: u64, mut done: impl FnMut(u64) -> bool) -> (u64, u64) {
    let (data, mut received, start) = (vec![7; 1 << 16], 0, pair.now);
    pair.run(nanos, |pair| {
        let now = pair.now;
        while pair.hosts[A].connection().send(now, &data, false) == data.len() {}
        received += pair.hosts[B].connection().discard(usize::MAX) as u64;
        pair.flush();
        done(received)
    });
    (received, pair.now.nanos_since(start))
}

/// How long the first 2 MB take, ns.
fn first_bytes(algorithm: Algorithm, seldom: [u64; 2]) -> u64 {
    const BYTES: u64 = 2_000_000;
    let mut pair = pair(algorithm, seldom, 1_000_000_000, 10_000_000, 1);
    let (_, nanos) = carry(&mut pair, 20 * SECOND, |received| received >= BYTES);
    println!("{algorithm:?} {seldom:?}: {} us, timeouts {}", nanos / US, pair.hosts[A].count(Counter::Timeouts));
    nanos
}

#[test]
fn a_slow_start_takes_no_more_round_trips() {
    for algorithm in ALGORITHMS {
        let alone = first_bytes(algorithm, [0, 0]);
        for seldom in SELDOM {
            // So much longer a round trip may be.
            let longer = RTT + seldom[A] + seldom[B];
            let nanos = first_bytes(algorithm, seldom);
            assert!(nanos <= alone * longer / RTT + longer, "{algorithm:?} {seldom:?}: {nanos} ns, alone {alone}");
        }
    }
}

/// Megabits a second with rare losses, the mean of some seeds.
fn goodput(algorithm: Algorithm, seldom: [u64; 2], rare_loss: u64) -> f64 {
    const SECONDS: u64 = 10;
    const SEEDS: u64 = 3;
    let bits = (0..SEEDS).map(|seed| {
        let mut pair = pair(algorithm, seldom, 40_000_000, 100_000, seed);
        pair.links[A].spec.rare_loss = rare_loss;
        let (received, _) = carry(&mut pair, SECONDS * SECOND, |_| false);
        received as f64 * 8.0 / SECONDS as f64 / 1e6
    });
    let mean = bits.sum::<f64>() / SEEDS as f64;
    println!("{algorithm:?} {seldom:?} {rare_loss}: {mean:.2} Mbit/s");
    mean
}

#[test]
fn bulk_transfers_carry_as_much() {
    for algorithm in ALGORITHMS {
        for rare_loss in [0, 1_000] {
            let alone = goodput(algorithm, [0, 0], rare_loss);
            for seldom in SELDOM {
                let rate = goodput(algorithm, seldom, rare_loss);
                assert!(rate >= 0.8 * alone, "{algorithm:?} {seldom:?} {rare_loss}: {rate}, alone {alone}");
            }
        }
    }
}
