//! What the calls mean (POSIX and the socket manual pages), tier by tier.

pub mod conn;
pub mod epoll;
pub mod ioctl;
pub mod opt;
pub mod poll;
pub mod recv;
pub mod send;
pub mod short;
pub mod splice;
pub mod told;
pub mod young;

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use underpass_stack::control::{DemoteForeign, Done};
use underpass_stack::lane::Reason;

use crate::errno::{Errno, Result};
use crate::fd::{self, Entry, Ref};
use crate::policy::{self, Seen};
use crate::socket::{self, Blocking, Foreign, Kind, Lane, Sleepers, Socket, Where};
use crate::{engine, holders, log, options, session, shm, sys, tier};

/// What a hook does after the shim has looked at the call.
pub enum Act<T> {
    /// Returns this.
    Done(Result<T>),
    /// Makes the real call: nothing of ours, or given back to the kernel.
    Real,
    /// Makes the real call, which may sleep, on sockets that stay in the kernel meanwhile.
    Sleep(Sleepers, Option<Flow>),
    /// Does the call once more: thread cancellation gets its chance first.
    Again,
}

/// The direction of a data call.
#[derive(Clone, Copy, Debug)]
pub enum Flow {
    /// Receiving.
    In,
    /// Sending.
    Out,
}

impl Flow {
    /// What a call shows that moved so many bytes.
    pub fn seen(self, moved: usize) -> Seen {
        match self {
            Self::In => Seen::Received(moved),
            Self::Out => Seen::Sent(moved),
        }
    }
}

/// A real data call on `fd` is over that was made for [`Act::Sleep`]: what it showed of the connection.
pub fn slept(fd: RawFd, seen: Seen) {
    if let Entry::Socket(socket) = fd::lookup(fd) {
        policy::observe(&socket, fd, seen);
    }
}

/// The TCP socket behind a descriptor, an unknown descriptor being looked up first.
pub fn socket_of(fd: RawFd) -> Option<Ref<Socket>> {
    match fd::lookup(fd) {
        Entry::Socket(socket) => {
            if socket.foreign.load(Relaxed) != 0 {
                call_home(&socket, fd);
            }
            Some(socket)
        }
        Entry::Unknown => introduce(fd),
        Entry::Plain | Entry::Own | Entry::Epoll(_) => None,
    }
}

/// Finds out what an unknown descriptor is, and enters it in the table.
pub fn introduce(fd: RawFd) -> Option<Ref<Socket>> {
    if options::is_off() {
        return None;
    }
    match socket::classify(fd) {
        Ok(Kind::Tcp(inode)) => {
            // Passed to ourselves (SCM_RIGHTS, pidfd_getfd): another number of a socket that we know.
            if let Some(known) = known(inode) {
                enter(fd, &known);
                return Some(known);
            }
            let socket = Socket::open(fd, inode, Blocking::of(fd));
            // In repair mode without being ours: it lives in another process's stack.
            if sys::sockopt(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR) == Ok(1) {
                socket.foreign.store(Foreign::Xdp as u8, Relaxed);
            }
            stay_if_shared(&socket, fd);
            enter(fd, &socket);
            if socket.foreign.load(Relaxed) != 0 {
                call_home(&socket, fd);
            }
            Some(socket)
        }
        Ok(Kind::Other) => {
            fd::set_plain(fd);
            None
        }
        Err(_) => None,
    }
}

/// A socket that this process has neither made nor accepted came from another one (SCM_RIGHTS, execve(2)), which may hold it still
/// and does not ask us before it reads. What a listening one accepts is our own.
fn stay_if_shared(socket: &Ref<Socket>, fd: RawFd) {
    if sys::sockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN) == Ok(1) {
        return;
    }
    holders::mark_shared_for_ever(socket);
    socket.reason.store(Reason::Shared as u16, Relaxed);
    socket.retry_at.store(u64::MAX, Relaxed);
}

/// The socket with this inode, if one of our descriptors names it.
fn known(inode: u64) -> Option<Ref<Socket>> {
    let mut found = None;
    fd::for_each(|fd, entry| {
        if let Entry::Socket(socket) = entry
            && socket.inode(fd) == inode
        {
            found = Some(socket);
        }
    });
    found
}

/// Enters a socket under a descriptor. The board shows it when there is something to tell that the kernel does not know.
pub fn enter(fd: RawFd, socket: &Ref<Socket>) {
    fd::set(fd, socket);
    engine::prepare();
}

/// Has another process's stack give the socket back.
fn call_home(socket: &Ref<Socket>, fd: RawFd) {
    engine::count(underpass_stack::stats::Counter::CallsForeign, 1);
    if socket.foreign.load(Relaxed) == Foreign::Shm as u8 {
        if shm::inherited::call_home(socket) {
            socket.foreign.store(0, Relaxed);
            socket.set_blocking(Blocking::of(fd));
        }
        return;
    }
    let asked = session::ensure().and_then(|()| session::ask(&DemoteForeign { pad: 0 }, &[fd])?.expect::<Done>());
    match asked {
        Ok(_) => {
            socket.foreign.store(0, Relaxed);
            socket.set_blocking(Blocking::of(fd));
        }
        Err(reason) => {
            log::error(format_args!("fd {fd} is in another process's stack, which does not let go: {}", reason.text()))
        }
    }
}

/// A call that the lane does not carry: the connection goes back to the kernel first.
pub fn needs_kernel<T>(socket: &Ref<Socket>, reason: Reason) -> Act<T> {
    loop {
        match socket.place() {
            Where::Kernel => return Act::Real,
            Where::Changing => socket.await_change(),
            Where::Lane(_) => {
                if tier::demote(socket, reason).is_err() {
                    return Act::Done(Err(Errno(libc::EAGAIN)));
                }
            }
        }
    }
}

/// A call by which the kernel sends something itself: what we have sent before goes in front, and nothing of ours comes in between.
pub fn needs_kernel_to_send<T>(socket: &Ref<Socket>, reason: Reason) -> Act<T> {
    loop {
        if let Some(Lane::Shm(channel)) = socket.lane() {
            // From now on this direction stays in the kernel.
            return match shm::leave::before_kernel_sends(socket, channel) {
                Ok(()) => Act::Real,
                Err(errno) => Act::Done(Err(errno)),
            };
        }
        match needs_kernel(socket, reason) {
            Act::Real => {}
            other => return other,
        }
        // The helper may be about to move the socket to a channel: not while the kernel sends.
        if let Some(asleep) = socket.record().fall_asleep() {
            return Act::Sleep(asleep.into(), None);
        }
    }
}

/// Makes a short real call while no tier change can come between.
pub fn steady<T>(socket: &Socket, call: impl FnOnce() -> T) -> T {
    let _change = socket.change.lock();
    call()
}

/// May the socket never be promoted, so that its calls are plainly the kernel's?
pub fn is_settled(socket: &Socket) -> bool {
    !policy::may_promote(socket) && socket.place() == Where::Kernel
}
