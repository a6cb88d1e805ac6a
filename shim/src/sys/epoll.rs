//! Epoll sets, our own and the program's. One of the files with `unsafe`.

use std::ffi::c_int;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::{SIGSET, out_of_the_way};
use crate::errno::{Errno, Result, check};

/// An epoll set of our own.
pub fn epoll_create() -> Result<OwnedFd> {
    let fd = call!(libc::SYS_epoll_create1, libc::EPOLL_CLOEXEC)?;
    // SAFETY: just made, ours alone.
    Ok(out_of_the_way(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}

/// epoll_ctl(2): ADD, or MOD of what is there.
pub fn epoll_set(ep: RawFd, fd: RawFd, events: u32, data: u64) -> Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    match call!(libc::SYS_epoll_ctl, ep, libc::EPOLL_CTL_ADD, fd, &raw mut event) {
        Err(Errno(libc::EEXIST)) => epoll_mod(ep, fd, events, data),
        other => other.map(drop),
    }
}

/// epoll_ctl(2) MOD with these events.
pub fn epoll_mod(ep: RawFd, fd: RawFd, events: u32, data: u64) -> Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    call!(libc::SYS_epoll_ctl, ep, libc::EPOLL_CTL_MOD, fd, &raw mut event).map(drop)
}

/// What the kernel's entry of a set asks for now (`/proc/self/fdinfo`, proc_pid_fdinfo(5)): a used-up one-shot asks for nothing.
pub fn epoll_events(ep: RawFd, fd: RawFd) -> Option<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{ep}")).ok()?;
    let entry = info
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| matches!(words.as_slice(), ["tfd:", number, ..] if number.parse() == Ok(fd)))?;
    u32::from_str_radix(entry.get(3)?, 16).ok()
}

/// epoll_ctl(2) DEL.
pub fn epoll_del(ep: RawFd, fd: RawFd) -> Result<()> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    call!(libc::SYS_epoll_ctl, ep, libc::EPOLL_CTL_DEL, fd, &raw mut event).map(drop)
}

/// epoll_wait(2) that does not wait.
pub fn epoll_look(ep: RawFd, events: &mut [libc::epoll_event]) -> Result<usize> {
    let max = events.len().min(c_int::MAX as usize) as c_int;
    call!(libc::SYS_epoll_pwait, ep, events.as_mut_ptr(), max, 0, 0usize, SIGSET).map(|n| n as usize)
}
