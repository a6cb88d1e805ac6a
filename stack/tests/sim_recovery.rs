//! What loss, reordering and lost acknowledgements cost.

use underpass_stack::stats::Counter;
use underpass_stack::tcp::State;
use underpass_stack::tcp::image::flag;
use underpass_stack::testkit::traffic::Traffic;
use underpass_stack::testkit::{A, B, LinkSpec, Pair, Setup};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

/// 100 Mbit/s, 20 ms there and back, a queue of twice the bandwidth-delay product.
const PATH: LinkSpec = LinkSpec { delay: 10 * MS, rate: 100_000_000, queue: 500_000, ..LinkSpec::CLEAN };
const ALL: u32 = flag::SACK | flag::TIMESTAMPS | flag::WSCALE;
const NO_TIMESTAMPS: u32 = flag::SACK | flag::WSCALE;
const NO_SACK: u32 = flag::TIMESTAMPS | flag::WSCALE;
const SEEDS: u64 = 3;

/// What came of a sender that always has something to say.
struct Run {
    /// Megabits a second that arrived.
    rate: f64,
    retransmits: u64,
    timeouts: u64,
}

/// Data goes over `link`, acknowledgements over `back`.
fn run(link: LinkSpec, back: LinkSpec, flags: u32, seconds: u64, seed: u64) -> Run {
    let setup = Setup { ring: 4 << 20, wscale: 8, flags, ..Setup::default() };
    let mut pair = Pair::new(&setup, back, seed);
    pair.links[A].spec = link;
    let data = vec![7; 1 << 16];
    let mut received = 0;
    pair.run(seconds * SECOND, |pair| {
        let now = pair.now;
        while pair.hosts[A].connection().send(now, &data, false) == data.len() {}
        received += pair.hosts[B].connection().discard(usize::MAX) as u64;
        pair.flush();
        false
    });
    let count = |counter| pair.hosts[A].count(counter);
    let rate = received as f64 * 8.0 / seconds as f64 / 1e6;
    Run { rate, retransmits: count(Counter::Retransmits), timeouts: count(Counter::Timeouts) }
}

/// The mean over some seeds.
fn mean(name: &str, link: LinkSpec, back: LinkSpec, flags: u32) -> Run {
    let runs: Vec<Run> = (0..SEEDS).map(|seed| run(link, back, flags, 15, seed)).collect();
    let sum = Run {
        rate: runs.iter().map(|run| run.rate).sum::<f64>() / SEEDS as f64,
        retransmits: runs.iter().map(|run| run.retransmits).sum::<u64>() / SEEDS,
        timeouts: runs.iter().map(|run| run.timeouts).sum(),
    };
    println!("{name}: {:.2} Mbit/s, sent again {}, timeouts {}", sum.rate, sum.retransmits, sum.timeouts);
    sum
}

#[test]
fn reordering_costs_little() {
    for flags in [ALL, NO_TIMESTAMPS] {
        for (reordering, jitter) in [(10, 2), (100, 2), (500, 2), (10, 8), (100, 8), (100, 15)] {
            let link = LinkSpec { reordering, jitter: jitter * MS, ..PATH };
            let name = format!("reordering {reordering} per mille by {jitter} ms, flags {flags:x}");
            assert!(mean(&name, link, PATH, flags).rate >= 70.0, "{name}");
        }
    }
}

#[test]
fn lost_acknowledgements_cost_little() {
    for loss in [100, 300, 500] {
        let name = format!("ACK loss {loss} per mille");
        assert!(mean(&name, PATH, LinkSpec { loss, ..PATH }, ALL).rate >= 85.0, "{name}");
    }
}

#[test]
fn duplication_costs_little() {
    let run = mean("duplication 100 per mille", LinkSpec { duplication: 100, ..PATH }, PATH, ALL);
    assert!(run.rate >= 75.0);
}

/// Random loss is a limit of the congestion window; what recovery can spoil is the rest.
#[test]
fn loss_costs_what_the_window_costs() {
    for (loss, bursts, flags, least) in [
        (1, 0, ALL, 18.0),
        (10, 0, ALL, 6.0),
        (30, 0, ALL, 3.0),
        (50, 0, ALL, 2.0),
        (100, 0, ALL, 1.0),
        (200, 0, ALL, 0.3),
        (300, 0, ALL, 0.1),
        (0, 1_000, ALL, 18.0),
        (0, 5_000, ALL, 6.0),
        (0, 20_000, ALL, 1.0),
        (10, 0, NO_SACK, 5.0),
        (50, 0, NO_SACK, 1.0),
    ] {
        let name = format!("loss {loss} per mille, bursts {bursts} per million, flags {flags:x}");
        let run = mean(
            &name,
            LinkSpec { loss, rare_loss: bursts, burst: if bursts == 0 { 0 } else { 750 }, ..PATH },
            PATH,
            flags,
        );
        assert!(run.rate >= least, "{name}: {}", run.rate);
    }
}

#[test]
fn all_of_it_together() {
    let link = LinkSpec { loss: 10, reordering: 50, jitter: 5 * MS, duplication: 20, ..PATH };
    let run = mean("loss 10, reordering 50, duplication 20, ACK loss 50", link, LinkSpec { loss: 50, ..PATH }, ALL);
    assert!(run.rate >= 5.0);
}

/// Every three seconds nothing arrives for longer than a timeout; nothing is lost.
#[test]
fn a_path_that_stalls_has_next_to_nothing_sent_again() {
    for flags in [ALL, NO_TIMESTAMPS, flag::WSCALE] {
        let link = LinkSpec { queue: 20_000_000, stall_every: 3 * SECOND, stall_len: 600 * MS, ..PATH };
        let run = run(link, PATH, flags, 30, 1);
        println!(
            "stalls, flags {flags:x}: {:.2} Mbit/s, again {}, timeouts {}",
            run.rate, run.retransmits, run.timeouts
        );
        assert!(run.timeouts > 0 && run.retransmits <= 40, "{} {}", run.timeouts, run.retransmits);
        assert!(run.rate >= 60.0, "{}", run.rate);
    }
}

/// Loss from nothing to 30 per cent on both ways, in bursts and alone, with reordering and duplication; every byte is compared.
#[test]
fn every_byte_arrives_whatever_the_path_does() {
    for seed in 0..60u64 {
        let pick = |list: &[u64], by: u64| list[(seed / by) as usize % list.len()];
        let link = LinkSpec {
            delay: 1 + pick(&[20, 1_000, 20_000], 7) * 1000,
            loss: pick(&[0, 5, 20, 50, 100, 200, 300], 1),
            rare_loss: pick(&[0, 0, 2_000, 10_000], 3),
            burst: 800,
            reordering: pick(&[0, 50, 300], 2),
            jitter: pick(&[50, 500, 5_000], 5) * 1000,
            duplication: pick(&[0, 30, 200], 4),
            ..LinkSpec::default()
        };
        let flags = [ALL, NO_TIMESTAMPS, NO_SACK, flag::WSCALE][(seed % 4) as usize];
        println!("seed {seed} flags {flags:x} {link:?}");
        let setup = Setup { flags, isn: [u32::MAX - 40_000, u32::MAX - 90_000], ..Setup::default() };
        let mut pair = Pair::new(&setup, link, seed);
        let mut traffic = Traffic::new([150_000, 120_000], 4000, seed);
        traffic.close = [true; 2];
        traffic.run(&mut pair, 20_000 * SECOND, |_| ());
        // An end whose last acknowledgement was lost may ask again only when the other one's TIME-WAIT is over.
        let ended = |pair: &mut Pair| {
            pair.hosts.iter().all(|host| host.tcb.unacked() == 0)
                || pair.hosts.iter().any(|host| host.tcb.state() == State::Closed)
        };
        assert!(pair.run(3000 * SECOND, ended), "{:?}", pair.hosts);
    }
}
