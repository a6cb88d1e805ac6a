//! Which frames of the UMEM are free, and whether an address is one of ours.

use super::abi::Desc;

/// The frames of one UMEM, by index. Single owner. All memory is taken at construction.
#[derive(Debug)]
pub struct FramePool {
    /// Free frames; the one freed last is used first, while it is in the cache.
    free: Vec<u32>,
    /// One bit a frame: is it free? Refuses the second release of a frame.
    is_free: Vec<u64>,
    count: u32,
    shift: u32,
}

/// A packet that has been checked to lie inside one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The frame.
    pub frame: u32,
    /// Offset of the packet's first byte in the UMEM.
    pub offset: usize,
    /// Bytes, at least 1.
    pub len: usize,
}

impl FramePool {
    /// All `count` frames free. `None` unless `frame_size` is a power of two of at least 2048 and there is a frame.
    pub fn new(count: u32, frame_size: u32) -> Option<Self> {
        if count == 0 || frame_size < 2048 || !frame_size.is_power_of_two() {
            return None;
        }
        let mut is_free = vec![u64::MAX; (count as usize).div_ceil(64)];
        let used = count % 64;
        if let (Some(last), true) = (is_free.last_mut(), used != 0) {
            *last = (1 << used) - 1;
        }
        Some(Self { free: (0..count).rev().collect(), is_free, count, shift: frame_size.trailing_zeros() })
    }

    /// Frames altogether.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Frames free.
    pub fn available(&self) -> u32 {
        self.free.len() as u32
    }

    /// Bytes of one frame.
    pub fn frame_size(&self) -> usize {
        1 << self.shift
    }

    /// Bytes of the whole UMEM.
    pub fn umem_len(&self) -> usize {
        (self.count as usize) << self.shift
    }

    /// Takes a free frame; `None` when there is none.
    #[inline]
    pub fn take(&mut self) -> Option<u32> {
        let frame = self.free.pop()?;
        *self.is_free.get_mut(frame as usize / 64)? &= !(1 << (frame % 64));
        Some(frame)
    }

    /// Gives a frame back. False, and nothing happens, if there is no such frame or it is free already.
    #[inline]
    pub fn give(&mut self, frame: u32) -> bool {
        frame < self.count && self.give_known(frame)
    }

    /// The same of a frame that there is.
    #[inline(always)]
    fn give_known(&mut self, frame: u32) -> bool {
        let Some(word) = self.is_free.get_mut(frame as usize / 64) else { return false };
        let bit = 1 << (frame % 64);
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        self.free.push(frame);
        true
    }

    /// Is this frame free?
    #[inline]
    pub fn is_free(&self, frame: u32) -> bool {
        self.is_free.get(frame as usize / 64).is_some_and(|word| word >> (frame % 64) & 1 == 1)
    }

    /// Offset of a frame's first byte in the UMEM.
    #[inline]
    pub fn addr_of(&self, frame: u32) -> u64 {
        u64::from(frame) << self.shift
    }

    /// The frame that an address from a ring lies in, if it lies in the UMEM.
    #[inline]
    pub fn frame_of(&self, addr: u64) -> Option<u32> {
        let frame = addr >> self.shift;
        (frame < u64::from(self.count)).then_some(frame as u32)
    }

    /// Offset of the first byte of the frame that an address from a ring lies in, if it lies in the UMEM.
    #[inline]
    pub fn base_of(&self, addr: u64) -> Option<u64> {
        (addr >> self.shift < u64::from(self.count)).then_some(addr >> self.shift << self.shift)
    }

    /// Gives back the frame of an address from the completion ring. False as in [`Self::give`], or for an address outside.
    #[inline(always)]
    pub fn give_addr(&mut self, addr: u64) -> bool {
        self.frame_of(addr).is_some_and(|frame| self.give_known(frame))
    }

    /// Checks a descriptor from the RX ring: inside the UMEM, inside one frame that is not free, not empty.
    #[inline]
    pub fn place(&self, packet: Desc) -> Option<Placed> {
        let frame = self.frame_of(packet.addr)?;
        let within = packet.addr & ((1 << self.shift) - 1);
        let fits = packet.len != 0 && within + u64::from(packet.len) <= 1 << self.shift;
        (fits && !self.is_free(frame)).then_some(Placed {
            frame,
            offset: packet.addr as usize,
            len: packet.len as usize,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_handed_out_once_and_taken_back_once() {
        let mut pool = FramePool::new(70, 2048).unwrap();
        let mut seen: Vec<u32> = std::iter::from_fn(|| pool.take()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..70).collect::<Vec<_>>());
        assert!(pool.give(69) && !pool.give(69) && !pool.give(70) && !pool.give(u32::MAX));
        assert_eq!(pool.available(), 1);
        assert_eq!(pool.take(), Some(69));
    }

    #[test]
    fn addresses_outside_a_used_frame_are_refused() {
        let mut pool = FramePool::new(4, 2048).unwrap();
        let frame = pool.take().unwrap();
        let base = pool.addr_of(frame);
        let inside = Placed { frame, offset: base as usize + 256, len: 1514 };
        assert_eq!(pool.place(Desc::new(base + 256, 1514)), Some(inside));
        assert_eq!(pool.place(Desc::new(base + 256, 1793)), None, "leaves its frame");
        assert_eq!(pool.place(Desc::new(base, 0)), None, "empty");
        assert_eq!(pool.place(Desc::new(base + 2048, 60)), None, "a free frame");
        assert_eq!(pool.place(Desc::new(4 * 2048, 60)), None, "behind the UMEM");
        assert_eq!(pool.place(Desc::new(u64::MAX, u32::MAX)), None);
        assert!(pool.give_addr(base + 256) && !pool.give_addr(base) && !pool.give_addr(u64::MAX));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (count, size) in [(0, 2048), (4, 1024), (4, 3000)] {
            assert!(FramePool::new(count, size).is_none(), "{count} frames of {size}");
        }
    }
}
