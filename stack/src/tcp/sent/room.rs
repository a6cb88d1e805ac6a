//! How many records may there be, and in whose memory?

use std::collections::VecDeque;

use super::{Record, Sent};

/// Records of one connection at most, and ...
pub(super) const MAX_RECORDS: usize = 1024;
/// ... one for each so many bytes in flight, if that is more: of segments that are lost by turns each needs its own. Beyond, neighbours
/// are merged.
const BYTES_A_RECORD: u32 = 512;
/// Records that fit before a connection's list has to grow.
const FIRST_ROOM: usize = 16;

/// Memory for records, empty.
pub(crate) type Room = VecDeque<Record>;

impl Sent {
    /// Has it memory for records?
    pub fn has_room(&self) -> bool {
        self.records.capacity() != 0
    }

    /// Records that it has memory for.
    pub fn capacity(&self) -> usize {
        self.records.capacity()
    }

    /// Gives it memory, so that sending needs no new.
    pub fn lend(&mut self, room: Option<Room>) {
        debug_assert!(!self.has_room(), "its records would be lost");
        self.records = room.unwrap_or_else(|| Room::with_capacity(FIRST_ROOM));
    }

    /// The memory back, if nothing is in flight.
    pub fn take_room(&mut self) -> Option<Room> {
        if !self.records.is_empty() || !self.has_room() {
            return None;
        }
        Some(std::mem::take(&mut self.records))
    }

    /// Sees to it that a few more records can be made.
    #[inline]
    pub(super) fn reserve(&mut self) {
        if self.records.len() + 3 > MAX_RECORDS || self.records.capacity() == 0 {
            self.make_room();
        }
    }

    /// Does it need more memory for another record, or is it time to merge some?
    #[inline(always)]
    pub fn is_short(&self) -> bool {
        self.records.len() == self.records.capacity() || self.records.len() + 3 > MAX_RECORDS
    }

    #[cold]
    fn make_room(&mut self) {
        let most = MAX_RECORDS.max((self.span / BYTES_A_RECORD) as usize);
        if self.records.len() + 3 > most {
            self.merge(Record::fared_like);
            if self.records.len() > most / 4 * 3 {
                // Only a peer that is after it gets here. What it said it had counts as missing again.
                self.merge(|_, _| true);
            }
            self.count();
        }
        if self.records.capacity() == 0 {
            self.records.reserve(FIRST_ROOM);
        }
    }

    /// Merges each record with the next one, if `may`.
    fn merge(&mut self, may: impl Fn(&Record, &Record) -> bool) {
        let (mut kept, mut next) = (0, 0);
        while next < self.records.len() {
            let mut record = self.records[next];
            next += 1;
            if let Some(other) = self.records.get(next).filter(|other| record.end == other.start && may(&record, other))
            {
                record = record.with(other);
                next += 1;
            }
            self.records[kept] = record;
            kept += 1;
        }
        self.records.truncate(kept);
    }

    fn count(&mut self) {
        let sum = |of: fn(&Record) -> bool| self.records.iter().filter(|r| of(r)).map(Record::len).sum();
        (self.sacked, self.lost) = (sum(|record| record.sacked), sum(|record| record.lost));
    }
}
