//! Processes and signals.

use std::ffi::CString;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI64, Ordering};

use libc::c_int;

use super::outcome;

/// fork(2); the child runs `work`, and ends without cleaning up.
pub fn fork(work: impl FnOnce()) -> i64 {
    // SAFETY: this program has no other threads that hold locks when a case forks.
    let pid = outcome(unsafe { libc::fork() });
    if pid == 0 {
        work();
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) }
    }
    pid
}

/// fork(2); the child runs `work` and then exit(3), with everything that runs at the end of a program.
pub fn fork_and_exit(work: impl FnOnce()) -> i64 {
    // SAFETY: as in `fork`.
    let pid = outcome(unsafe { libc::fork() });
    if pid == 0 {
        work();
        std::process::exit(0);
    }
    pid
}

/// waitpid(2): the status.
pub fn wait(pid: i64) -> i64 {
    let mut status = 0;
    // SAFETY: a status of ours.
    match outcome(unsafe { libc::waitpid(pid as libc::pid_t, &raw mut status, 0) }) {
        got if got == pid => i64::from(status),
        error => error,
    }
}

/// execv(2) of this program with these arguments; returns only on failure.
pub fn exec_self(arguments: &[String]) -> i64 {
    let words: Vec<CString> = std::iter::once("parity")
        .chain(arguments.iter().map(String::as_str))
        .filter_map(|w| CString::new(w).ok())
        .collect();
    let mut pointers: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: a path and a NULL-terminated table of strings.
    outcome(unsafe { libc::execv(c"/proc/self/exe".as_ptr(), pointers.as_ptr()) })
}

static CAUGHT: AtomicI64 = AtomicI64::new(0);

extern "C" fn count(_signal: c_int) {
    CAUGHT.fetch_add(1, Ordering::SeqCst);
}

/// Signals caught since the last call.
pub fn caught() -> i64 {
    CAUGHT.swap(0, Ordering::SeqCst)
}

/// Has a signal counted from now on.
pub fn catch(signal: c_int, restart: bool) {
    // SAFETY: the handler only touches an atomic.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as extern "C" fn(c_int) as usize;
        action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0, "sigaction");
    }
}

fn count_of(signal: c_int, handler: usize, flags: c_int) -> libc::sigaction {
    // SAFETY: all zeroes is a valid sigaction.
    let (mut new, mut old): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    (new.sa_sigaction, new.sa_flags) = (handler, flags);
    // SAFETY: the handler, if it is one, only touches an atomic.
    unsafe {
        assert_eq!(libc::sigaction(signal, &raw const new, std::ptr::null_mut()), 0, "sigaction");
        assert_eq!(libc::sigaction(signal, std::ptr::null(), &raw mut old), 0, "sigaction");
    }
    old
}

/// Does sigaction(2) tell what it was given?
pub fn is_told_of_handler(signal: c_int, restart: bool, siginfo: bool) -> bool {
    let handler = count as extern "C" fn(c_int) as usize;
    let flags = if restart { libc::SA_RESTART } else { 0 } | if siginfo { libc::SA_SIGINFO } else { 0 };
    let told = count_of(signal, handler, flags);
    told.sa_sigaction == handler && told.sa_flags & (libc::SA_RESTART | libc::SA_SIGINFO) == flags
}

/// The same for SIG_IGN and SIG_DFL.
pub fn is_told_of(signal: c_int, disposition: usize) -> bool {
    count_of(signal, disposition, 0).sa_sigaction == disposition
}

/// Does sigaction(2) refuse the signal?
pub fn refused(signal: c_int) -> bool {
    // SAFETY: all zeroes is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as extern "C" fn(c_int) as usize;
    // SAFETY: as in `catch`.
    outcome(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) }) == -i64::from(libc::EINVAL)
}

/// Does a handler that signal(2) installs have SA_RESTART, with siginterrupt(3) on or off?
pub fn signal_restarts(signal: c_int, interrupts: bool) -> bool {
    // SAFETY: as in `count_of`.
    unsafe {
        let mut told: libc::sigaction = std::mem::zeroed();
        assert_ne!(libc::signal(signal, count as extern "C" fn(c_int) as usize), libc::SIG_ERR, "signal");
        siginterrupt(signal, c_int::from(interrupts));
        assert_eq!(libc::sigaction(signal, std::ptr::null(), &raw mut told), 0, "sigaction");
        told.sa_flags & libc::SA_RESTART != 0
    }
}

/// Sends a signal to this thread.
pub fn raise(signal: c_int) {
    // SAFETY: no memory is involved.
    unsafe { libc::raise(signal) };
}

unsafe extern "C" {
    fn siginterrupt(signal: c_int, on: c_int) -> c_int;
}

/// Blocks a signal in this thread, or lets it in again.
pub fn block(signal: c_int, blocked: bool) {
    let how = if blocked { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    // SAFETY: a set of ours.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        assert_eq!(libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut()), 0, "pthread_sigmask");
    }
}

/// SIGALRM to the process after a while (setitimer(2)), then `every` so often; 0 for once.
pub fn alarm(millis: i64, every: i64) {
    alarm_after(millis * 1000, every * 1000);
}

/// The same in microseconds.
pub fn alarm_after(micros: i64, every: i64) {
    let time = |micros: i64| libc::timeval { tv_sec: micros / 1_000_000, tv_usec: micros % 1_000_000 };
    let value = libc::itimerval { it_interval: time(every), it_value: time(micros) };
    // SAFETY: a timer value of ours.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const value, std::ptr::null_mut()) }, 0, "setitimer");
}

/// Has SIGIO sent to this process when the descriptor becomes ready.
pub fn own(fd: RawFd) -> i64 {
    // SAFETY: no memory involved.
    outcome(unsafe { libc::fcntl(fd, libc::F_SETOWN, libc::getpid()) })
}

/// pause(2)-like waiting for a signal that is caught: true if one came within the time.
pub fn await_signal(millis: u64) -> bool {
    let until = std::time::Instant::now() + std::time::Duration::from_millis(millis);
    while CAUGHT.load(Ordering::SeqCst) == 0 && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    CAUGHT.load(Ordering::SeqCst) != 0
}

/// A stdio stream on a descriptor.
pub struct Stream(*mut libc::FILE);

impl Stream {
    /// fdopen(3).
    pub fn open(fd: RawFd) -> Self {
        // SAFETY: a descriptor and a mode.
        let file = unsafe { libc::fdopen(fd, c"r+".as_ptr()) };
        assert!(!file.is_null(), "fdopen");
        Self(file)
    }

    /// fgets(3).
    pub fn line(&self) -> String {
        let mut buffer = [0u8; 256];
        // SAFETY: a buffer and its size, on an open stream.
        let got = unsafe { libc::fgets(buffer.as_mut_ptr().cast(), buffer.len() as c_int, self.0) };
        let len = buffer.iter().position(|&byte| byte == 0).unwrap_or(0);
        if got.is_null() { "nothing".to_owned() } else { String::from_utf8_lossy(&buffer[..len]).into_owned() }
    }

    /// fputs(3), then fflush(3).
    pub fn say(&self, text: &str) -> i64 {
        let Ok(text) = CString::new(text) else { return -1 };
        // SAFETY: a string and an open stream.
        unsafe {
            libc::fputs(text.as_ptr(), self.0);
            outcome(libc::fflush(self.0))
        }
    }

    /// fclose(3).
    pub fn close(self) -> i64 {
        // SAFETY: an open stream, not used afterwards.
        outcome(unsafe { libc::fclose(self.0) })
    }
}
