//! Network namespaces: which one a socket is in, and working inside it for a moment.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use super::sys;

/// A network namespace, kept alive by a descriptor.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
}

impl Netns {
    /// The calling thread's own.
    pub fn current() -> io::Result<Self> {
        Ok(Self { fd: File::open("/proc/thread-self/ns/net")?.into() })
    }

    /// The one that a file names (`/proc/PID/ns/net`, `/run/netns/NAME`).
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { fd: File::open(path)?.into() })
    }

    /// The one that a socket was created in. Needs CAP_NET_ADMIN there.
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { fd: sys::namespace_of(socket)? })
    }

    /// Moves the calling thread into this namespace until the guard is dropped; then it goes back to `home`.
    pub fn enter<'a>(&self, home: &'a Netns) -> io::Result<Inside<'a>> {
        setns(&self.fd, CloneFlags::CLONE_NEWNET)?;
        Ok(Inside { home })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The calling thread is inside another namespace.
#[must_use]
pub struct Inside<'a> {
    home: &'a Netns,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if let Err(errno) = setns(&self.home.fd, CloneFlags::CLONE_NEWNET) {
            // Everything that depends on a namespace enters it first, so a failure here is not fatal.
            tracing::error!("cannot return to the daemon's network namespace: {errno}");
        }
    }
}
