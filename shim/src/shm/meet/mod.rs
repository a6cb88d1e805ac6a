//! Finding the process at the other end, and agreeing on a channel with it. All of it is the helper's work: the program's own threads
//! only say which connection is worth it ([`seek`]).
//!
//! A socket of ours goes to the user that owns the other end and to nobody else: the meeting place is a name that anybody can
//! take, and whoever holds a duplicate of a connection can read it.

mod meetings;
mod proof;
mod steps;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::*};

use parking_lot::Mutex;
use underpass_stack::lane::Reason;

use self::meetings::{FLUSH, Meetings, Stage};
use super::bells;
use super::channel::Channel;
use super::trunk::Trunk;
use super::{leave, places};
use crate::fd::{Record, Ref};
use crate::socket::Socket;
use crate::{helper, log, policy, sys, tier};

/// Time that an answer may take, ns.
const PATIENCE: u64 = 2_000_000_000;
/// Time between attempts to switch a connection over while a thread is inside a real call on it, ns.
const AGAIN: u64 = 1_000_000_000;

static WANTED: Mutex<Vec<Ref<Socket>>> = parking_lot::const_mutex(Vec::new());
static STATE: Mutex<Option<Meetings>> = parking_lot::const_mutex(None);
static NEWS: AtomicI32 = AtomicI32::new(-1);

/// What went wrong with a meeting.
type Outcome<T> = Result<T, Reason>;

/// Has the helper look for the process at the other end.
pub fn seek(socket: &Ref<Socket>) {
    if socket.seeking.swap(true, AcqRel) {
        return;
    }
    WANTED.lock().push(socket.clone());
    helper::start();
    helper::wake();
}

/// The socket is closed: whoever waits for its peer waits no more.
pub fn forget(socket: &Socket) {
    if !socket.seeking.load(Acquire) {
        return;
    }
    WANTED.lock().retain(|other| !other.is(socket));
    if let Some(state) = &mut *STATE.lock() {
        state.meetings.retain(|_, meeting| !meeting.socket.is(socket));
    }
    socket.seeking.store(false, Release);
}

/// The epoll set of everything here; -1 before the first meeting.
pub fn news_fd() -> RawFd {
    NEWS.load(Acquire)
}

/// After fork(2), in the child: all of this is the parent's.
pub fn leave_to_parent() {
    crate::fork::renew(&WANTED);
    crate::fork::renew(&STATE);
    std::mem::forget(std::mem::take(&mut *WANTED.lock()));
    std::mem::forget(STATE.lock().take());
    NEWS.store(-1, Release);
}

/// The mutexes, for the handlers of fork(2).
pub fn hold() -> impl Sized {
    (WANTED.lock(), STATE.lock())
}

/// Lets go of what [`hold`] has locked and its caller has forgotten.
///
/// # Safety
/// As [`parking_lot::lock_api::RawMutex::unlock`].
pub unsafe fn release() {
    // SAFETY: the caller's promise.
    unsafe {
        STATE.force_unlock();
        WANTED.force_unlock();
    }
}

/// The helper's part: does what there is to do. Returns how long it may sleep, ns; `None` for ever.
pub fn attend() -> Option<u64> {
    let wanted = std::mem::take(&mut *WANTED.lock());
    if wanted.is_empty() && NEWS.load(Relaxed) < 0 {
        return None;
    }
    let mut guard = STATE.lock();
    if guard.is_none() {
        *guard = Meetings::new();
    }
    let Some(state) = guard.as_mut() else {
        wanted.iter().for_each(|socket| refuse(socket, Reason::Failed));
        return None;
    };
    for socket in wanted {
        if let Err(reason) = state.begin(&socket) {
            refuse(&socket, reason);
        }
    }
    let work = state.news();
    state.expire();
    let arrived = std::mem::take(&mut state.arrived);
    let waits = state.meetings.values().any(|meeting| !matches!(meeting.stage, Stage::Listening));
    drop(guard);
    work.into_iter().for_each(Work::run);
    let arrived: Vec<u32> = arrived.into_iter().filter(|&number| !switch(number)).collect();
    let again = !arrived.is_empty();
    if let Some(state) = &mut *STATE.lock() {
        state.arrived.extend(arrived);
    }
    match (again, waits) {
        (true, _) => Some(AGAIN),
        (false, true) => Some(PATIENCE / 4),
        (false, false) => None,
    }
}

/// What the helper does without the lock.
enum Work {
    Collect,
    HangUp(Arc<Trunk>),
    Flush(u32),
}

impl Work {
    fn run(self) {
        match self {
            Self::Collect => {
                bells::silence(places::GENERAL);
                places::collect(places::GENERAL);
            }
            Self::HangUp(trunk) => trunk.hang_up().into_iter().for_each(leave::peer_gone),
            Self::Flush(number) => {
                leave::serve(number);
                places::tell(number);
            }
        }
    }
}

/// A data call begins on a socket whose channel waits for it.
pub fn arrive(socket: &Socket) {
    if let Some(number) = socket.arrived.load(Acquire).checked_sub(1) {
        switch(number);
    }
}

/// A socket with a channel goes over to it. False: not now.
fn switch(number: u32) -> bool {
    let Some(end) = super::channel(number).and_then(Channel::end) else { return true };
    let socket = &end.socket;
    match tier::join(socket, number) {
        Some(Ok(())) => {
            socket.arrived.store(0, Release);
            socket.seeking.store(false, Release);
            true
        }
        Some(Err(reason)) => {
            socket.arrived.store(0, Release);
            leave::abandon(number);
            refuse(socket, reason);
            true
        }
        None => {
            socket.arrived.store(number + 1, Release);
            false
        }
    }
}

fn refuse(socket: &Ref<Socket>, reason: Reason) {
    policy::refused(socket, reason);
    socket.seeking.store(false, Release);
    let fd = socket.fd.load(Relaxed);
    // Closed meanwhile, its number may be another's.
    if Record::fds(&**socket).load(Acquire) > 0 {
        crate::engine::show(fd, socket);
    }
    log::info(format_args!("fd {fd}: not joined: {}", reason.text()));
}

/// Has the helper told when the kernel takes bytes again.
pub fn await_room(number: u32, fd: RawFd) {
    let news = news_fd();
    if news >= 0 {
        let events = (libc::EPOLLOUT | libc::EPOLLONESHOT) as u32;
        let _ = sys::epoll_set(news, fd, events, FLUSH | u64::from(number));
    }
}
