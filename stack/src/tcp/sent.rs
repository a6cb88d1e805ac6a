//! What is in flight, and when was it last sent?
//!
//! One record for neighbours that were sent at the same time and have fared alike; together they cover exactly
//! `[snd_una, snd_nxt)`. The daemon needs little of this to give a connection back to the kernel, so it lies in the owner's memory,
//! not in the arena.

mod record;
mod room;

pub(crate) use self::record::{Record, Stamp};
pub(crate) use self::room::Room;
use self::room::{MAX_RECORDS, Records};
use super::seq::SeqNr;

/// What [`Sent::take_run`] has taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Bytes.
    pub len: u32,
    /// Where its first piece ends.
    pub first_end: SeqNr,
    /// Its last piece.
    pub last: Record,
}

/// The transmissions of one connection that were not acknowledged yet, in the order of the stream.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    records: Records,
    /// Bytes in records.
    span: u32,
    /// Bytes in records that are `sacked`.
    sacked: u32,
    /// Bytes in records that are `lost`.
    lost: u32,
    /// Nothing before this is `lost`.
    lost_from: SeqNr,
}

impl Sent {
    /// The records, oldest data first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> + ExactSizeIterator {
        self.records.iter()
    }

    /// Bytes between the oldest and the newest.
    pub fn span(&self) -> u32 {
        self.span
    }

    /// Bytes that the peer has selectively acknowledged.
    pub fn sacked(&self) -> u32 {
        self.sacked
    }

    /// Bytes that are lost and were not sent again since.
    pub fn lost(&self) -> u32 {
        self.lost
    }

    /// Bytes that were sent more than once and are in the network.
    pub fn resent(&self) -> u32 {
        let again = |record: &&Record| record.resent && !record.sacked && !record.lost;
        self.records.iter().filter(again).map(Record::len).fold(0, u32::saturating_add)
    }

    /// Segments of `mss` bytes of data, which ends at `end`, that the peer is not known to have.
    pub fn segments_out(&self, end: SeqNr, mss: u32) -> u32 {
        let unheard = self.records.iter().filter(|record| !record.sacked);
        let segments = unheard.map(|record| record.end.earlier(end).ahead_of(record.start).div_ceil(mss.max(1)));
        segments.fold(0, u32::saturating_add)
    }

    /// Bytes in the network (RFC 6675, section 4, pipe).
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.span.saturating_sub(self.sacked).saturating_sub(self.lost)
    }

    /// Forgets everything. `[una, nxt)` is in flight: nobody knows since when, but not later than `stamp` says.
    pub fn restart(&mut self, una: SeqNr, nxt: SeqNr, stamp: Stamp) {
        if let Some(records) = self.records.lent() {
            records.clear();
        }
        (self.span, self.sacked, self.lost, self.lost_from) = (0, 0, 0, una);
        if una.lt(nxt) {
            self.reserve();
            self.span = nxt.since(una);
            self.records.note_reached(self.span);
            let record = Record {
                start: una,
                end: nxt,
                stamp,
                sent_from: stamp.sent_at,
                sacked: false,
                lost: false,
                resent: false,
                blurred: true,
            };
            self.records.push_back(record);
        }
    }

    /// `[start, end)` goes out for the first time.
    #[inline(always)]
    pub fn push(&mut self, start: SeqNr, end: SeqNr, stamp: Stamp) {
        if !start.lt(end) {
            return;
        }
        self.span = self.span.wrapping_add(end.since(start));
        self.records.note_reached(stamp.in_flight);
        let records = &mut *self.records;
        match records.back_mut() {
            Some(last) if last.is_continued(start, &stamp) => {
                last.end = end;
                last.stamp.in_flight = stamp.in_flight;
            }
            _ => {
                if records.len() + 3 > MAX_RECORDS {
                    self.reserve();
                }
                self.records.push_back(Record::new(start, end, stamp));
            }
        }
    }

    /// The same of what is not empty and does not continue what was sent before, where [`Sent::is_short`] says no.
    #[inline(always)]
    pub fn push_apart(&mut self, start: SeqNr, end: SeqNr, stamp: Stamp) {
        self.span = self.span.wrapping_add(end.since(start));
        self.records.note_reached(stamp.in_flight);
        self.records.push_back(Record::new(start, end, stamp));
    }

    /// `[start, end)` goes out again.
    pub fn push_again(&mut self, start: SeqNr, end: SeqNr, stamp: Stamp) {
        let (first, past) = self.cut_out(start, end);
        for at in first..past {
            let record = &mut self.records[at];
            if record.lost {
                self.lost -= record.len();
            }
            record.lost = false;
            record.resent = true;
            record.blurred = false;
            (record.stamp, record.sent_from) = (stamp, stamp.sent_at);
        }
        if self.lost_from.ge(start) {
            self.lost_from = self.lost_from.later(end);
        }
        self.join(first, past);
    }

    /// `[start, end)` was sent again, nobody knows when: later than what was sent once, it is taken for, so that the arrival of that does not make
    /// it lost once more. If it is, what goes out from now on will tell.
    pub fn know_resent(&mut self, start: SeqNr, end: SeqNr) {
        let (first, past) = self.cut_out(start, end);
        for at in first..past {
            let record = &mut self.records[at];
            record.resent = true;
            record.stamp.sent_at = record.stamp.sent_at.after(1);
            record.sent_from = record.stamp.sent_at;
        }
        self.join(first, past);
    }

    /// Everything before `una` was acknowledged: takes it out, telling `visit` of each piece.
    #[inline]
    pub fn take_acked(&mut self, una: SeqNr, mut visit: impl FnMut(&Record)) {
        let Some(records) = self.records.lent() else { return };
        while let Some(front) = records.front_mut() {
            if front.start.ge(una) {
                break;
            }
            let is_whole = front.end.le(una);
            let piece = if is_whole { *front } else { Record { end: una, ..*front } };
            if is_whole {
                records.pop_front();
            } else {
                front.start = una;
            }
            self.span = self.span.saturating_sub(piece.len());
            if piece.sacked {
                self.sacked = self.sacked.saturating_sub(piece.len());
            } else if piece.lost {
                self.lost = self.lost.saturating_sub(piece.len());
            }
            visit(&piece);
        }
    }

    /// As [`Sent::take_acked`] where all that was acknowledged was sent once, piece by piece, and nothing else is known of it: then the
    /// last piece was sent last, and stands for all. `None`: it is not so, and nothing has changed.
    pub fn take_run(&mut self, una: SeqNr) -> Option<Run> {
        let records = self.records.lent()?;
        let first = records.front()?;
        let (start, first_end) = (first.start, first.end);
        let mut count = 0;
        let last = loop {
            let record = records.get(count)?;
            if !record.is_plain() || record.end.gt(una) {
                return None;
            }
            count += 1;
            if record.end == una {
                break *record;
            }
        };
        for _ in 0..count {
            records.pop_front();
        }
        let len = una.since(start);
        self.span = self.span.saturating_sub(len);
        Some(Run { len, first_end, last })
    }

    /// The oldest piece, where that alone is what [`Sent::take_run`] would take, as it nearly always is.
    #[inline(always)]
    pub fn plain_piece(&self, una: SeqNr) -> Option<&Record> {
        self.records.kept()?.front().filter(|oldest| oldest.end == una && oldest.is_plain())
    }

    /// Takes the oldest piece out, which is of `len` bytes, and nothing is known of it.
    #[inline(always)]
    pub fn drop_oldest(&mut self, len: u32) {
        if let Some(records) = self.records.lent() {
            records.pop_front();
        }
        self.span = self.span.saturating_sub(len);
    }

    /// The peer says that it has `[start, end)`: marks what was not known of it, telling `visit` of each piece.
    pub fn take_sacked(&mut self, start: SeqNr, end: SeqNr, mut visit: impl FnMut(&Record)) {
        let known = self.records.get(self.index(start));
        if known.is_none_or(|record| record.sacked && record.start.le(start) && end.le(record.end)) {
            return;
        }
        let (first, past) = self.cut_out(start, end);
        for at in first..past {
            let record = &mut self.records[at];
            if record.sacked {
                continue;
            }
            visit(record);
            if record.lost {
                self.lost -= record.len();
            }
            self.sacked += record.len();
            record.sacked = true;
            record.lost = false;
        }
        self.join(first, past);
    }

    /// Declares lost what `is_lost` says, of what is neither lost nor known to have arrived; stops when it says `None`. Returns how
    /// many bytes.
    pub fn lose(&mut self, mut is_lost: impl FnMut(&Record) -> Option<bool>) -> u32 {
        let before = self.lost;
        for record in self.records.lent().into_iter().flatten() {
            if record.sacked || record.lost {
                continue;
            }
            match is_lost(record) {
                None => break,
                Some(false) => (),
                Some(true) => {
                    if self.lost == 0 {
                        self.lost_from = record.start;
                    }
                    self.lost_from = self.lost_from.earlier(record.start);
                    record.lost = true;
                    self.lost += record.len();
                }
            }
        }
        self.lost - before
    }

    /// Declares lost what of `[start, end)` has not arrived. Returns how many bytes.
    pub fn lose_range(&mut self, start: SeqNr, end: SeqNr) -> u32 {
        self.cut_out(start, end);
        self.lose(|record| if record.start.ge(end) { None } else { Some(record.start.ge(start)) })
    }

    /// Nothing counts as lost any more: the losses were none.
    pub fn forgive(&mut self) {
        for record in self.records.lent().into_iter().flatten() {
            record.lost = false;
        }
        self.lost = 0;
    }

    /// What the peer has selectively acknowledged counts as missing again: it may have dropped it (RFC 2018, section 8).
    pub fn forget_sacked(&mut self) {
        for record in self.records.lent().into_iter().flatten() {
            record.sacked = false;
        }
        self.sacked = 0;
    }

    /// The oldest range that is lost, as far as `max` bytes; pieces that were sent apart count as one.
    pub fn next_lost(&self, max: u32) -> Option<(SeqNr, SeqNr)> {
        if self.lost == 0 {
            return None;
        }
        let mut lost = self.records.range(self.index(self.lost_from)..).skip_while(|record| !record.lost);
        let first = lost.next()?;
        let (start, mut end) = (first.start, first.end);
        for record in lost.take_while(|record| record.lost) {
            if end.since(start) >= max {
                break;
            }
            end = record.end;
        }
        Some((start, end.earlier(start.plus(max))))
    }

    /// Where the record that holds `seq`, or the first one after it, stands.
    fn index(&self, seq: SeqNr) -> usize {
        match self.records.front() {
            Some(front) if front.end.gt(seq) => 0,
            _ => self.records.partition_point(|record| record.end.le(seq)),
        }
    }

    /// Sees to it that records begin at `start` and at `end`, and says where those between them stand.
    fn cut_out(&mut self, start: SeqNr, end: SeqNr) -> (usize, usize) {
        self.reserve();
        let first = self.cut(start);
        let past = self.cut(end).max(first);
        (first, past)
    }

    /// Sees to it that no record holds both sides of `seq`; says where the one after it stands.
    fn cut(&mut self, seq: SeqNr) -> usize {
        let at = self.index(seq);
        let Some(record) = self.records.get_mut(at).filter(|record| record.start.lt(seq)) else { return at };
        let rest = Record { start: seq, ..*record };
        record.end = seq;
        self.records.insert(at + 1, rest);
        at + 1
    }

    /// Merges neighbours that are alike, of the records from before `first` to after `past`.
    fn join(&mut self, first: usize, past: usize) {
        let mut at = past.min(self.records.len().saturating_sub(1));
        while at > 0 && at + 1 >= first {
            if self.records[at - 1].continues(&self.records[at]) {
                self.records[at - 1] = self.records[at - 1].with(&self.records[at]);
                self.records.remove(at);
            }
            at -= 1;
        }
    }

    /// Do the records cover exactly `[una, nxt)`, and do the sums agree? For assertions.
    pub fn is_sound(&self, una: SeqNr, nxt: SeqNr) -> bool {
        let mut at = una;
        let (mut sacked, mut lost) = (0, 0);
        for record in self.records.iter() {
            if record.start != at || !record.start.lt(record.end) || (record.sacked && record.lost) {
                return false;
            }
            at = record.end;
            sacked += if record.sacked { record.len() } else { 0 };
            lost += if record.lost { record.len() } else { 0 };
        }
        if self.span != self.records.iter().map(Record::len).sum::<u32>() {
            return false;
        }
        let hint_holds = self.records.iter().find(|record| record.lost).is_none_or(|r| r.end.gt(self.lost_from));
        at == nxt && (sacked, lost) == (self.sacked, self.lost) && hint_holds
    }
}

#[cfg(test)]
#[path = "sent/tests.rs"]
mod tests;
