//! What does the daemon need of a frozen connection that its record has no room for? The rest of the list of out-of-order data, and what
//! the peer has acknowledged selectively. They are laid into a block of the ring space for it.

use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

use zerocopy::IntoBytes;

use super::Stack;
use crate::arena::{MIN_RING, PiecesRef};
use crate::tcp::ahead::MAX_PIECES;

impl Stack {
    /// Lays the lists where the daemon finds them. If there is no block to spare, the peer has to find out that its data is gone
    /// (RFC 2018, section 8), and the kernel by and by what of ours has arrived.
    pub(super) fn lay_beside(&mut self, slot: u32) {
        let Some(state) = self.slots.get(slot as usize) else { return };
        let beyond = state.recovery.beyond();
        let count = beyond.len();
        let pieces: Vec<[u32; 2]> = beyond.chain(state.recovery.sacked().take(MAX_PIECES)).collect();
        if pieces.is_empty() {
            return;
        }
        let sacked = pieces.len() - count;
        let Some(block) = self.rings.take(MIN_RING) else { return };
        self.beside.insert(slot, block);
        let bytes = pieces.as_bytes();
        let place = block.range().and_then(|(offset, len)| self.arena.bytes_mut(offset, len));
        let Some(into) = place.and_then(|block| block.get_mut(..bytes.len())) else { return };
        into.copy_from_slice(bytes);
        compiler_fence(SeqCst);
        if let Some(record) = self.record_mut(slot) {
            record.beyond = PiecesRef { block: block.block, count: count as u16, sacked: sacked as u16 };
        }
    }

    /// The connection runs again, or is gone.
    pub(super) fn clear_beside(&mut self, slot: u32) {
        let Some(block) = self.beside.remove(&slot) else { return };
        if let Some(record) = self.record_mut(slot) {
            record.beyond = PiecesRef::default();
        }
        self.drop_ring(block);
    }
}
