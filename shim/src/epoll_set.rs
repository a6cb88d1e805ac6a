//! An epoll set of the program: the real one, and what we know of the TCP sockets in it.
//!
//! The kernel set stays complete: a socket on a lane is in it with no events, so that its removal, `EEXIST` and the like
//! stay the kernel's business. Lane readiness is kept in a queue beside it, so waiting costs only what is ready.

use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::*};

use libc::epoll_event;

use parking_lot::{Mutex, RwLock};

use crate::doorbell::Waiters;
use crate::fd::{Pool, Record, Ref};
use crate::shm::places;
use crate::socket::{Lane, Socket};
use crate::{carry, sys};

/// Bits that say how, not what (they survive a one-shot's disarming).
pub const MODE_BITS: u32 = (libc::EPOLLET | libc::EPOLLONESHOT | libc::EPOLLWAKEUP | libc::EPOLLEXCLUSIVE) as u32;

/// What the kernel is asked for while a socket is on a lane.
///
/// On the xdp lane it is silent. On the shm lane it goes on speaking of ends and errors, and of bytes that come through it: each once,
/// under a number that no program uses, so that [`told_by_kernel`] knows it again. Of room only when
/// bytes go through it for good: while the ring is used it always has some, and that would be an edge of nothing.
pub fn entry_on_lane(lane: Lane, fd: RawFd, events: u32, data: u64) -> epoll_event {
    match lane {
        Lane::Xdp(_) => epoll_event { events: events & MODE_BITS, u64: data },
        Lane::Shm(channel) => {
            let room = if carry::shm::is_pinned(channel) { libc::EPOLLOUT } else { 0 };
            let all = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET | room;
            epoll_event { events: all as u32, u64: cookie() | fd as u32 as u64 }
        }
    }
}

/// The descriptor of a laned member, if this event of the kernel's is about one.
pub fn told_by_kernel(event: &epoll_event) -> Option<RawFd> {
    let data = event.u64;
    (data & !u64::from(u32::MAX) == cookie()).then_some(data as u32 as RawFd)
}

/// A random number, the upper half of a word.
fn cookie() -> u64 {
    static COOKIE: OnceLock<u64> = OnceLock::new();
    *COOKIE.get_or_init(|| sys::random()[0] << 32 | 1 << 63)
}

/// One TCP socket in a set.
pub struct Member {
    /// The socket.
    pub socket: Ref<Socket>,
    /// What the program asked for.
    pub events: u32,
    /// What it wants to be told.
    pub data: u64,
    /// On a lane: the kernel's entry is silent.
    pub laned: bool,
    /// Taken out by the program while laned: the kernel's silent entry is left for the next time it is put in.
    pub ghost: bool,
    /// In the ready queue.
    queued: bool,
    /// A one-shot that has fired.
    pub disarmed: bool,
}

impl Member {
    /// Can it become ready on a lane?
    fn is_awake(&self) -> bool {
        self.laned && !self.disarmed && !self.ghost
    }
}

/// The set's members and the queue of those that may be ready.
#[derive(Default)]
pub struct Members {
    by_fd: HashMap<RawFd, Member, foldhash::fast::RandomState>,
    ready: VecDeque<RawFd>,
}

/// One epoll set.
pub struct EpollSet {
    refs: AtomicU32,
    fds: AtomicU32,
    /// Its (first) descriptor.
    pub fd: AtomicI32,
    /// The TCP sockets.
    pub members: Mutex<Members>,
    /// How many members are on lanes.
    pub lanes: AtomicU32,
    /// How many TCP sockets are in it.
    pub sockets: AtomicU32,
    /// How many entries of the kernel's are [`entry_on_lane`]'s on the shm lane.
    pub entries: AtomicU32,
    /// Threads that wait on the set.
    pub waiters: Waiters,
    /// The set is itself watched by another epoll set: its sockets stay in the kernel.
    pub nested: AtomicBool,
    /// Held for writing while a socket of the set changes its tier: its kernel socket is closed for a moment then, which nobody
    /// must see. Held for reading while the kernel's set is looked at.
    pub gate: RwLock<()>,
    /// Threads that sleep on the set inside the kernel, where no doorbell reaches them: its sockets stay there meanwhile.
    pub asleep: AtomicU32,
    /// A member may be ready: read without the members' lock.
    pub pending: AtomicBool,
    /// A promotion had to wait for a thread that slept on the set inside the kernel: from then on they sleep in the shim.
    pub contested: AtomicBool,
    /// When the kernel part was last looked at (CLOCK_MONOTONIC, ns).
    pub looked: AtomicU64,
    /// Where notices about channels in the set go, plus one; 0 before there was one.
    place: AtomicU32,
}

static POOL: Pool<EpollSet> = Pool::new();

impl Record for EpollSet {
    const TAG: usize = 2;
    fn refs(&self) -> &AtomicU32 {
        &self.refs
    }
    fn fds(&self) -> &AtomicU32 {
        &self.fds
    }
    fn recycle(&'static self) {
        let old = std::mem::take(&mut *self.members.lock());
        drop(old);
        if let Some(place) = self.place.swap(0, AcqRel).checked_sub(1) {
            places::give_back(place as usize);
        }
        POOL.put(self);
    }
}

impl EpollSet {
    fn blank() -> Self {
        Self {
            refs: AtomicU32::new(0),
            fds: AtomicU32::new(0),
            fd: AtomicI32::new(-1),
            members: Mutex::new(Members::default()),
            lanes: AtomicU32::new(0),
            sockets: AtomicU32::new(0),
            entries: AtomicU32::new(0),
            waiters: Waiters::new(),
            nested: AtomicBool::new(false),
            gate: RwLock::new(()),
            asleep: AtomicU32::new(0),
            pending: AtomicBool::new(false),
            contested: AtomicBool::new(false),
            looked: AtomicU64::new(0),
            place: AtomicU32::new(0),
        }
    }

    /// A record for a new set.
    pub fn open(fd: RawFd) -> Ref<Self> {
        let set = POOL.take(Self::blank);
        set.fd.store(fd, Relaxed);
        set.fds.store(0, Relaxed);
        set.lanes.store(0, Relaxed);
        set.sockets.store(0, Relaxed);
        set.entries.store(0, Relaxed);
        set.nested.store(false, Relaxed);
        set.asleep.store(0, Relaxed);
        set.contested.store(false, Relaxed);
        set.looked.store(0, Relaxed);
        set
    }

    /// Where notices about channels in the set go.
    pub fn shm_place(&self) -> usize {
        if self.place.load(Acquire) == 0 {
            let taken = places::take();
            if self.place.compare_exchange(0, taken as u32 + 1, AcqRel, Acquire).is_err() {
                places::give_back(taken);
            }
        }
        self.place.load(Acquire) as usize - 1
    }

    /// A member has come to a lane: whoever sleeps on the set from now on has to be found there.
    pub fn take_shm_place(&self, socket: &Socket) {
        if let Some(Lane::Shm(_)) = socket.lane() {
            self.shm_place();
        }
    }

    /// Has it ever had a channel in it?
    pub fn has_shm_place(&self) -> bool {
        self.place.load(Acquire) != 0
    }

    /// A member's socket has something to tell, or changed its tier: it may be ready.
    pub fn mark(&self, fd: RawFd) {
        {
            let mut members = self.members.lock();
            members.mark(fd);
            self.note_pending(&members);
        }
        self.waiters.ring();
    }

    /// After members were marked or collected.
    #[inline]
    pub fn note_pending(&self, members: &Members) {
        self.pending.store(!members.ready.is_empty(), Release);
    }

    /// Recounts what the fast path looks at.
    pub fn recount(&self, members: &Members) {
        self.note_pending(members);
        let there = || members.by_fd.values().filter(|m| !m.ghost);
        self.sockets.store(there().count() as u32, SeqCst);
        self.lanes.store(there().filter(|m| m.laned).count() as u32, SeqCst);
        let on_shm = |m: &&Member| m.laned && matches!(m.socket.lane(), Some(Lane::Shm(_)));
        self.entries.store(members.by_fd.values().filter(on_shm).count() as u32, SeqCst);
    }

    /// The set's last descriptor is closed: its sockets forget it.
    pub fn close(this: &Ref<Self>) {
        let members = std::mem::take(&mut *this.members.lock());
        for member in members.by_fd.values() {
            member.socket.sets.lock().retain(|(set, _)| !set.is(this));
        }
        this.sockets.store(0, SeqCst);
        this.lanes.store(0, SeqCst);
    }
}

impl Members {
    /// Puts a laned member in the ready queue.
    pub fn mark(&mut self, fd: RawFd) {
        if let Some(member) = self.by_fd.get_mut(&fd)
            && member.is_awake()
            && !member.queued
        {
            member.queued = true;
            self.ready.push_back(fd);
        }
    }

    /// Enters or changes a member.
    pub fn set(&mut self, fd: RawFd, socket: &Ref<Socket>, events: u32, data: u64) {
        let member = self.by_fd.entry(fd).or_insert_with(|| Member {
            socket: socket.clone(),
            events,
            data,
            laned: false,
            ghost: false,
            queued: false,
            disarmed: false,
        });
        member.ghost = false;
        member.events = events;
        member.data = data;
        member.disarmed = false;
    }

    /// A member, to be changed.
    pub fn get_mut(&mut self, fd: RawFd) -> Option<&mut Member> {
        self.by_fd.get_mut(&fd)
    }

    /// Takes a member out.
    pub fn remove(&mut self, fd: RawFd) -> Option<Member> {
        let member = self.by_fd.remove(&fd)?;
        if member.queued {
            // Its number may soon be put in again, and stand in the queue again.
            self.ready.retain(|&other| other != fd);
        }
        Some(member)
    }

    /// The members with their descriptors.
    pub fn iter(&self) -> impl Iterator<Item = (RawFd, &Member)> {
        self.by_fd.iter().map(|(fd, member)| (*fd, member))
    }

    /// Goes once through the ready queue: `mask` tells a socket's readiness, `emit` takes an event. Level-triggered members stay
    /// queued while they are ready. Stops at `max` events.
    pub fn collect(
        &mut self,
        max: usize,
        mask: &mut dyn FnMut(&Ref<Socket>, u32) -> u32,
        emit: &mut dyn FnMut(u32, u64),
    ) -> usize {
        let mut emitted = 0;
        for _ in 0..self.ready.len() {
            if emitted == max {
                break;
            }
            let Some(fd) = self.ready.pop_front() else { break };
            let Some(member) = self.by_fd.get_mut(&fd) else { continue };
            // A number that was taken out and put in again may stand in the queue twice: only once counts.
            if !std::mem::take(&mut member.queued) || !member.is_awake() {
                continue;
            }
            let always = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
            let events = mask(&member.socket, member.events) & (member.events | always) & !MODE_BITS;
            if events == 0 {
                continue;
            }
            emit(events, member.data);
            emitted += 1;
            if member.events & libc::EPOLLONESHOT as u32 != 0 {
                member.disarmed = true;
            } else if member.events & libc::EPOLLET as u32 == 0 {
                member.queued = true;
                self.ready.push_back(fd);
            }
        }
        emitted
    }

    /// Is a member ready, without taking it?
    pub fn any_ready(&self, mask: &mut dyn FnMut(&Ref<Socket>, u32) -> u32) -> bool {
        let always = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
        self.ready.iter().filter_map(|fd| self.by_fd.get(fd)).any(|member| {
            member.is_awake() && mask(&member.socket, member.events) & (member.events | always) & !MODE_BITS != 0
        })
    }
}

/// The pool's lock, to be held across fork(2).
pub fn pool_lock() -> parking_lot::MutexGuard<'static, Vec<&'static EpollSet>> {
    POOL.raw_lock()
}

/// The pool's mutex, for the handlers of fork(2).
pub fn pool() -> &'static Mutex<Vec<&'static EpollSet>> {
    POOL.mutex()
}
