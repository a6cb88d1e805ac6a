//! Which sockets other processes hold too: a small page that parent and children share, with a count for every socket that
//! crossed a fork. One of the files with `unsafe`.
//!
//! A count that is not taken back (a child killed, an exec) only keeps its socket in the kernel: never the other way round.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering::*};

use crate::fd::{self, Entry};
use crate::socket::{Lane, Socket};
use crate::sys;

/// Sockets that can be counted; further ones count as shared for ever.
const PLACES: usize = 16 << 10;
/// Bit of a count: a child asks its parent to give the socket back to the kernel.
const ASKED_BACK: u32 = 1 << 31;
/// Bit of a count: the process that forked has the socket on the shm lane.
const LANED: u32 = 1 << 30;
/// The count itself.
const COUNT: u32 = LANED - 1;
/// Place of a socket that found none.
const UNCOUNTED: u32 = u32::MAX;

/// The page: its first word counts the places given out, its last the questions of children.
static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());

fn page() -> Option<&'static [AtomicU32]> {
    let at = PAGE.load(Acquire);
    // SAFETY: the mapping has PLACES + 2 words, is never unmapped, and words of shared memory are used as atomics only.
    (!at.is_null()).then(|| unsafe { std::slice::from_raw_parts(at, PLACES + 2) })
}

fn page_or_make() -> Option<&'static [AtomicU32]> {
    if PAGE.load(Acquire).is_null() {
        let fresh = sys::shared_memory((PLACES + 2) * size_of::<AtomicU32>()).ok()?;
        PAGE.store(fresh.cast(), Release);
    }
    page()
}

fn count_of(socket: &Socket) -> Option<&'static AtomicU32> {
    match socket.holder.load(Relaxed) {
        0 | UNCOUNTED => None,
        place => page()?[..=PLACES].get(place as usize),
    }
}

/// Does another process hold the socket, as far as is known?
pub fn is_shared(socket: &Socket) -> bool {
    match socket.holder.load(Relaxed) {
        0 => false,
        UNCOUNTED => true,
        _ => count_of(socket).is_some_and(|count| count.load(Acquire) & COUNT > 1),
    }
}

/// Marks a socket as held by a process that will not tell when it lets go (SCM_RIGHTS).
pub fn mark_shared_for_ever(socket: &Socket) {
    socket.holder.store(UNCOUNTED, Relaxed);
}

/// A child asks its parent to give a socket back to the kernel.
pub fn ask_back(socket: &Socket) {
    if let (Some(count), Some(page)) = (count_of(socket), page()) {
        count.fetch_or(ASKED_BACK, AcqRel);
        page[PLACES + 1].fetch_add(1, AcqRel);
    }
}

/// Does a child wait for a socket?
pub fn is_asked_back(socket: &Socket) -> bool {
    count_of(socket).is_some_and(|count| count.load(Acquire) & ASKED_BACK != 0)
}

/// Does any?
pub fn any_asked_back() -> bool {
    page().is_some_and(|page| page[PLACES + 1].swap(0, AcqRel) != 0)
}

/// Is a socket on the lane of the process that it is inherited from?
pub fn is_laned(socket: &Socket) -> bool {
    count_of(socket).is_some_and(|count| count.load(Acquire) & LANED != 0)
}

/// A socket of ours has left the lane.
pub fn given_back(socket: &Socket) {
    if let Some(count) = count_of(socket) {
        count.fetch_and(COUNT, AcqRel);
    }
}

/// Before fork(2): every socket gets one more holder, the child to come. A fork that fails leaves the count too high, which is the
/// harmless direction.
pub fn add_holders() {
    fd::for_each(|fd, entry| {
        let Entry::Socket(socket) = entry else { return };
        // Once a record, however many descriptors name it.
        if socket.fd.load(Relaxed) == fd {
            add(&socket);
        }
    });
}

fn add(socket: &Socket) {
    if socket.holder.load(Relaxed) == 0 {
        let place = page_or_make().and_then(|page| {
            let next = page[0].fetch_add(1, AcqRel) + 1;
            page[..=PLACES].get(next as usize)?.store(1, Release);
            Some(next)
        });
        socket.holder.store(place.unwrap_or(UNCOUNTED), Relaxed);
    }
    if let Some(count) = count_of(socket) {
        count.fetch_add(1, AcqRel);
        if matches!(socket.lane(), Some(Lane::Shm(_))) {
            count.fetch_or(LANED, AcqRel);
        }
    }
}

/// This process lets go of a socket.
pub fn release(socket: &Socket) {
    if let Some(count) = count_of(socket) {
        count.fetch_sub(1, AcqRel);
    }
    socket.holder.store(0, Relaxed);
}
