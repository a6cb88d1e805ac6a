//! How many records may there be, and in whose memory?

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

use super::{Record, Sent};
use crate::tcp::cc::Departures;

/// Records of one connection at most, and ...
pub(super) const MAX_RECORDS: usize = 1024;
/// ... one for each so many bytes in flight, if that is more: of segments that are lost by turns each needs its own. Beyond, neighbours
/// are merged.
const BYTES_A_RECORD: u32 = 512;
/// Records that fit before a connection's list has to grow.
const FIRST_ROOM: usize = 16;

/// What a connection needs while it has something in flight, and only then.
#[derive(Debug)]
pub(crate) struct Room {
    records: VecDeque<Record>,
    departures: Departures,
    /// Bytes in the network when new data last went out.
    reached: u32,
}

impl Room {
    fn new() -> Box<Self> {
        Box::new(Self { records: VecDeque::with_capacity(FIRST_ROOM), departures: Departures::default(), reached: 0 })
    }

    /// Records that there is memory for.
    pub fn capacity(&self) -> usize {
        self.records.capacity()
    }
}

static NO_RECORDS: VecDeque<Record> = VecDeque::new();

/// The records of a connection, in a room if it has one.
#[derive(Debug, Default)]
pub(super) struct Records(Option<Box<Room>>);

impl Records {
    /// The same, to look at.
    #[inline(always)]
    pub fn kept(&self) -> Option<&VecDeque<Record>> {
        self.0.as_deref().map(|room| &room.records)
    }

    /// Remembers how much is in the network, new data included that goes out now.
    #[inline(always)]
    pub fn note_reached(&mut self, bytes: u32) {
        self.0.get_or_insert_with(Room::new).reached = bytes;
    }

    /// The records, if there is room for any.
    #[inline(always)]
    pub fn lent(&mut self) -> Option<&mut VecDeque<Record>> {
        self.0.as_deref_mut().map(|room| &mut room.records)
    }
}

impl Deref for Records {
    type Target = VecDeque<Record>;

    #[inline(always)]
    fn deref(&self) -> &VecDeque<Record> {
        self.0.as_deref().map_or(&NO_RECORDS, |room| &room.records)
    }
}

impl DerefMut for Records {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut VecDeque<Record> {
        &mut self.0.get_or_insert_with(Room::new).records
    }
}

impl Sent {
    /// Has it memory for records?
    pub fn has_room(&self) -> bool {
        self.records.0.is_some()
    }

    /// Records that it has memory for.
    pub fn capacity(&self) -> usize {
        self.records.capacity()
    }

    /// Gives it memory, so that sending needs no new.
    pub fn lend(&mut self, room: Option<Box<Room>>) {
        debug_assert!(!self.has_room(), "its records would be lost");
        self.records.0 = Some(room.unwrap_or_else(Room::new));
    }

    /// The memory back, if nothing is in flight.
    pub fn take_room(&mut self) -> Option<Box<Room>> {
        if !self.records.is_empty() {
            return None;
        }
        self.records.0.take()
    }

    /// Bytes in the network when new data last went out. What has arrived since is in it: of several acknowledgements that come
    /// together, all answer that.
    #[inline(always)]
    pub fn reached(&self) -> u32 {
        self.records.0.as_deref().map_or(0, |room| room.reached)
    }

    /// When what is in flight left.
    #[inline(always)]
    pub fn departures(&mut self) -> &mut Departures {
        &mut self.records.0.get_or_insert_with(Room::new).departures
    }

    /// Nobody waits for an answer to those any more.
    pub fn forget_departures(&mut self) {
        if let Some(room) = &mut self.records.0 {
            room.departures.clear();
        }
    }

    /// Sees to it that a few more records can be made.
    #[inline]
    pub(super) fn reserve(&mut self) {
        if self.records.len() + 3 > MAX_RECORDS {
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
