//! What a child process is told between fork and exec, and waiting for it. One of the files with `unsafe`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

/// Where a command will run.
pub trait CommandExt {
    /// On this CPU only (sched_setaffinity(2)).
    fn pin(&mut self, cpu: usize) -> &mut Self;
    /// In the network namespace that `fd` refers to (setns(2)).
    fn enter(&mut self, namespace: OwnedFd) -> &mut Self;
}

impl CommandExt for Command {
    fn pin(&mut self, cpu: usize) -> &mut Self {
        let set = cpu_set(cpu);
        // SAFETY: between fork and exec only one async-signal-safe system call is made, on memory that the closure owns.
        unsafe {
            self.pre_exec(move || check(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)))
        }
    }

    fn enter(&mut self, namespace: OwnedFd) -> &mut Self {
        // SAFETY: as above; the closure owns the descriptor.
        unsafe { self.pre_exec(move || check(libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET))) }
    }
}

/// Lets a program be ended quietly by SIGPIPE and SIGINT again, as programs not written in Rust are.
pub fn reset_signals() {
    // SAFETY: installing the default disposition runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Waits until process `pid` has ended, at most for `limit`; false if it still runs. Sleeps in one poll(2) on a pidfd: a
/// benchmark is not disturbed by its supervisor.
pub(crate) fn wait_exit(pid: u32, limit: Duration) -> io::Result<bool> {
    // SAFETY: plain system call.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just returned to us and nobody else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(raw as i32) };
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one valid pollfd.
    let ready = unsafe { libc::poll(&raw mut poll, 1, millis) };
    if ready < 0 { Err(io::Error::last_os_error()) } else { Ok(ready == 1) }
}

/// Sends a signal to a process that we started.
pub(crate) fn signal(pid: u32, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: plain system call.
    check(unsafe { libc::kill(pid as libc::pid_t, signal) })
}

/// Are we root?
pub fn is_root() -> bool {
    // SAFETY: plain system call.
    unsafe { libc::geteuid() == 0 }
}

fn cpu_set(cpu: usize) -> libc::cpu_set_t {
    // SAFETY: a cpu_set_t is a bit mask, zero is the empty set; CPU_SET checks its bounds.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if cpu < libc::CPU_SETSIZE as usize {
            libc::CPU_SET(cpu, &mut set);
        }
        set
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
