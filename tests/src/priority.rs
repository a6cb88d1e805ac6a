//! Which threads go first (sched(7)). One of the files with `unsafe`.

use std::io;

/// Puts the calling thread at the lowest priority there is: it runs only when its CPU has nothing else to do (SCHED_IDLE).
pub fn run_idle() -> io::Result<()> {
    set(libc::SCHED_IDLE, 0)
}

/// Who goes before all ordinary programs.
#[derive(Clone, Copy)]
pub(crate) enum Urgent {
    /// Frames do not wait for a CPU.
    Wire = 10,
    /// Looks whether there is a CPU, so it must not wait for a wire.
    Watch = 11,
}

/// Has the calling thread run as soon as its time has come (SCHED_FIFO). Such threads have no timer slack.
pub(crate) fn be_punctual(urgent: Urgent) -> io::Result<()> {
    set(libc::SCHED_FIFO, urgent as libc::c_int)
}

fn set(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: plain system call on memory of ours.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
