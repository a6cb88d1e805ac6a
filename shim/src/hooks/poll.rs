//! poll, select and their kin.

use std::ffi::c_int;

use libc::{fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};

use super::args::{deadline_ms, deadline_timespec, deadline_timeval};
use super::run;
use crate::call::Act;
use crate::call::poll::{MAX_FDS, Select, poll as poll_set};
use crate::{carry, options, sys};

/// Nothing can be on a lane, and nothing can get there: straight to the kernel.
fn is_plain() -> bool {
    carry::live() == 0 && !options::promotes()
}

/// The program's records. `None`: the kernel is to judge them.
fn records<'a>(fds: *mut pollfd, count: nfds_t) -> Option<&'a mut [pollfd]> {
    if fds.is_null() || count == 0 || count > MAX_FDS {
        return None;
    }
    // SAFETY: the program's promise to poll(2).
    Some(unsafe { std::slice::from_raw_parts_mut(fds, count as usize) })
}

fn poll_ms(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> Option<c_int> {
    if is_plain() {
        return None;
    }
    run(|| poll_set(records(fds, count), deadline_ms(timeout), None))
}

fn poll_mask(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> Option<c_int> {
    if is_plain() {
        return None;
    }
    run(|| {
        // SAFETY: null or valid by the program's promise to ppoll(2).
        let (deadline, mask) = unsafe { (deadline_timespec(timeout), mask.as_ref()) };
        match deadline {
            Ok(deadline) => poll_set(records(fds, count), deadline, mask),
            Err(()) => Act::Real,
        }
    })
}

/// poll(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    poll_ms(fds, count, timeout).unwrap_or_else(|| sleep!(poll(fds, count, timeout)))
}

/// poll(2) of fortified programs.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int {
    let fits = count as usize <= room / size_of::<pollfd>();
    let own = if fits { poll_ms(fds, count, timeout) } else { None };
    own.unwrap_or_else(|| sleep!(__poll_chk(fds, count, timeout, room)))
}

/// ppoll(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    poll_mask(fds, count, timeout, mask).unwrap_or_else(|| sleep!(ppoll(fds, count, timeout, mask)))
}

/// ppoll(2) of fortified programs.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __ppoll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    room: size_t,
) -> c_int {
    let fits = count as usize <= room / size_of::<pollfd>();
    let own = if fits { poll_mask(fds, count, timeout, mask) } else { None };
    own.unwrap_or_else(|| sleep!(__ppoll_chk(fds, count, timeout, mask, room)))
}

/// Words of an fd_set: programs with larger sets than FD_SETSIZE pass larger memory.
type Word = u64;

fn is_set(set: *const fd_set, fd: c_int) -> bool {
    if set.is_null() {
        return false;
    }
    let (word, bit) = (fd as usize / 64, fd as usize % 64);
    // SAFETY: the program's promise to select(2): bits 0 to n-1.
    unsafe { set.cast::<Word>().add(word).read_unaligned() >> bit & 1 == 1 }
}

/// Clears the first `count` bits of a set, then sets those of `ready`.
fn store(set: *mut fd_set, count: c_int, ready: impl Iterator<Item = c_int>) {
    if set.is_null() {
        return;
    }
    let words = set.cast::<Word>();
    for word in 0..(count as usize).div_ceil(64) {
        // SAFETY: as in `is_set`; the kernel, too, writes whole words.
        unsafe { words.add(word).write_unaligned(0) };
    }
    for fd in ready {
        let (word, bit) = (fd as usize / 64, fd as usize % 64);
        // SAFETY: `fd` is below `count`.
        unsafe { words.add(word).write_unaligned(words.add(word).read_unaligned() | 1 << bit) };
    }
}

fn select_sets(
    count: c_int,
    sets: [*mut fd_set; 3],
    deadline: Option<underpass_stack::tcp::Instant>,
    mask: Option<&sigset_t>,
) -> Act<c_int> {
    if !(1..=65_536).contains(&count) {
        return Act::Real;
    }
    let mut select = Select::new(count, |n, fd| is_set(sets[n], fd));
    let act = select.run(deadline, mask);
    if matches!(act, Act::Done(Ok(_))) {
        for (n, set) in sets.into_iter().enumerate() {
            store(set, count, select.results().filter(|(which, _)| *which == n).map(|(_, fd)| fd));
        }
    }
    act
}

/// select(2). Linux writes the time that was left.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn select(
    count: c_int,
    r: *mut fd_set,
    w: *mut fd_set,
    e: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    let mut end = None;
    let own = if is_plain() {
        None
    } else {
        run(|| {
            // SAFETY: null or valid by the program's promise to select(2).
            match unsafe { deadline_timeval(timeout) } {
                Ok(deadline) => {
                    end = deadline;
                    select_sets(count, [r, w, e], deadline, None)
                }
                Err(()) => Act::Real,
            }
        })
    };
    let Some(result) = own else { return sleep!(select(count, r, w, e, timeout)) };
    if let Some(end) = end {
        let left = end.nanos_since(sys::now());
        // SAFETY: not null, since there is an end.
        unsafe {
            *timeout = timeval { tv_sec: (left / 1_000_000_000) as i64, tv_usec: (left % 1_000_000_000 / 1_000) as i64 }
        };
    }
    result
}

/// pselect(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn pselect(
    count: c_int,
    r: *mut fd_set,
    w: *mut fd_set,
    e: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let own = if is_plain() {
        None
    } else {
        run(|| {
            // SAFETY: null or valid by the program's promise to pselect(2).
            let (deadline, mask) = unsafe { (deadline_timespec(timeout), mask.as_ref()) };
            deadline.map_or(Act::Real, |deadline| select_sets(count, [r, w, e], deadline, mask))
        })
    };
    own.unwrap_or_else(|| sleep!(pselect(count, r, w, e, timeout, mask)))
}
