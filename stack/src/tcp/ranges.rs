//! A small set of sequence ranges in fixed memory: data that arrived out of order, the lowest pieces of it (the others: [`super::ahead`]).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::seq::SeqNr;

/// `[start, end)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Range {
    pub start: SeqNr,
    pub end: SeqNr,
}

/// Ranges kept at most: where one segment is missing there is one.
pub(crate) const MAX_RANGES: usize = 1;

/// Disjoint ranges in ascending order that do not touch each other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Ranges {
    list: [Range; MAX_RANGES],
    len: u32,
}

impl Ranges {
    /// The ranges, lowest first.
    pub fn as_slice(&self) -> &[Range] {
        &self.list[..(self.len as usize).min(MAX_RANGES)]
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// 0 if there are none.
    #[inline(always)]
    pub fn count(&self) -> u32 {
        self.len
    }

    pub fn is_full(&self) -> bool {
        self.len as usize >= MAX_RANGES
    }

    /// Takes the highest range out.
    pub fn pop(&mut self) -> Option<Range> {
        let last = self.as_slice().last().copied()?;
        self.len = self.as_slice().len() as u32 - 1;
        Some(last)
    }

    /// The highest range reaches to `end` now, if it did not reach further.
    pub fn extend_last(&mut self, end: SeqNr) {
        let len = self.as_slice().len();
        if let Some(last) = self.list[..len].last_mut() {
            last.end = last.end.later(end);
        }
    }

    /// One past the highest byte.
    pub fn highest(&self) -> Option<SeqNr> {
        self.as_slice().last().map(|range| range.end)
    }

    /// The range that holds `seq`.
    pub fn holding(&self, seq: SeqNr) -> Option<Range> {
        self.as_slice().iter().copied().find(|range| range.start.le(seq) && seq.lt(range.end))
    }

    /// The first gap at or after `from` and before `until`.
    pub fn gap(&self, from: SeqNr, until: SeqNr) -> Option<Range> {
        let mut start = from;
        for range in self.as_slice() {
            if range.end.le(start) {
                continue;
            }
            if range.start.gt(start) {
                break;
            }
            start = range.end;
        }
        let next = self.as_slice().iter().map(|range| range.start).find(|s| s.gt(start));
        let end = next.map_or(until, |s| s.earlier(until));
        start.lt(end).then_some(Range { start, end })
    }

    /// Adds `[start, end)`. False, and nothing changed, if it would be one range too many.
    pub fn insert(&mut self, start: SeqNr, end: SeqNr) -> bool {
        if !start.lt(end) {
            return true;
        }
        let list = self.as_slice();
        let first = list.iter().position(|range| range.end.ge(start)).unwrap_or(list.len());
        let past = list.iter().position(|range| range.start.gt(end)).unwrap_or(list.len()).max(first);
        let len = list.len();
        if first == past {
            if len == MAX_RANGES {
                return false;
            }
            self.list.copy_within(first..len, first + 1);
            self.list[first] = Range { start, end };
            self.len = len as u32 + 1;
        } else {
            let merged = Range { start: start.earlier(list[first].start), end: end.later(list[past - 1].end) };
            self.list[first] = merged;
            self.list.copy_within(past..len, first + 1);
            self.len = (len - (past - first) + 1) as u32;
        }
        true
    }

    /// Forgets everything before `seq`.
    pub fn trim(&mut self, seq: SeqNr) {
        let len = self.as_slice().len();
        let gone = self.as_slice().iter().take_while(|range| range.end.le(seq)).count();
        self.list.copy_within(gone..len, 0);
        self.len = (len - gone) as u32;
        if let Some(first) = self.list[..len - gone].first_mut() {
            first.start = first.start.later(seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPAN: u32 = 200;

    fn bytes(ranges: &Ranges, base: SeqNr) -> Vec<bool> {
        (0..SPAN).map(|i| ranges.holding(base.plus(i)).is_some()).collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_bytes(
            base: u32,
            steps in proptest::collection::vec((0u8..8, 0..SPAN, 0u32..30), 1..60),
        ) {
            let base = SeqNr(base);
            let mut ranges = Ranges::default();
            let mut model = vec![false; SPAN as usize];
            for (step, at, len) in steps {
                let (start, end) = (at, (at + len).min(SPAN));
                if step == 0 {
                    ranges.trim(base.plus(start));
                    model[..start as usize].fill(false);
                } else if ranges.insert(base.plus(start), base.plus(end)) {
                    model[start as usize..end as usize].fill(true);
                } else {
                    prop_assert_eq!(ranges.as_slice().len(), MAX_RANGES);
                }
                prop_assert_eq!(&bytes(&ranges, base), &model);
                let gap = (start..end).find(|&i| !model[i as usize]);
                prop_assert_eq!(ranges.gap(base.plus(start), base.plus(end)).map(|g| g.start.since(base)), gap);
                prop_assert!(ranges.as_slice().windows(2).all(|w| w[0].end.lt(w[1].start)), "apart and in order");
            }
        }
    }
}
