//! What a thread at a place sleeps on: an eventfd that other processes ring.
//!
//! The processes of our own user share one bell a place. Another user's process gets bells that nobody else has: whoever holds an eventfd
//! can take the rings of others away.

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering::*};

use underpass_stack::lane::shm::layout::PLACES;

use crate::errno::Result;
use crate::fd::{self, Own};
use crate::sys;

/// The common eventfds; -1 before the first trunk.
static COMMON: [AtomicI32; PLACES] = [const { AtomicI32::new(-1) }; PLACES];
/// The epoll sets of the private ones; -1 before the first trunk with another user's process.
static PRIVATE: [AtomicI32; PLACES] = [const { AtomicI32::new(-1) }; PLACES];

/// Bells for one other process.
pub enum Bells {
    /// The common ones.
    Common,
    /// Its own.
    Private(Vec<Own>),
}

impl Bells {
    /// For a process of `user`. Only the helper makes bells.
    pub fn made_for(user: u32) -> Result<Self> {
        for bell in &COMMON {
            make_once(bell, sys::eventfd)?;
        }
        if user == sys::user() {
            return Ok(Self::Common);
        }
        let mut bells = Self::Private(Vec::new());
        for set in &PRIVATE {
            make_once(set, sys::epoll_create)?;
            let bell = Own::new(sys::eventfd()?);
            // A ring is told once, so that nobody has to silence it.
            let events = (libc::EPOLLIN | libc::EPOLLET) as u32;
            sys::epoll_set(set.load(Acquire), bell.as_raw_fd(), events, 0)?;
            if let Self::Private(bells) = &mut bells {
                bells.push(bell);
            }
        }
        Ok(bells)
    }

    /// What the other process is to have, place by place.
    pub fn fds(&self) -> Vec<RawFd> {
        match self {
            Self::Common => COMMON.iter().map(|bell| bell.load(Acquire)).collect(),
            Self::Private(bells) => bells.iter().map(|bell| bell.as_raw_fd()).collect(),
        }
    }
}

impl Drop for Bells {
    fn drop(&mut self) {
        if let Self::Private(bells) = self {
            // The other process may keep its duplicates.
            for (set, bell) in PRIVATE.iter().zip(bells) {
                let _ = sys::epoll_del(set.load(Acquire), bell.as_raw_fd());
            }
        }
    }
}

fn make_once(place: &AtomicI32, make: impl FnOnce() -> Result<OwnedFd>) -> Result<()> {
    if place.load(Acquire) < 0 {
        let raw = make()?.into_raw_fd();
        fd::set_own(raw);
        place.store(raw, Release);
    }
    Ok(())
}

/// What to sleep on at a place, to be read when it rings; -1 for what there is not.
pub fn of(place: usize) -> [RawFd; 2] {
    [COMMON[place].load(Acquire), PRIVATE[place].load(Acquire)]
}

/// Whoever slept at a place is awake.
pub fn silence(place: usize) {
    let [common, private] = of(place);
    if common >= 0 {
        sys::drain(common);
    }
    if private >= 0 {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 32];
        // One that rings all the time is heard again later.
        for _ in 0..32 {
            if sys::epoll_look(private, &mut events).is_ok_and(|count| count < events.len()) {
                break;
            }
        }
    }
}

/// After fork(2), in the child: they are the parent's. Returns the common one of a place, by which the child calls it.
pub fn forget(place: usize) -> RawFd {
    let [kept, _] = of(place);
    COMMON.iter().chain(&PRIVATE).for_each(|bell| bell.store(-1, Relaxed));
    kept
}
