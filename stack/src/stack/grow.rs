//! Rings that have become too small for what their connection can use move into larger ones.
//!
//! The daemon may read the record at any moment, after a kill for instance. So place and size are never stored at once: first the bytes
//! lie in the new block as they lay in the old, and the place is published; then they lie there for both sizes, and the size is.

use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

use super::slots::{ring_refs, rings_of};
use super::{SlotState, Stack};
use crate::arena::{self, ConnRecord, MAX_RING, RingRef};
use crate::mem::ring;
use crate::tcp::Tcb;

/// One of a connection's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Receive,
    Send,
}

impl Which {
    fn of(self, state: &SlotState) -> RingRef {
        let (rcv, snd) = ring_refs(&state.rings);
        match self {
            Self::Receive => rcv,
            Self::Send => snd,
        }
    }

    /// Puts another in its place.
    fn replace(self, state: &mut SlotState, new: RingRef) -> Option<()> {
        let (rcv, snd) = ring_refs(&state.rings);
        state.rings = match self {
            Self::Receive => rings_of(new, snd)?,
            Self::Send => rings_of(rcv, new)?,
        };
        Some(())
    }

    /// What readers of the arena go by.
    fn shown(self, record: &mut ConnRecord) -> &mut RingRef {
        match self {
            Self::Receive => &mut record.rcv_ring,
            Self::Send => &mut record.snd_ring,
        }
    }
}

impl SlotState {
    /// What a connection wants of its rings, if that is more than they have, bytes.
    #[inline(always)]
    pub(super) fn outgrown(&self, tcb: &Tcb) -> Option<(u32, u32)> {
        let ((rcv, snd), (rcv_len, snd_len)) = (tcb.wanted_rings(), self.rings.lens());
        (rcv as usize > rcv_len || snd as usize > snd_len).then_some((rcv, snd))
    }
}

impl Stack {
    /// Gives a connection the rings that it has come to want, as far as there are.
    #[inline]
    pub(super) fn fit_rings(&mut self, slot: u32) {
        let (Some(record), Some(state)) = (self.record(slot), self.slots.get(slot as usize)) else { return };
        if let Some(wanted) = state.outgrown(&record.tcb) {
            self.grow_rings(slot, wanted);
        }
    }

    #[cold]
    pub(super) fn grow_rings(&mut self, slot: u32, (rcv, snd): (u32, u32)) {
        let fits = [(Which::Receive, rcv), (Which::Send, snd)].map(|(which, wanted)| self.fit(slot, which, wanted));
        if fits.contains(&None)
            && let Some(mut connection) = self.connection(slot)
        {
            connection.stop_growing();
        }
    }

    /// A ring of at least `wanted` bytes; `None` if there is none, or none to spare.
    fn fit(&mut self, slot: u32, which: Which, wanted: u32) -> Option<()> {
        let old = which.of(self.slots.get(slot as usize)?);
        if wanted <= old.len {
            return Some(());
        }
        let advised = self.rings.advise(wanted);
        let len = advised.checked_next_power_of_two().filter(|len| (2 * old.len..=MAX_RING).contains(len))?;
        let new = self.rings.take(len)?;
        match self.move_ring(slot, which, old, new) {
            Some(()) => self.drop_ring(old),
            None => {
                self.drop_ring(new);
                return None;
            }
        }
        Some(())
    }

    fn move_ring(&mut self, slot: u32, which: Which, old: RingRef, new: RingRef) -> Option<()> {
        let offset = arena::conn_offset(slot)?;
        let recovery = &self.slots.get(slot as usize)?.recovery;
        let (record, from, to) = self.arena.parts_mut::<ConnRecord>(offset, old.range()?, new.range()?)?;
        let (start, held) = match which {
            Which::Receive => record.tcb.received_extent(recovery),
            Which::Send => record.tcb.queued_extent(),
        };
        let held = (held as usize).min(from.len());
        copy(from, &mut to[..old.len as usize], start, held);
        compiler_fence(SeqCst);
        which.shown(record).block = new.block;
        compiler_fence(SeqCst);
        copy(from, to, start, held);
        compiler_fence(SeqCst);
        which.shown(record).len = new.len;
        which.replace(self.slots.get_mut(slot as usize)?, new)
    }
}

/// Copies the `held` bytes from place `start` on into a ring of the same or a larger size.
fn copy(from: &[u8], to: &mut [u8], start: u32, held: usize) {
    let (one, two) = ring::slices(from, start, held);
    ring::write(to, start, one);
    ring::write(to, start.wrapping_add(one.len() as u32), two);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whoever reads the record between any two steps finds all bytes.
        #[test]
        fn bytes_are_whole_at_every_step(start in any::<u32>(), held in 0usize..=64, doublings in 1u32..5) {
            let mut from = vec![0xee; 64];
            let bytes: Vec<u8> = (0..held as u8).map(|n| n ^ 0x5a).collect();
            ring::write(&mut from, start, &bytes);
            let mut to = vec![0xdd; 64 << doublings];
            let read = |ring: &[u8]| {
                let mut out = vec![0; held];
                ring::read(ring, start, &mut out);
                out
            };
            copy(&from, &mut to[..64], start, held);
            prop_assert_eq!(&read(&to[..64]), &bytes, "the new place with the old size");
            copy(&from, &mut to, start, held);
            prop_assert_eq!(&read(&to[..64]), &bytes, "still");
            prop_assert_eq!(&read(&to), &bytes, "the new size");
        }
    }
}
