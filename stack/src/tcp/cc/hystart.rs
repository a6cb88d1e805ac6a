//! When does slow start end without a loss? HyStart++ (RFC 9406): when round trips grow longer, a queue is building.
//!
//! Then the window grows four times as slowly for up to five rounds, "conservative slow start" (CSS). If round trips become short
//! again, the growth was not ours and slow start goes on; else congestion avoidance begins.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Ack;
use crate::tcp::seq::SeqNr;
use crate::tcp::time::Instant;

/// RFC 9406, section 4.3, µs.
const MIN_RTT_THRESH: u32 = 4_000;
const MAX_RTT_THRESH: u32 = 16_000;
const MIN_RTT_DIVISOR: u32 = 8;
const N_RTT_SAMPLE: u16 = 8;
const CSS_GROWTH_DIVISOR: u32 = 4;
const CSS_ROUNDS: u16 = 5;

/// Departures remembered at a time: of a window of a thousand segments 22 are, and the next round begins before all are answered.
const STAMPS: usize = 24;
/// Unit of the times of departure, µs: coarse, for the record is small, but fine beside the thresholds above. They wrap in 16 s.
const TICK: u32 = 256;
/// A departure is noted when the round has gone on by this part since the last one noted: the first segments each, for the
/// verdict has to come before the window has doubled again; later ones ever more rarely, for peers that acknowledge dozens at a time.
const SPACING: u32 = 3;

/// What to do after an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Growth {
    /// Bytes to add to the window, if it is the limit.
    pub bytes: u32,
    /// Slow start is over.
    pub done: bool,
}

/// State of the first slow start. The connection's own estimator times one segment a round trip; here it takes eight,
/// which are timed apart. Nothing was sent twice before the first loss, so none of them is ambiguous.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct HyStart {
    /// The first number sent in this round.
    round_start: SeqNr,
    /// windowEnd: the round ends when this is acknowledged.
    round_end: SeqNr,
    /// Rounds begun, capped; 0: none yet.
    rounds: u32,
    /// lastRoundMinRTT, µs; 0: infinity.
    last_min: u32,
    /// currentRoundMinRTT, µs; 0: infinity.
    current_min: u32,
    /// cssBaselineMinRtt, µs.
    css_baseline: u32,
    /// rttSampleCount.
    samples: u16,
    /// The round of CSS that this is, from 1; 0: plain slow start.
    css_round: u16,
}

/// When some of what is in flight left. Of use only as long as something is, so it lies where a connection keeps what it needs then.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Departures {
    /// A ring, oldest at `first`: where the data ended ...
    ends: [SeqNr; STAMPS],
    /// ... and when it left, in ticks modulo 2^16.
    ticks: [u16; STAMPS],
    first: u16,
    len: u16,
}

/// `at` modulo [`STAMPS`], nearly always without a division.
#[inline(always)]
fn place(at: usize) -> usize {
    if at < STAMPS { at } else { at % STAMPS }
}

fn ticks(now: Instant) -> u16 {
    (now.0 / 1000 / u64::from(TICK)) as u16
}

impl Departures {
    /// Nothing is in flight.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Notes a departure at a place of the ring.
    #[inline(always)]
    fn note(&mut self, now: Instant, at: usize, end: SeqNr) {
        self.ends[at] = end;
        self.ticks[at] = ticks(now);
        self.len += 1;
    }

    /// Does `una` answer a departure?
    #[inline(always)]
    fn is_answered(&self, una: SeqNr) -> bool {
        self.len != 0 && self.ends[place(self.first as usize)].le(una)
    }

    /// The youngest departure that `una` answers gives the round-trip time, µs; and how many it answers. The oldest is answered.
    #[inline(always)]
    fn take_sample(&mut self, now: Instant, una: SeqNr) -> (u32, u32) {
        let mut at = place(self.first as usize);
        let mut len = self.len.saturating_sub(1);
        let mut next = place(at + 1);
        let mut answered = 1;
        while len != 0 && self.ends[next].le(una) {
            (at, next) = (next, place(next + 1));
            len -= 1;
            answered += 1;
        }
        (self.first, self.len) = (next as u16, len);
        let passed = ticks(now).wrapping_sub(self.ticks[at]);
        (u32::from(passed.max(1)) * TICK, answered)
    }
}

impl HyStart {
    /// New data `[start, end)` goes out.
    pub fn on_sent(&mut self, now: Instant, start: SeqNr, end: SeqNr, departures: &mut Departures) {
        let len = departures.len as usize;
        if len >= STAMPS {
            return;
        }
        let first = place(departures.first as usize);
        if len == 0 {
            if self.rounds == 0 {
                self.round_start = start;
            }
            return departures.note(now, first, end);
        }
        let newest = first + len - 1;
        let before = departures.ends[place(newest)].ahead_of(self.round_start);
        if end.ahead_of(self.round_start) >= before.saturating_add(before / SPACING) {
            departures.note(now, place(newest + 1), end);
        }
    }

    /// The same of `count` segments of `each` bytes, neither 0, from `start` on: those between two departures to be noted are passed over.
    pub fn on_train_sent(
        &mut self,
        now: Instant,
        start: SeqNr,
        (each, count): (u32, u32),
        departures: &mut Departures,
    ) {
        if departures.len == 0 && self.rounds == 0 {
            self.round_start = start;
        }
        let past = start.plus(each.wrapping_mul(count));
        let mut end = start.plus(each);
        while usize::from(departures.len) < STAMPS {
            let at = place(usize::from(departures.first)) + usize::from(departures.len);
            if departures.len != 0 {
                let before = departures.ends[place(at - 1)].ahead_of(self.round_start);
                let missing = self.round_start.plus(before.saturating_add(before / SPACING)).ahead_of(end);
                end = end.plus(missing.div_ceil(each) * each);
            }
            if end.gt(past) {
                return;
            }
            departures.note(now, place(at), end);
            end = end.plus(each);
        }
    }

    /// An acknowledgement in slow start (RFC 9406, section 4.2).
    #[inline(always)]
    pub fn on_ack(&mut self, ack: &Ack, departures: &mut Departures) -> Growth {
        if self.rounds == 0 {
            self.begin_round(ack.nxt);
        }
        if departures.is_answered(ack.una) {
            self.measure(ack.now, ack.una, ack.acks, departures);
        }
        // Without the limit L of eight segments for senders that do not pace: receivers that put segments together (GRO) acknowledge dozens
        // at a time, and would let the window grow by eight in a round trip. Linux has none.
        let bytes = if self.css_round == 0 { ack.acked } else { ack.acked / CSS_GROWTH_DIVISOR };
        if ack.una.ge(self.round_end) {
            self.end_round(ack.nxt);
        }
        Growth { bytes, done: self.css_round > CSS_ROUNDS }
    }

    /// A departure was answered: what does it say of the round?
    #[inline(never)]
    fn measure(&mut self, now: Instant, una: SeqNr, acks: u32, departures: &mut Departures) {
        let (rtt, answered) = departures.take_sample(now, una);
        self.current_min = lesser(self.current_min, rtt);
        // Each segment is a sample, if it answers a departure; of those taken for one, the last one's is the least.
        self.samples = self.samples.saturating_add(answered.min(acks) as u16);
        if self.samples >= N_RTT_SAMPLE && self.current_min != 0 {
            self.judge();
        }
    }

    #[inline(always)]
    fn end_round(&mut self, nxt: SeqNr) {
        self.begin_round(nxt);
        if self.css_round != 0 {
            // The round in whose middle CSS began counts.
            self.css_round = self.css_round.saturating_add(1);
        }
    }

    #[inline(always)]
    fn begin_round(&mut self, nxt: SeqNr) {
        self.round_start = nxt;
        self.round_end = nxt;
        self.rounds = self.rounds.saturating_add(1);
        self.last_min = self.current_min;
        self.current_min = 0;
        self.samples = 0;
    }

    /// There are samples enough: has the shortest round trip become longer than in the round before, or, in CSS, shorter than at its beginning?
    fn judge(&mut self) {
        if self.css_round != 0 {
            if self.current_min < self.css_baseline {
                self.css_baseline = 0;
                self.css_round = 0;
            }
        } else if self.last_min != 0 {
            let threshold = (self.last_min / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
            if self.current_min >= self.last_min.saturating_add(threshold) {
                self.css_baseline = self.current_min;
                self.css_round = 1;
            }
        }
    }
}

/// The lesser of a minimum, 0 standing for infinity, and a value.
fn lesser(min: u32, value: u32) -> u32 {
    if min == 0 { value } else { min.min(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;
    const MS: u64 = 1_000_000;

    /// A sender with a flight of constant size: each acknowledgement, of one segment, lets the next one go.
    struct Play {
        hystart: HyStart,
        departures: Departures,
        now: Instant,
        una: SeqNr,
        nxt: SeqNr,
        segments: u32,
        /// Bytes that the last round added.
        growth: u32,
        done: bool,
    }

    impl Play {
        fn new(segments: u32) -> Self {
            let (hystart, now, una) = (HyStart::default(), Instant(1_000 * MS), SeqNr(u32::MAX - 5_000));
            let departures = Departures::default();
            let mut play = Self { hystart, departures, now, una, nxt: una, segments, growth: 0, done: false };
            (0..segments).for_each(|_| play.send());
            play
        }

        fn send(&mut self) {
            let end = self.nxt.plus(MSS);
            self.hystart.on_sent(self.now, self.nxt, end, &mut self.departures);
            self.nxt = end;
        }

        fn round(&mut self, rtt_ms: u64) {
            self.growth = 0;
            self.now = self.now.after(rtt_ms * MS);
            for _ in 0..self.segments {
                self.una = self.una.plus(MSS);
                self.send();
                let Self { now, una, nxt, .. } = *self;
                let ack = Ack { now, acked: MSS, acks: 1, flight: MSS, mss: MSS, srtt: None, una, nxt };
                let growth = self.hystart.on_ack(&ack, &mut self.departures);
                self.growth += growth.bytes;
                self.done |= growth.done;
            }
        }
    }

    #[test]
    fn steady_round_trips_leave_slow_start_alone() {
        let mut play = Play::new(32);
        for _ in 0..20 {
            play.round(100);
            assert_eq!((play.growth, play.done), (32 * MSS, false));
        }
    }

    #[test]
    fn a_longer_round_trip_slows_down_and_five_rounds_end_it() {
        let mut play = Play::new(32);
        play.round(80);
        play.round(89);
        assert_eq!(play.hystart.css_round, 0, "an eighth of 80 ms is the threshold");
        play.round(99);
        // 89 / 8 = 11.1 ms: not reached.
        assert_eq!(play.hystart.css_round, 0);
        play.round(112);
        // About the fifteenth segment brings the eighth sample, and CSS with a quarter; its round is the first of five.
        let in_full = (play.growth - 32 * MSS / 4) / (MSS * 3 / 4);
        assert!((13..=15).contains(&in_full), "{in_full}");
        assert_eq!(play.hystart.css_round, 1);
        assert!(play.hystart.css_baseline.abs_diff(112_000) <= TICK);
        for _ in 0..4 {
            play.round(112);
            assert_eq!((play.growth, play.done), (32 * MSS / 4, false));
        }
        play.round(112);
        assert!(play.done);
    }

    #[test]
    fn round_trips_that_become_short_again_resume_slow_start() {
        let mut play = Play::new(32);
        play.round(50);
        play.round(70);
        assert_ne!(play.hystart.css_round, 0);
        play.round(60);
        assert_eq!((play.hystart.css_round, play.done), (0, false));
        play.round(60);
        assert_eq!(play.growth, 32 * MSS);
    }

    #[test]
    fn the_threshold_has_bounds() {
        // (before, no CSS yet, CSS), ms: at least 4, at most 16.
        for (before, below, above) in [(2, 5, 7), (400, 415, 417)] {
            for (rtt, css) in [(below, false), (above, true)] {
                let mut play = Play::new(32);
                play.round(before);
                play.round(rtt);
                assert_eq!(play.hystart.css_round != 0, css, "{before} {rtt}");
            }
        }
    }

    #[test]
    fn too_few_samples_decide_nothing() {
        let mut play = Play::new(7);
        play.round(50);
        play.round(500);
        assert_eq!(play.hystart.css_round, 0);
    }

    #[test]
    fn an_acknowledgement_adds_all_of_it() {
        let (now, una, nxt) = (Instant(1), SeqNr(50 * MSS), SeqNr(60 * MSS));
        let ack = Ack { now, acked: 50 * MSS, acks: 1, flight: 60 * MSS, mss: MSS, srtt: None, una, nxt };
        assert_eq!(
            HyStart::default().on_ack(&ack, &mut Departures::default()),
            Growth { bytes: 50 * MSS, done: false }
        );
    }

    #[test]
    fn samples_are_dense_where_a_round_begins() {
        let (mut hystart, mut departures) = (HyStart::default(), Departures::default());
        for n in 0..1000 {
            hystart.on_sent(Instant(n * 256_000), SeqNr(n as u32 * MSS), SeqNr((n as u32 + 1) * MSS), &mut departures);
        }
        let ends: Vec<u32> = departures.ends[..departures.len as usize].iter().map(|end| end.0 / MSS).collect();
        assert_eq!((&ends[..10], ends.len()), (&[1, 2, 3, 4, 6, 8, 11, 15, 20, 27][..], 22));
        assert_eq!(departures.take_sample(Instant(30 * 256_000), SeqNr(16 * MSS)), (16 * 256, 8), "sent at 14");
        assert!(!departures.is_answered(SeqNr(16 * MSS)));
    }
}
