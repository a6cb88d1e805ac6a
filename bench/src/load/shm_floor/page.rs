//! A page that two processes share. The only file of this floor with `unsafe`.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// 64-bit words of a message: 64 bytes.
pub const WORDS: usize = 8;
/// What is sent.
pub type Message = [u64; WORDS];

/// Something in a cache line of its own.
#[repr(C, align(64))]
struct Line<T>(T);

/// One direction.
#[repr(C)]
pub struct Mailbox {
    sequence: Line<AtomicU64>,
    message: Line<[AtomicU64; WORDS]>,
}

/// What lies in the page: atomic words alone, so that any bytes are a value, and several processes may write.
#[repr(C)]
pub struct Mailboxes {
    /// From ping to echo.
    pub there: Mailbox,
    /// From echo to ping.
    pub back: Mailbox,
}

impl Mailbox {
    /// Copies a message in and shows it as number `sequence`.
    #[inline]
    pub fn put(&self, sequence: u64, message: &Message) {
        for (place, word) in self.message.0.iter().zip(message) {
            place.store(*word, Relaxed);
        }
        self.sequence.0.store(sequence, Release);
    }

    /// Copies message number `sequence` out, if it is there.
    #[inline]
    pub fn take(&self, sequence: u64) -> Option<Message> {
        let there = self.sequence.0.load(Acquire) == sequence;
        there.then(|| std::array::from_fn(|index| self.message.0[index].load(Relaxed)))
    }
}

/// The mapping; zero at first.
pub struct Page {
    base: NonNull<Mailboxes>,
    // Others open it through /proc while we live.
    file: File,
}

impl Page {
    /// A new page, which nobody else knows.
    pub fn create() -> io::Result<Self> {
        // SAFETY: the name is NUL-terminated; the call has no other memory effect.
        let raw = unsafe { libc::memfd_create(c"shm-floor".as_ptr(), libc::MFD_CLOEXEC) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just returned to us and nobody else owns it.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(raw) });
        file.set_len(size_of::<Mailboxes>() as u64)?;
        Self::map(file)
    }

    /// Another process's page, at its [`Page::path`].
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        // A shorter file would have us ended at the first access (SIGBUS).
        if file.metadata()?.len() < size_of::<Mailboxes>() as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Self::map(file)
    }

    /// Where others open it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    fn map(file: File) -> io::Result<Self> {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice touches no memory of ours.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Mailboxes>(), rights, flags, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Self { base, file })
    }
}

impl Deref for Page {
    type Target = Mailboxes;
    fn deref(&self) -> &Mailboxes {
        // SAFETY: the mapping is as long as Mailboxes, page-aligned, and lives as long as `self`; there are only atomics in it, which
        // may be written by anybody at any time and of which all bits are a value.
        unsafe { self.base.as_ref() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: base and length are those of our own mapping; no reference outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), size_of::<Mailboxes>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_puts_the_other_takes() {
        let mine = Page::create().unwrap();
        let theirs = Page::open(Path::new(&mine.path())).unwrap();
        let message = std::array::from_fn(|index| index as u64);
        assert_eq!(theirs.there.take(1), None);
        mine.there.put(1, &message);
        assert_eq!((theirs.there.take(1), theirs.there.take(2), theirs.back.take(1)), (Some(message), None, None));
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        assert!(Page::open(Path::new("/dev/null")).is_err());
    }
}
