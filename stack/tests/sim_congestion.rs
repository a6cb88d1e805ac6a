//! What congestion control makes of a bottleneck: a link with a rate and a queue.

use underpass_stack::stats::Counter;
use underpass_stack::tcp::{Algorithm, Learnt};
use underpass_stack::testkit::{A, B, LinkSpec, Pair, Setup};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

/// A path both of whose directions have `rate` bits a second and half of `rtt` ns, with a queue of one
/// bandwidth-delay product.
fn path(rate: u64, rtt: u64, rare_loss: u64) -> LinkSpec {
    LinkSpec { delay: rtt / 2, rate, queue: rate / 8 * (rtt / 1000) / 1_000_000, rare_loss, ..LinkSpec::default() }
}

/// A sender that always has something to say, to a receiver that reads at once. Returns megabits a second that
/// arrived in `seconds`, and the pair.
fn goodput(algorithm: Algorithm, link: LinkSpec, seconds: u64, seed: u64) -> (f64, Pair) {
    goodput_with(algorithm, link, seconds, seed, |_| ())
}

/// The same, with something that happens after each step.
fn goodput_with(
    algorithm: Algorithm,
    link: LinkSpec,
    seconds: u64,
    seed: u64,
    mut after_step: impl FnMut(&mut Pair),
) -> (f64, Pair) {
    let setup = Setup { ring: 8 << 20, wscale: 8, congestion: algorithm, ..Setup::default() };
    let mut pair = Pair::new(&setup, LinkSpec { rare_loss: 0, ..link }, seed);
    pair.links[A].spec = link;
    let data = vec![7; 1 << 16];
    let mut received = 0;
    pair.run(seconds * SECOND, |pair| {
        let now = pair.now;
        while pair.hosts[A].connection().send(now, &data, false) == data.len() {}
        received += pair.hosts[B].connection().discard(usize::MAX) as u64;
        pair.flush();
        after_step(pair);
        false
    });
    let rate = received as f64 * 8.0 / seconds as f64 / 1e6;
    let (cwnd, ssthresh) = pair.hosts[A].tcb.congestion();
    println!(
        "{algorithm:?} {} Mbit/s {} ms loss {} ppm seed {seed}: {rate:.1} Mbit/s, again {}, fast {}, timeouts {}, overflows {}, cwnd {cwnd} ssthresh {ssthresh}",
        link.rate / 1_000_000,
        2 * link.delay / MS,
        link.rare_loss,
        pair.hosts[A].count(Counter::Retransmits),
        pair.hosts[A].count(Counter::FastRetransmits),
        pair.hosts[A].count(Counter::Timeouts),
        pair.links[A].overflowed(),
    );
    (rate, pair)
}

#[test]
fn on_a_long_fat_link_cubic_carries_at_least_as_much() {
    let link = path(100_000_000, 100 * MS, 0);
    let (cubic, _) = goodput(Algorithm::Cubic, link, 40, 1);
    let (reno, _) = goodput(Algorithm::Reno, link, 40, 1);
    assert!(cubic >= 0.98 * reno, "{cubic} {reno}");
}

#[test]
fn on_a_long_fat_link_with_rare_loss_cubic_carries_more() {
    let link = path(100_000_000, 100 * MS, 100);
    let sum = |algorithm| (0..5).map(|seed| goodput(algorithm, link, 60, seed).0).sum::<f64>();
    let (cubic, reno) = (sum(Algorithm::Cubic), sum(Algorithm::Reno));
    assert!(cubic >= reno, "{cubic} {reno}");
}

#[test]
fn on_a_short_link_both_carry_the_same() {
    for rare_loss in [0, 100] {
        let link = path(1_000_000_000, MS, rare_loss);
        let (cubic, _) = goodput(Algorithm::Cubic, link, 5, 1);
        let (reno, _) = goodput(Algorithm::Reno, link, 5, 1);
        assert!((cubic - reno).abs() <= 0.1 * reno, "{cubic} {reno}");
    }
}

/// Round trips tell of the queue one round after it has begun to grow, so a queue of one bandwidth-delay product still
/// overflows, but less is lost.
#[test]
fn longer_round_trips_end_slow_start() {
    let shallow = path(100_000_000, 100 * MS, 0);
    let (_, cubic) = goodput(Algorithm::Cubic, shallow, 3, 1);
    let (_, reno) = goodput(Algorithm::Reno, shallow, 3, 1);
    assert!(cubic.links[A].overflowed() * 3 < reno.links[A].overflowed() * 2);
    assert_eq!(cubic.hosts[A].count(Counter::Timeouts), 0);

    let mut deep = path(20_000_000, 100 * MS, 0);
    deep.queue *= 12;
    let (_, cubic) = goodput(Algorithm::Cubic, deep, 5, 1);
    assert_eq!((cubic.links[A].overflowed(), cubic.hosts[A].count(Counter::Retransmits)), (0, 0));
    assert_ne!(cubic.hosts[A].tcb.congestion().1, u32::MAX, "congestion avoidance");
    let (_, reno) = goodput(Algorithm::Reno, deep, 5, 1);
    assert_ne!(reno.links[A].overflowed(), 0, "only a loss ends it");
}

#[test]
fn what_was_learnt_survives_changes_of_hands() {
    let seconds = 30;
    for rare_loss in [0, 20] {
        let link = path(100_000_000, 100 * MS, rare_loss);
        for algorithm in [Algorithm::Cubic, Algorithm::Reno] {
            let (alone, _) = goodput(algorithm, link, seconds, 3);
            let mut hands = 0;
            let (handed, _) = goodput_with(algorithm, link, seconds, 3, |pair| {
                if pair.now.0 / SECOND > hands {
                    hands = pair.now.0 / SECOND;
                    pair.hosts[A].change_hands(pair.now);
                }
            });
            assert!(hands >= seconds && handed >= 0.8 * alone, "{algorithm:?}: {handed} {alone}");
        }
    }
}

/// What a sender finds in flight when it takes over left nobody knows when: the first acknowledgement, a moment later, is no measure of a rate.
#[test]
fn bbr_believes_no_rate_of_what_another_owner_sent() {
    let (seconds, link) = (10, path(100_000_000, 20 * MS, 0));
    let known = Learnt::Bbr { bandwidth: 11_900_000, min_rtt_us: 20_100, full: true };
    let (alone, pair) = goodput(Algorithm::Bbr, link, seconds, 3);
    let lost_alone = pair.links[A].overflowed();
    let mut hands = 0;
    let (handed, pair) = goodput_with(Algorithm::Bbr, link, seconds, 3, |pair| {
        if pair.now.0 / SECOND > hands {
            hands = pair.now.0 / SECOND;
            let now = pair.now;
            pair.hosts[A].change_hands(now);
            // As who takes a connection over from the kernel is told.
            pair.hosts[A].tcb.learn_congestion(&known, now);
        }
    });
    let lost = pair.links[A].overflowed();
    assert!(hands >= seconds && handed >= 0.95 * alone, "{handed} {alone}");
    assert!(lost <= 2 * lost_alone, "{lost} {lost_alone}");
}
