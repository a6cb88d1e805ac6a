//! Cancelling a thread (pthread_cancel(3)) that sleeps in a call. Cancellation unwinds the thread's stack: its functions own
//! nothing and are declared so that they may be unwound.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use libc::{c_int, c_void, pthread_t, ssize_t};

static TARGET: AtomicI32 = AtomicI32::new(-1);
static STARTED: AtomicI32 = AtomicI32::new(0);

type Start = extern "C-unwind" fn(*mut c_void) -> *mut c_void;

unsafe extern "C-unwind" {
    fn recv(fd: c_int, buffer: *mut c_void, len: usize, flags: c_int) -> ssize_t;
    fn read(fd: c_int, buffer: *mut c_void, len: usize) -> ssize_t;
    fn poll(fds: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int;
    fn pthread_create(thread: *mut pthread_t, attributes: *const c_void, start: Start, argument: *mut c_void) -> c_int;
    fn pthread_cancel(thread: pthread_t) -> c_int;
    fn pthread_join(thread: pthread_t, result: *mut *mut c_void) -> c_int;
}

/// In which call the thread sleeps.
#[derive(Clone, Copy)]
pub enum Sleep {
    /// recv(2).
    Recv,
    /// read(2).
    Read,
    /// poll(2).
    Poll,
}

extern "C-unwind" fn in_recv(_argument: *mut c_void) -> *mut c_void {
    let mut byte = 0u8;
    STARTED.store(1, Ordering::SeqCst);
    // SAFETY: one byte of ours.
    unsafe { recv(TARGET.load(Ordering::SeqCst), (&raw mut byte).cast(), 1, 0) };
    std::ptr::null_mut()
}

extern "C-unwind" fn in_read(_argument: *mut c_void) -> *mut c_void {
    let mut byte = 0u8;
    STARTED.store(1, Ordering::SeqCst);
    // SAFETY: one byte of ours.
    unsafe { read(TARGET.load(Ordering::SeqCst), (&raw mut byte).cast(), 1) };
    std::ptr::null_mut()
}

extern "C-unwind" fn in_poll(_argument: *mut c_void) -> *mut c_void {
    let mut entry = libc::pollfd { fd: TARGET.load(Ordering::SeqCst), events: libc::POLLIN, revents: 0 };
    STARTED.store(1, Ordering::SeqCst);
    // SAFETY: one entry of ours.
    unsafe { poll(&raw mut entry, 1, -1) };
    std::ptr::null_mut()
}

/// Starts a thread that sleeps on `fd`, cancels it, and tells whether it ended cancelled.
pub fn cancel(fd: RawFd, sleep: Sleep) -> bool {
    TARGET.store(fd, Ordering::SeqCst);
    STARTED.store(0, Ordering::SeqCst);
    let start = match sleep {
        Sleep::Recv => in_recv,
        Sleep::Read => in_read,
        Sleep::Poll => in_poll,
    };
    // SAFETY: the thread's function touches statics only; the thread is joined before its number goes out of scope.
    unsafe {
        let mut thread = 0;
        assert_eq!(pthread_create(&raw mut thread, std::ptr::null(), start, std::ptr::null_mut()), 0, "pthread_create");
        while STARTED.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        // Asleep or just before it: both are points where a cancellation is acted upon.
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(pthread_cancel(thread), 0, "pthread_cancel");
        let mut result = std::ptr::null_mut();
        assert_eq!(pthread_join(thread, &raw mut result), 0, "pthread_join");
        // PTHREAD_CANCELED, pthread.h.
        result.addr() == usize::MAX
    }
}
