//! epoll(7) over lanes and kernel descriptors at once.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use libc::{c_int, epoll_event, pollfd, sigset_t};
use underpass_stack::lane::Reason;
use underpass_stack::tcp::Instant;

use super::poll::{Lanes, arm_for, asks_to_write};
use super::{Act, is_settled, needs_kernel, socket_of};
use crate::epoll_set::{EpollSet, entry_on_lane, told_by_kernel};
use crate::errno::{Errno, Result};
use crate::fd::{self, Entry, Ref};
use crate::signals::Watch;
use crate::socket::Socket;
use crate::wait::{self, Ended, Look, Sleep};
use crate::{engine, shm, sys, tier};

/// The kernel part of a set is looked at while lanes are busy no less often than this, ns.
const KERNEL_LOOK: u64 = 32_000;

/// The set behind a descriptor.
pub fn set_of(ep: RawFd) -> Option<Ref<EpollSet>> {
    match fd::lookup(ep) {
        Entry::Epoll(set) => Some(set),
        _ => None,
    }
}

/// epoll_ctl(2). `real` makes the real call with other events.
pub fn ctl(
    ep: RawFd,
    op: c_int,
    fd: RawFd,
    event: Option<epoll_event>,
    real: &mut dyn FnMut(Option<epoll_event>) -> Result<c_int>,
) -> Act<c_int> {
    let Some(set) = set_of(ep) else { return Act::Real };
    if let Entry::Epoll(inner) = fd::lookup(fd) {
        return nest(&inner, op);
    }
    let Some(socket) = socket_of(fd) else { return Act::Real };
    let change = socket.change.lock();
    let lane = socket.lane();
    let laned = lane.is_some();
    if laned && (is_exclusive(&set, fd, event) || set.nested.load(Relaxed) || set.asleep.load(SeqCst) > 0) {
        drop(change);
        return match needs_kernel(&socket, Reason::CallNotCarried) {
            Act::Real => ctl(ep, op, fd, event, real),
            other => other,
        };
    }
    if laned && let Some(result) = ctl_on_lane(&set, op, fd, event) {
        return Act::Done(result);
    }
    let sent = match (lane, event) {
        (Some(lane), Some(event)) => Some(entry_on_lane(lane, fd, event.events, event.u64)),
        (_, event) => event,
    };
    let result = real(sent);
    if result.is_ok() {
        note(&set, &socket, op, fd, event, laned);
    }
    Act::Done(result)
}

/// Does the change, or the member, concern EPOLLEXCLUSIVE? Its rules are the kernel's.
fn is_exclusive(set: &EpollSet, fd: RawFd, event: Option<epoll_event>) -> bool {
    let asked = event.map_or(0, |event| event.events);
    let has = set.members.lock().get_mut(fd).map_or(0, |member| member.events);
    (asked | has) & libc::EPOLLEXCLUSIVE as u32 != 0
}

/// A change that leaves the kernel's silent entry as it is. `None`: the kernel is to see it.
fn ctl_on_lane(set: &EpollSet, op: c_int, fd: RawFd, event: Option<epoll_event>) -> Option<Result<c_int>> {
    let mut members = set.members.lock();
    let member = members.get_mut(fd)?;
    let there = !member.ghost;
    match (op, event) {
        (libc::EPOLL_CTL_ADD, _) if there => return Some(Err(Errno(libc::EEXIST))),
        (libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL, _) if !there => return Some(Err(Errno(libc::ENOENT))),
        (libc::EPOLL_CTL_DEL, _) => member.ghost = true,
        (libc::EPOLL_CTL_ADD | libc::EPOLL_CTL_MOD, Some(event)) => {
            member.ghost = false;
            member.disarmed = false;
            member.events = event.events;
            member.data = event.u64;
            members.mark(fd);
        }
        _ => return None,
    }
    let appeared = op == libc::EPOLL_CTL_ADD;
    if appeared || op == libc::EPOLL_CTL_DEL {
        let change = if appeared { 1u32 } else { u32::MAX };
        for counter in [&set.sockets, &set.lanes] {
            let _ = counter.fetch_update(SeqCst, SeqCst, |n| Some(n.wrapping_add(change)));
        }
    }
    set.note_pending(&members);
    drop(members);
    set.waiters.ring();
    Some(Ok(0))
}

/// The kernel accepted the change: ours follows.
fn note(set: &Ref<EpollSet>, socket: &Ref<Socket>, op: c_int, fd: RawFd, event: Option<epoll_event>, laned: bool) {
    let mut sets = socket.sets.lock();
    let mut members = set.members.lock();
    match (op, event) {
        (libc::EPOLL_CTL_DEL, _) => {
            members.remove(fd);
            sets.retain(|(other, number)| !(other.is(set) && *number == fd));
        }
        (_, Some(event)) => {
            if members.get_mut(fd).is_none() {
                sets.push((set.clone(), fd));
                socket.watched.store(true, Relaxed);
            }
            members.set(fd, socket, event.events, event.u64);
            if let Some(member) = members.get_mut(fd) {
                member.laned = laned;
            }
            members.mark(fd);
        }
        _ => {}
    }
    set.recount(&members);
    drop(members);
    drop(sets);
    if laned {
        set.take_shm_place(socket);
        set.waiters.ring();
    }
}

/// A set inside another one: the outer one sleeps in the kernel, so the inner one's sockets have to be there.
fn nest(inner: &Ref<EpollSet>, op: c_int) -> Act<c_int> {
    if op == libc::EPOLL_CTL_ADD {
        inner.nested.store(true, Relaxed);
        let sockets: Vec<Ref<Socket>> = inner.members.lock().iter().map(|(_, m)| m.socket.clone()).collect();
        for socket in sockets {
            let _ = tier::demote(&socket, Reason::CallNotCarried);
        }
    }
    Act::Real
}

/// The place for a wait's results.
pub struct Room<'a> {
    /// Where the program wants the events.
    pub events: &'a mut [epoll_event],
}

/// epoll_wait(2) and its kin.
pub fn wait(ep: RawFd, room: &mut Room<'_>, deadline: Option<Instant>, mask: Option<&sigset_t>) -> Act<c_int> {
    let Some(set) = set_of(ep) else { return Act::Real };
    if sleeps_in_kernel(&set) {
        return Act::Real;
    }
    let kernel = [pollfd { fd: ep, events: libc::POLLIN, revents: 0 }];
    let watch = Watch::new(false);
    let lanes = set.lanes.load(Relaxed) > 0;
    let bells = || if set.has_shm_place() { vec![set.shm_place()] } else { Vec::new() };
    let sleep = Sleep { places: &[&set.waiters], kernel: &kernel, deadline, mask, lanes, bells: &bells, watch };
    match wait::until(&sleep, |at| look(&set, ep, room, at)) {
        Ok(found) => Act::Done(found.map(|n| n as c_int)),
        Err(Ended::Timeout) => Act::Done(Ok(0)),
        Err(Ended::Cancel) => Act::Again,
        Err(Ended::Signal) => Act::Done(Err(Errno(libc::EINTR))),
    }
}

/// A few looks at channels alone, with one look at the clock: what a busy peer sends is there by then. `None`: wait in earnest.
pub fn glance(ep: RawFd, room: &mut Room<'_>) -> Option<usize> {
    let set = set_of(ep).filter(|set| set.has_shm_place() && set.lanes.load(Relaxed) > 0)?;
    let now = sys::now();
    // The kernel's part of the set has to have its turn, too.
    if engine::live() > 0 || is_kernel_due(&set, now) {
        return None;
    }
    for _ in 0..wait::brief_looks() {
        let found = look_lanes(&set, room, now, false);
        if found > 0 {
            return Some(found);
        }
        sys::relax();
    }
    None
}

fn sleeps_in_kernel(set: &EpollSet) -> bool {
    // What the kernel says of members on the shm lane, also of those taken out, is not for the program's eyes.
    if set.entries.load(SeqCst) > 0 {
        return false;
    }
    // A thread promotes in its own data calls, when it does not sleep; only others' promotions have to wait for it.
    set.sockets.load(SeqCst) == 0 || (set.lanes.load(SeqCst) == 0 && !(set.contested.load(SeqCst) && may_change(set)))
}

/// A thread is about to make the real wait on a set. `Err`: not any more, a socket has come that may go to a lane.
pub fn fall_asleep(ep: RawFd) -> std::result::Result<Option<&'static EpollSet>, ()> {
    let Some(set) = set_of(ep) else { return Ok(None) };
    set.asleep.fetch_add(1, SeqCst);
    if sleeps_in_kernel(&set) {
        return Ok(Some(set.record()));
    }
    set.asleep.fetch_sub(1, SeqCst);
    Err(())
}

/// Could a socket of the set go to a lane while a thread sleeps on it?
fn may_change(set: &EpollSet) -> bool {
    crate::options::promotes() && set.members.lock().iter().any(|(_, m)| !is_settled(&m.socket))
}

fn look(set: &Ref<EpollSet>, ep: RawFd, room: &mut Room<'_>, at: Look) -> Option<Result<usize>> {
    if engine::has_work() {
        engine::settle();
    }
    let max = room.events.len();
    // While a member changes its tier it is ready on neither side.
    let _open = if at.sure { set.gate.read() } else { set.gate.try_read()? };
    let due = is_kernel_due(set, at.now);
    let mut total = look_lanes(set, room, at.now, at.sure || due);
    if total < max && (due || (at.sure && total == 0)) {
        set.looked.store(at.now.0, Relaxed);
        match sys::epoll_look(ep, &mut room.events[total..]) {
            Ok(n) => {
                let (kept, told) = sort_out(set, &mut room.events[total..total + n]);
                total += kept;
                if told > 0 && total == 0 {
                    total = look_lanes(set, room, at.now, true);
                }
            }
            Err(errno) if total == 0 => return Some(Err(errno)),
            Err(_) => {}
        }
    }
    (total > 0).then_some(Ok(total))
}

/// Of the kernel's events, those about members on the shm lane are news for the lane; the others stay, moved to the front. Returns how
/// many of each there were.
fn sort_out(set: &Ref<EpollSet>, events: &mut [epoll_event]) -> (usize, usize) {
    let mut kept = 0;
    for n in 0..events.len() {
        let event = events[n];
        if let Some(fd) = told_by_kernel(&event) {
            let mut members = set.members.lock();
            if let Some(member) = members.get_mut(fd) {
                shm::leave::note_kernel_news(&member.socket);
            }
            members.mark(fd);
            set.note_pending(&members);
        } else {
            events[kept] = event;
            kept += 1;
        }
    }
    (kept, events.len() - kept)
}

fn is_kernel_due(set: &EpollSet, now: Instant) -> bool {
    now.nanos_since(Instant(set.looked.load(Relaxed))) >= KERNEL_LOOK
}

fn look_lanes(set: &Ref<EpollSet>, room: &mut Room<'_>, now: Instant, waits: bool) -> usize {
    if set.lanes.load(Relaxed) == 0 {
        return 0;
    }
    if set.has_shm_place() {
        shm::places::collect_if_any(set.shm_place());
    }
    let Some(mut lanes) = Lanes::look(now, waits) else { return 0 };
    if !set.pending.load(Acquire) {
        return 0;
    }
    let mut at = 0;
    let max = room.events.len();
    let mut mask =
        |socket: &Ref<Socket>, asked| lanes.events(socket, asks_to_write(asked), || Some(arm_for(set, asked))) as u32;
    let mut emit = |events, u64| {
        if let Some(place) = room.events.get_mut(at) {
            *place = epoll_event { events, u64 };
            at += 1;
        }
    };
    let mut members = set.members.lock();
    let found = members.collect(max, &mut mask, &mut emit);
    set.note_pending(&members);
    found
}
