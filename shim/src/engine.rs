//! The process's one stack, behind one lock, and who owns which slot.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};

use parking_lot::{Mutex, MutexGuard};
use underpass_stack::lane::{Reason, Tier};
use underpass_stack::stack::{Event, Stack, event};
use underpass_stack::stats::{self, Counter};
use underpass_stack::tcp::Instant;

use crate::errno::{Errno, Result};
use crate::fd::{self, Ref};
use crate::socket::{Lane, Socket};
use crate::unusual::{self, Unusual};
use crate::{log, options, shm, sys, tier};

/// The stack and the sockets of its slots.
pub struct Engine {
    /// The stack.
    pub stack: Stack,
    owners: Vec<Option<Ref<Socket>>>,
    events: Vec<Event>,
    demotions: Vec<(Ref<Socket>, Reason)>,
    xsk_fds: Vec<RawFd>,
}

static ENGINE: Mutex<Option<Engine>> = parking_lot::const_mutex(None);
/// Passes made by application threads; the helper watches it.
static PASSES: AtomicU64 = AtomicU64::new(0);
/// The arena could not be made: not tried again.
static IMPOSSIBLE: AtomicBool = AtomicBool::new(false);
/// The earliest timer (ns), 0 for none: read without the lock.
static DEADLINE: AtomicU64 = AtomicU64::new(0);
/// Connections on the lane.
static LIVE: AtomicU64 = AtomicU64::new(0);
/// What the shim counts itself, added to the arena's counters from time to time.
static COUNTS: [AtomicU64; Counter::ALL.len()] = [const { AtomicU64::new(0) }; Counter::ALL.len()];

/// The arena was made for the first socket.
static PREPARED: AtomicBool = AtomicBool::new(false);
/// Refusals by reason, likewise.
static REFUSALS: [AtomicU64; stats::REFUSALS] = [const { AtomicU64::new(0) }; stats::REFUSALS];

/// Adds to a counter, without the lock.
pub fn count(counter: Counter, n: u64) {
    COUNTS[counter as usize].fetch_add(n, Relaxed);
}

/// Counts why a promotion was refused.
pub fn count_refusal(reason: Reason) {
    count(Counter::PromotionsRefused, 1);
    if let Some(cell) = REFUSALS.get(reason as usize) {
        cell.fetch_add(1, Relaxed);
    }
}

/// The lock, with the stack in it or not.
pub fn lock() -> MutexGuard<'static, Option<Engine>> {
    ENGINE.lock()
}

/// The mutex, for the handlers of fork(2).
pub fn mutex() -> &'static Mutex<Option<Engine>> {
    &ENGINE
}

/// After fork(2), in the child: the stack is the parent's. Its mappings are not here (MADV_DONTFORK), so nothing of it may be
/// dropped, only forgotten.
pub fn leave_to_parent() {
    std::mem::forget(ENGINE.lock().take());
    LIVE.store(0, Relaxed);
    PREPARED.store(false, Relaxed);
    DEADLINE.store(0, Relaxed);
    unusual::lower(Unusual::Work);
}

/// The stack, if there is one.
pub fn get() -> Option<parking_lot::MappedMutexGuard<'static, Engine>> {
    MutexGuard::try_map(ENGINE.lock(), Option::as_mut).ok()
}

/// The stack, if there is one and nobody else is at work in it.
pub fn try_get() -> Option<parking_lot::MappedMutexGuard<'static, Engine>> {
    MutexGuard::try_map(ENGINE.try_lock()?, Option::as_mut).ok()
}

/// The stack, made if there is none.
pub fn ensure() -> Result<parking_lot::MappedMutexGuard<'static, Engine>> {
    let mut guard = ENGINE.lock();
    if guard.is_none() {
        if IMPOSSIBLE.load(Relaxed) {
            return Err(Errno(libc::ENOMEM));
        }
        let made = Stack::new(&options::stack_name(), sys::getpid(), sys::realtime(), sys::out_of_the_way);
        let stack = made.map_err(|error| {
            IMPOSSIBLE.store(true, Relaxed);
            log::warn(format_args!("no memory for the arena ({error}): nothing is accelerated"));
            Errno::from(error)
        })?;
        if let Some(fd) = stack.arena().fd() {
            fd::set_own(fd.as_raw_fd());
        }
        *guard =
            Some(Engine { stack, owners: Vec::new(), events: Vec::new(), demotions: Vec::new(), xsk_fds: Vec::new() });
    }
    MutexGuard::try_map(guard, Option::as_mut).map_err(|_| Errno(libc::ENOMEM))
}

/// Connections on the lane, without the lock.
pub fn live() -> u64 {
    LIVE.load(Relaxed)
}

/// Passes of application threads so far, without the lock.
pub fn passes() -> u64 {
    PASSES.load(Relaxed)
}

/// The earliest timer, without the lock.
pub fn deadline() -> Option<Instant> {
    let at = DEADLINE.load(Relaxed);
    (at != 0).then_some(Instant(at))
}

/// Does something wait for [`settle`]?
pub fn has_work() -> bool {
    unusual::has(Unusual::Work)
}

impl Engine {
    /// One run over rings and timers, and the news told to whom it concerns. Returns the frames received.
    pub fn pass(&mut self, now: Instant) -> usize {
        PASSES.store(PASSES.load(Relaxed) + 1, Relaxed);
        if !self.stack.has_news(now) {
            return 0;
        }
        let frames = self.stack.pass_by(now, sys::now);
        self.tell();
        frames
    }

    /// After any change to the stack: events go to their sockets, the helper learns of timers.
    pub fn tell(&mut self) {
        if self.stack.has_events() {
            self.tell_events();
        }
        if self.stack.has_leftovers() {
            unusual::raise(Unusual::Work);
        }
        DEADLINE.store(self.stack.next_deadline().map_or(0, |at| at.0), Relaxed);
    }

    fn tell_events(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        self.stack.take_events(&mut events);
        for event in events.drain(..) {
            let Some(Some(socket)) = self.owners.get(event.slot as usize) else { continue };
            for (set, fd) in socket.sets.lock().iter() {
                set.mark(*fd);
            }
            socket.waiters.ring();
            if event.bits & event::DEMOTE != 0 {
                self.demotions.push((socket.clone(), demotion_reason(event.bits)));
                unusual::raise(Unusual::Work);
            }
        }
        self.events = events;
    }

    /// Sends what a call has queued.
    pub fn flush(&mut self, now: Instant) {
        self.stack.send_touched(now);
        self.tell();
    }

    /// Sends what a call may have caused, which is nothing most of the time.
    pub fn flush_if_needed(&mut self) {
        if self.stack.has_touched() {
            self.flush(sys::now());
        }
    }

    /// Enters the owner of a slot.
    pub fn set_owner(&mut self, slot: u32, owner: Option<Ref<Socket>>) {
        let at = slot as usize;
        if self.owners.len() <= at {
            self.owners.resize_with(at + 1, || None);
        }
        self.owners[at] = owner;
        LIVE.store(self.stack.live() as u64, Relaxed);
    }

    /// The owner of a slot.
    pub fn owner(&self, slot: u32) -> Option<Ref<Socket>> {
        self.owners.get(slot as usize)?.clone()
    }

    /// Every socket on the lane.
    pub fn owners(&self) -> Vec<Ref<Socket>> {
        self.owners.iter().flatten().cloned().collect()
    }

    /// The AF_XDP sockets to sleep on.
    pub fn xsk_fds(&self) -> &[RawFd] {
        &self.xsk_fds
    }

    /// After an attachment: the AF_XDP sockets are the library's own descriptors.
    pub fn note_xsk_fds(&mut self) {
        self.xsk_fds = self.stack.wait_fds().map(|fd| fd.as_raw_fd()).collect();
        self.xsk_fds.iter().for_each(|&fd| fd::set_own(fd));
        for (_, port) in self.stack.ports() {
            if let Some(fd) = port.umem_fd() {
                fd::set_own(fd.as_raw_fd());
            }
        }
    }

    /// Lets go of the queues that an earlier daemon gave us for an interface: the one of now does not know them. Whoever sleeps on
    /// them has to be woken: a sleep holds the sockets. False if there were none.
    pub fn drop_port(&mut self, netns: u64, ifindex: u32) -> bool {
        let unused = |number: &u32| !self.stack.is_used(*number);
        let Some(number) = self.stack.port_of(netns, ifindex).filter(unused) else { return false };
        let found = self.stack.ports().find(|(n, _)| *n == number);
        let fds: Vec<RawFd> = found
            .map(|(_, port)| port.umem_fd().into_iter().chain(port.queue_fds()).map(|fd| fd.as_raw_fd()).collect())
            .unwrap_or_default();
        fds.into_iter().for_each(fd::clear);
        self.stack.detach(number);
        self.note_xsk_fds();
        true
    }

    /// Adds the shim's own counts to the arena's.
    pub fn publish_counts(&mut self) {
        let stats = self.stack.stats();
        for (&counter, cell) in Counter::ALL.iter().zip(&COUNTS) {
            if cell.load(Relaxed) != 0 {
                stats.add(counter, cell.swap(0, Relaxed));
            }
        }
        for &reason in Reason::ALL {
            let cell = &REFUSALS[reason as usize];
            if cell.load(Relaxed) != 0 {
                stats.add_refusals(reason, cell.swap(0, Relaxed));
            }
        }
    }

    /// Shows a socket on the board.
    pub fn show(&mut self, fd: RawFd, socket: &Socket) {
        let Some(entry) = self.stack.board_mut(fd) else { return };
        entry.kind = 1;
        entry.tier = match socket.lane() {
            Some(Lane::Xdp(_)) => Tier::Xdp,
            Some(Lane::Shm(_)) => Tier::Shm,
            None => Tier::Kernel,
        } as u8;
        entry.reason = socket.reason.load(Relaxed);
        let (slot, channel_at) = match socket.lane() {
            Some(Lane::Xdp(slot)) => (slot, 0),
            Some(Lane::Shm(number)) => shm::channel(number).map_or((u32::MAX, 0), shm::Channel::note),
            None => (u32::MAX, 0),
        };
        (entry.slot, entry.channel_at) = (slot, channel_at);
        entry.inode = socket.inode(fd);
        socket.shown.store(true, Relaxed);
        entry.promoted = socket.moves[0].load(Relaxed);
        entry.demoted = socket.moves[1].load(Relaxed);
    }

    /// Takes a descriptor off the board.
    pub fn hide(&mut self, fd: RawFd) {
        if let Some(entry) = self.stack.board_mut(fd) {
            *entry = Default::default();
        }
    }
}

fn demotion_reason(bits: u8) -> Reason {
    match bits {
        bits if bits & event::RESET != 0 => Reason::PeerReset,
        bits if bits & event::URGENT != 0 => Reason::Urgent,
        _ => Reason::Timeouts,
    }
}

/// Does what a pass left to be done without the lock: demotions that the engine asked for, leftovers.
pub fn settle() {
    if !unusual::lower(Unusual::Work) {
        return;
    }
    let (demotions, leftovers) = match get() {
        Some(mut engine) => (std::mem::take(&mut engine.demotions), engine.stack.take_leftovers()),
        None => return,
    };
    for (socket, reason) in demotions {
        if let Err(reason) = tier::demote(&socket, reason) {
            log::warn(format_args!("a connection stays on the lane: {}", reason.text()));
        }
    }
    tier::inject(leftovers);
}

/// Makes the arena, once, so that commands find the process.
pub fn prepare() {
    if !is_prepared() && !PREPARED.swap(true, Relaxed) {
        drop(ensure());
    }
}

/// Was [`prepare`] called?
#[inline(always)]
pub fn is_prepared() -> bool {
    PREPARED.load(Relaxed)
}

/// Shows a socket on the board, under `fd` and every duplicate of it.
pub fn show(fd: RawFd, socket: &Socket) {
    let Ok(mut engine) = ensure() else { return };
    engine.show(fd, socket);
    if fd::Record::fds(socket).load(Relaxed) > 1 {
        fd::for_each(|other, entry| {
            if matches!(entry, fd::Entry::Socket(s) if s.is(socket)) {
                engine.show(other, socket);
            }
        });
    }
}

/// Takes a descriptor off the board.
pub fn hide(fd: RawFd) {
    if let Some(mut engine) = get() {
        engine.hide(fd);
    }
}
