//! A memfd and its mapping.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use super::plain::Plain;

/// May this mapping be written through?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The owner: reads and writes.
    Owner,
    /// The daemon and the inspecting commands: reads only.
    Reader,
}

/// One shared mapping of a memfd.
///
/// The owner is the only writer. Readers in other processes may look at any time, so they take
/// copies ([`Region::read`]) and treat them as claims.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    access: Access,
    fd: Option<OwnedFd>,
}

// SAFETY: the mapping belongs to the Region alone and stays in place until it is dropped; mutation needs
// `&mut self`, so the usual borrow rules hold between threads.
unsafe impl Send for Region {}
// SAFETY: with shared access bytes are only read, and words only stored as atomics.
unsafe impl Sync for Region {}

impl Region {
    /// Makes a memfd of `len` bytes (sparse: pages come when touched) and maps it. `name` shows in
    /// `/proc/PID/fd` as `/memfd:NAME`, memfd_create(2).
    pub fn create(name: &CStr, len: usize) -> io::Result<Self> {
        // SAFETY: `name` is NUL-terminated; the call has no other memory effect.
        let raw = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just returned to us and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: plain system call on an fd that we own.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), len as libc::off_t) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Self::map(fd, len, Access::Owner)
    }

    /// Maps the whole of `fd` for reading. The size is the file's own; the mapper must survive that the
    /// owner shrinks it (see [`Region::sealed`]).
    pub fn open_reader(fd: OwnedFd) -> io::Result<Self> {
        let len = file_len(fd.as_fd())?;
        Self::map(fd, len, Access::Reader)
    }

    /// Maps the whole of `fd` for reading and writing.
    pub fn open_owner(fd: OwnedFd) -> io::Result<Self> {
        let len = file_len(fd.as_fd())?;
        Self::map(fd, len, Access::Owner)
    }

    /// Maps `len` bytes of `fd` at file offset `pgoff` (AF_XDP rings).
    pub fn map_at(fd: BorrowedFd<'_>, len: usize, pgoff: u64) -> io::Result<Self> {
        let base = mmap(fd, len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_POPULATE, pgoff)?;
        // SAFETY: just mapped; see `map`.
        unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_DONTFORK) };
        Ok(Self { base, len, access: Access::Owner, fd: None })
    }

    fn map(fd: OwnedFd, len: usize, access: Access) -> io::Result<Self> {
        if len == 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let prot = match access {
            Access::Owner => libc::PROT_READ | libc::PROT_WRITE,
            Access::Reader => libc::PROT_READ,
        };
        let base = mmap(fd.as_fd(), len, prot, 0, 0)?;
        for advice in [libc::MADV_DONTDUMP, libc::MADV_DONTFORK] {
            // SAFETY: the range was just mapped. Advice only: queues stay out of core dumps and out of children, who
            // would keep AF_XDP queues of a dead parent alive.
            unsafe { libc::madvise(base.as_ptr().cast(), len, advice) };
        }
        Ok(Self { base, len, access, fd: Some(fd) })
    }

    /// Size of the mapping in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: an empty region cannot be made.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Is it mapped for writing?
    pub fn is_owner(&self) -> bool {
        self.access == Access::Owner
    }

    /// The descriptor, if this region holds one.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Lets `change` replace the descriptor with a duplicate of another number.
    pub fn renumber(mut self, change: impl FnOnce(OwnedFd) -> OwnedFd) -> Self {
        self.fd = self.fd.take().map(change);
        self
    }

    /// The mapping alone, and the descriptor.
    pub(crate) fn without_fd(mut self) -> (Self, Option<OwnedFd>) {
        let fd = self.fd.take();
        (self, fd)
    }

    /// Forbids shrinking, growing and further seals, so that no mapper can be made to fault (memfd seals, fcntl(2)).
    pub fn seal(&self) -> io::Result<()> {
        let Some(fd) = &self.fd else { return Ok(()) };
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: plain fcntl on an fd that we own.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn check<T>(&self, offset: usize) -> bool {
        offset % align_of::<T>() == 0 && offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.len)
    }

    /// A copy of the record at `offset`, or `None` outside the region or misaligned. The bytes may be changing under us:
    /// the result is a claim.
    pub fn read<T: Plain>(&self, offset: usize) -> Option<T> {
        if !self.check::<T>(offset) {
            return None;
        }
        // SAFETY: `check` has shown the range to be inside the mapping and aligned; T is Plain, so any bits are a value.
        Some(unsafe { self.base.as_ptr().add(offset).cast::<T>().read_volatile() })
    }

    /// The record at `offset`.
    pub fn get<T: Plain>(&self, offset: usize) -> Option<&T> {
        if !self.check::<T>(offset) {
            return None;
        }
        // SAFETY: in range and aligned (`check`), any bits are a value (Plain), and in the owner's process writes need `&mut self`.
        Some(unsafe { &*self.base.as_ptr().add(offset).cast::<T>() })
    }

    /// The record at `offset`, for writing. `None` outside the region, misaligned, or in a reader.
    pub fn get_mut<T: Plain>(&mut self, offset: usize) -> Option<&mut T> {
        if self.access != Access::Owner || !self.check::<T>(offset) {
            return None;
        }
        // SAFETY: as in `get`; `&mut self` makes this the only reference in the only writing process.
        Some(unsafe { &mut *self.base.as_ptr().add(offset).cast::<T>() })
    }

    /// The bytes `[offset, offset + len)`.
    pub fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: in range; see `get`.
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), len) })
    }

    /// The bytes `[offset, offset + len)`, for writing.
    pub fn bytes_mut(&mut self, offset: usize, len: usize) -> Option<&mut [u8]> {
        if self.access != Access::Owner || offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: in range; `&mut self` as in `get_mut`.
        Some(unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(offset), len) })
    }

    /// One record and two disjoint byte ranges at once, for writing: a connection and its two rings.
    /// `None` if any two of the three overlap or leave the region.
    pub fn parts_mut<T: Plain>(
        &mut self,
        offset: usize,
        first: (usize, usize),
        second: (usize, usize),
    ) -> Option<(&mut T, &mut [u8], &mut [u8])> {
        let ends =
            (offset.checked_add(size_of::<T>())?, first.0.checked_add(first.1)?, second.0.checked_add(second.1)?);
        let apart = |a: (usize, usize), b: (usize, usize)| a.1 <= b.0 || b.1 <= a.0;
        let (record, one, two) = ((offset, ends.0), (first.0, ends.1), (second.0, ends.2));
        let disjoint = apart(record, one) && apart(record, two) && apart(one, two);
        if self.access != Access::Owner || !disjoint || !self.check::<T>(offset) || ends.1.max(ends.2) > self.len {
            return None;
        }
        let base = self.base.as_ptr();
        // SAFETY: all three ranges are inside the mapping, aligned where typed, and disjoint (checked above); `&mut self`
        // makes them the only references in the only writing process.
        unsafe {
            Some((
                &mut *base.add(offset).cast::<T>(),
                std::slice::from_raw_parts_mut(base.add(first.0), first.1),
                std::slice::from_raw_parts_mut(base.add(second.0), second.1),
            ))
        }
    }

    /// `count` words at `offset` for counting without a lock.
    pub fn counters(&self, offset: usize, count: usize) -> Option<&[AtomicU64]> {
        let len = count.checked_mul(size_of::<AtomicU64>())?;
        if !self.check::<AtomicU64>(offset) || offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: in range and aligned; words are only ever used as atomics, whoever else stores; a reader never does (its pages
        // are read-only and the callers of a reader's view only load).
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset).cast::<AtomicU64>(), count) })
    }

    /// Gives the pages of a range back to the kernel; it reads as zero afterwards (fallocate(2), punch hole).
    pub fn discard(&mut self, offset: usize, len: usize) {
        let Some(fd) = &self.fd else { return };
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return;
        }
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: plain system call on an fd that we own; a failure only keeps the pages.
        unsafe { libc::fallocate(fd.as_raw_fd(), mode, offset as libc::off_t, len as libc::off_t) };
    }

    /// The start of the mapping, for the ring code of `xsk`.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: base and len are those of our own mapping; no reference outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Does `fd` carry the seals of [`Region::seal`]? Only then is it safe to map a stranger's memfd.
pub fn is_sealed(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: plain fcntl.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_SHRINK != 0
}

fn file_len(fd: BorrowedFd<'_>) -> io::Result<usize> {
    // SAFETY: stat is plain data, filled in by the kernel before we read it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is a valid place for the result.
    if unsafe { libc::fstat(fd.as_raw_fd(), &mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stat.st_size as usize)
}

fn mmap(fd: BorrowedFd<'_>, len: usize, prot: i32, flags: i32, pgoff: u64) -> io::Result<NonNull<u8>> {
    // SAFETY: a fresh shared mapping at an address of the kernel's choice touches no memory of ours.
    let base = unsafe {
        libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED | flags, fd.as_raw_fd(), pgoff as libc::off_t)
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
}
