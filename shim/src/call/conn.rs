//! Descriptors and connections: made, shared, closed.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use libc::c_int;
use underpass_stack::lane::Reason;

use super::{Act, enter, needs_kernel, needs_kernel_to_send, socket_of};
use crate::carry::xdp::write_closed;
use crate::epoll_set::EpollSet;
use crate::errno::Errno;
use crate::fd::{self, Entry, Ref};
use crate::socket::{Blocking, Lane, Socket, Where};
use crate::{engine, holders, log, options, shm, sys, tcp_info, tier};

/// socket(2) gave a new descriptor: a TCP socket is entered, anything else marked as plain.
pub fn made(fd: RawFd, domain: c_int, kind: c_int, proto: c_int) {
    note_new(fd, blocking_of(domain, kind, proto), Reason::NotConnected);
}

/// accept4(2) gave a new descriptor.
pub fn accepted(listener: RawFd, fd: RawFd, flags: c_int) {
    let listener = socket_of(listener);
    let blocking = listener.map(|listener| Blocking::accepted(&listener, flags & libc::SOCK_NONBLOCK != 0));
    note_new(fd, blocking, Reason::NotYetBusy);
}

/// A descriptor that a call has just made; `blocking` if it is a TCP socket.
fn note_new(fd: RawFd, blocking: Option<Blocking>, reason: Reason) {
    if fd < 0 {
        return;
    }
    lost(fd);
    let Some(blocking) = blocking else {
        fd::set_plain(fd);
        return;
    };
    let socket = Socket::open(fd, 0, blocking);
    socket.reason.store(reason as u16, Relaxed);
    enter(fd, &socket);
}

/// How calls block on what socket(2) makes of this, if it is a TCP socket.
#[inline]
pub(super) fn blocking_of(domain: c_int, kind: c_int, proto: c_int) -> Option<Blocking> {
    let stream = kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) == libc::SOCK_STREAM;
    let internet = domain == libc::AF_INET || domain == libc::AF_INET6;
    let is_tcp = internet && stream && (proto == 0 || proto == libc::IPPROTO_TCP);
    is_tcp.then(|| Blocking::fresh(kind & libc::SOCK_NONBLOCK != 0))
}

/// A new epoll set.
pub fn made_epoll(fd: RawFd) {
    if fd >= 0 {
        lost(fd);
        fd::set(fd, &EpollSet::open(fd));
    }
}

/// A number was given out anew although we never saw its descriptor closed: what we have of it ends here.
fn lost(fd: RawFd) {
    if matches!(fd::lookup(fd), Entry::Socket(_) | Entry::Epoll(_)) {
        forget(fd);
    }
}

/// close(2).
pub fn close(fd: RawFd) -> Act<c_int> {
    match fd::lookup(fd) {
        Entry::Own => Act::Done(Err(Errno(libc::EBADF))),
        Entry::Unknown => Act::Real,
        Entry::Plain => {
            fd::clear(fd);
            Act::Real
        }
        known => {
            forget_entry(fd, known);
            Act::Real
        }
    }
}

/// A descriptor is about to be closed (or replaced): the last of a connection on a lane demotes it first, so that the kernel
/// finishes it; reference counts in other processes decide about FIN, as always.
pub fn forget(fd: RawFd) {
    forget_entry(fd, fd::lookup(fd));
}

fn forget_entry(fd: RawFd, entry: Entry) {
    match entry {
        Entry::Socket(socket) => forget_socket(fd, &socket),
        Entry::Epoll(set) => {
            if fd::Record::fds(&*set).load(Acquire) == 1 {
                EpollSet::close(&set);
            }
        }
        Entry::Unknown | Entry::Plain | Entry::Own => {}
    }
    fd::clear(fd);
}

/// The same of a socket whose entry the caller has taken away, with the entry's reference.
pub(super) fn forget_taken(fd: RawFd, socket: Ref<Socket>) {
    forget_socket(fd, &socket);
    fd::Record::fds(&*socket).fetch_sub(1, AcqRel);
}

fn forget_socket(fd: RawFd, socket: &Ref<Socket>) {
    if socket.shown.load(Relaxed) {
        engine::hide(fd);
    }
    if fd::Record::fds(&**socket).load(Acquire) > 1 {
        if socket.fd.load(Relaxed) == fd {
            let others = |other| matches!(fd::lookup(other), Entry::Socket(s) if s.is(socket));
            let mut heir = -1;
            fd::for_each(|other, _| {
                if heir < 0 && other != fd && others(other) {
                    heir = other
                }
            });
            socket.fd.store(heir, Relaxed);
        }
        return;
    }
    shm::meet::forget(socket);
    let change = socket.change.lock();
    socket.closing.store(true, Release);
    if let Some(Lane::Shm(channel)) = socket.lane() {
        let _ = tier::part(socket, channel, Reason::Closing, || {
            shm::leave::close(socket, channel);
            Ok(())
        });
    }
    drop(change);
    if let Some(slot) = socket.slot()
        && let Err(reason) = tier::demote(socket, Reason::Closing)
    {
        log::warn(format_args!("fd {fd}: closed on the lane, the daemon being away ({})", reason.name()));
        // The slot may be another's by now, if the daemon came back in between.
        if let Some(mut engine) = engine::get().filter(|engine| engine.owner(slot).is_some_and(|o| o.is(socket))) {
            engine.stack.orphan(slot, sys::now());
            engine.set_owner(slot, None);
            engine.flush(sys::now());
        }
        socket.settle(Where::Kernel);
    }
    let sets = std::mem::take(&mut *socket.sets.lock());
    for (set, member) in sets {
        let mut members = set.members.lock();
        members.remove(member);
        set.recount(&members);
    }
    socket.waiters.ring();
    holders::release(socket);
}

/// close_range(2): the program's descriptors of the range go, ours stay.
pub fn close_range(first: u32, last: u32, flags: c_int) -> Act<c_int> {
    const CLOSE_RANGE_CLOEXEC: c_int = 4;
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        return Act::Real;
    }
    let mut own: Vec<u32> = Vec::new();
    let mut ours: Vec<RawFd> = Vec::new();
    fd::for_each(|fd, entry| {
        let n = fd as u32;
        if (first..=last).contains(&n) {
            match entry {
                Entry::Own => own.push(n),
                _ => ours.push(fd),
            }
        }
    });
    ours.into_iter().for_each(forget);
    if own.is_empty() {
        return Act::Real;
    }
    let mut from = first;
    for skip in own {
        if skip > from
            && let Err(errno) = sys::close_range(from, skip - 1, flags)
        {
            return Act::Done(Err(errno));
        }
        from = skip + 1;
    }
    Act::Done(if from <= last { sys::close_range(from, last, flags).map(|()| 0) } else { Ok(0) })
}

/// `copy` was made as a duplicate of `fd`.
pub fn duplicated(fd: RawFd, copy: RawFd) {
    if copy < 0 || copy == fd {
        return;
    }
    match fd::lookup(fd) {
        Entry::Socket(socket) => {
            fd::set(copy, &socket);
            if socket.shown.load(Relaxed) {
                engine::show(copy, &socket);
            }
        }
        Entry::Epoll(set) => fd::set(copy, &set),
        Entry::Plain => fd::set_plain(copy),
        Entry::Unknown | Entry::Own => fd::clear(copy),
    }
}

/// dup2(2) and dup3(2) onto one of our own descriptors: it moves away first.
pub fn is_own(fd: RawFd) -> bool {
    matches!(fd::lookup(fd), Entry::Own)
}

/// shutdown(2).
pub fn shutdown(fd: RawFd, how: c_int) -> Act<c_int> {
    let Some(socket) = socket_of(fd) else { return Act::Real };
    loop {
        match socket.place() {
            Where::Kernel => {
                // The kernel's FIN would be lost if the connection went to a lane between here and there.
                if let Some(asleep) = socket.record().fall_asleep() {
                    return Act::Sleep(asleep.into(), None);
                }
            }
            Where::Changing => socket.await_change(),
            Where::Lane(Lane::Shm(channel)) => return shutdown_channel(&socket, channel, how),
            Where::Lane(Lane::Xdp(slot)) => {
                let is_first = if how == libc::SHUT_WR { shutdown_lane(&socket, slot) } else { Some(false) };
                match is_first {
                    Some(true) => return Act::Done(Ok(0)),
                    // What a second time means depends on the state, which is the kernel's to judge.
                    Some(false) => match needs_kernel(&socket, Reason::Closing) {
                        Act::Real => {}
                        other => return other,
                    },
                    None => {}
                }
            }
        }
    }
}

/// FIN behind everything that is queued on the lane. `Some(false)`: it has had its FIN. `None`: the connection is not there now.
fn shutdown_lane(socket: &Ref<Socket>, slot: u32) -> Option<bool> {
    // Without an engine there is nothing but the kernel.
    let Some(mut engine) = engine::get() else { return Some(false) };
    if socket.slot() != Some(slot) {
        return None;
    }
    let now = sys::now();
    let mut connection = engine.stack.connection(slot)?;
    if write_closed(connection.tcb) {
        return Some(false);
    }
    connection.shutdown_write(now);
    engine.stack.touch(slot);
    engine.flush(now);
    drop(engine);
    // EPOLLOUT is there from now on: every write fails at once.
    for (set, member) in socket.sets.lock().iter() {
        set.mark(*member);
    }
    socket.waiters.ring();
    Some(true)
}

/// The kernel shuts down, behind everything that is in the ring.
fn shutdown_channel(socket: &Ref<Socket>, channel: u32, how: c_int) -> Act<c_int> {
    shm::leave::note_kernel_news(socket);
    if how == libc::SHUT_RD {
        return Act::Real;
    }
    match shm::leave::before_shutdown(socket, channel) {
        Ok(()) => Act::Real,
        Err(errno) => Act::Done(Err(errno)),
    }
}

/// A call by which the kernel itself sends (sendfile, splice).
pub fn kernel_sends<T>(fd: RawFd, reason: Reason) -> Act<T> {
    match socket_of(fd) {
        Some(socket) => needs_kernel_to_send(&socket, reason),
        None => Act::Real,
    }
}

/// A call that belongs to the kernel whatever the tier (connect, bind, listen, sendfile, …).
pub fn kernel_only<T>(fd: RawFd, reason: Reason) -> Act<T> {
    match socket_of(fd) {
        Some(socket) => needs_kernel(&socket, reason),
        None => Act::Real,
    }
}

/// connect(2): a connection will be there, unless it fails.
pub fn connect<T>(fd: RawFd) -> Act<T> {
    let Some(socket) = socket_of(fd) else { return Act::Real };
    if socket.reason() == Reason::NotConnected {
        socket.reason.store(Reason::NotYetBusy as u16, Relaxed);
    }
    if socket.was_demoted() && tcp_info::is_closed(fd) {
        socket.forget_earlier();
    }
    needs_kernel(&socket, Reason::CallNotCarried)
}

/// A call in which the kernel receives, and may sleep over it (splice, recvmmsg): the socket stays there meanwhile.
pub fn kernel_receives<T>(fd: RawFd, reason: Reason) -> Act<T> {
    let Some(socket) = socket_of(fd) else { return Act::Real };
    loop {
        match needs_kernel(&socket, reason) {
            Act::Real => {}
            other => return other,
        }
        if let Some(asleep) = socket.record().fall_asleep() {
            return Act::Sleep(asleep.into(), None);
        }
    }
}

/// The socket stays in the kernel from now on.
pub fn pin(fd: RawFd, reason: Reason) {
    let Some(socket) = socket_of(fd) else { return };
    if tier::demote(&socket, reason).is_ok() {
        socket.retry_at.store(u64::MAX, Relaxed);
        socket.reason.store(reason as u16, Relaxed);
        engine::show(fd, &socket);
    }
}

/// Descriptors on their way to another process (SCM_RIGHTS): demoted, and shared from now on.
pub fn passed_on(fds: &[RawFd]) {
    for &fd in fds {
        if let Some(socket) = socket_of(fd) {
            let _ = tier::demote(&socket, Reason::Shared);
            tier::silence::take_back(&socket, fd);
            holders::mark_shared_for_ever(&socket);
            socket.reason.store(Reason::Shared as u16, Relaxed);
            engine::show(fd, &socket);
        }
    }
}

/// exec(3): nothing of the lanes outlives the process image.
pub fn before_exec() {
    if options::is_off() || sys::getpid() != crate::init::pid() {
        return;
    }
    tier::silence::lend_nobody();
    for (fd, socket) in inheritable() {
        // A parent's, or ours: the new image knows nothing of either.
        if let (Some(_), Some(Lane::Shm(_))) = (socket_of(fd), socket.lane()) {
            let _ = tier::demote(&socket, Reason::Exec);
        }
    }
    // The others are closed with nobody of us being asked.
    shm::exit::before_exec();
    if engine::live() == 0 {
        return;
    }
    let owners = engine::get().map(|engine| engine.owners()).unwrap_or_default();
    for socket in owners {
        let _ = tier::demote(&socket, Reason::Exec);
    }
}

/// posix_spawn(3): the child has no moment in which it could ask for a socket of ours.
pub fn before_spawn() {
    if options::is_off() {
        return;
    }
    tier::silence::lend_nobody();
    let mut sockets = inheritable();
    sockets.retain(|(_, socket)| socket.reason() != Reason::Listening);
    let fds: Vec<RawFd> = sockets.into_iter().map(|(fd, _)| fd).collect();
    passed_on(&fds);
}

/// The TCP sockets that outlive an exec(3).
fn inheritable() -> Vec<(RawFd, Ref<Socket>)> {
    let mut found = Vec::new();
    fd::for_each(|fd, entry| {
        if let Entry::Socket(socket) = entry {
            found.push((fd, socket));
        }
    });
    found.retain(|(fd, _)| sys::survives_exec(*fd));
    found
}
