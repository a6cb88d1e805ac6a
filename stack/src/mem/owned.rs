//! The region of its only writer, looked at once: so long, and to be written. What is asked for often need not ask that again.

use std::ops::Deref;
use std::sync::atomic::AtomicU64;

use super::plain::Plain;
use super::region::Region;

/// A region of at least `LEN` bytes that may be written.
#[derive(Debug)]
pub struct Owned<const LEN: usize>(Region);

/// Two ranges of bytes, offset and length, that lie between `FROM` and `TO` and apart from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Apart<const FROM: usize, const TO: usize> {
    first: Packed,
    second: Packed,
}

/// A range in eight bytes: every connection has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed {
    /// Its offset in lines.
    line: u32,
    len: u32,
}

/// Bytes of a line, at which ranges begin.
const LINE: usize = 64;

impl Packed {
    /// `None`: it begins elsewhere, or the numbers are too large.
    fn new((offset, len): (usize, usize)) -> Option<Self> {
        let line = u32::try_from(offset / LINE).ok().filter(|_| offset % LINE == 0)?;
        Some(Self { line, len: u32::try_from(len).ok()? })
    }

    #[inline(always)]
    fn range(self) -> (usize, usize) {
        (self.line as usize * LINE, self.len as usize)
    }
}

impl<const FROM: usize, const TO: usize> Apart<FROM, TO> {
    /// Two ranges; `None` if they do not lie so, begin elsewhere than at a line, or are of 4 GiB.
    pub fn new(first: (usize, usize), second: (usize, usize)) -> Option<Self> {
        let ends = (first.0.checked_add(first.1)?, second.0.checked_add(second.1)?);
        let is_between = first.0.min(second.0) >= FROM && ends.0.max(ends.1) <= TO;
        if !is_between || (ends.0 > second.0 && ends.1 > first.0) {
            return None;
        }
        Some(Self { first: Packed::new(first)?, second: Packed::new(second)? })
    }

    /// Both ranges.
    #[inline(always)]
    pub fn ranges(&self) -> ((usize, usize), (usize, usize)) {
        (self.first.range(), self.second.range())
    }

    /// Bytes of each.
    #[inline]
    pub fn lens(&self) -> (usize, usize) {
        (self.first.len as usize, self.second.len as usize)
    }
}

/// Two empty ranges.
impl<const FROM: usize, const TO: usize> Default for Apart<FROM, TO> {
    fn default() -> Self {
        const { assert!(FROM <= TO && FROM % LINE == 0 && FROM / LINE <= u32::MAX as usize) };
        let empty = Packed { line: (FROM / LINE) as u32, len: 0 };
        Self { first: empty, second: empty }
    }
}

impl<const LEN: usize> Owned<LEN> {
    /// A region; `None` if it is too short, or mapped for reading only.
    pub fn new(region: Region) -> Option<Self> {
        (region.is_owner() && region.len() >= LEN).then_some(Self(region))
    }

    /// As [`Region::get_mut`].
    pub fn get_mut<T: Plain>(&mut self, offset: usize) -> Option<&mut T> {
        self.0.get_mut(offset)
    }

    /// As [`Region::bytes_mut`].
    pub fn bytes_mut(&mut self, offset: usize, len: usize) -> Option<&mut [u8]> {
        self.0.bytes_mut(offset, len)
    }

    /// As [`Region::parts_mut`].
    pub fn parts_mut<T: Plain>(
        &mut self,
        offset: usize,
        first: (usize, usize),
        second: (usize, usize),
    ) -> Option<(&mut T, &mut [u8], &mut [u8])> {
        self.0.parts_mut(offset, first, second)
    }

    /// As [`Region::discard`].
    pub fn discard(&mut self, offset: usize, len: usize) {
        self.0.discard(offset, len);
    }

    /// A record and two byte ranges behind it at once, for writing: as [`Region::parts_mut`], of ranges that have been looked at before.
    /// `None` if the record is not aligned or does not lie before `FROM`.
    #[inline(always)]
    pub fn record_and<T: Plain, const FROM: usize>(
        &mut self,
        offset: usize,
        ranges: &Apart<FROM, LEN>,
    ) -> Option<(&mut T, &mut [u8], &mut [u8])> {
        if offset % align_of::<T>() != 0 || offset > FROM.checked_sub(size_of::<T>())? {
            return None;
        }
        let base = self.0.base();
        let (first, second) = ranges.ranges();
        // SAFETY: the record is aligned and ends before `FROM` (checked above), the ranges begin behind it and end before `LEN` without
        // touching each other (checked when `ranges` was made, whose fields nobody else can write), and the mapping reaches that far and
        // may be written (checked by `new`; nothing here gives the region away or puts another in its place); `&mut self` makes them the
        // only references in the only writing process.
        unsafe {
            Some((
                &mut *base.add(offset).cast::<T>(),
                std::slice::from_raw_parts_mut(base.add(first.0), first.1),
                std::slice::from_raw_parts_mut(base.add(second.0), second.1),
            ))
        }
    }

    /// `COUNT` words at `AT` for counting without a lock.
    #[inline(always)]
    pub fn counters<const AT: usize, const COUNT: usize>(&self) -> &[AtomicU64; COUNT] {
        const { assert!(AT % align_of::<AtomicU64>() == 0 && AT + COUNT * size_of::<AtomicU64>() <= LEN) };
        // SAFETY: in range and aligned (checked above, and by `new`; a mapping begins at a page); words are only ever used as atomics.
        unsafe { &*self.0.base().add(AT).cast::<[AtomicU64; COUNT]>() }
    }
}

/// To look at.
impl<const LEN: usize> Deref for Owned<LEN> {
    type Target = Region;

    fn deref(&self) -> &Region {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn ranges_that_touch_or_leave_their_place_are_refused() {
        type Place = Apart<640, 1280>;
        for (first, second) in [((640, 320), (960, 320)), ((960, 320), (640, 320)), ((640, 0), (640, 0))] {
            assert_eq!(Place::new(first, second).unwrap().ranges(), (first, second));
        }
        let wrong = [
            ((576, 64), (960, 64)),
            ((640, 321), (960, 64)),
            ((768, 64), (704, 65)),
            ((704, 64), (704, 64)),
            ((640, 64), (960, 321)),
            ((641, 64), (960, 64)),
            ((640, 64), (usize::MAX, 64)),
            ((640, usize::MAX), (960, 64)),
        ];
        for (first, second) in wrong {
            assert_eq!(Place::new(first, second), None, "{first:?} {second:?}");
        }
    }

    #[test]
    fn a_record_reaches_into_no_range() {
        let new = || Region::create(c"region-test", 4096).unwrap();
        assert!(Owned::<8192>::new(new()).is_none(), "the region ends before");
        let mut region = Owned::<4096>::new(new()).unwrap();
        let reader = Region::open_reader(region.fd().unwrap().try_clone_to_owned().unwrap()).unwrap();
        assert!(Owned::<4096>::new(reader).is_none(), "not to be written");
        let ranges = Apart::<1024, 4096>::new((1024, 1024), (2048, 2048)).unwrap();
        let lens = |parts: Option<(&mut u64, &mut [u8], &mut [u8])>| parts.map(|(_, one, two)| (one.len(), two.len()));
        assert_eq!(lens(region.record_and(1016, &ranges)), Some((1024, 2048)));
        assert_eq!(lens(region.record_and(1017, &ranges)), None, "not aligned");
        assert_eq!(lens(region.record_and(1024, &ranges)), None, "behind the others' beginning");
        let (record, one, _) = region.record_and::<u64, 1024>(0, &ranges).unwrap();
        (*record, one[0]) = (7, 8);
        assert_eq!((region.read::<u64>(0), region.bytes(1024, 1)), (Some(7), Some(&[8u8][..])));
        region.counters::<1024, 4>()[3].store(9, Relaxed);
        assert_eq!(region.read::<u64>(1024 + 24), Some(9));
    }
}
