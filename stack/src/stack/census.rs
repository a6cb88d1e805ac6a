//! Where are an attachment's frames? For tests, which count all of them.

use super::{Leftover, Stack};

/// Why a frame that has arrived is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// It is the kernel's, and not yet taken by [`Stack::take_leftovers`].
    Kernel,
    /// A promotion is under way.
    Promotion,
    /// The connection in this slot is on its way to the kernel.
    Slot(u32),
}

impl Stack {
    /// Which frames of an attachment are free? One for each frame.
    pub fn free_frames(&self, port: u32) -> Vec<bool> {
        let Some(Some(port)) = self.ports.get(port as usize) else { return Vec::new() };
        (0..port.pool.count()).map(|frame| port.pool.is_free(frame)).collect()
    }

    /// Frames that have arrived and are kept, of all attachments.
    pub fn kept_frames(&self) -> Vec<(Keeper, Leftover)> {
        let kernel = self.leftovers.iter().map(|frame| (Keeper::Kernel, *frame));
        let promotion = self.early.iter().map(|frame| (Keeper::Promotion, *frame));
        let slots = self.held.iter().flat_map(|(slot, held)| held.iter().map(|frame| (Keeper::Slot(*slot), *frame)));
        kernel.chain(promotion).chain(slots).collect()
    }

    /// Promotions under way.
    pub fn promotions(&self) -> usize {
        self.reserved
    }
}
