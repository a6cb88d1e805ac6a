//! One range in flight.

use crate::tcp::seq::SeqNr;
use crate::tcp::time::Instant;

/// What was known when a segment went out (draft-ietf-ccwg-bbr, section 4.1.2.2: the fields `P.*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// When it went out.
    pub sent_at: Instant,
    /// `first_sent_time`: when the flight that it belongs to began.
    pub first_sent_at: Instant,
    /// `delivered_time`: when the peer had last taken something; never: nobody knows.
    pub delivered_at: Instant,
    /// Bytes that the peer had taken by then.
    pub delivered: u64,
    /// Bytes that had been lost by then, modulo 2^32.
    pub lost: u32,
    /// Bytes in the network, this segment included.
    pub in_flight: u32,
    /// The program had too little to say to fill the path.
    pub app_limited: bool,
    /// The peer's window left no room to fill the path.
    pub window_limited: bool,
}

impl Stamp {
    /// Is it known what the peer had taken when the segment went out? Of what another owner sent it is not, and what has been delivered since
    /// a change of hands says nothing of the path.
    #[inline(always)]
    pub fn tells_rate(&self) -> bool {
        self.delivered_at.is_set()
    }
}

/// A range `[start, end)` in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub start: SeqNr,
    pub end: SeqNr,
    /// Of the last transmission.
    pub stamp: Stamp,
    /// When the first of it was last sent: earlier than the stamp says where records were merged.
    pub sent_from: Instant,
    /// The peer has it (RFC 2018). It may still drop it.
    pub sacked: bool,
    /// Lost, and not sent again since.
    pub lost: bool,
    /// Sent more than once.
    pub resent: bool,
    /// Nobody knows when it was sent exactly: no round trip can be measured.
    pub blurred: bool,
}

impl Record {
    /// What goes out for the first time.
    #[inline(always)]
    pub(super) fn new(start: SeqNr, end: SeqNr, stamp: Stamp) -> Self {
        let sent_from = stamp.sent_at;
        Self { start, end, stamp, sent_from, sacked: false, lost: false, resent: false, blurred: false }
    }

    /// Bytes, in the sequence space.
    pub fn len(&self) -> u32 {
        self.end.ahead_of(self.start)
    }

    /// Was it sent once, as one, and is nothing else known of it?
    pub(super) fn is_plain(&self) -> bool {
        // All in one word.
        u32::from_ne_bytes([self.sacked, self.lost, self.resent, self.blurred].map(u8::from)) == 0
    }

    /// Was it certainly sent after what was sent at `at` and ends at `end` (RFC 8985, section 6.2: RACK_sent_after)?
    pub fn was_sent_after(&self, at: Instant, end: SeqNr) -> bool {
        self.sent_from > at || (self.sent_from == at && self.end.gt(end))
    }

    /// Can `next` be added without losing anything?
    pub(super) fn continues(&self, next: &Self) -> bool {
        let alike = self.fared_like(next);
        let stamps_agree = Stamp { in_flight: 0, ..self.stamp } == Stamp { in_flight: 0, ..next.stamp };
        alike
            && ((self.sacked && next.sacked)
                || (stamps_agree && self.blurred == next.blurred && self.sent_from == next.sent_from))
    }

    /// [`Record::continues`] of what goes out for the first time from `start` on: all but [`Stamp::in_flight`] is the same then.
    #[inline(always)]
    pub(super) fn is_continued(&self, start: SeqNr, stamp: &Stamp) -> bool {
        let is_alike = self.end == start && self.is_plain();
        // What was sent at another time never continues it: looked at first, since it nearly always was.
        self.sent_from == stamp.sent_at && is_alike && self.stamp == Stamp { in_flight: self.stamp.in_flight, ..*stamp }
    }

    /// Do both stand the same?
    pub(super) fn fared_like(&self, next: &Self) -> bool {
        let state = |record: &Self| (record.sacked, record.lost, record.resent || record.sacked);
        self.end == next.start && state(self) == state(next)
    }

    /// Both as one, as if all of it had been sent when the later one was.
    pub(super) fn with(&self, next: &Self) -> Self {
        let later = if self.stamp.sent_at > next.stamp.sent_at { self } else { next };
        Self {
            start: self.start,
            end: next.end,
            stamp: later.stamp,
            sent_from: self.sent_from.min(next.sent_from),
            sacked: self.sacked && next.sacked,
            lost: self.lost && next.lost,
            resent: self.resent || next.resent,
            blurred: self.blurred || next.blurred || self.stamp.sent_at != next.stamp.sent_at,
        }
    }
}
