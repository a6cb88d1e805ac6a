use proptest::prelude::*;

use super::room::MAX_RECORDS;
use super::*;
use crate::tcp::time::Instant;

fn stamp(at: u64) -> Stamp {
    Stamp { sent_at: Instant(at), ..Stamp::default() }
}

fn ranges(sent: &Sent) -> Vec<(u32, u32)> {
    sent.records().map(|record| (record.start.0, record.end.0)).collect()
}

#[test]
fn what_is_sent_at_one_time_is_one_record() {
    let mut sent = Sent::default();
    for n in 0..5 {
        sent.push(SeqNr(n * 10), SeqNr(n * 10 + 10), stamp(u64::from(n / 3)));
    }
    assert_eq!(ranges(&sent), [(0, 30), (30, 50)]);
    sent.take_acked(SeqNr(35), |_| ());
    assert_eq!(ranges(&sent), [(35, 50)]);
}

#[test]
fn losses_are_sent_again_in_order_and_sacks_join() {
    let mut sent = Sent::default();
    sent.push(SeqNr(0), SeqNr(100), stamp(1));
    sent.take_sacked(SeqNr(20), SeqNr(30), |_| ());
    sent.take_sacked(SeqNr(40), SeqNr(50), |_| ());
    assert_eq!(sent.lose_range(SeqNr(0), SeqNr(40)), 30);
    assert_eq!((sent.in_flight(), sent.next_lost(1 << 20)), (50, Some((SeqNr(0), SeqNr(20)))));
    sent.push_again(SeqNr(0), SeqNr(20), stamp(2));
    assert_eq!(sent.next_lost(1 << 20), Some((SeqNr(30), SeqNr(40))));
    assert_eq!((sent.lost(), sent.resent()), (10, 20));
    sent.take_sacked(SeqNr(30), SeqNr(40), |_| ());
    assert_eq!((sent.next_lost(1 << 20), sent.in_flight()), (None, 70));
    assert_eq!(ranges(&sent), [(0, 20), (20, 50), (50, 100)]);
    assert!(sent.records().next().is_some_and(|record| record.resent && record.stamp == stamp(2)));
}

#[test]
fn an_acknowledgement_of_the_oldest_looks_at_no_other() {
    let mut sent = Sent::default();
    for n in 0..500u32 {
        sent.push(SeqNr(n * 10), SeqNr(n * 10 + 10), stamp(n.into()));
    }
    let mut seen = 0;
    sent.take_acked(SeqNr(10), |_| seen += 1);
    assert_eq!((seen, sent.records().len()), (1, 499));
}

const SPAN: u32 = 20_000;

/// What is said of one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Byte {
    at: u64,
    sacked: bool,
    lost: bool,
    resent: bool,
}

proptest! {
    /// The short look and the one that takes any record.
    #[test]
    fn new_data_continues_what_was_sent_alike(
        end in 10u32..12,
        times: (bool, bool, bool, bool),
        delivered: (bool, bool),
        limited: (bool, bool, bool, bool),
        state: (bool, bool, bool, bool),
        in_flight: (u32, u32),
    ) {
        let at = |late: bool| Instant(u64::from(late) + 1);
        let (sacked, lost, resent, blurred) = state;
        let old = Stamp {
            first_sent_at: at(times.1),
            delivered: delivered.0.into(),
            in_flight: in_flight.0,
            app_limited: limited.0,
            window_limited: limited.1,
            ..stamp(1 + u64::from(times.0))
        };
        let new = Stamp {
            first_sent_at: at(times.2),
            delivered: delivered.1.into(),
            in_flight: in_flight.1,
            app_limited: limited.2,
            window_limited: limited.3,
            ..stamp(1)
        };
        let (start, sent_from) = (SeqNr(0), at(times.3));
        let last = Record { start, end: SeqNr(end), stamp: old, sent_from, sacked, lost, resent, blurred };
        for new in [new, Stamp { in_flight: in_flight.1, ..old }] {
            let next = Record::new(SeqNr(10), SeqNr(20), new);
            let continues = last.sent_from == new.sent_at && last.continues(&next);
            prop_assert_eq!(last.is_continued(SeqNr(10), &new), continues);
        }
    }

    /// Against a model with one entry a byte, as long as nothing has to be merged.
    #[test]
    fn behaves_like_a_list_of_bytes(
        base: u32,
        steps in proptest::collection::vec((0u8..7, 0u32..200, 1u32..60), 1..80),
    ) {
        let base = SeqNr(base);
        let mut sent = Sent::default();
        let mut model: Vec<Byte> = Vec::new();
        let mut una = 0u32;
        for (now, (step, at, len)) in steps.into_iter().enumerate() {
            let now = now as u64 + 1;
            let nxt = una + model.len() as u32;
            let (start, end) = ((una + at).min(nxt), (una + at + len).min(nxt));
            let (from, to) = ((start - una) as usize, (end - una) as usize);
            let (s, e) = (base.plus(start), base.plus(end));
            match step {
                0 | 1 => {
                    sent.push(base.plus(nxt), base.plus(nxt + len), stamp(now));
                    model.extend((0..len).map(|_| Byte { at: now, ..Byte::default() }));
                }
                2 => {
                    let mut told = 0;
                    sent.take_acked(s, |piece| told += piece.len());
                    prop_assert_eq!(told, from as u32);
                    model.drain(..from);
                    una = start;
                }
                3 => {
                    let mut told = 0;
                    sent.take_sacked(s, e, |piece| told += piece.len());
                    let new = model[from..to].iter_mut().filter(|byte| !byte.sacked);
                    prop_assert_eq!(told as usize, new.map(|b| (b.sacked, b.lost) = (true, false)).count());
                }
                4 => {
                    let told = sent.lose_range(s, e);
                    let new = model[from..to].iter_mut().filter(|byte| !byte.sacked && !byte.lost);
                    prop_assert_eq!(told as usize, new.map(|byte| byte.lost = true).count());
                }
                5 => {
                    if let Some((s, e)) = sent.next_lost(1 << 20) {
                        let (from, to) = (s.since(base) - una, e.since(base) - una);
                        prop_assert_eq!(model.iter().position(|byte| byte.lost), Some(from as usize));
                        sent.push_again(s, e, stamp(now));
                        for byte in &mut model[from as usize..to as usize] {
                            *byte = Byte { at: now, resent: true, ..Byte::default() };
                        }
                    } else {
                        prop_assert!(model.iter().all(|byte| !byte.lost));
                    }
                }
                _ if at < 20 => {
                    sent.forget_sacked();
                    model.iter_mut().for_each(|byte| byte.sacked = false);
                }
                _ if at < 40 => {
                    sent.forgive();
                    model.iter_mut().for_each(|byte| byte.lost = false);
                }
                _ => (),
            }
            let nxt = una + model.len() as u32;
            prop_assert!(sent.is_sound(base.plus(una), base.plus(nxt)) || model.is_empty(), "{:?}", sent);
            for record in sent.records() {
                let (from, to) = (record.start.since(base) - una, record.end.since(base) - una);
                for byte in &model[from as usize..to as usize] {
                    prop_assert_eq!((byte.sacked, byte.lost), (record.sacked, record.lost));
                    if !record.sacked && !record.blurred {
                        prop_assert_eq!((byte.at, byte.resent), (record.stamp.sent_at.0, record.resent));
                    }
                }
            }
        }
    }

    /// A queue that overflows drops by turns: what the peer said it has must not be forgotten over that.
    #[test]
    fn full_segments_lost_by_turns_are_all_remembered(base: u32) {
        const SEGMENTS: u32 = 5 * MAX_RECORDS as u32;
        const LEN: u32 = 1448;
        let (base, mut sent) = (SeqNr(base), Sent::default());
        for n in 0..SEGMENTS {
            sent.push(base.plus(n * LEN), base.plus((n + 1) * LEN), stamp(u64::from(n / 8)));
        }
        for n in (1..SEGMENTS).step_by(2) {
            sent.take_sacked(base.plus(n * LEN), base.plus((n + 1) * LEN), |_| ());
        }
        prop_assert_eq!(sent.sacked(), SEGMENTS / 2 * LEN);
        prop_assert_eq!(sent.lose(|_| Some(true)), SEGMENTS / 2 * LEN);
        prop_assert!(sent.is_sound(base, base.plus(SEGMENTS * LEN)));
    }

    /// However the peer chops it up, the list stays small and sound, and what was lost is sent again.
    #[test]
    fn never_grows_beyond_its_bounds(seed: u64, base: u32) {
        let (base, mut random) = (SeqNr(base), crate::testkit::random::Random::new(seed));
        let mut sent = Sent::default();
        for n in 0..SPAN / 10 {
            sent.push(base.plus(n * 10), base.plus(n * 10 + 10), stamp(n.into()));
        }
        for now in 0..4000u64 {
            let at = base.plus(random.below(SPAN.into()) as u32);
            let end = at.plus(1 + random.below(5) as u32).earlier(base.plus(SPAN));
            match random.below(4) {
                0 => { sent.lose_range(at, end); }
                1 => sent.push_again(at, end, stamp(now)),
                _ => sent.take_sacked(at, end, |_| ()),
            }
        }
        prop_assert!(sent.is_sound(base, base.plus(SPAN)) && sent.records().len() <= MAX_RECORDS);
        sent.forget_sacked();
        sent.lose_range(base, base.plus(SPAN));
        let mut rounds = 0;
        while let Some((start, end)) = sent.next_lost(1 << 20) {
            sent.push_again(start, end, stamp(5000));
            rounds += 1;
            prop_assert!(rounds <= MAX_RECORDS);
        }
        prop_assert!(sent.is_sound(base, base.plus(SPAN)) && sent.in_flight() == SPAN);
    }
}
