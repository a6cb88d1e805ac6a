//! Is no more sent again than was lost?

use underpass_stack::stats::Counter;
use underpass_stack::tcp::Algorithm;
use underpass_stack::testkit::{A, B, LinkSpec, Pair, Setup};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// Bits a second of the link.
const RATE: u64 = 100_000_000;

/// What a bulk transfer came to.
#[derive(Debug)]
struct Course {
    /// Megabits a second.
    goodput: f64,
    /// Segments lost on the way there: by chance, and because the queue was full.
    lost: u64,
    overflowed: u64,
    /// Segments sent again.
    again: u64,
    timeouts: u64,
    /// Segments that the receiver had already.
    duplicates: u64,
}

/// A bulk transfer of `seconds` over `rtt_ms` with `loss` per mille in either direction.
fn transfer(congestion: Algorithm, rtt_ms: u64, loss: u64, seconds: u64, seed: u64) -> Course {
    transfer_by(&Setup { ring: 4 << 20, wscale: 8, congestion, ..Setup::default() }, rtt_ms, loss, seconds, seed)
}

/// The same between ends that are set up so.
fn transfer_by(setup: &Setup, rtt_ms: u64, loss: u64, seconds: u64, seed: u64) -> Course {
    let queue = (RATE / 8 * rtt_ms / 1000).max(64 << 10);
    let link = LinkSpec { delay: rtt_ms * MS / 2, loss, rate: RATE, queue, ..LinkSpec::CLEAN };
    let mut pair = Pair::new(setup, link, seed);
    let (data, mut received) = (vec![7; 1 << 16], 0);
    pair.run(seconds * SECOND, |pair| {
        let now = pair.now;
        while pair.hosts[A].connection().send(now, &data, false) == data.len() {}
        received += pair.hosts[B].connection().discard(usize::MAX) as u64;
        pair.flush();
        false
    });
    Course {
        goodput: received as f64 * 8.0 / seconds as f64 / 1e6,
        lost: pair.links[A].lost(),
        overflowed: pair.links[A].overflowed(),
        again: pair.hosts[A].count(Counter::Retransmits),
        timeouts: pair.hosts[A].count(Counter::Timeouts),
        duplicates: pair.hosts[B].count(Counter::RxDuplicate),
    }
}

/// Segments that the path holds without a queue.
fn path(rtt_ms: u64) -> u64 {
    RATE / 8 * rtt_ms / 1000 / 1448
}

/// Over each path at each loss, two seeds.
fn check(congestion: Algorithm, sound: impl Fn(u64, u64, &Course) -> bool) {
    for rtt_ms in [20, 100] {
        for loss in [0, 1, 10, 30] {
            for seed in 0..2 {
                let course = transfer(congestion, rtt_ms, loss, 10, seed);
                println!("{congestion:?} {rtt_ms} ms, {loss} per mille, seed {seed}: {course:?}");
                let Course { lost, overflowed, again, duplicates, timeouts, .. } = course;
                let missing = lost + overflowed;
                // What was sent at the end may have been lost and not sent again yet.
                assert!(again <= missing + missing / 50 + 2, "{again} sent again, {missing} lost");
                assert!(duplicates <= again / 50 + 1, "{duplicates} of {again} arrived twice");
                assert_eq!(timeouts, 0);
                assert!(sound(rtt_ms, loss, &course), "{course:?}");
            }
        }
    }
}

/// Slow start ends, at the latest, when it has overrun the queue once.
#[test]
fn cubic_sends_again_what_was_lost() {
    check(Algorithm::Cubic, |rtt_ms, _, course| course.overflowed <= 2 * path(rtt_ms));
}

/// Startup overruns the queue for its last three rounds; then there is no more in flight than the path and its queue hold. That losses wait
/// to be mended, or that the queue of what is to be sent is full, is not the program's silence: taken for that, startup goes on for ever.
#[test]
fn bbr_sends_again_what_was_lost_and_stops_overrunning_the_queue() {
    check(Algorithm::Bbr, |rtt_ms, loss, course| {
        let least = if loss < 30 { 80.0 } else { 68.0 };
        course.overflowed <= 4 * path(rtt_ms) && course.goodput >= least
    });
}

/// As long as the peer's window has not grown yet, losses hold up what is sent: that says nothing of the path.
#[test]
fn bbr_finds_the_rate_of_a_lossy_path_while_the_window_grows() {
    let setup = Setup { ring: 64 << 10, largest: 4 << 20, wscale: 8, congestion: Algorithm::Bbr, ..Setup::default() };
    for seed in [1, 34, 46, 53, 59] {
        let course = transfer_by(&setup, 100, 30, 6, seed);
        println!("seed {seed}: {course:?}");
        assert!(course.goodput > 30.0, "seed {seed}: {course:?}");
    }
}
