//! Finding the process at the other end, and agreeing on a channel with it. All of it is the helper's work: the program's own threads
//! only say which connection is worth it ([`seek`]).
//!
//! A socket of ours goes to the user that owns the other end and to nobody else: the meeting place is a name that anybody can
//! take, and whoever holds a duplicate of a connection can read it.

mod proof;
mod steps;

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::*};

use parking_lot::Mutex;
use underpass_stack::lane::Reason;
use underpass_stack::lane::shm::meeting::{self, Agreed, Call, MAX_MESSAGE, Offer, Step};
use underpass_stack::mem::Shared;

use self::proof::{is_owner, our_end};
use super::address::Ends;
use super::bells::{self, Bells};
use super::channel::Channel;
use super::trunk::Trunk;
use super::{leave, places};
use crate::errno::Errno;
use crate::fd::{Own, Record, Ref};
use crate::socket::Socket;
use crate::{helper, log, options, policy, sys, tier};

/// Meetings at which we wait for the other end to come, at most (and no more than an eighth of the descriptors).
const PATIENT: u64 = 1024;
/// Time that an answer may take, ns.
const PATIENCE: u64 = 2_000_000_000;
/// Time between attempts to switch a connection over while a thread is inside a real call on it, ns.
const AGAIN: u64 = 1_000_000_000;

/// What an event of the helper's epoll set is about.
const MEETING: u64 = 1 << 56;
const TRUNK: u64 = 2 << 56;
const BELL: u64 = 3 << 56;
const FLUSH: u64 = 4 << 56;
const KIND: u64 = 0xff << 56;

static WANTED: Mutex<Vec<Ref<Socket>>> = parking_lot::const_mutex(Vec::new());
static STATE: Mutex<Option<Meetings>> = parking_lot::const_mutex(None);
static NEWS: AtomicI32 = AtomicI32::new(-1);

/// How far a meeting has come.
enum Stage {
    /// Bound to the name, waiting for the other end.
    Listening,
    /// Called, waiting for the offer.
    Called,
    /// Was called, waiting for the call's words.
    Answering,
    /// Has offered, waiting for the agreement.
    Offered(Offered),
}

struct Offered {
    channel: Shared,
    ring: usize,
    number: usize,
    trunk: Candidate,
}

/// The trunk of an offer.
enum Candidate {
    Known(Arc<Trunk>),
    New { id: [u64; 2], process: [u64; 2], shared: Shared, ours: Bells },
}

struct Meeting {
    socket: Ref<Socket>,
    ends: Ends,
    fd: Own,
    stage: Stage,
    since: u64,
}

struct Meetings {
    epoll: Own,
    next: u64,
    meetings: HashMap<u64, Meeting, foldhash::fast::RandomState>,
    trunks: HashMap<u64, Arc<Trunk>, foldhash::fast::RandomState>,
    /// Channels whose sockets have not been switched over yet.
    arrived: Vec<u32>,
    process: [u64; 2],
}

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

impl Meetings {
    fn new() -> Option<Self> {
        let epoll = Own::new(sys::epoll_create().ok()?);
        NEWS.store(epoll.as_raw_fd(), Release);
        Some(Self {
            epoll,
            next: 0,
            meetings: HashMap::default(),
            trunks: HashMap::default(),
            arrived: Vec::new(),
            process: sys::random(),
        })
    }

    fn watch(&self, fd: RawFd, token: u64) -> Outcome<()> {
        sys::epoll_set(self.epoll.as_raw_fd(), fd, libc::EPOLLIN as u32, token).map_err(|_| Reason::Failed)
    }

    fn token(&mut self) -> u64 {
        self.next += 1;
        self.next & !KIND
    }

    /// Goes to the meeting place: calls if somebody is there, else waits there.
    fn begin(&mut self, socket: &Ref<Socket>) -> Outcome<()> {
        let mine = our_end(socket)?;
        let raw = mine.as_raw_fd();
        let ends = Ends::of(raw).map_err(|_| Reason::NotConnected)?;
        let name = meeting::name(ends.local, ends.remote).ok_or(Reason::Loopback)?;
        for _ in 0..3 {
            match sys::connect_abstract(&name) {
                Ok(place) => {
                    is_owner(&place, ends)?;
                    let call = Call { process: self.process, ring: options::get().shm_ring.into() };
                    sys::send_with_fds(place.as_fd(), &call.encode(), &[raw]).map_err(|_| Reason::PeerSilent)?;
                    return self.enter(socket, ends, place, Stage::Called);
                }
                Err(Errno(libc::ECONNREFUSED)) => {}
                Err(_) => return Err(Reason::PeerSilent),
            }
            match sys::listen_abstract(&name) {
                Ok(place) => {
                    self.make_room();
                    return self.enter(socket, ends, place, Stage::Listening);
                }
                // The other end has come in between.
                Err(Errno(libc::EADDRINUSE)) => {}
                Err(_) => return Err(Reason::Failed),
            }
        }
        Err(Reason::NoPeer)
    }

    fn enter(&mut self, socket: &Ref<Socket>, ends: Ends, place: OwnedFd, stage: Stage) -> Outcome<()> {
        let place = Own::new(place);
        let id = self.token();
        self.watch(place.as_raw_fd(), MEETING | id)?;
        let meeting = Meeting { socket: socket.clone(), ends, fd: place, stage, since: sys::now().0 };
        self.meetings.insert(id, meeting);
        Ok(())
    }

    /// Of those who wait for a peer to come, the one who has waited longest gives up.
    fn make_room(&mut self) {
        let listening = || self.meetings.iter().filter(|(_, m)| matches!(m.stage, Stage::Listening));
        let patient = (sys::descriptor_limit() / 8).min(PATIENT);
        if listening().count() as u64 >= patient
            && let Some(id) = listening().min_by_key(|(_, m)| m.since).map(|(id, _)| *id)
        {
            self.give_up(id, Reason::NoPeer);
        }
    }

    fn give_up(&mut self, id: u64, reason: Reason) {
        if let Some(meeting) = self.meetings.remove(&id) {
            refuse(&meeting.socket, reason);
        }
    }

    fn expire(&mut self) {
        let now = sys::now().0;
        let late = |m: &Meeting| !matches!(m.stage, Stage::Listening) && now.saturating_sub(m.since) > PATIENCE;
        let late: Vec<u64> = self.meetings.iter().filter(|(_, m)| late(m)).map(|(id, _)| *id).collect();
        late.into_iter().for_each(|id| self.give_up(id, Reason::PeerSilent));
    }

    /// Looks at every socket here.
    fn news(&mut self) -> Vec<Work> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        let mut work = Vec::new();
        while let Ok(count @ 1..) = sys::epoll_look(self.epoll.as_raw_fd(), &mut events) {
            for event in &events[..count] {
                let (kind, id) = (event.u64 & KIND, event.u64 & !KIND);
                match kind {
                    MEETING => self.step(id),
                    TRUNK => work.extend(self.hung_up(id)),
                    BELL => work.push(Work::Collect),
                    _ => work.push(Work::Flush(id as u32)),
                }
            }
            if count < events.len() || !work.is_empty() {
                break;
            }
        }
        work
    }

    fn hung_up(&mut self, id: u64) -> Option<Work> {
        let trunk = self.trunks.remove(&id)?;
        let _ = sys::epoll_del(self.epoll.as_raw_fd(), trunk.socket());
        Some(Work::HangUp(trunk))
    }

    /// Something has come for a meeting.
    fn step(&mut self, id: u64) {
        let Some(meeting) = self.meetings.get(&id) else { return };
        if matches!(meeting.stage, Stage::Listening) {
            self.accept(id);
            return;
        }
        let mut bytes = [0; MAX_MESSAGE];
        let (len, fds) = match sys::recv_with_fds(meeting.fd.as_fd(), &mut bytes, libc::MSG_DONTWAIT) {
            Err(Errno(libc::EAGAIN | libc::EINTR)) => return,
            Ok((0, _)) | Err(_) => return self.give_up(id, Reason::PeerSilent),
            Ok(received) => received,
        };
        let Some(meeting) = self.meetings.remove(&id) else { return };
        let socket = meeting.socket.clone();
        match self.advance(id, meeting, &bytes[..len], fds) {
            Ok(Some(number)) => self.arrived.push(number),
            Ok(None) => {}
            Err(reason) => refuse(&socket, reason),
        }
    }

    /// One step on. Returns the number of the channel when the meeting is over.
    fn advance(&mut self, id: u64, meeting: Meeting, bytes: &[u8], fds: Vec<OwnedFd>) -> Outcome<Option<u32>> {
        let Meeting { socket, ends, fd, stage, since } = meeting;
        match stage {
            Stage::Called => {
                let offer = Offer::decode(bytes).ok_or(Reason::ProtocolError)?;
                self.agree(&socket, ends, fd, &offer, fds).map(Some)
            }
            Stage::Answering => {
                let call = Call::decode(bytes).ok_or(Reason::ProtocolError)?;
                let stage = Stage::Offered(self.offer(&socket, ends, &fd, &call, fds)?);
                self.meetings.insert(id, Meeting { socket, ends, fd, stage, since });
                Ok(None)
            }
            Stage::Offered(offered) => {
                Agreed::decode(bytes).ok_or(Reason::ProtocolError)?;
                self.agreed(&socket, fd, offered, fds).map(Some)
            }
            Stage::Listening => Ok(None),
        }
    }

    /// The other end has come to our place.
    fn accept(&mut self, id: u64) {
        let Some(meeting) = self.meetings.remove(&id) else { return };
        let socket = meeting.socket.clone();
        let came = sys::accept_seqpacket(meeting.fd.as_fd()).map_err(|_| Reason::PeerSilent);
        let entered = came.and_then(|caller| {
            our_end(&socket)?;
            is_owner(&caller, meeting.ends)?;
            self.enter(&socket, meeting.ends, caller, Stage::Answering)
        });
        if let Err(reason) = entered {
            refuse(&socket, reason);
        }
    }
}
