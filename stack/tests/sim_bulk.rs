//! Bulk transfers over good and bad links.

use underpass_stack::stats::Counter;
use underpass_stack::tcp::image::flag;
use underpass_stack::testkit::traffic::Traffic;
use underpass_stack::testkit::{A, B, LinkSpec, Pair, Setup};

const SECOND: u64 = 1_000_000_000;

fn transfer(setup: &Setup, link: LinkSpec, goal: [u64; 2], seed: u64) -> (Pair, u64) {
    println!("seed {seed} {link:?} {setup:?}");
    let mut pair = Pair::new(setup, link, seed);
    let nanos = Traffic::new(goal, 5000, seed).run(&mut pair, 3000 * SECOND, |_| ());
    (pair, nanos)
}

#[test]
fn a_good_link_needs_no_retransmission() {
    let (pair, nanos) = transfer(&Setup::default(), LinkSpec::default(), [4 << 20, 4 << 20], 1);
    for host in &pair.hosts {
        assert_eq!(host.count(Counter::Retransmits), 0);
        assert_eq!(host.count(Counter::Timeouts), 0);
        assert_eq!(host.count(Counter::ChallengeAcks), 0);
        assert_eq!(host.count(Counter::RxOutOfWindow), 0);
    }
    // 64 KiB a round trip of 0.1 ms.
    assert!(nanos < SECOND / 50, "{nanos} ns");
}

#[test]
fn loss_of_every_degree_is_repaired() {
    for (loss, seed) in [(1, 1), (10, 2), (20, 3), (50, 4), (100, 5), (200, 6)] {
        for flags in [flag::SACK | flag::TIMESTAMPS | flag::WSCALE, flag::TIMESTAMPS, flag::SACK, 0] {
            let wscale = if flags & flag::WSCALE != 0 { 7 } else { 0 };
            let setup = Setup { flags, wscale, ..Setup::default() };
            let link = LinkSpec { loss, ..LinkSpec::default() };
            let (pair, nanos) = transfer(&setup, link, [400_000, 300_000], seed);
            println!(
                "loss {loss} flags {flags:x}: {} ms, again {} timeouts {} fast {}",
                nanos / 1_000_000,
                pair.hosts[A].count(Counter::Retransmits),
                pair.hosts[A].count(Counter::Timeouts),
                pair.hosts[A].count(Counter::FastRetransmits)
            );
            assert!(loss < 10 || pair.hosts[A].count(Counter::Retransmits) > 0);
        }
    }
}

#[test]
fn everything_bad_at_once() {
    for seed in 0..40 {
        let link = LinkSpec {
            delay: 20_000,
            loss: 30,
            duplication: 30,
            reordering: 100,
            jitter: 300_000,
            corruption: 10,
            ..LinkSpec::default()
        };
        let setup = Setup { isn: [u32::MAX - 50_000, u32::MAX - 3], ..Setup::default() };
        let (pair, _) = transfer(&setup, link, [300_000, 200_000], seed);
        assert!(pair.hosts[B].count(Counter::RxOutOfOrder) > 0);
    }
}
