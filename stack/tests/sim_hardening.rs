//! Segments that no honest peer sends, or that come from the past.

use underpass_stack::stats::Counter;
use underpass_stack::tcp::ahead::MAX_PIECES;
use underpass_stack::tcp::segment::Timestamps;
use underpass_stack::tcp::{Codepoint, Flags, Outcome, Segment, SeqNr, State};
use underpass_stack::testkit::traffic::Traffic;
use underpass_stack::testkit::{A, B, LinkSpec, Pair, Setup};

const SECOND: u64 = 1_000_000_000;

/// A connection over which both sides have talked.
fn used_pair() -> Pair {
    let mut pair = Pair::new(&Setup::default(), LinkSpec::default(), 1);
    Traffic::new([10_000, 10_000], 1000, 1).run(&mut pair, SECOND, |_| ());
    pair.pass(SECOND);
    pair
}

/// The segment with `payload` that A expects next.
fn next<'a>(pair: &Pair, payload: &'a [u8]) -> Segment<'a> {
    let (image, ..) = pair.hosts[A].export(pair.now);
    Segment {
        seq: SeqNr(image.rcv_nxt),
        ack: SeqNr(image.snd_nxt),
        flags: Flags::ACK,
        window: 512,
        ecn: Codepoint::NotEct,
        timestamps: Some(Timestamps { val: image.ts_recent, ecr: image.ts_val }),
        sack: &[],
        payload,
    }
}

fn give(pair: &mut Pair, segment: &Segment<'_>) -> (Outcome, Vec<Counter>) {
    let now = pair.now;
    let outcome = pair.hosts[A].connection().on_segment(now, segment);
    let counts = outcome.counts.iter().collect();
    (outcome, counts)
}

#[test]
fn old_timestamps_are_rejected_and_answered() {
    let mut pair = used_pair();
    let mut old = next(&pair, b"from the past");
    old.timestamps.as_mut().unwrap().val -= 1;
    assert_eq!(give(&mut pair, &old).1, [Counter::RxPaws]);
    assert_eq!(pair.hosts[A].tcb.readable(), 0);
    let sent = pair.hosts[A].count(Counter::SegmentsSent);
    pair.flush();
    assert_eq!(pair.hosts[A].count(Counter::SegmentsSent), sent + 1);
    let good = next(&pair, b"now");
    assert!(give(&mut pair, &good).0.readable);
    assert_eq!(pair.hosts[A].tcb.readable(), 3);
}

#[test]
fn the_echo_is_the_newest_timestamp_in_order() {
    let mut pair = used_pair();
    let mut first = next(&pair, b"x");
    first.timestamps.as_mut().unwrap().val += 5;
    let mut ahead = next(&pair, b"y");
    ahead.seq = ahead.seq.plus(10);
    ahead.timestamps.as_mut().unwrap().val += 9;
    let before = first.timestamps.unwrap().val - 5;
    give(&mut pair, &ahead);
    assert_eq!(pair.hosts[A].export(pair.now).0.ts_recent, before, "beyond a gap");
    give(&mut pair, &first);
    assert_eq!(pair.hosts[A].export(pair.now).0.ts_recent, before + 5);
}

#[test]
fn acknowledgements_of_what_was_never_sent_are_challenged() {
    for (offset, data_counts) in
        [(1u32, false), (1000, false), (u32::MAX / 2, false), (u32::MAX - 200_000, false), (0, true)]
    {
        let mut pair = used_pair();
        let mut segment = next(&pair, b"payload");
        segment.ack = segment.ack.plus(offset);
        assert_eq!(give(&mut pair, &segment).0.readable, data_counts, "ack at +{offset}");
        let before = pair.hosts[A].count(Counter::ChallengeAcks);
        pair.flush();
        let challenged = pair.hosts[A].count(Counter::ChallengeAcks) > before;
        assert_eq!(challenged, !data_counts, "ack at +{offset}");
    }
}

#[test]
fn segments_without_ack_are_ignored() {
    let mut pair = used_pair();
    let mut segment = next(&pair, b"payload");
    segment.flags = Flags::PSH;
    assert_eq!(give(&mut pair, &segment).0, Outcome::default());
}

#[test]
fn urgent_data_leaves_the_connection_untouched() {
    let mut pair = used_pair();
    let before = pair.hosts[A].export(pair.now);
    let mut segment = next(&pair, b"!");
    segment.flags = Flags::ACK.with(Flags::URG);
    let (outcome, counts) = give(&mut pair, &segment);
    assert!(outcome.urgent && !outcome.readable);
    assert_eq!(counts, [Counter::RxUrgent]);
    assert_eq!(pair.hosts[A].export(pair.now), before);
}

#[test]
fn data_beyond_the_window_is_cut_off() {
    let mut pair = used_pair();
    let (image, ..) = pair.hosts[A].export(pair.now);
    let window = image.rcv_wup.wrapping_add(image.rcv_wnd).wrapping_sub(image.rcv_nxt);
    let data = vec![3; 1000];
    let mut segment = next(&pair, &data);
    segment.seq = segment.seq.plus(window - 500);
    assert_eq!(give(&mut pair, &segment).1, [Counter::RxOutOfOrder]);
    segment.seq = segment.seq.plus(501);
    assert_eq!(give(&mut pair, &segment).1, [Counter::RxOutOfWindow]);
    // Fill the gap: everything up to the edge is there, and not a byte more.
    let data = vec![4; window as usize - 500];
    let fill = next(&pair, &data);
    assert!(give(&mut pair, &fill).0.readable);
    assert_eq!(pair.hosts[A].tcb.readable(), window as usize);
}

#[test]
fn duplicates_bring_nothing_and_are_answered() {
    let mut pair = used_pair();
    let segment = next(&pair, b"once");
    assert!(give(&mut pair, &segment).0.readable);
    pair.flush();
    let (outcome, counts) = give(&mut pair, &segment);
    assert!(!outcome.readable);
    assert_eq!(counts, [Counter::RxDuplicate]);
    pair.log = Some(Vec::new());
    pair.flush();
    let log = pair.log.take().unwrap();
    let [(_, A, answer)] = log[..] else { panic!("{log:?}") };
    assert_eq!(answer.sack.as_slice(), [(segment.seq, segment.end())], "a D-SACK block");
}

#[test]
fn a_fin_elsewhere_than_the_first_is_not_believed() {
    let mut pair = used_pair();
    let mut early = next(&pair, b"");
    early.seq = early.seq.plus(100);
    early.flags = Flags::ACK.with(Flags::FIN);
    give(&mut pair, &early);
    assert_eq!(pair.hosts[A].tcb.state(), State::Established, "data is missing before it");
    let mut other = early;
    other.seq = other.seq.minus(50);
    give(&mut pair, &other);
    let fill = [1; 200];
    let fill = next(&pair, &fill);
    let (outcome, _) = give(&mut pair, &fill);
    assert!(outcome.readable && outcome.peer_fin);
    assert_eq!(pair.hosts[A].tcb.readable(), 100, "nothing counts after FIN");
    assert_eq!(pair.hosts[A].tcb.state(), State::CloseWait);
    assert!(!pair.hosts[A].tcb.at_eof());
    assert_eq!(pair.hosts[A].connection().discard(1000), 100);
    assert!(pair.hosts[A].tcb.at_eof());
}

#[test]
fn without_sack_every_gap_is_reported_by_itself() {
    let setup = Setup { flags: 0, wscale: 0, ring: 32 << 10, ..Setup::default() };
    let mut pair = Pair::new(&setup, LinkSpec::default(), 1);
    let mut segment = Segment { timestamps: None, ..next(&pair, b"ten bytes!") };
    for _ in 0..4 {
        segment.seq = segment.seq.plus(10);
        give(&mut pair, &segment);
    }
    pair.log = Some(Vec::new());
    pair.flush();
    let log = pair.log.take().unwrap();
    assert_eq!(log.len(), 4, "a peer without SACK counts duplicates");
    assert!(
        log.iter().all(|(_, side, s)| *side == A && s.len == 0 && s.ack == log[0].2.ack && s.window == log[0].2.window)
    );
    assert_eq!(pair.hosts[B].count(Counter::Retransmits), 0);
}

#[test]
fn more_gaps_than_can_be_kept_cost_only_a_retransmission() {
    let mut pair = used_pair();
    let start = next(&pair, b"").seq;
    for n in 0..2 * MAX_PIECES as u32 {
        let mut piece = next(&pair, b"piece");
        piece.seq = start.plus(10 + 10 * n);
        give(&mut pair, &piece);
    }
    assert_eq!(pair.hosts[A].ahead().len(), MAX_PIECES);
    let data = [9; 25 * MAX_PIECES];
    let all = next(&pair, &data);
    give(&mut pair, &all);
    assert_eq!(pair.hosts[A].tcb.readable(), data.len());
}

/// What a peer acknowledges that has not received it counts as received; more than was sent never does, and the window grows by no
/// more than what was sent.
#[test]
fn an_optimistic_peer_gains_no_more_than_it_acknowledges() {
    let mut pair = used_pair();
    let before = pair.hosts[A].tcb.congestion().0;
    let now = pair.now;
    let taken = pair.hosts[A].connection().send(now, &[1; 60_000], false) as u32;
    let mut sent = 0;
    for _ in 0..1000 {
        while let Some((segment, _)) = pair.hosts[A].frame_out(now) {
            sent += segment.len;
        }
        let mut ack = next(&pair, b"");
        // First everything that was sent, then a little more.
        assert!(!give(&mut pair, &ack).0.readable);
        ack.ack = ack.ack.plus(1);
        give(&mut pair, &ack);
        assert!(pair.hosts[A].tcb.unacked() + pair.hosts[A].tcb.unsent() >= (taken - sent) as usize);
    }
    assert_eq!(sent, taken);
    assert!(pair.hosts[A].tcb.congestion().0 <= before + taken, "{:?}", pair.hosts[A].tcb.congestion());
}

#[test]
fn a_peer_that_splits_its_acknowledgements_gains_nothing() {
    let grown = |pieces: u32| {
        let mut pair = used_pair();
        let now = pair.now;
        pair.hosts[A].connection().send(now, &[1; 60_000], false);
        let start = pair.hosts[A].export(now).0.snd_una;
        let mut sent = 0;
        while let Some((segment, _)) = pair.hosts[A].frame_out(now) {
            sent += segment.len;
        }
        let before = pair.hosts[A].tcb.congestion().0;
        for piece in 1..=pieces {
            let mut ack = next(&pair, b"");
            ack.ack = SeqNr(start).plus((u64::from(sent) * u64::from(piece) / u64::from(pieces)) as u32);
            give(&mut pair, &ack);
        }
        pair.hosts[A].tcb.congestion().0 - before
    };
    let whole = grown(2);
    for pieces in [10, 100, 1000] {
        assert!(grown(pieces) <= whole, "{pieces} pieces: {} instead of {whole}", grown(pieces));
    }
}

#[test]
fn a_peer_with_a_window_of_a_few_bytes_costs_a_few_segments() {
    let mut pair = used_pair();
    let now = pair.now;
    pair.hosts[A].connection().send(now, &[1; 10_000], false);
    let start = pair.hosts[A].count(Counter::SegmentsSent);
    // For a minute, whatever comes is acknowledged, with room for 128 bytes.
    let end = now.after(60 * SECOND);
    let mut steps = 0;
    while pair.now < end && pair.hosts[A].tcb.unsent() > 0 {
        while pair.hosts[A].frame_out(pair.now).is_some() {}
        let mut ack = next(&pair, b"");
        ack.window = 1;
        give(&mut pair, &ack);
        while pair.hosts[A].frame_out(pair.now).is_some() {}
        pair.now = pair.hosts[A].tcb.deadline().unwrap_or(end).max(pair.now);
        let now = pair.now;
        pair.hosts[A].timers(now);
        steps += 1;
        assert!(steps < 10_000);
    }
    let sent = pair.hosts[A].count(Counter::SegmentsSent) - start;
    // At most five in a second (RFC 9293, section 3.8.6.2.1, override timeout), besides the first flight and acknowledgements.
    assert!(sent < 60 * 5 + 50, "{sent} segments in a minute");
}

#[test]
fn a_flood_of_pieces_out_of_order_takes_no_memory_and_ends_well() {
    let mut pair = used_pair();
    let window = 60_000u32;
    for n in 0..20_000u32 {
        let mut piece = next(&pair, b"x");
        piece.seq = piece.seq.plus(1 + n.wrapping_mul(7919) % window);
        give(&mut pair, &piece);
    }
    assert!(pair.hosts[A].ahead().len() <= MAX_PIECES);
    // One acknowledgement tells of a few blocks only, however many pieces came.
    let now = pair.now;
    let (segment, _) = pair.hosts[A].frame_out(now).expect("an acknowledgement");
    assert!(segment.sack.as_slice().len() <= 4);
    assert!(pair.hosts[A].frame_out(now).is_none());
    let data = vec![b'x'; window as usize];
    let whole = next(&pair, &data);
    assert!(give(&mut pair, &whole).0.readable);
    assert_eq!(pair.hosts[A].tcb.readable(), window as usize);
}

#[test]
fn of_bytes_that_differ_those_that_came_first_count() {
    let mut pair = used_pair();
    let mut first = next(&pair, &[b'a'; 100]);
    first.seq = first.seq.plus(100);
    give(&mut pair, &first);
    // Around it, over it, and beyond it on both sides.
    for (at, len) in [(150, 100), (50, 100), (100, 100), (20, 300)] {
        let other = vec![b'b'; len];
        let mut again = next(&pair, &other);
        again.seq = again.seq.plus(at);
        give(&mut pair, &again);
    }
    let head = next(&pair, &[b'c'; 20]);
    assert!(give(&mut pair, &head).0.readable);
    let mut got = vec![0; 320];
    assert_eq!(pair.hosts[A].connection().recv(&mut got), 320);
    let expected: Vec<u8> =
        [(b'c', 20), (b'b', 80), (b'a', 100), (b'b', 120)].iter().flat_map(|(byte, n)| vec![*byte; *n]).collect();
    assert_eq!(got, expected);
}

#[test]
fn routers_that_lie_do_not_get_below_the_bound() {
    let mut pair = used_pair();
    let now = pair.now;
    pair.hosts[A].connection().send(now, &[1; 30_000], false);
    while pair.hosts[A].frame_out(now).is_some() {}
    let una = pair.hosts[A].export(now).0.snd_una;
    for n in 0..1000u32 {
        pair.hosts[A].connection().packet_too_big(now, SeqNr(una).plus(n), n % 1500);
        while pair.hosts[A].frame_out(now).is_some() {}
    }
    assert_eq!(pair.hosts[A].tcb.path_mtu(), 552);
    assert!(pair.hosts[A].count(Counter::Retransmits) < 200, "{}", pair.hosts[A].count(Counter::Retransmits));
}
