//! recv(2) and its kin.

use std::io::IoSliceMut;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use libc::{c_int, pollfd};
use underpass_stack::lane::Reason;

use super::{Act, is_settled, needs_kernel, peer_closed};
use crate::errno::Errno;
use crate::fd::Ref;
use crate::policy::{self, Seen};
use crate::signals::Watch;
use crate::socket::{Socket, Where};
use crate::wait::{self, Ended, Sleep};
use crate::{engine, sys, tier};

/// Flags that the lane carries exactly.
const CARRIED: c_int = libc::MSG_DONTWAIT
    | libc::MSG_PEEK
    | libc::MSG_WAITALL
    | libc::MSG_TRUNC
    | libc::MSG_NOSIGNAL
    | libc::MSG_CMSG_CLOEXEC;

/// The places that a call fills, in order, and how far it has come.
pub struct Scatter<'a, 'b> {
    bufs: &'a mut [IoSliceMut<'b>],
    index: usize,
    at: usize,
    done: usize,
    len: usize,
}

impl<'a, 'b> Scatter<'a, 'b> {
    /// Nothing filled yet.
    pub fn new(bufs: &'a mut [IoSliceMut<'b>]) -> Self {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        Self { bufs, index: 0, at: 0, done: 0, len }
    }

    fn left(&self) -> usize {
        self.len - self.done
    }

    /// The next place with room.
    fn next(&mut self) -> Option<&mut [u8]> {
        while self.index < self.bufs.len() && self.at == self.bufs[self.index].len() {
            self.index += 1;
            self.at = 0;
        }
        self.bufs.get_mut(self.index).map(|buf| &mut buf[self.at..])
    }

    fn advance(&mut self, n: usize) {
        self.at += n;
        self.done += n;
    }
}

/// What a try on one tier came to.
enum Step {
    /// The call is over with what has been received.
    Over,
    /// It failed.
    Failed(Errno),
    /// Nothing more is there now.
    Dry,
    /// The tier changed.
    Moved,
}

/// Receives on a TCP socket.
pub fn receive(socket: &Ref<Socket>, fd: RawFd, into: &mut Scatter<'_, '_>, flags: c_int) -> Act<usize> {
    if flags & !CARRIED != 0 {
        return needs_kernel(socket, if flags & libc::MSG_OOB != 0 { Reason::Urgent } else { Reason::CallNotCarried });
    }
    if into.done == 0 && is_settled(socket) {
        return Act::Real;
    }
    let timeout = socket.recv_timeout.load(Relaxed);
    let watch = Watch::new(timeout == 0);
    policy::observe(socket, fd, Seen::Call);
    let blocking = flags & libc::MSG_DONTWAIT == 0 && !socket.nonblocking.load(Relaxed);
    let deadline = (timeout != 0).then(|| sys::now().after(timeout));
    let (mut flags, mut ended) = (flags, None);
    loop {
        let step = match socket.place() {
            Where::Changing => {
                socket.await_change();
                Step::Moved
            }
            Where::Kernel => from_kernel(socket, fd, into, flags),
            Where::Lane(slot) => from_lane(socket, slot, into, flags),
        };
        match step {
            Step::Moved => continue,
            Step::Over => {
                note(socket, fd, into.done);
                return Act::Done(Ok(into.done));
            }
            Step::Failed(_) if into.done > 0 => return Act::Done(Ok(into.done)),
            Step::Failed(errno) => return Act::Done(Err(errno)),
            Step::Dry => {}
        }
        if !blocking {
            return Act::Done(if into.done > 0 { Ok(into.done) } else { Err(Errno(libc::EAGAIN)) });
        }
        match ended {
            Some(Ended::Cancel) if into.done == 0 => return Act::Again,
            Some(Ended::Cancel) | None => {}
            Some(_) if into.done > 0 => return Act::Done(Ok(into.done)),
            Some(Ended::Timeout) => return Act::Done(Err(Errno(libc::EAGAIN))),
            Some(Ended::Signal) => return Act::Done(Err(Errno(libc::EINTR))),
        }
        // What was received in part is not given up for a cancellation, which comes with the next call.
        let watch = if into.done == 0 { watch } else { watch.without_cancel() };
        let missing = wanted(socket, into, flags) - counted(into, flags);
        ended = await_bytes(socket, fd, missing, deadline, watch).err();
        if matches!(ended, Some(Ended::Timeout | Ended::Signal)) {
            // What has come is less than was wanted, and still it counts.
            flags &= !libc::MSG_WAITALL;
        }
    }
}

/// What the call showed of the connection.
fn note(socket: &Ref<Socket>, fd: RawFd, n: usize) {
    match socket.place() {
        Where::Kernel if n > 0 => {
            policy::observe(socket, fd, Seen::Received(n));
        }
        Where::Lane(_) => policy::carried(socket, n),
        _ => {}
    }
}

/// Bytes after which a blocking call returns (SO_RCVLOWAT, MSG_WAITALL).
fn wanted(socket: &Socket, into: &Scatter<'_, '_>, flags: c_int) -> usize {
    let low = if flags & libc::MSG_WAITALL != 0 { into.len } else { socket.recv_low.load(Relaxed) as usize };
    low.clamp(1, into.len.max(1))
}

/// Bytes that no longer lie in the queue: with MSG_PEEK they all still do.
fn counted(into: &Scatter<'_, '_>, flags: c_int) -> usize {
    if flags & libc::MSG_PEEK != 0 { 0 } else { into.done }
}

fn from_kernel(socket: &Socket, fd: RawFd, into: &mut Scatter<'_, '_>, flags: c_int) -> Step {
    let Some(_inside) = socket.enter_kernel() else { return Step::Moved };
    if into.len == 0 {
        return match sys::recv(fd, &mut [], flags | libc::MSG_DONTWAIT) {
            Ok(_) => Step::Over,
            Err(Errno(libc::EAGAIN)) => Step::Dry,
            Err(errno) => Step::Failed(errno),
        };
    }
    let want = wanted(socket, into, flags);
    let flags = (flags & !libc::MSG_WAITALL) | libc::MSG_DONTWAIT;
    loop {
        // One call of the kernel's would stop at the urgent mark; the next one steps over it.
        if into.done > 0 && sys::is_at_mark(fd) {
            return Step::Over;
        }
        let Some(room) = into.next() else { break };
        let asked = room.len();
        match sys::recv(fd, room, flags) {
            Ok(0) => return Step::Over,
            Ok(n) => {
                into.advance(n.min(asked));
                // A peek sees the same bytes again; MSG_TRUNC tells the whole length, which is the caller's to know.
                if flags & (libc::MSG_PEEK | libc::MSG_TRUNC) != 0 {
                    into.done = into.done.max(n);
                    return Step::Over;
                }
                if n < asked {
                    break;
                }
            }
            Err(Errno(libc::EAGAIN)) => break,
            Err(errno) => return Step::Failed(errno),
        }
    }
    let is_over = into.done >= want || (into.done > 0 && sys::is_at_mark(fd));
    if is_over { Step::Over } else { Step::Dry }
}

fn from_lane(socket: &Ref<Socket>, slot: u32, into: &mut Scatter<'_, '_>, flags: c_int) -> Step {
    let want = wanted(socket, into, flags);
    let Some(mut engine) = engine::get() else { return Step::Moved };
    if socket.slot() != Some(slot) {
        return Step::Moved;
    }
    if engine.stack.connection(slot).map_or(0, |c| c.tcb.readable()) < want {
        engine.pass(sys::now());
    }
    let Some(connection) = engine.stack.connection(slot) else { return Step::Moved };
    if connection.tcb.is_reset() {
        drop(engine);
        return to_kernel(socket);
    }
    let (readable, ended) = (connection.tcb.readable(), peer_closed(connection.tcb));
    if readable == 0 {
        return if ended { Step::Over } else { Step::Dry };
    }
    if into.len == 0 {
        return Step::Over;
    }
    if flags & libc::MSG_PEEK != 0 {
        if readable < want && !ended {
            return Step::Dry;
        }
        peek(&mut engine, slot, into);
        return Step::Over;
    }
    if flags & libc::MSG_TRUNC != 0 {
        let left = into.left();
        into.done += engine.stack.discard(slot, left).unwrap_or(0);
    } else {
        take(&mut engine, slot, into);
    }
    engine.flush_if_needed();
    if into.done >= want || ended { Step::Over } else { Step::Dry }
}

/// The peer has reset the connection: the kernel says so in its own way.
fn to_kernel(socket: &Ref<Socket>) -> Step {
    match tier::demote(socket, Reason::PeerReset) {
        Ok(()) => Step::Moved,
        Err(_) => Step::Failed(Errno(libc::ECONNRESET)),
    }
}

fn take(engine: &mut engine::Engine, slot: u32, into: &mut Scatter<'_, '_>) {
    while let Some(room) = into.next() {
        let n = engine.stack.recv(slot, room, None).unwrap_or(0);
        if n == 0 {
            break;
        }
        into.advance(n);
    }
}

fn peek(engine: &mut engine::Engine, slot: u32, into: &mut Scatter<'_, '_>) {
    let mut offset = 0;
    while let Some(room) = into.next() {
        let n = engine.stack.recv(slot, room, Some(offset)).unwrap_or(0);
        if n == 0 {
            break;
        }
        offset += n;
        into.advance(n);
    }
}

/// Waits until `missing` bytes, the end of the stream, an error or another tier is there.
fn await_bytes(
    socket: &Socket,
    fd: RawFd,
    missing: usize,
    deadline: Option<underpass_stack::tcp::Instant>,
    watch: Watch,
) -> Result<(), Ended> {
    let Where::Lane(slot) = socket.place() else {
        let kernel = [pollfd { fd, events: libc::POLLIN | libc::POLLRDHUP, revents: 0 }];
        let sleep = Sleep { places: &[&socket.waiters], kernel: &kernel, deadline, ..Sleep::new(watch) };
        return wait::until(&sleep, |_| kernel_has(socket, &kernel));
    };
    let sleep = Sleep { places: &[&socket.waiters], deadline, lanes: true, ..Sleep::new(watch) };
    wait::until(&sleep, |look| {
        if engine::has_work() {
            engine::settle();
        }
        if socket.slot() != Some(slot) {
            return Some(());
        }
        let mut engine = if look.sure { engine::get() } else { engine::try_get() }?;
        engine.pass(look.now);
        let connection = engine.stack.connection(slot)?;
        // More than is offered to the peer never lies in the ring at once.
        let missing = missing.min(connection.recv_limit() / 4);
        let tcb = connection.tcb;
        (tcb.is_reset() || tcb.readable() >= missing.max(1) || peer_closed(tcb)).then_some(())
    })
}

/// Has the kernel something for a waiting call, or did the socket leave its tier?
pub fn kernel_has(socket: &Socket, kernel: &[pollfd]) -> Option<()> {
    if socket.place() != Where::Kernel {
        return Some(());
    }
    let mut fds = kernel.to_vec();
    let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(sys::ppoll(&mut fds, Some(none), None), Ok(n) if n > 0).then_some(())
}
