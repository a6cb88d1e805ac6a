//! Where this process's threads hear of channels: places, each with an inbox in every trunk and bells to sleep on.
//!
//! An epoll set has a place of its own, and so has a thread that waits without one, as long as there are enough; the others
//! share the general place, which the helper thread attends to.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering::*};

use underpass_stack::lane::shm::layout::PLACES;
use underpass_stack::lane::shm::notice;

use super::channel::channel;
use super::trunk::{trunks, with_trunks};
use super::{bells, leave};
use crate::socket::Lane;

/// The place that the helper attends to.
pub const GENERAL: usize = 0;

/// A bit for each place given away.
static TAKEN: AtomicU32 = AtomicU32::new(1);
/// Threads that sleep at each place.
static SLEEPERS: [AtomicU32; PLACES] = [const { AtomicU32::new(0) }; PLACES];

/// Takes a place; the general one if none is free.
pub fn take() -> usize {
    let free = |taken: u32| (!taken & ((1 << PLACES) - 1)).trailing_zeros() as usize;
    let took = TAKEN.fetch_update(AcqRel, Acquire, |taken| (free(taken) < PLACES).then(|| taken | 1 << free(taken)));
    took.map_or(GENERAL, free)
}

/// Gives a place back.
pub fn give_back(place: usize) {
    if place != GENERAL {
        TAKEN.fetch_and(!(1 << place), AcqRel);
    }
}

struct Mine(usize);

impl Drop for Mine {
    fn drop(&mut self) {
        give_back(self.0);
    }
}

thread_local! {
    static MINE: RefCell<Option<Mine>> = const { RefCell::new(None) };
}

/// The calling thread's place.
pub fn mine() -> usize {
    MINE.try_with(|cell| cell.borrow_mut().get_or_insert_with(|| Mine(take())).0).unwrap_or(GENERAL)
}

/// Is there a notice at this place?
#[inline]
pub fn has_notice(place: usize) -> bool {
    super::live() > 0 && with_trunks(|trunks| trunks.iter().any(|trunk| !notice::is_empty(trunk.inbox(place))))
}

/// The same as [`collect`] for one who looks often.
#[inline]
pub fn collect_if_any(place: usize) {
    if has_notice(place) {
        collect(place);
    }
}

/// Takes the notices of a place and tells whom they concern in this process.
pub fn collect(place: usize) {
    // Most of the time it is one.
    let (mut first, mut others) = (None, Vec::new());
    with_trunks(|trunks| {
        for trunk in trunks {
            trunk.collect(place, |number| match first {
                None => first = Some(number),
                Some(_) => others.push(number),
            });
        }
    });
    for number in first.into_iter().chain(others) {
        if place == GENERAL {
            leave::serve(number);
        }
        tell(number);
    }
}

/// Tells those who wait for a channel that something has come.
pub fn tell(number: u32) {
    let Some(channel) = channel(number) else { return };
    channel.with_end(|end| {
        if end.socket.lane() == Some(Lane::Shm(number)) {
            for (set, fd) in end.socket.sets.lock().iter() {
                set.mark(*fd);
            }
            end.socket.waiters.ring();
        }
    });
}

/// Somebody sleeps at a place: other processes ring from now on.
pub struct Dozing(usize);

impl Dozing {
    /// Before the last look.
    pub fn new(place: usize) -> Self {
        SLEEPERS[place].fetch_add(1, SeqCst);
        doze(place);
        Self(place)
    }

    /// What to sleep on; the helper sleeps on the general place's.
    pub fn bells(&self) -> [RawFd; 2] {
        if self.0 == GENERAL { [-1; 2] } else { bells::of(self.0) }
    }
}

fn doze(place: usize) {
    trunks().iter().for_each(|trunk| notice::doze(trunk.inbox(place)));
}

impl Drop for Dozing {
    fn drop(&mut self) {
        if self.0 == GENERAL {
            SLEEPERS[GENERAL].fetch_sub(1, SeqCst);
            return;
        }
        bells::silence(self.0);
        if SLEEPERS[self.0].fetch_sub(1, SeqCst) > 1 {
            // The ring was meant for whoever sleeps here: the others want to be rung again.
            doze(self.0);
            if has_notice(self.0) {
                collect(self.0);
            }
        }
    }
}

/// The helper is about to sleep on the general bell.
pub fn doze_general() {
    doze(GENERAL);
}

/// After fork(2), in the child: the bells are the parent's. Returns the general one, by which the child calls it.
pub fn forget() -> RawFd {
    MINE.with(|cell| std::mem::forget(cell.take()));
    TAKEN.store(1, Relaxed);
    SLEEPERS.iter().for_each(|count| count.store(0, Relaxed));
    bells::forget(GENERAL)
}
