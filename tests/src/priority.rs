//! Which threads go first (sched(7)). One of the files with `unsafe`.

use std::io;

/// Puts the calling thread at the lowest priority there is: it runs only when its CPU has nothing else to do (SCHED_IDLE).
pub fn run_idle() -> io::Result<()> {
    set(libc::SCHED_IDLE, 0)
}

/// Has the calling thread run as soon as its time has come, before all ordinary programs (SCHED_FIFO): a wire does not wait for a
/// CPU. Such threads have no timer slack.
pub(crate) fn be_punctual() -> io::Result<()> {
    set(libc::SCHED_FIFO, 10)
}

fn set(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: plain system call on memory of ours.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
