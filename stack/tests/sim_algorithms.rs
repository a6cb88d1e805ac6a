//! Each congestion control at a bottleneck: how much it carries, how long the queue is that it keeps, and who else gets something.

use underpass_stack::stats::Counter;
use underpass_stack::tcp::Algorithm::{self, *};
use underpass_stack::tcp::image::flag;
use underpass_stack::testkit::{A, LinkSpec, Setup, Shared, fairness};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

/// A link of `rate` bits a second and a round trip of `rtt` ns, whose queue holds `products` of them.
fn path(rate: u64, rtt: u64, products: f64) -> LinkSpec {
    let product = rate / 8 * (rtt / 1000) / 1_000_000;
    LinkSpec { delay: rtt / 2, rate, queue: (product as f64 * products) as u64, ..LinkSpec::default() }
}

fn setup(congestion: Algorithm) -> Setup {
    Setup { ring: 8 << 20, wscale: 8, congestion, ..Setup::default() }
}

/// What became of it after a time to settle.
struct Seen {
    /// Megabits a second of each.
    rates: Vec<f64>,
    /// Share of the link.
    used: f64,
    /// Mean time in the queue, in round trips without it.
    wait: f64,
    shared: Shared,
}

fn play(name: &str, setups: &[Setup], apart: u64, link: LinkSpec, settle: u64, seconds: u64) -> Seen {
    let mut shared = Shared::new(setups, apart, link, 7);
    shared.run(settle * SECOND);
    shared.links[A].take_mean_wait();
    let rates = shared.rates(seconds * SECOND);
    let used = rates.iter().sum::<f64>() * 1e6 / link.rate as f64;
    let wait = shared.links[A].take_mean_wait() as f64 / (2 * link.delay) as f64;
    let count = |counter| shared.flows.iter().map(|flow| flow.hosts[A].count(counter)).sum::<u64>();
    println!(
        "{name}: {} Mbit/s {} ms queue {} KB loss {} ppm: used {:.1} %, wait {wait:.2} rtt, rates {rates:.1?}, fairness {:.3}, \
         again {}, timeouts {}, overflows {}, marked {}",
        link.rate / 1_000_000,
        2 * link.delay / MS,
        link.queue / 1000,
        link.rare_loss,
        used * 100.0,
        fairness(&rates),
        count(Counter::Retransmits),
        count(Counter::Timeouts),
        shared.links[A].overflowed(),
        shared.links[A].marked(),
    );
    Seen { rates, used, wait, shared }
}

fn alone(algorithm: Algorithm, link: LinkSpec, settle: u64, seconds: u64) -> Seen {
    play(algorithm.name(), &[setup(algorithm)], 0, link, settle, seconds)
}

#[test]
fn each_fills_the_link() {
    for (rate, rtt) in [(10_000_000, 20 * MS), (100_000_000, 40 * MS), (1_000_000_000, 5 * MS)] {
        for &algorithm in Algorithm::ALL {
            let seen = alone(algorithm, path(rate, rtt, 1.0), 10, 20);
            assert!(seen.used >= 0.88, "{algorithm:?} {rate}: {}", seen.used);
        }
    }
}

/// In a queue of eight products, what goes by losses fills it; what goes by rates does not.
#[test]
fn bbr_leaves_a_deep_queue_short() {
    let link = path(50_000_000, 40 * MS, 8.0);
    let bbr = alone(Bbr, link, 5, 20);
    let reno = alone(Reno, link, 5, 20);
    assert!(bbr.used >= 0.9 && bbr.wait <= 0.5, "{} {}", bbr.used, bbr.wait);
    assert!(reno.wait >= 2.0 * bbr.wait, "{} {}", reno.wait, bbr.wait);
    assert_eq!(bbr.shared.links[A].overflowed(), 0);
}

/// Random loss says nothing of the path's rate.
#[test]
fn under_random_loss_bbr_carries_what_the_path_carries() {
    for percent in [1, 2, 3] {
        let mut link = path(50_000_000, 40 * MS, 2.0);
        link.rare_loss = percent * 10_000;
        let bbr = alone(Bbr, link, 5, 20);
        let cubic = alone(Cubic, link, 5, 20);
        assert!(bbr.used >= 0.8 && bbr.used >= 3.0 * cubic.used, "{percent} %: {} {}", bbr.used, cubic.used);
    }
}

#[test]
fn two_of_a_kind_share() {
    for (algorithm, least) in [(Cubic, 0.85), (Reno, 0.85), (Bbr, 0.85)] {
        let seen = play("two", &[setup(algorithm); 2], 3 * SECOND, path(50_000_000, 40 * MS, 1.0), 20, 60);
        assert!(fairness(&seen.rates) >= least, "{algorithm:?}: {:?}", seen.rates);
        assert!(seen.used >= 0.88, "{algorithm:?}: {}", seen.used);
    }
}

/// Where the product of rate and round trip is small, CUBIC is to take no more than NewReno would (RFC 9438, section 4.3); where it is large,
/// it takes what NewReno leaves.
#[test]
fn cubic_lets_newreno_live() {
    let seen = play("cubic and reno", &[setup(Cubic), setup(Reno)], 0, path(20_000_000, 10 * MS, 1.0), 10, 60);
    assert!(fairness(&seen.rates) >= 0.8, "{:?}", seen.rates);
    let seen = play("cubic and reno", &[setup(Cubic), setup(Reno)], 0, path(50_000_000, 100 * MS, 1.0), 20, 60);
    assert!(seen.rates[1] >= 0.05 * seen.rates[0], "{:?}", seen.rates);
}

fn with_ecn(algorithm: Algorithm) -> Setup {
    let plain = setup(algorithm);
    Setup { flags: plain.flags | flag::ECN, ..plain }
}

/// Over either family, of which each carries marks in a field of its own: who goes by marks has nothing to send again.
#[test]
fn with_marks_each_fills_the_link() {
    for (algorithm, v6) in Algorithm::ALL.iter().flat_map(|algorithm| [(*algorithm, false), (*algorithm, true)]) {
        let mut link = path(40_000_000, 20 * MS, 2.0);
        link.mark = link.queue / 4;
        let mut seen = play("marks", &[Setup { v6, ..with_ecn(algorithm) }], 0, link, 5, 20);
        assert!(seen.used >= 0.88, "{algorithm:?}, IPv6 {v6}: {}", seen.used);
        let host = &mut seen.shared.flows[0].hosts[A];
        let (echoed, again) = (host.connection().seldom().delivered_ce, host.count(Counter::Retransmits));
        assert!(seen.shared.links[A].marked() > 10 && echoed > 10, "{algorithm:?}, IPv6 {v6}: {echoed} echoed");
        // BBR goes by rates.
        assert!(algorithm == Bbr || (seen.wait < 1.0 && again == 0), "{algorithm:?}, {v6}: {} {again}", seen.wait);
    }
}

/// Marks do what losses do, without anything to be sent again.
#[test]
fn marks_keep_the_queue_short_and_nothing_is_lost() {
    for (algorithm, v6) in [(Cubic, false), (Cubic, true), (Reno, false), (Reno, true)] {
        let mut link = path(50_000_000, 20 * MS, 2.0);
        link.mark = link.queue / 4;
        let seen = play("ecn", &[Setup { v6, ..with_ecn(algorithm) }], 0, link, 5, 20);
        let again = seen.shared.flows[0].hosts[A].count(Counter::Retransmits);
        assert!(seen.used >= 0.85, "{algorithm:?} {}", seen.used);
        assert!(seen.shared.links[A].marked() > 0);
        let before = {
            let plain = play("no ecn", &[Setup { v6, ..setup(algorithm) }], 0, link, 5, 20);
            (plain.wait, plain.shared.flows[0].hosts[A].count(Counter::Retransmits))
        };
        assert!(seen.wait < before.0 && again * 4 < before.1, "{algorithm:?}: {} {again}, {before:?}", seen.wait);
    }
}

/// DCTCP keeps the queue at the threshold and the link full (RFC 8257, section 2), where a window that is halved would leave it empty.
#[test]
fn dctcp_keeps_the_queue_at_the_threshold() {
    let mut link = path(1_000_000_000, MS, 4.0);
    link.mark = 30_000;
    for v6 in [false, true] {
        let dctcp = play("dctcp", &[Setup { v6, ..with_ecn(Dctcp) }; 2], 10 * MS, link, 2, 5);
        let reno = play("reno with ecn", &[Setup { v6, ..with_ecn(Reno) }; 2], 10 * MS, link, 2, 5);
        assert!(dctcp.used >= 0.9 && dctcp.used >= reno.used, "{} {}", dctcp.used, reno.used);
        let queue = dctcp.wait * 125_000.0;
        assert!(queue <= 3.0 * 30_000.0, "{queue} bytes in the queue on average");
        assert!(fairness(&dctcp.rates) >= 0.95, "{:?}", dctcp.rates);
        assert_eq!(dctcp.shared.links[A].overflowed(), 0);
    }
}

/// SO_MAX_PACING_RATE, with an algorithm that does not pace by itself.
#[test]
fn a_limit_on_the_rate_is_kept() {
    for algorithm in [Cubic, Bbr] {
        let mut shared = Shared::new(&[setup(algorithm)], 0, path(100_000_000, 20 * MS, 2.0), 3);
        shared.flows[0].hosts[A].tcb.limit_pacing(2_500_000);
        shared.run(2 * SECOND);
        let rate = shared.rates(10 * SECOND)[0];
        assert!((17.5..=20.1).contains(&rate), "{algorithm:?}: {rate}");
        assert!(shared.links[A].take_mean_wait() < MS, "nothing waits");
        shared.flows[0].hosts[A].tcb.limit_pacing(u64::MAX);
        shared.run(5 * SECOND);
        let rate = shared.rates(10 * SECOND)[0];
        assert!(rate >= 80.0, "{algorithm:?}: {rate}");
    }
}
