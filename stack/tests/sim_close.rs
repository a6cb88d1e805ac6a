//! How connections end.

use underpass_stack::stats::Counter;
use underpass_stack::tcp::segment::Flags;
use underpass_stack::tcp::{Codepoint, Segment, SeqNr, State};
use underpass_stack::testkit::traffic::Traffic;
use underpass_stack::testkit::{A, B, LinkSpec, Pair, Setup};

const SECOND: u64 = 1_000_000_000;
const LOSSY: LinkSpec =
    LinkSpec { delay: 50_000, loss: 100, duplication: 50, reordering: 100, jitter: 200_000, ..LinkSpec::CLEAN };

fn states(pair: &Pair) -> [State; 2] {
    [pair.hosts[A].tcb.state(), pair.hosts[B].tcb.state()]
}

/// A bare segment from B at the place where A expects it.
fn bare<'a>(pair: &Pair, flags: Flags) -> Segment<'a> {
    let (image, ..) = pair.hosts[A].export(pair.now);
    Segment {
        seq: SeqNr(image.rcv_nxt),
        ack: SeqNr(image.snd_nxt),
        flags,
        window: 512,
        ecn: Codepoint::NotEct,
        timestamps: None,
        sack: &[],
        payload: &[],
    }
}

#[test]
fn half_close_then_the_other_half() {
    for seed in 0..30 {
        let mut pair = Pair::new(&Setup::default(), LOSSY, seed);
        let mut traffic = Traffic::new([20_000, 0], 3000, seed);
        traffic.close[A] = true;
        traffic.run(&mut pair, 100 * SECOND, |_| ());
        assert!(pair.run(100 * SECOND, |p| states(p) == [State::FinWait2, State::CloseWait]), "seed {seed}");
        assert!(pair.hosts[B].tcb.at_eof() && pair.hosts[B].seen.peer_fin);
        assert!(!pair.hosts[A].tcb.at_eof());
        // The other direction still carries data.
        traffic.goal[B] = 30_000;
        traffic.close[B] = true;
        traffic.run(&mut pair, 100 * SECOND, |_| ());
        assert!(pair.run(100 * SECOND, |p| states(p) == [State::TimeWait, State::Closed]), "seed {seed}");
        assert!(pair.hosts[B].seen.closed && !pair.hosts[A].seen.closed);
        assert!(pair.run(61 * SECOND, |p| p.hosts[A].seen.closed), "2 MSL pass");
        assert_eq!(pair.next_event(), None, "nothing is left to do");
    }
}

#[test]
fn both_close_at_once() {
    for seed in 0..30 {
        let mut pair = Pair::new(&Setup::default(), LOSSY, seed);
        let mut traffic = Traffic::new([5000, 7000], 3000, seed);
        traffic.close = [true; 2];
        traffic.run(&mut pair, 100 * SECOND, |_| ());
        let ended = |state| matches!(state, State::TimeWait | State::Closed);
        assert!(pair.run(100 * SECOND, |p| states(p).into_iter().all(ended)), "seed {seed}: {:?}", states(&pair));
    }
}

#[test]
fn simultaneous_fins_cross() {
    let mut pair = Pair::new(&Setup::default(), LinkSpec::default(), 1);
    for side in [A, B] {
        let now = pair.now;
        pair.hosts[side].connection().shutdown_write(now);
    }
    pair.flush();
    assert_eq!(states(&pair), [State::FinWait1; 2]);
    pair.step();
    assert_eq!(states(&pair), [State::Closing; 2]);
    pair.step();
    assert_eq!(states(&pair), [State::TimeWait; 2]);
}

#[test]
fn the_fin_is_sent_again_when_its_acknowledgement_is_lost() {
    let mut pair = Pair::new(&Setup::default(), LinkSpec::default(), 1);
    let now = pair.now;
    pair.hosts[A].connection().shutdown_write(now);
    pair.flush();
    pair.links[A].cut();
    assert!(pair.run(5 * SECOND, |p| states(p) == [State::FinWait2, State::CloseWait]));
    assert_eq!(pair.hosts[A].count(Counter::Timeouts), 1);
    assert_eq!(pair.hosts[A].connection().send(now, b"x", false), 0, "closed for writing");
}

#[test]
fn last_ack_lost_and_time_wait_answers() {
    let mut pair = Pair::new(&Setup::default(), LinkSpec::default(), 1);
    let now = pair.now;
    pair.hosts[A].connection().shutdown_write(now);
    assert!(pair.run(SECOND, |p| states(p) == [State::FinWait2, State::CloseWait]));
    let now = pair.now;
    pair.hosts[B].connection().shutdown_write(now);
    assert!(pair.run(SECOND, |p| p.hosts[A].tcb.state() == State::TimeWait));
    pair.links[A].cut();
    assert_eq!(states(&pair), [State::TimeWait, State::LastAck]);
    assert!(pair.run(5 * SECOND, |p| states(p) == [State::TimeWait, State::Closed]));
}

#[test]
fn a_reset_at_the_right_place_ends_the_connection() {
    let mut pair = Pair::new(&Setup::default(), LinkSpec::default(), 1);
    let now = pair.now;
    pair.hosts[A].connection().send(now, b"unacknowledged", false);
    pair.flush();
    let reset = bare(&pair, Flags::RST);
    let outcome = pair.hosts[A].connection().on_segment(now, &reset);
    assert!(outcome.reset);
    assert_eq!(outcome.counts.iter().collect::<Vec<_>>(), [Counter::ResetsReceived]);
    assert_eq!(pair.hosts[A].tcb.state(), State::Closed);
    assert_eq!(pair.hosts[A].tcb.deadline(), None);
    let (image, ..) = pair.hosts[A].export(now);
    assert_ne!(image.flags & underpass_stack::tcp::image::flag::RESET_RECEIVED, 0);
}

#[test]
fn resets_and_syns_elsewhere_are_challenged_within_limits() {
    let mut pair = Pair::new(&Setup::default(), LinkSpec::default(), 1);
    let now = pair.now;
    let mut challenges = 0;
    for offset in [1u32, 100, 60_000, u32::MAX, 70_000] {
        let mut reset = bare(&pair, Flags::RST);
        reset.seq = reset.seq.plus(offset);
        assert!(!pair.hosts[A].connection().on_segment(now, &reset).reset);
        challenges += u64::from(offset < 65_536);
        pair.flush();
        assert_eq!(pair.hosts[A].count(Counter::ChallengeAcks), challenges, "reset at +{offset}");
    }
    for _ in 0..50 {
        let syn = bare(&pair, Flags::SYN);
        pair.hosts[A].connection().on_segment(now, &syn);
        pair.flush();
    }
    assert_eq!(pair.hosts[A].count(Counter::ChallengeAcks), 10, "ten a second");
    assert_eq!(pair.hosts[A].tcb.state(), State::Established);
    let later = now.after(SECOND);
    let syn = bare(&pair, Flags::SYN);
    pair.hosts[A].connection().on_segment(later, &syn);
    pair.flush();
    assert_eq!(pair.hosts[A].count(Counter::ChallengeAcks), 11);
}
