//! Which data arrived out of order? The lowest pieces stand in the record, where one look tells that there are none; those that find no
//! room there, in the owner's memory.
//!
//! A connection is given back to the kernel with all of them (see [`Recovery::beyond`]), because its peer was told of them.

use std::collections::VecDeque;

use super::connection::Connection;
use super::ranges::{MAX_RANGES, Range, Ranges};
use super::recovery::{Rare, Recovery};
use super::seq::SeqNr;

/// Pieces of one connection at most. Each takes eight bytes here, and at least one in the receive ring.
pub const MAX_PIECES: usize = 1024;
/// Those of them that are not in the record.
pub(crate) const MAX_BEYOND: usize = MAX_PIECES - MAX_RANGES;

/// Memory for so many pieces (1 KiB) a connection keeps when it has none.
const KEPT: usize = 128;

/// The pieces that found no room in the record: disjoint, ascending, not touching each other, and all above those in the record, which is
/// full as long as there are any.
#[derive(Debug, Default)]
pub(crate) struct Beyond(VecDeque<Range>);

/// What arrived out of order, all of it.
#[derive(Debug)]
pub(crate) struct Ahead<'a> {
    near: &'a mut Ranges,
    far: &'a mut Option<Box<Rare>>,
}

impl Beyond {
    fn first(&self) -> Option<Range> {
        self.0.front().copied()
    }

    /// Those that begin before this place end at or before `seq`.
    fn place_of(&self, seq: SeqNr) -> usize {
        self.0.partition_point(|range| range.end.le(seq))
    }

    /// Adds `[start, end)`. False, and nothing changed, if it would be one piece too many.
    fn insert(&mut self, start: SeqNr, end: SeqNr) -> bool {
        let first = self.0.partition_point(|range| range.end.lt(start));
        let past = self.0.partition_point(|range| range.start.le(end)).max(first);
        if first < past {
            let (low, high) = (self.0[first].start, self.0[past - 1].end);
            self.0[first] = Range { start: start.earlier(low), end: end.later(high) };
            self.0.drain(first + 1..past);
            return true;
        }
        if self.0.len() < MAX_BEYOND {
            self.0.insert(first, Range { start, end });
            return true;
        }
        false
    }

    fn trim(&mut self, seq: SeqNr) {
        self.0.drain(..self.place_of(seq));
        if let Some(first) = self.0.front_mut() {
            first.start = first.start.later(seq);
        }
    }
}

impl Ahead<'_> {
    /// One past the highest byte.
    pub fn highest(&self) -> Option<SeqNr> {
        highest(self.near, self.far)
    }

    /// The piece that holds `seq`.
    pub fn holding(&self, seq: SeqNr) -> Option<Range> {
        match beyond(self.far) {
            Some(far) if far.first().is_some_and(|first| first.start.le(seq)) => {
                far.0.get(far.place_of(seq)).copied().filter(|range| range.start.le(seq))
            }
            _ => self.near.holding(seq),
        }
    }

    /// The first gap at or after `from` and before `until`.
    pub fn gap(&self, from: SeqNr, until: SeqNr) -> Option<Range> {
        let Some((far, first)) = beyond(self.far).and_then(|far| Some((far, far.first()?))) else {
            return self.near.gap(from, until);
        };
        if from.lt(first.start) {
            return self.near.gap(from, until.earlier(first.start));
        }
        let at = far.place_of(from);
        // The pieces do not touch each other: behind the one that holds `from` is a gap.
        let (start, next) = match far.0.get(at) {
            Some(range) if range.start.le(from) => (range.end, far.0.get(at + 1)),
            next => (from, next),
        };
        let end = next.map_or(until, |range| range.start.earlier(until));
        start.lt(end).then_some(Range { start, end })
    }

    /// Adds `[start, end)`. The piece that it is part of now; `None`, and nothing changed, if it would be one too many.
    pub fn insert(&mut self, start: SeqNr, end: SeqNr) -> Option<Range> {
        let is_far = self.near.is_full() && self.near.highest().is_some_and(|top| start.gt(top));
        if is_far {
            let kept = self.far.get_or_insert_default().beyond.insert(start, end);
            return if kept { self.holding(start) } else { None };
        }
        if !self.near.insert(start, end) {
            // It belongs between those in the record: the last of them makes room.
            let far = &mut self.far.get_or_insert_default().beyond;
            if far.0.len() >= MAX_BEYOND {
                return None;
            }
            far.0.extend(self.near.pop());
            far.0.rotate_right(1);
            self.near.insert(start, end);
        }
        self.settle();
        self.holding(start)
    }

    /// Forgets everything before `seq`.
    pub fn trim(&mut self, seq: SeqNr) {
        self.near.trim(seq);
        if let Some(rare) = self.far {
            rare.beyond.trim(seq);
            self.settle();
        }
    }

    /// The record's last piece may have grown into those beyond; and where it has room, they move up.
    fn settle(&mut self) {
        let Some(far) = self.far.as_mut().map(|rare| &mut rare.beyond) else { return };
        while let (Some(top), Some(first)) = (self.near.highest(), far.first())
            && first.start.le(top)
        {
            far.0.pop_front();
            self.near.extend_last(first.end);
        }
        while !self.near.is_full()
            && let Some(first) = far.0.pop_front()
        {
            self.near.insert(first.start, first.end);
        }
        // Where one flight has come in many pieces the next one will: only what is large is given back.
        if far.0.is_empty() && far.0.capacity() > KEPT {
            *far = Beyond::default();
        }
    }
}

fn beyond(far: &Option<Box<Rare>>) -> Option<&Beyond> {
    far.as_ref().map(|rare| &rare.beyond)
}

fn highest(near: &Ranges, far: &Option<Box<Rare>>) -> Option<SeqNr> {
    beyond(far).and_then(|far| far.0.back()).map(|last| last.end).or(near.highest())
}

impl Connection<'_> {
    /// What arrived out of order.
    pub(crate) fn ahead(&mut self) -> Ahead<'_> {
        Ahead { near: &mut self.tcb.ooo, far: &mut self.recovery.rare }
    }
}

impl Recovery {
    /// The pieces of out-of-order data that the record has no room for, `[start, end)` of the sequence space: they go along when the
    /// connection does (see [`super::Tcb::ahead`]).
    pub fn beyond(&self) -> impl ExactSizeIterator<Item = [u32; 2]> {
        let pieces = beyond(&self.rare).map_or((&[][..], &[][..]), |far| far.0.as_slices());
        let count = pieces.0.len() + pieces.1.len();
        (0..count).map(move |at| {
            let range = if at < pieces.0.len() { pieces.0[at] } else { pieces.1[at - pieces.0.len()] };
            [range.start.0, range.end.0]
        })
    }

    /// Pieces that there is memory for beside the record.
    pub(crate) fn beyond_capacity(&self) -> usize {
        beyond(&self.rare).map_or(0, |far| far.0.capacity())
    }

    /// One past the highest byte that arrived, in order or not.
    pub(crate) fn highest_of(&self, near: &Ranges) -> Option<SeqNr> {
        highest(near, &self.rare)
    }
}

#[cfg(test)]
#[path = "ahead/tests.rs"]
mod tests;
