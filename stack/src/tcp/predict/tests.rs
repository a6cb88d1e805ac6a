//! The prediction against the long way: two copies of a connection live through the same, segment by segment.

use zerocopy::{FromZeros, IntoBytes};

use super::super::cc::Algorithm;
use super::super::ecn::Codepoint;
use super::super::image::Image;
use super::super::outcome::Outcome;
use super::super::recovery::Recovery;
use super::super::segment::{SegmentOut, Timestamps};
use super::super::seq::SeqNr;
use super::*;
use crate::mem::ring;
use crate::testkit::random::Random;

const RING: usize = 64 << 10;
pub(in crate::tcp) const START: Instant = Instant(1_000_000_000);

/// One copy.
pub(in crate::tcp) struct Copy {
    pub tcb: Tcb,
    snd: Vec<u8>,
    rcv: Vec<u8>,
    pub recovery: Recovery,
}

impl Copy {
    pub fn new(image: &Image, algorithm: Algorithm) -> Self {
        let (snd, rcv) = (vec![0; RING], vec![0; RING]);
        let mut copy = Self { tcb: Tcb::new_zeroed(), snd, rcv, recovery: Recovery::default() };
        let Self { tcb, snd, rcv, recovery } = &mut copy;
        Connection::import(tcb, snd, rcv, recovery, image, &[], &[], 1500, START).unwrap();
        copy.tcb.choose_congestion(algorithm);
        // Small ones that may grow.
        copy.tcb.limit_window(RING as u32 / 4);
        copy.tcb.limit_queue(RING as u32 / 4);
        copy.connection().tune_buffers(RING as u32, RING as u32);
        copy
    }

    pub fn connection(&mut self) -> Connection<'_> {
        let Self { tcb, snd, rcv, recovery } = self;
        Connection { tcb, snd, rcv, recovery }
    }

    /// All bytes that have arrived, in order or not.
    pub fn received(&self) -> Vec<u8> {
        let held = self.tcb.ooo.as_slice().iter().map(|range| (range.start, range.end));
        let all = std::iter::once((self.tcb.rcv_read, self.tcb.rcv_end())).chain(held);
        let read = |(start, end): (SeqNr, SeqNr)| {
            let mut bytes = vec![0; end.since(start) as usize];
            ring::read(&self.rcv, self.tcb.rcv_place(start.0), &mut bytes);
            bytes
        };
        all.flat_map(read).collect()
    }

    /// All that may go out, the long way.
    pub fn transmit(&mut self, now: Instant) -> Vec<SegmentOut> {
        let next = || if self.connection().may_transmit() { self.connection().next_segment(now) } else { None };
        std::iter::from_fn(next).collect()
    }

    /// The same, as far as it can be foreseen the short way, `most` segments at once; and how many segments could.
    fn transmit_foreseen(&mut self, now: Instant, most: u32) -> (Vec<SegmentOut>, usize) {
        let (mut all, mut foreseen) = (Vec::new(), 0);
        while self.connection().may_transmit() {
            let before = *self.tcb.as_bytes().first_chunk::<{ size_of::<Tcb>() }>().unwrap();
            if let Some(train) = self.connection().foreseen_train(now, most) {
                foreseen += train.count as usize;
                all.extend(train.segments().map(SegmentOut::from));
                continue;
            }
            assert_eq!(self.tcb.as_bytes(), &before[..], "nothing has happened");
            let next = match self.connection().foreseen_segment(now) {
                None => {
                    assert_eq!(self.tcb.as_bytes(), &before[..], "nothing has happened");
                    self.connection().next_segment(now)
                }
                Some(plain) => {
                    foreseen += 1;
                    Some(plain.into())
                }
            };
            let Some(segment) = next else { break };
            all.push(segment);
        }
        (all, foreseen)
    }
}

/// Both copies, and what their peer has seen of them.
struct Twins {
    random: Random,
    now: Instant,
    quick: Copy,
    long: Copy,
    /// The peer's clock, its acknowledgement number, and where what was sent to it ends.
    clock: u32,
    ack: SeqNr,
    sent: Vec<SeqNr>,
    predicted: usize,
    corrupt: usize,
    foreseen: usize,
}

/// An open connection with nothing under way.
pub(in crate::tcp) fn image(random: &mut Random, flags: u32) -> Image {
    let (una, nxt) = (random.number() as u32, random.number() as u32);
    Image {
        flow: crate::testkit::crowd::flow(0),
        snd_una: una,
        snd_nxt: una,
        snd_end: una,
        rcv_nxt: nxt,
        rcv_read: nxt,
        snd_wl1: nxt,
        snd_wnd: 60_000,
        max_window: 60_000,
        rcv_wnd: 60_000,
        rcv_wup: nxt,
        mss_clamp: 1460,
        flags,
        srtt_us: 1000,
        rttvar_us: 500,
        cwnd: 10 + random.below(50) as u32,
        ssthresh: if random.chance(500) { u32::MAX } else { 20 },
        keep_idle_ms: 7_200_000,
        keep_interval_ms: 75_000,
        keep_count: 9,
        ..Image::default()
    }
}

impl Twins {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let optional = [flag::TIMESTAMPS, flag::ECN, flag::NODELAY, flag::KEEPALIVE];
        let chosen = optional.into_iter().filter(|_| random.chance(300)).fold(0, |all, flag| all | flag);
        let sack = if random.chance(850) { flag::SACK } else { 0 };
        let image = image(&mut random, flag::WSCALE | sack | chosen);
        let una = image.snd_una;
        let algorithm = Algorithm::ALL[random.below(Algorithm::ALL.len() as u64) as usize];
        let [quick, long] = [(), ()].map(|()| Copy::new(&image, algorithm));
        let (ack, sent) = (SeqNr(una), Vec::new());
        Self { random, now: START, quick, long, clock: 1, ack, sent, predicted: 0, corrupt: 0, foreseen: 0 }
    }

    fn step(&mut self) {
        self.now = self.now.after(self.random.below(400_000));
        match self.random.below(20) {
            0..=3 => self.write(),
            4 | 5 => self.read(),
            6 => self.wait(),
            7 if self.random.chance(5) => {
                let now = self.now;
                for copy in [&mut self.quick, &mut self.long] {
                    copy.connection().shutdown_write(now);
                }
            }
            7..=9 => self.transmit(),
            _ => self.segment(),
        }
        self.compare();
    }

    fn write(&mut self) {
        let len = [100, 1460, 5000][self.random.below(3) as usize];
        let data: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let now = self.now;
        let more = self.random.chance(50);
        let [quick, long] = [&mut self.quick, &mut self.long].map(|copy| copy.connection().send(now, &data, more));
        assert_eq!(quick, long);
    }

    fn read(&mut self) {
        let len = self.random.below(4000) as usize;
        let [quick, long] = [&mut self.quick, &mut self.long].map(|copy| {
            let mut out = vec![0; len];
            let len = copy.connection().recv(&mut out);
            out.truncate(len);
            out
        });
        assert_eq!(quick, long);
    }

    /// Until the next timer, or not quite.
    fn wait(&mut self) {
        let bound = Instant(self.now.0 + self.random.below(300_000_000));
        self.now = self.quick.tcb.deadline().map_or(bound, |due| due.min(bound)).max(self.now);
        let now = self.now;
        let [quick, long] = [&mut self.quick, &mut self.long].map(|copy| copy.connection().on_timer(now));
        assert_eq!(quick, long);
        self.transmit();
    }

    fn transmit(&mut self) {
        let now = self.now;
        let most = self.random.below(6) as u32;
        let (quick, foreseen) = self.quick.transmit_foreseen(now, most);
        self.foreseen += foreseen;
        assert_eq!(quick, self.long.transmit(now));
        self.sent.extend(quick.iter().filter(|segment| segment.len > 0).map(|segment| segment.seq.plus(segment.len)));
    }

    fn segment(&mut self) {
        let tcb = &self.quick.tcb;
        let (una, nxt, rcv_nxt) = (tcb.snd_una, tcb.snd_nxt, tcb.rcv_nxt);
        let random = &mut self.random;
        if random.chance(600) && !self.sent.is_empty() {
            let taken = random.below(self.sent.len() as u64 + 1) as usize;
            self.ack = self.sent.drain(..taken).fold(self.ack, SeqNr::later);
        }
        let ack = match random.below(60) {
            0 => una.plus(random.below(u64::from(nxt.since(una)) + 2) as u32),
            1 => una.minus(random.below(3000) as u32),
            _ => self.ack,
        };
        let seq = match random.below(40) {
            0 => rcv_nxt.plus(random.below(5000) as u32),
            1 => rcv_nxt.minus(random.below(5000) as u32),
            _ => rcv_nxt,
        };
        let rare = [Flags::FIN, Flags::SYN, Flags::RST, Flags::URG, Flags::ECE, Flags::CWR];
        let mut flags = if random.chance(300) { Flags::ACK.with(Flags::PSH) } else { Flags::ACK };
        if random.chance(15) {
            let weight = if random.chance(50) { 4 } else { 2 };
            flags = flags.with(rare[(random.below(weight) as usize + 4) % rare.len()]);
        }
        self.clock = self.clock.wrapping_add(random.below(3) as u32);
        let val = if random.chance(20) { self.clock.wrapping_sub(9) } else { self.clock };
        let ecr = if random.chance(100) { 0 } else { tcb.ts_clock(self.now).wrapping_sub(random.below(3) as u32) };
        let timestamps = (tcb.has(flag::TIMESTAMPS) != random.chance(20)).then_some(Timestamps { val, ecr });
        let start = una.plus(random.below(6000) as u32);
        let edges = [start.0.to_be_bytes(), start.plus(1460).0.to_be_bytes()].concat();
        let sack: &[u8] = if random.chance(40) { &edges } else { &[] };
        let payload: Vec<u8> = match random.below(3) {
            0 => Vec::new(),
            _ => (0..random.below(1500)).map(|n| (n ^ u64::from(seq.0)) as u8).collect(),
        };
        let window = if random.chance(10) { 0 } else { 60_000 + random.below(3) as u16 };
        let ecn = if random.chance(50) { Codepoint::Ce } else { Codepoint::NotEct };
        let segment = Segment { seq, ack, flags, window, ecn, timestamps, sack, payload: &payload };
        // As it comes from a frame: verified, to be verified, or wrong.
        let rest = Sum::default().plus(&Sum::default().plus(&payload).checksum());
        let sum = match self.random.below(40) {
            0 => Some(rest.plus(&[1, 0])),
            1..=20 => Some(rest),
            _ => None,
        };
        self.take(&segment, sum);
    }

    fn take(&mut self, segment: &Segment<'_>, sum: Option<Sum>) {
        let before = *self.quick.tcb.as_bytes().first_chunk::<{ size_of::<Tcb>() }>().unwrap();
        let now = self.now;
        // What is not foreseen is verified before it is looked at again.
        let is_intact = sum.is_none_or(|sum| sum.plus(segment.payload).is_valid());
        let quick = match self.quick.connection().predict(now, segment, || sum) {
            Prediction::Met { writable } => {
                self.predicted += 1;
                Some(Outcome { readable: !segment.payload.is_empty(), writable, ..Outcome::default() })
            }
            missed => {
                assert_eq!(self.quick.tcb.as_bytes(), &before[..], "nothing has happened");
                let may_be_right = is_intact && missed == Prediction::Missed;
                may_be_right.then(|| self.quick.connection().take_unforeseen(now, segment))
            }
        };
        let long = is_intact.then(|| self.long.connection().take_unforeseen(now, segment));
        assert_eq!(quick, long, "{segment:?}");
        if quick.is_none() {
            // It may lie where nobody looks.
            self.corrupt += 1;
            assert_eq!(self.quick.received(), self.long.received());
            self.long.rcv.copy_from_slice(&self.quick.rcv);
        }
    }

    fn compare(&self) {
        let (quick, long) = (&self.quick, &self.long);
        if quick.tcb.as_bytes() != long.tcb.as_bytes() {
            panic!("{:#?}\nis not\n{:#?}", quick.tcb, long.tcb);
        }
        assert_eq!(format!("{:?}", quick.recovery), format!("{:?}", long.recovery));
        assert!(quick.rcv == long.rcv && quick.snd == long.snd, "the rings differ");
    }

    fn is_over(&self) -> bool {
        self.quick.tcb.is_closed()
    }
}

#[test]
fn both_ways_lead_to_the_same() {
    let (mut predicted, mut corrupt, mut foreseen, mut algorithms, mut steps) = (0, 0, 0, Vec::new(), 0);
    for seed in 0..250 {
        let mut twins = Twins::new(seed);
        for _ in 0..400 {
            if twins.is_over() {
                break;
            }
            twins.step();
            steps += 1;
        }
        if twins.predicted > 0 && !algorithms.contains(&twins.quick.tcb.algorithm()) {
            algorithms.push(twins.quick.tcb.algorithm());
        }
        predicted += twins.predicted;
        corrupt += twins.corrupt;
        foreseen += twins.foreseen;
    }
    assert!(foreseen > 5_000, "only {foreseen} segments went out the short way");
    assert!(corrupt > 500, "only {corrupt} segments were corrupt");
    assert!(predicted > 10_000, "only {predicted} of the segments in {steps} steps were foreseen");
    assert_eq!(algorithms.len(), Algorithm::ALL.len());
}
