//! Segments of one connection that came together and continue each other are taken in as one (as LRO and GRO do).
//!
//! Each is as [`super::predict`] expects it, after those before it; all have data, or none has. Data lies at its place at once; what follows
//! from the newest acknowledgement and window, and from all of the data, is done once, as if they were one segment whose acknowledgement covers
//! more (a stretch acknowledgement, RFC 2525, section 2.13).

use super::connection::Connection;
use super::segment::{Flags, Segment, Timestamps};
use super::seq::SeqNr;
use super::time::Instant;
use crate::wire::checksum::Sum;

/// Segments taken for one, of which the connection knows nothing yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Train {
    /// Sequence number of the last one, and where its data ends.
    seq: SeqNr,
    next: SeqNr,
    /// Where in the ring the next data has its place, and how much may follow, bytes.
    place: u32,
    room: u32,
    /// Bytes of data in the first one, and in any of them at most: a larger one changes when to acknowledge.
    first: u32,
    most: u32,
    /// The newest acknowledgement, and the last number that may be acknowledged.
    ack: SeqNr,
    sent: SeqNr,
    /// The newest window field, and the largest.
    window: u16,
    widest: u16,
    /// Those of all of them.
    timestamps: Option<Timestamps>,
    /// The flags of any of them.
    flags: u8,
    /// Segments that acknowledge something new.
    acks: u32,
}

/// What a train, or a single segment, brings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brought {
    /// Bytes of data, which lie at their place.
    pub len: u32,
    /// Bytes of data in the largest segment.
    pub largest: u32,
    pub is_pushed: bool,
    /// Acknowledgements of something new, if there are any: at least 1.
    pub acks: u32,
}

impl Connection<'_> {
    /// Begins a train with a segment that is as expected, with data or without; `sum` is that of all but its data, if its checksum was not
    /// verified. `None`: its data is not what its checksum says, and nothing has happened.
    #[inline(always)]
    pub(crate) fn begin_train<const DATA: bool>(&mut self, segment: &Segment<'_>, sum: Option<Sum>) -> Option<Train> {
        let tcb = &*self.tcb;
        let len = segment.payload.len() as u32;
        let mut train = Train {
            seq: tcb.rcv_nxt,
            next: tcb.rcv_nxt,
            place: self.next_place(),
            room: self.data_limit().ahead_of(tcb.rcv_nxt),
            first: len,
            most: len.max(tcb.rcv_mss.into()),
            ack: tcb.snd_una,
            sent: tcb.snd_nxt,
            window: 0,
            widest: 0,
            timestamps: segment.timestamps,
            flags: 0,
            acks: 0,
        };
        self.take_along::<DATA>(&mut train, segment, sum).then_some(train)
    }

    /// Takes one more segment along, if it continues the train and its data is what its checksum says; if not, nothing has happened.
    #[inline(always)]
    pub(crate) fn lengthen<const DATA: bool>(
        &mut self,
        train: &mut Train,
        segment: &Segment<'_>,
        sum: impl FnOnce() -> Option<Sum>,
    ) -> bool {
        train.is_continued::<DATA>(segment) && self.take_along::<DATA>(train, segment, sum())
    }

    #[inline(always)]
    fn take_along<const DATA: bool>(&mut self, train: &mut Train, segment: &Segment<'_>, sum: Option<Sum>) -> bool {
        let is_right = match DATA {
            true => self.copy_to(train.place, segment.payload, sum),
            false => sum.is_none_or(Sum::is_valid),
        };
        if is_right {
            train.add::<DATA>(segment);
        }
        is_right
    }

    /// What all of the train changes, which are so many segments. Says whether there is more send space.
    #[inline(never)]
    pub(crate) fn take_train(&mut self, now: Instant, train: &Train, segments: u32) -> bool {
        let Train { seq, next, first, ack, window, widest, timestamps, flags, acks, .. } = *train;
        // The queue was longer when the first of them came.
        self.tune(now, None, 0);
        let (len, acked) = (next.since(self.tcb.rcv_nxt), ack.since(self.tcb.snd_una));
        self.recovery.tally.predicted_train(segments, acked, len);
        self.tcb.take_window(seq, ack, window);
        self.tcb.max_window = self.tcb.max_window.max(self.tcb.scaled(widest));
        let largest = first.max(next.since(seq));
        self.take_in(now, ack, timestamps, Brought { len, largest, is_pushed: Flags(flags).has(Flags::PSH), acks })
    }
}

impl Train {
    /// Is it the next segment, with nothing in its header but what the others have? (As [`super::predict`] asks of the first.) Each has a newer window
    /// than the one before, since it has later data, or acknowledges more.
    #[inline(always)]
    fn is_continued<const DATA: bool>(&self, segment: &Segment<'_>) -> bool {
        let len = segment.payload.len() as u32;
        let flags = u32::from(segment.flags.0 & !Flags::PSH.0 ^ Flags::ACK.0);
        let unlike = flags | (segment.seq.0 ^ self.next.0);
        // 0 wraps where there has to be some.
        let fits = match DATA {
            true => len.wrapping_sub(1) < self.most && len <= self.room,
            false => len == 0,
        };
        let acked = segment.ack.since(self.ack);
        let is_newer = DATA || acked != 0;
        let is_usual = unlike == 0 && segment.window != 0 && segment.sack.is_empty();
        is_usual && fits && is_newer && acked <= self.sent.since(self.ack) && segment.timestamps == self.timestamps
    }

    #[inline(always)]
    fn add<const DATA: bool>(&mut self, segment: &Segment<'_>) {
        if DATA {
            let len = segment.payload.len() as u32;
            self.seq = self.next;
            self.next = self.next.plus(len);
            self.place = self.place.wrapping_add(len);
            self.room -= len;
        }
        self.acks += u32::from(segment.ack != self.ack);
        self.ack = segment.ack;
        self.flags |= segment.flags.0;
        self.window = segment.window;
        self.widest = self.widest.max(segment.window);
    }
}

#[cfg(test)]
mod tests;
