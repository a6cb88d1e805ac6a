//! A memfd that two processes write at once.
//!
//! The other one is not trusted: it may store anything anywhere in these pages at any time. So they are only ever seen as atomic
//! words and as bytes that are copied in and out, never as references to data.

use std::ffi::CStr;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use super::region::{Region, is_sealed};

/// A mapping that another process also writes.
#[derive(Debug)]
pub struct Shared(Region);

impl Shared {
    /// Makes a sealed memfd of `len` bytes and maps it. Returns the descriptor too, for the other process; the mapping stays
    /// without it.
    pub fn create(name: &CStr, len: usize) -> io::Result<(Self, OwnedFd)> {
        let region = Region::create(name, len)?;
        region.seal()?;
        let (region, fd) = region.without_fd();
        Ok((Self(region), fd.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?))
    }

    /// Maps what another process has made. An error unless it is exactly `len` bytes long and sealed against shrinking: nobody
    /// can make us fault then.
    pub fn open(fd: OwnedFd, len: usize) -> io::Result<Self> {
        if !is_sealed(fd.as_fd()) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        let region = Region::open_owner(fd)?;
        if region.len() != len {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self(region.without_fd().0))
    }

    /// Where the mapping begins, for people who look from outside.
    pub fn address(&self) -> u64 {
        self.0.base() as u64
    }

    /// `count` words from `offset` on.
    ///
    /// # Panics
    /// If they are not inside the mapping or not aligned: offsets are ours, never the other process's.
    pub fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        self.0.counters(offset, count).expect("words inside the mapping")
    }

    /// `len` bytes from `offset` on.
    ///
    /// # Panics
    /// As [`Shared::words`].
    pub fn bytes(&self, offset: usize, len: usize) -> SharedBytes<'_> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.0.len()), "bytes inside the mapping");
        SharedBytes { shared: self, offset, len }
    }
}

/// Bytes to be copied in and out.
#[derive(Clone, Copy, Debug)]
pub struct SharedBytes<'a> {
    shared: &'a Shared,
    offset: usize,
    len: usize,
}

/// Memory into which bytes are copied, and out of which.
pub trait Bytes {
    /// Copies `bytes` to `at`.
    fn write(&self, at: usize, bytes: &[u8]);
    /// Copies from `at` on into `out`.
    fn read(&self, at: usize, out: &mut [u8]);
}

impl SharedBytes<'_> {
    /// Where `range` lies, for the kernel to read from.
    ///
    /// # Panics
    /// If it is not inside.
    pub fn span(&self, range: Range<usize>) -> libc::iovec {
        libc::iovec { iov_base: self.place(range.start, range.len()).cast(), iov_len: range.len() }
    }

    fn place(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len), "copy inside the ring");
        self.shared.0.base().wrapping_add(self.offset + at)
    }
}

impl Bytes for SharedBytes<'_> {
    #[inline]
    fn write(&self, at: usize, bytes: &[u8]) {
        let to = self.place(at, bytes.len());
        // SAFETY: `place` has checked the range against `bytes()`'s, which lies in the mapping. The other process may read or write
        // it at the same time: then these bytes are garbage, which is its own loss; no Rust reference to them exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    #[inline]
    fn read(&self, at: usize, out: &mut [u8]) {
        let from = self.place(at, out.len());
        // SAFETY: as in `write`; any bytes are a value of `out`.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_are_one_memory() {
        let (one, fd) = Shared::create(c"shared-test", 8192).unwrap();
        let two = Shared::open(fd, 8192).unwrap();
        one.words(64, 8)[3].store(77, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(two.words(64, 8)[3].load(std::sync::atomic::Ordering::Relaxed), 77);
        one.bytes(4096, 4096).write(4000, b"hello");
        let mut out = [0; 5];
        two.bytes(4096, 4096).read(4000, &mut out);
        assert_eq!(&out, b"hello");
    }

    #[test]
    fn what_could_shrink_or_has_another_size_is_not_mapped() {
        let region = Region::create(c"shared-test", 4096).unwrap();
        let fd = region.fd().unwrap().try_clone_to_owned().unwrap();
        assert_eq!(Shared::open(fd, 4096).unwrap_err().raw_os_error(), Some(libc::EPERM));
        let (_one, fd) = Shared::create(c"shared-test", 8192).unwrap();
        assert_eq!(Shared::open(fd, 4096).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    #[should_panic(expected = "inside the ring")]
    fn copies_stay_inside() {
        let (one, _fd) = Shared::create(c"shared-test", 8192).unwrap();
        one.bytes(0, 4096).write(4095, b"ab");
    }
}
