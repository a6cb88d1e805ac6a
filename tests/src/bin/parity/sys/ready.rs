//! Waiting for readiness.

use std::os::fd::RawFd;

use libc::{c_int, c_short, pollfd, timespec, timeval};

use super::outcome;

fn timespec(millis: i64) -> timespec {
    timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 }
}

fn mask_of(signal: Option<c_int>) -> libc::sigset_t {
    // SAFETY: a set of ours.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        if let Some(signal) = signal {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

fn table(fds: &[(RawFd, c_short)]) -> Vec<pollfd> {
    fds.iter().map(|&(fd, events)| pollfd { fd, events, revents: 0x7000 }).collect()
}

fn revents(table: &[pollfd]) -> Vec<c_short> {
    table.iter().map(|entry| entry.revents).collect()
}

/// poll(2): the result and the revents.
pub fn poll(fds: &[(RawFd, c_short)], millis: c_int) -> (i64, Vec<c_short>) {
    let mut table = table(fds);
    // SAFETY: a table and its length.
    let got = outcome(unsafe { libc::poll(table.as_mut_ptr(), table.len() as u64, millis) });
    (got, revents(&table))
}

/// ppoll(2); negative milliseconds wait for ever. While it waits, only `blocked` is blocked.
pub fn ppoll(fds: &[(RawFd, c_short)], millis: i64, blocked: Option<c_int>) -> (i64, Vec<c_short>) {
    let mut table = table(fds);
    let (time, mask) = (timespec(millis), mask_of(blocked));
    let time = if millis < 0 { std::ptr::null() } else { &raw const time };
    // SAFETY: a table and its length, a time and a mask.
    let got = outcome(unsafe { libc::ppoll(table.as_mut_ptr(), table.len() as u64, time, &raw const mask) });
    (got, revents(&table))
}

/// Which sets a descriptor is in.
#[derive(Clone, Copy)]
pub struct Sets {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// For exceptional conditions.
    pub except: bool,
}

/// All three.
pub const ALL: Sets = Sets { read: true, write: true, except: true };
/// Reading only.
pub const READ: Sets = Sets { read: true, write: false, except: false };

fn sets(fds: &[(RawFd, Sets)]) -> [libc::fd_set; 3] {
    // SAFETY: sets of ours; the cases keep descriptors below FD_SETSIZE.
    unsafe {
        let mut sets: [libc::fd_set; 3] = std::mem::zeroed();
        for &(fd, wanted) in fds {
            for (set, wanted) in sets.iter_mut().zip([wanted.read, wanted.write, wanted.except]) {
                if wanted {
                    libc::FD_SET(fd, set);
                }
            }
        }
        sets
    }
}

fn letters(fds: &[(RawFd, Sets)], sets: &[libc::fd_set; 3]) -> Vec<String> {
    let of = |fd: RawFd| {
        // SAFETY: as in `sets`.
        let is_in = |set: &libc::fd_set| unsafe { libc::FD_ISSET(fd, set) };
        "rwx".chars().zip(sets).filter(|(_, set)| is_in(set)).map(|(letter, _)| letter).collect()
    };
    fds.iter().map(|&(fd, _)| of(fd)).collect()
}

fn limit(fds: &[(RawFd, Sets)]) -> c_int {
    fds.iter().map(|&(fd, _)| fd + 1).max().unwrap_or(0)
}

/// select(2): the result, and for each descriptor the letters of the sets in which it stayed. Negative milliseconds wait for ever.
pub fn select(fds: &[(RawFd, Sets)], millis: i64) -> (i64, Vec<String>) {
    let mut sets = sets(fds);
    let mut time = timeval { tv_sec: millis / 1000, tv_usec: millis % 1000 * 1000 };
    let time = if millis < 0 { std::ptr::null_mut() } else { &raw mut time };
    let [read, write, except] = &mut sets;
    // SAFETY: three sets and a time.
    let got = outcome(unsafe { libc::select(limit(fds), read, write, except, time) });
    (got, letters(fds, &sets))
}

/// pselect(2), as [`select`]; while it waits, only `blocked` is blocked.
pub fn pselect(fds: &[(RawFd, Sets)], millis: i64, blocked: Option<c_int>) -> (i64, Vec<String>) {
    let mut sets = sets(fds);
    let (time, mask) = (timespec(millis), mask_of(blocked));
    let time = if millis < 0 { std::ptr::null() } else { &raw const time };
    let [read, write, except] = &mut sets;
    // SAFETY: three sets, a time and a mask.
    let got = outcome(unsafe { libc::pselect(limit(fds), read, write, except, time, &raw const mask) });
    (got, letters(fds, &sets))
}

/// epoll_create1(2).
pub fn epoll_create() -> RawFd {
    // SAFETY: no memory involved.
    outcome(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }) as RawFd
}

/// epoll_ctl(2).
pub fn epoll_ctl(set: RawFd, operation: c_int, fd: RawFd, events: c_int, data: u64) -> i64 {
    let mut event = libc::epoll_event { events: events as u32, u64: data };
    // SAFETY: an event of ours.
    outcome(unsafe { libc::epoll_ctl(set, operation, fd, &raw mut event) })
}

/// epoll_wait(2): the result and (events, data) of each, by data.
pub fn epoll_wait(set: RawFd, max: c_int, millis: c_int) -> (i64, Vec<(u32, u64)>) {
    collect(max, |events| {
        // SAFETY: a table of `max` events.
        unsafe { libc::epoll_wait(set, events, max, millis) }
    })
}

/// epoll_pwait(2); while it waits, only `blocked` is blocked.
pub fn epoll_pwait(set: RawFd, max: c_int, millis: c_int, blocked: Option<c_int>) -> (i64, Vec<(u32, u64)>) {
    let mask = mask_of(blocked);
    collect(max, |events| {
        // SAFETY: a table of `max` events, and a mask.
        unsafe { libc::epoll_pwait(set, events, max, millis, &raw const mask) }
    })
}

fn collect(max: c_int, call: impl FnOnce(*mut libc::epoll_event) -> c_int) -> (i64, Vec<(u32, u64)>) {
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; max.max(1) as usize];
    let got = outcome(call(events.as_mut_ptr()));
    events.truncate(got.max(0) as usize);
    let mut seen: Vec<(u32, u64)> = events.iter().map(|event| (event.events, event.u64)).collect();
    // The order of several is nobody's promise.
    seen.sort_by_key(|&(_, data)| data);
    (got, seen)
}
