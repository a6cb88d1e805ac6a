//! What does the daemon need of a frozen connection that its record has no room for? The rest of the list of out-of-order data, which is
//! laid into a block of the ring space for it.

use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

use zerocopy::IntoBytes;

use super::Stack;
use crate::arena::{MIN_RING, PiecesRef};

impl Stack {
    /// Lays the list where the daemon finds it. If there is no block to spare, the peer has to find out that its data is gone
    /// (RFC 2018, section 8).
    pub(super) fn lay_beside(&mut self, slot: u32) {
        let Some(state) = self.slots.get(slot as usize) else { return };
        let pieces: Vec<[u32; 2]> = state.recovery.beyond().collect();
        if pieces.is_empty() {
            return;
        }
        let Some(block) = self.rings.take(MIN_RING) else { return };
        self.beside.insert(slot, block);
        let bytes = pieces.as_bytes();
        let place = block.range().and_then(|(offset, len)| self.arena.bytes_mut(offset, len));
        let Some(into) = place.and_then(|block| block.get_mut(..bytes.len())) else { return };
        into.copy_from_slice(bytes);
        compiler_fence(SeqCst);
        if let Some(record) = self.record_mut(slot) {
            record.beyond = PiecesRef { offset: block.offset, count: pieces.len() as u32, pad: 0 };
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
