//! What holds for every algorithm.

use proptest::prelude::*;
use zerocopy::FromBytes;

use super::*;

const MSS: u32 = 1448;
/// Those that go by losses and marks.
const WINDOWED: &[Algorithm] = &[Algorithm::Cubic, Algorithm::Reno, Algorithm::Dctcp];
/// A retransmission timeout, ns.
const RTO: u64 = 300_000_000;

fn congestion(algorithm: Algorithm, cwnd: u32, ssthresh: u32) -> Congestion {
    let mut cc = Congestion::new(cwnd, ssthresh, MSS);
    cc.choose(algorithm, MSS, None);
    cc
}

fn ack(acked: u32, flight: u32) -> Ack {
    Ack {
        now: Instant(1_000_000_000),
        acked,
        acks: 1,
        flight,
        mss: MSS,
        srtt: None,
        una: SeqNr(acked),
        nxt: SeqNr(flight),
    }
}

#[test]
fn slow_start_doubles() {
    for &algorithm in WINDOWED {
        let mut cc = congestion(algorithm, 10, u32::MAX);
        for _ in 0..5 {
            cc.on_ack(&ack(2 * MSS, 10 * MSS), RTO, &mut Departures::default());
        }
        assert_eq!(cc.cwnd(), 20 * MSS, "{algorithm:?}");
    }
}

#[test]
fn with_reno_a_stretch_ack_counts_in_full() {
    let mut cc = congestion(Algorithm::Reno, 10, u32::MAX);
    cc.on_ack(&ack(10 * MSS, 10 * MSS), RTO, &mut Departures::default());
    assert_eq!(cc.cwnd(), 20 * MSS);
}

#[test]
fn an_idle_window_does_not_grow() {
    for &algorithm in WINDOWED {
        for ssthresh in [10, u32::MAX] {
            let mut cc = congestion(algorithm, 10, ssthresh);
            for _ in 0..100 {
                cc.on_ack(&ack(100, 100), RTO, &mut Departures::default());
            }
            assert_eq!(cc.cwnd(), 10 * MSS, "{algorithm:?}");
        }
    }
}

#[test]
fn with_reno_congestion_avoidance_adds_one_segment_a_window() {
    let mut cc = congestion(Algorithm::Reno, 20, 20);
    for _ in 0..20 {
        cc.on_ack(&ack(MSS, 20 * MSS), RTO, &mut Departures::default());
    }
    assert_eq!(cc.cwnd(), 21 * MSS);
}

#[test]
fn loss_reduces_by_the_factor_and_a_timeout_leaves_one_segment() {
    for (algorithm, tenths) in [(Algorithm::Cubic, 7), (Algorithm::Reno, 5), (Algorithm::Dctcp, 5)] {
        let mut cc = congestion(algorithm, 40, u32::MAX);
        cc.on_loss(MSS);
        let reduced = 4 * MSS * tenths;
        assert_eq!((cc.cwnd(), cc.ssthresh()), (reduced, reduced));
        cc.on_timeout(MSS, true);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (MSS, reduced * tenths / 10));
        cc.on_timeout(MSS, false);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (MSS, reduced * tenths / 10), "the first of a series decides");
        cc.on_loss(MSS);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (2 * MSS, 2 * MSS), "never below two segments");
    }
}

#[test]
fn window_and_threshold_cross_unchanged() {
    for &algorithm in WINDOWED {
        for (cwnd, ssthresh) in [(10, u32::MAX), (123, 77), (77, 123), (5_000, 5_000)] {
            let cc = congestion(algorithm, cwnd, ssthresh);
            assert_eq!(cc.segments(MSS), (cwnd, ssthresh), "{algorithm:?}");
            let again = congestion(algorithm, cwnd, ssthresh);
            assert_eq!((again.cwnd(), again.ssthresh()), (cc.cwnd(), cc.ssthresh()));
        }
        assert_eq!(congestion(algorithm, 10, i32::MAX as u32).segments(MSS), (10, u32::MAX), "as the kernel says it");
    }
}

/// What the kernel has left of a window after a timeout or a loss stays all there is.
#[test]
fn a_reduced_window_is_not_raised_by_a_change_of_tier() {
    for &algorithm in Algorithm::ALL {
        for (cwnd, ssthresh) in [(1, 5), (1, u32::MAX), (4, 2), (9, 9)] {
            let mut cc = congestion(algorithm, cwnd, ssthresh);
            cc.rescale(MSS);
            cc.learn(&Learnt::Dctcp { alpha: 512 }, Instant(1));
            cc.learn(&Learnt::Bbr { bandwidth: 1 << 20, min_rtt_us: 20_000, full: true }, Instant(1));
            assert_eq!(cc.segments(MSS), (cwnd, ssthresh), "{algorithm:?}");
        }
        assert_eq!(
            congestion(algorithm, 0, 0).segments(MSS).0,
            1,
            "{algorithm:?}: no window at all is none of a kernel"
        );
        let mut cc = congestion(algorithm, 1, u32::MAX);
        cc.on_idle(u64::MAX, MSS);
        assert_eq!(cc.segments(MSS).0, 1, "{algorithm:?}: nor does silence");
    }
}

#[test]
fn a_long_silence_leaves_the_initial_window_and_what_was_learnt() {
    for &algorithm in WINDOWED {
        for (timeouts, left) in [(0, 200), (1, 100), (2, 50), (3, 25), (4, 12), (5, 10), (64, 10), (u64::MAX, 10)] {
            let mut cc = congestion(algorithm, 200, 50);
            cc.on_idle(timeouts, MSS);
            let threshold = if timeouts == 0 { 50 } else { 150 };
            assert_eq!(cc.segments(MSS), (left, threshold), "{algorithm:?} {timeouts}");
        }
        let mut cc = congestion(algorithm, 200, u32::MAX);
        cc.on_idle(9, MSS);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (10 * MSS, u32::MAX));
    }
}

#[test]
fn a_window_that_is_used_too_little_shrinks_by_half_of_the_rest_each_timeout() {
    for &algorithm in WINDOWED {
        let mut cc = congestion(algorithm, 100, 80);
        for (ms, left) in [(0, 100), (299, 100), (300, 55), (500, 55), (600, 32), (900, 21)] {
            let now = Instant(1_000_000_000 + ms * 1_000_000);
            cc.on_ack(&Ack { now, ..ack(MSS, 10 * MSS) }, RTO, &mut Departures::default());
            assert_eq!(cc.cwnd() / MSS, left, "{algorithm:?} {ms}");
        }
        assert!(cc.ssthresh() >= 80 * MSS);
        let mut cc = congestion(algorithm, 100, 80);
        for ms in [0, 200, 400, 600, 800] {
            let flight = if ms == 400 { 100 } else { 20 };
            let now = Instant(1_000_000_000 + ms * 1_000_000);
            cc.on_ack(&Ack { now, ..ack(1, flight * MSS) }, RTO, &mut Departures::default());
            assert!(cc.cwnd() >= 100 * MSS, "{algorithm:?}: a full window begins the time anew");
        }
    }
}

#[test]
fn split_acknowledgements_gain_nothing() {
    for ssthresh in [10, u32::MAX] {
        for &algorithm in WINDOWED {
            let mut whole = congestion(algorithm, 10, ssthresh);
            let mut split = whole;
            for _ in 0..10 {
                whole.on_ack(&ack(MSS, 10 * MSS), RTO, &mut Departures::default());
                for part in 0..8 {
                    split.on_ack(
                        &ack(MSS / 8 + u32::from(part == 0) * (MSS % 8), 10 * MSS),
                        RTO,
                        &mut Departures::default(),
                    );
                }
            }
            assert!(split.cwnd().abs_diff(whole.cwnd()) <= 8, "{algorithm:?} {} {}", split.cwnd(), whole.cwnd());
        }
    }
}

#[test]
fn a_mark_reduces_as_a_loss_does() {
    for (algorithm, tenths) in [(Algorithm::Cubic, 7), (Algorithm::Reno, 5), (Algorithm::Dctcp, 5)] {
        let mut cc = congestion(algorithm, 40, u32::MAX);
        cc.on_mark(MSS);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (4 * MSS * tenths, 4 * MSS * tenths), "{algorithm:?}");
    }
}

/// An event and its arguments.
type Event = (u8, u32, u32, u32, u64);

/// Plays an event; true if the window may be one segment after it.
fn play(cc: &mut Congestion, (event, a, b, mss, at): Event) -> bool {
    let now = Instant(at);
    match event % 10 {
        0 => {
            let (una, nxt) = (SeqNr(a), SeqNr(b));
            cc.on_ack(
                &Ack { now, acked: a, acks: 1, flight: b, mss, srtt: Some(at), una, nxt },
                at / 7,
                &mut Departures::default(),
            );
        }
        1 => cc.on_loss(mss),
        2 => {
            cc.on_timeout(mss, b % 2 == 0);
            return true;
        }
        3 => cc.on_idle(at % 9, mss),
        4 => cc.rescale(mss),
        5 => cc.on_restart(now, a % 2 == 0),
        6 => cc.on_mark(mss),
        9 => {
            cc.on_delivery(&delivery(now, (a, b), mss, at), [Phase::Open, Phase::Recovery, Phase::Loss][a as usize % 3])
        }
        7 => cc.on_feedback(a, b % 2 == 0, SeqNr(a), SeqNr(b)),
        _ => cc.on_sent(now, SeqNr(b), SeqNr(a), &mut Departures::default()),
    }
    false
}

/// An acknowledgement that says something of rates, likely or not.
fn delivery(now: Instant, (a, b): (u32, u32), mss: u32, at: u64) -> Told {
    let rate = RateSample {
        delivered: at ^ u64::from(a),
        interval: at >> (b % 64),
        is_app_limited: a % 5 == 0,
        prior_delivered: u64::from(b) << (a % 40),
        total_delivered: at.wrapping_mul(u64::from(b)),
        newly_delivered: a,
        newly_lost: if b % 3 == 0 { b } else { 0 },
        prior_in_flight: b,
        in_flight: b / 2,
        rtt: Some(at >> (a % 64)),
        ..RateSample::default()
    };
    Told { ack: Ack { now, acked: a, acks: 1, flight: b, mss, srtt: Some(at), una: SeqNr(a), nxt: SeqNr(b) }, rate }
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    proptest::sample::select(Algorithm::ALL)
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), 0u32..100_000]
}

fn events(mss: impl Strategy<Value = u32>) -> impl Strategy<Value = Vec<Event>> {
    let time = prop_oneof![any::<u64>(), 0u64..1 << 40];
    proptest::collection::vec((any::<u8>(), number(), number(), mss, time), 0..100)
}

proptest! {
    #[test]
    fn the_window_stays_in_bounds(algorithm in algorithm(), events in events(Just(MSS))) {
        let mut cc = congestion(algorithm, 10, u32::MAX);
        let mut after_timeout = false;
        for event in events {
            let timeout = play(&mut cc, event);
            // The loss window of one segment (RFC 5681, section 3.1) lasts until something else is decided.
            after_timeout = timeout || (after_timeout && matches!(event.0 % 10, 3 | 4 | 5 | 7 | 8 | 9));
            let least = if after_timeout || cc.goes_by_rate() { MSS } else { 2 * MSS };
            prop_assert!((least..=CWND_MAX).contains(&cc.cwnd()), "{} after {event:?}", cc.cwnd());
            prop_assert!(cc.ssthresh() >= 2 * MSS);
            let _ = (cc.pacing_rate(), cc.is_probing_rtt());
        }
    }

    /// The arena can be scribbled on: whatever the record holds, nothing panics, and the next decision has bounds.
    #[test]
    fn any_record_is_survived(
        bytes in proptest::collection::vec(any::<u8>(), size_of::<Congestion>()), events in events(number()),
    ) {
        let mut cc = Congestion::read_from_bytes(&bytes).unwrap();
        for event in events {
            let _ = cc.segments(event.3);
            let before = cc.cwnd();
            play(&mut cc, event);
            let mss = sane(event.3);
            match event.0 % 10 {
                0 | 1 | 4 | 6 => prop_assert!((mss..=CWND_MAX).contains(&cc.cwnd())),
                2 => prop_assert_eq!(cc.cwnd(), mss),
                3 => prop_assert!(cc.cwnd() <= before.max(INITIAL_SEGMENTS * mss)),
                _ => (),
            }
        }
    }

    /// Nor a few wrong words in an otherwise good record.
    #[test]
    fn scribbling_is_survived(
        algorithm in algorithm(), events in events(Just(MSS)),
        words in proptest::collection::vec((0..size_of::<Congestion>() / 4, any::<u32>(), 0usize..100), 1..8),
    ) {
        let mut cc = congestion(algorithm, 10, 20);
        for (n, event) in events.into_iter().enumerate() {
            for (at, word, when) in &words {
                if *when == n {
                    cc.as_mut_bytes()[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
                }
            }
            play(&mut cc, event);
        }
        cc.on_ack(&ack(MSS, 20 * MSS), RTO, &mut Departures::default());
        prop_assert!((MSS..=CWND_MAX).contains(&cc.cwnd()));
    }
}
