//! One ring in memory shared with the kernel.

use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

use super::abi::RingOffsets;
use crate::mem::{Plain, Region};

/// A mapped ring of `T` entries: two cursors, a flags word and the entries.
#[derive(Debug)]
pub(super) struct Mapping<T> {
    region: Region,
    offsets: RingOffsets,
    mask: u32,
    entry: PhantomData<T>,
}

impl<T: Plain> Mapping<T> {
    /// Bytes that a ring with this layout needs.
    pub(super) fn len_for(offsets: RingOffsets, size: u32) -> usize {
        offsets.entries + size as usize * size_of::<T>()
    }

    /// The ring of `size` entries that lies in `region`. EINVAL if it does not fit or is misaligned.
    pub(super) fn over(region: Region, offsets: RingOffsets, size: u32) -> io::Result<Self> {
        let word = |at: usize| at % align_of::<AtomicU32>() == 0 && at + size_of::<AtomicU32>() <= region.len();
        let words = word(offsets.producer) && word(offsets.consumer) && word(offsets.flags);
        let entries = offsets.entries % align_of::<T>() == 0 && Self::len_for(offsets, size) <= region.len();
        if !size.is_power_of_two() || !words || !entries {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self { region, offsets, mask: size - 1, entry: PhantomData })
    }

    pub(super) fn size(&self) -> u32 {
        self.mask + 1
    }

    #[inline]
    pub(super) fn producer(&self) -> &AtomicU32 {
        self.word(self.offsets.producer)
    }

    #[inline]
    pub(super) fn consumer(&self) -> &AtomicU32 {
        self.word(self.offsets.consumer)
    }

    /// Does the kernel ask for a system call before it looks at this ring (XDP_RING_NEED_WAKEUP)?
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.word(self.offsets.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    #[inline]
    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: `over` has checked all three words to be aligned and inside the mapping, which lives as long as `self`; the
        // kernel accesses them atomically too.
        unsafe { &*self.region.base().add(at).cast::<AtomicU32>() }
    }

    #[inline]
    fn slot(&self, index: u32) -> *mut T {
        // SAFETY: the masked index is below the ring's size, and `over` has checked that so many entries fit.
        unsafe { self.region.base().add(self.offsets.entries).cast::<T>().add((index & self.mask) as usize) }
    }

    /// A copy of an entry. The cursor protocol says when it is whole; T is Plain, so any bits are a value.
    #[inline]
    pub(super) fn read(&self, index: u32) -> T {
        // SAFETY: `slot` is inside the mapping and aligned.
        unsafe { self.slot(index).read_volatile() }
    }

    /// Every entry from the consumer's cursor to `hidden` past the producer's, for whoever counts frames while both ends rest.
    pub(super) fn lying(&self, hidden: u32) -> impl Iterator<Item = T> {
        let first = self.consumer().load(Ordering::Acquire);
        let count = self.producer().load(Ordering::Acquire).wrapping_add(hidden).wrapping_sub(first);
        (0..count.min(self.size())).map(move |n| self.read(first.wrapping_add(n)))
    }

    /// Writes an entry that the cursor protocol has given to us.
    #[inline]
    pub(super) fn write(&mut self, index: u32, value: T) {
        // SAFETY: `slot` is inside the mapping and aligned; the reserved entry is ours until it is published.
        unsafe { self.slot(index).write_volatile(value) }
    }
}
