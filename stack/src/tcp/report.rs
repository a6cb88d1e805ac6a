//! What does the peer hear of data that arrived out of order, or twice? (RFC 2018, section 4; RFC 2883)

use super::image::flag;
use super::segment::SackBlocks;
use super::seq::SeqNr;
use super::tcb::{Tcb, bit};

impl Tcb {
    /// A segment that begins at `start` arrived beyond a gap: the block that holds it comes first from now on.
    pub(crate) fn note_recent(&mut self, start: SeqNr) {
        let mut next = start;
        for place in 0..self.ooo_recent.len() {
            let here = std::mem::replace(&mut self.ooo_recent[place], next);
            // One that lies in the same block now leaves its place to those behind it.
            if self.ooo.holding(start).is_some_and(|block| block.start.le(here) && here.lt(block.end)) {
                return;
            }
            next = here;
        }
    }

    /// The SACK option of the next segment: a duplicate, then the block that grew last, then the others from the newest on, so that each
    /// block is reported several times.
    #[inline]
    pub(crate) fn sack_blocks(&self) -> SackBlocks {
        let has_news = !self.ooo.is_empty() || self.has(bit::DUPLICATE);
        if has_news && self.has(flag::SACK) { self.collect_blocks() } else { SackBlocks::default() }
    }

    #[cold]
    fn collect_blocks(&self) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        let max = if self.has(flag::TIMESTAMPS) { SackBlocks::MAX - 1 } else { SackBlocks::MAX };
        if self.has(bit::DUPLICATE) {
            blocks.push(self.duplicate.start, self.duplicate.end);
        }
        let reported = blocks.as_slice().len();
        let recent = self.ooo_recent.iter().filter_map(|&start| self.ooo.holding(start));
        for block in recent.chain(self.ooo.as_slice().iter().copied()) {
            if blocks.as_slice().len() == max {
                break;
            }
            if !blocks.as_slice()[reported..].contains(&(block.start, block.end)) {
                blocks.push(block.start, block.end);
            }
        }
        blocks
    }
}
