//! Trains against segment by segment: two copies of a connection take in the same bursts.

use super::super::cc::Algorithm;
use super::super::ecn::Codepoint;
use super::super::image::flag;
use super::super::predict::tests::{Copy, START, image};
use super::super::segment::SegmentOut;
use super::super::tcb::{Tcb, bit};
use super::*;
use crate::testkit::random::Random;

/// Two segments: windows may differ by so much.
const SLACK: u32 = 2 * 1460;

/// What a burst is made of.
struct Burst {
    payloads: Vec<Vec<u8>>,
    heads: Vec<Head>,
}

#[derive(Clone, Copy)]
struct Head {
    seq: SeqNr,
    ack: SeqNr,
    flags: Flags,
    window: u16,
    timestamps: Option<Timestamps>,
    is_corrupt: bool,
}

struct Twins {
    random: Random,
    now: Instant,
    /// Takes trains, and segment by segment.
    quick: Copy,
    slow: Copy,
    /// Ends of what was sent and not acknowledged.
    sent: Vec<SeqNr>,
    clock: u32,
    /// Twice what was in flight at most.
    most: u32,
    /// Trains of more than one segment, and the longest.
    trains: usize,
    longest: u32,
}

fn segment<'a>(head: &Head, payload: &'a [u8]) -> Segment<'a> {
    let Head { seq, ack, flags, window, timestamps, .. } = *head;
    Segment { seq, ack, flags, window, ecn: Codepoint::NotEct, timestamps, sack: &[], payload }
}

/// The sum of all but the data.
fn sum_of(head: &Head, payload: &[u8]) -> Sum {
    let rest = Sum::default().plus(&Sum::default().plus(payload).checksum());
    if head.is_corrupt { rest.plus(&[1, 0]) } else { rest }
}

impl Twins {
    fn new(seed: u64, algorithm: Algorithm) -> Self {
        let mut random = Random::new(seed);
        let timestamps = if random.chance(500) { flag_timestamps() } else { 0 };
        let image = image(&mut random, flag::WSCALE | flag::SACK | timestamps);
        let [quick, slow] = [(), ()].map(|()| Copy::new(&image, algorithm));
        Self { random, now: START, quick, slow, sent: Vec::new(), clock: 1, most: 0, trains: 0, longest: 0 }
    }

    /// Both write and send.
    fn send(&mut self) {
        let (now, data) = (self.now, vec![7; 1460 * self.random.below(12) as usize + self.random.below(1460) as usize]);
        let [quick, slow] = [&mut self.quick, &mut self.slow].map(|copy| {
            copy.connection().send(now, &data, false);
            copy.transmit(now)
        });
        let acks = |all: &[SegmentOut]| all.iter().map(|segment| (segment.ack, segment.window)).next_back();
        assert_eq!(acks(&quick), acks(&slow));
        // What the windows let go may differ by a segment; what the peer acknowledges has to be sent by both.
        let end = |all: &[SegmentOut]| all.iter().map(|segment| segment.seq.plus(segment.len)).next_back();
        let common = end(&quick).zip(end(&slow)).map(|(a, b)| a.earlier(b));
        let ends = slow.iter().map(|segment| segment.seq.plus(segment.len));
        self.sent.extend(ends.filter(|end| common.is_some_and(|common| end.le(common))));
    }

    fn burst(&mut self) -> Burst {
        let Self { random, slow: Copy { tcb, .. }, sent, clock, .. } = self;
        let count = 1 + random.below(20) as usize;
        let (has_data, has_acks) = (random.chance(600), random.chance(600));
        let (mut seq, mut ack) = (tcb.rcv_nxt, tcb.snd_una);
        let ecr = tcb.ts_clock(self.now);
        let has_timestamps = tcb.has(flag::TIMESTAMPS);
        let mut burst = Burst { payloads: Vec::new(), heads: Vec::new() };
        for _ in 0..count {
            let len = match random.below(8) {
                _ if !has_data => 0,
                0 => 0,
                1 | 2 => random.below(1460) as usize,
                _ => 1460,
            };
            if has_acks && !sent.is_empty() {
                let taken = random.below(3).min(sent.len() as u64) as usize;
                ack = sent.drain(..taken).fold(ack, SeqNr::later);
            }
            *clock = clock.wrapping_add(u32::from(random.chance(50)));
            let flags = match random.below(60) {
                0 => Flags::ACK.with(Flags::ECE),
                1..=10 => Flags::ACK.with(Flags::PSH),
                _ => Flags::ACK,
            };
            let gap = if random.chance(10) { 1460 } else { 0 };
            let head = Head {
                seq: seq.plus(gap),
                ack,
                flags,
                window: if random.chance(10) { 0 } else { 59_000 + random.below(4) as u16 * 300 },
                timestamps: has_timestamps.then_some(Timestamps { val: *clock, ecr }),
                is_corrupt: random.chance(10),
            };
            burst.payloads.push((0..len).map(|n| (n as u32 ^ seq.0) as u8).collect());
            burst.heads.push(head);
            seq = if head.is_corrupt { seq } else { seq.plus(len as u32) };
        }
        burst
    }

    /// As the stack does it.
    fn take_trains(&mut self, burst: &Burst) {
        let mut at = 0;
        while at < burst.heads.len() {
            let (head, payload) = (&burst.heads[at], &burst.payloads[at]);
            let (first, sum) = (segment(head, payload), sum_of(head, payload));
            let train = match self.quick.connection().foresees(&first) {
                false => None,
                true if payload.is_empty() => self.train::<false>(burst, at),
                true => self.train::<true>(burst, at),
            };
            let Some((train, count)) = train else {
                if sum.plus(payload).is_valid() {
                    self.quick.connection().take_unforeseen(self.now, &first);
                }
                at += 1;
                continue;
            };
            self.quick.connection().take_train(self.now, &train, count);
            self.trains += usize::from(count > 1);
            self.longest = self.longest.max(count);
            at += count as usize;
        }
    }

    fn train<const DATA: bool>(&mut self, burst: &Burst, at: usize) -> Option<(Train, u32)> {
        let (head, payload) = (&burst.heads[at], &burst.payloads[at]);
        let mut connection = self.quick.connection();
        let mut train = connection.begin_train::<DATA>(&segment(head, payload), Some(sum_of(head, payload)))?;
        let mut count = 1;
        for (head, payload) in burst.heads.iter().zip(&burst.payloads).skip(at + 1) {
            let sum = || Some(sum_of(head, payload));
            if !connection.lengthen::<DATA>(&mut train, &segment(head, payload), sum) {
                break;
            }
            count += 1;
        }
        Some((train, count))
    }

    fn take_singly(&mut self, burst: &Burst) {
        for (head, payload) in burst.heads.iter().zip(&burst.payloads) {
            if sum_of(head, payload).plus(payload).is_valid() {
                self.slow.connection().take_unforeseen(self.now, &segment(head, payload));
            }
        }
    }

    fn compare(&mut self) {
        let (quick, slow) = (&self.quick, &self.slow);
        assert_eq!(state(&quick.tcb), state(&slow.tcb));
        assert_eq!(quick.received(), slow.received());
        assert_eq!(quick.recovery.tally, slow.recovery.tally);
        assert_eq!(quick.recovery.sent.span(), slow.recovery.sent.span());
        assert_eq!(quick.recovery.rack.min_rtt(), slow.recovery.rack.min_rtt());
        // HyStart++ may see the end of a round in the middle of a burst: it slows down earlier, or later, by what is left of it.
        self.most = self.most.max(2 * quick.recovery.sent.reached());
        let [a, b] = [quick, slow].map(|copy| copy.tcb.cc.cwnd());
        assert!(a <= (b + b / 8).max(self.most) + SLACK && b <= 2 * a, "windows of {a} and {b}");
    }

    fn read(&mut self) {
        let mut out = vec![0; self.random.below(40_000) as usize];
        let [quick, slow] = [&mut self.quick, &mut self.slow].map(|copy| copy.connection().recv(&mut out));
        assert_eq!(quick, slow);
    }
}

fn flag_timestamps() -> u32 {
    flag::TIMESTAMPS | flag::TS_RECENT
}

/// What must not differ: numbers, windows, and what is owed to the peer.
fn state(tcb: &Tcb) -> impl PartialEq + std::fmt::Debug + use<> {
    let owed = tcb.bits & (bit::ACK_NOW | bit::PUSHED | bit::PINGPONG | bit::CHALLENGE);
    (
        (tcb.snd_una, tcb.snd_nxt, tcb.snd_wnd, tcb.snd_wl1, tcb.max_window),
        (tcb.rcv_nxt, tcb.rcv_adv, tcb.rcv_wup, tcb.rcv_mss, tcb.rcv_read),
        (owed, tcb.dup_acks_due, tcb.ts_recent, tcb.heard_at, tcb.data_heard_at),
    )
}

#[test]
fn a_train_does_what_its_segments_do() {
    let (mut trains, mut longest) = (0, 0);
    for seed in 0..400 {
        let mut twins = Twins::new(seed, Algorithm::ALL[seed as usize % Algorithm::ALL.len()]);
        for _ in 0..40 {
            twins.now = twins.now.after(twins.random.below(2_000_000));
            twins.send();
            if twins.quick.tcb.snd_nxt != twins.slow.tcb.snd_nxt {
                // Their windows differ by a segment: from here on they live through different things.
                break;
            }
            twins.now = twins.now.after(1_000_000);
            let burst = twins.burst();
            twins.take_trains(&burst);
            twins.take_singly(&burst);
            twins.compare();
            twins.read();
            if !twins.quick.tcb.ooo.is_empty() {
                break;
            }
        }
        trains += twins.trains;
        longest = longest.max(twins.longest);
    }
    assert!(trains > 2_000 && longest >= 15, "{trains} trains, the longest of {longest}");
}
