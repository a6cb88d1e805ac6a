//! What does the peer hear of data that arrived out of order, or twice? (RFC 2018, section 4; RFC 2883)

use super::image::flag;
use super::ranges::Range;
use super::segment::SackBlocks;
use super::tcb::{Tcb, bit};

impl Tcb {
    /// A segment arrived beyond a gap, in or next to this block: it comes first from now on.
    pub(crate) fn note_recent(&mut self, block: Range) {
        let mut recent = [Range::default(); SackBlocks::MAX];
        // Those that have become part of the block leave their places to those behind them.
        let others = self.ooo_recent.iter().filter(|other| !(block.start.le(other.start) && other.end.le(block.end)));
        for (place, block) in recent.iter_mut().zip(std::iter::once(&block).chain(others)) {
            *place = *block;
        }
        self.ooo_recent = recent;
    }

    /// The blocks before `rcv_nxt` are none any more.
    pub(crate) fn forget_recent(&mut self) {
        let nxt = self.rcv_nxt;
        for block in self.ooo_recent.iter_mut().filter(|block| block.start.le(nxt)) {
            *block = Range::default();
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
        let recent = self.ooo_recent.iter().filter(|block| block.start.lt(block.end) && block.start.gt(self.rcv_nxt));
        for block in recent.chain(self.ooo.as_slice()) {
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
