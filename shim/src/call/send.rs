//! send(2) and its kin.

use std::io::IoSlice;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use libc::{c_int, pollfd};
use underpass_stack::lane::Reason;

use super::recv::kernel_has;
use super::{Act, is_settled, needs_kernel, write_closed};
use crate::errno::{Errno, Result};
use crate::fd::Ref;
use crate::policy::{self, Seen};
use crate::signals::Watch;
use crate::socket::{Socket, Where};
use crate::wait::{self, Ended, Sleep};
use crate::{engine, sys, tier};

/// Flags that the lane carries exactly.
const CARRIED: c_int =
    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_MORE | libc::MSG_EOR | libc::MSG_CONFIRM | libc::MSG_DONTROUTE;

/// The bytes of a call, in order, and how far it has come.
pub struct Gather<'a> {
    bufs: &'a [IoSlice<'a>],
    done: usize,
    len: usize,
}

impl<'a> Gather<'a> {
    /// Nothing sent yet.
    pub fn new(bufs: &'a [IoSlice<'a>]) -> Self {
        Self { bufs, done: 0, len: bufs.iter().map(|buf| buf.len()).sum() }
    }

    /// The next bytes to send, and whether more follow.
    fn next(&self) -> Option<(&'a [u8], bool)> {
        let mut skip = self.done;
        for buf in self.bufs {
            if skip < buf.len() {
                let rest: &'a [u8] = &buf[skip..];
                return Some((rest, self.done + rest.len() < self.len));
            }
            skip -= buf.len();
        }
        None
    }
}

enum Step {
    Over,
    Failed(Errno),
    Full,
    Moved,
}

/// Sends on a TCP socket.
pub fn send(socket: &Ref<Socket>, fd: RawFd, from: &mut Gather<'_>, flags: c_int) -> Act<usize> {
    if flags & !CARRIED != 0 {
        return needs_kernel(socket, if flags & libc::MSG_OOB != 0 { Reason::Urgent } else { Reason::CallNotCarried });
    }
    if from.done == 0 && is_settled(socket) {
        return Act::Real;
    }
    let timeout = socket.send_timeout.load(Relaxed);
    let watch = Watch::new(timeout == 0);
    policy::observe(socket, fd, Seen::Call);
    let blocking = flags & libc::MSG_DONTWAIT == 0 && !socket.nonblocking.load(Relaxed);
    let deadline = (timeout != 0).then(|| sys::now().after(timeout));
    loop {
        let step = match socket.place() {
            Where::Changing => {
                socket.await_change();
                Step::Moved
            }
            Where::Kernel => to_kernel(socket, fd, from, flags),
            Where::Lane(slot) => to_lane(socket, slot, from, flags),
        };
        match step {
            Step::Moved => continue,
            Step::Over => {
                note(socket, fd, from.done);
                return Act::Done(Ok(from.done));
            }
            Step::Failed(_) if from.done > 0 => return Act::Done(Ok(from.done)),
            Step::Failed(errno) => return Act::Done(failed(errno, flags, socket)),
            Step::Full => {}
        }
        if !blocking {
            note(socket, fd, from.done);
            return Act::Done(if from.done > 0 { Ok(from.done) } else { Err(Errno(libc::EAGAIN)) });
        }
        // As in `receive`.
        let watch = if from.done == 0 { watch } else { watch.without_cancel() };
        match await_space(socket, fd, from.len - from.done, deadline, watch) {
            Ok(()) => {}
            Err(Ended::Cancel) => return Act::Again,
            Err(_) if from.done > 0 => return Act::Done(Ok(from.done)),
            Err(Ended::Timeout) => return Act::Done(Err(Errno(libc::EAGAIN))),
            Err(Ended::Signal) => return Act::Done(Err(Errno(libc::EINTR))),
        }
    }
}

/// What the call showed of the connection.
fn note(socket: &Ref<Socket>, fd: RawFd, n: usize) {
    match socket.place() {
        Where::Kernel if n > 0 => {
            policy::observe(socket, fd, Seen::Sent(n));
        }
        Where::Lane(_) => policy::carried(socket, n),
        _ => {}
    }
}

/// A failed send on a lane raises SIGPIPE as the kernel would; the kernel's own already has.
fn failed(errno: Errno, flags: c_int, socket: &Socket) -> Result<usize> {
    if errno == Errno(libc::EPIPE) && flags & libc::MSG_NOSIGNAL == 0 && socket.slot().is_some() {
        sys::raise_sigpipe();
    }
    Err(errno)
}

fn to_kernel(socket: &Socket, fd: RawFd, from: &mut Gather<'_>, flags: c_int) -> Step {
    let Some(_inside) = socket.enter_kernel() else { return Step::Moved };
    if from.len == 0 {
        return match sys::send(fd, &[], flags | libc::MSG_DONTWAIT) {
            Ok(_) => Step::Over,
            Err(errno) => Step::Failed(errno),
        };
    }
    if from.done == 0 && from.bufs.len() > 1 {
        match sys::send_vectored(fd, from.bufs, flags | libc::MSG_DONTWAIT) {
            Ok(n) => from.done = n,
            Err(Errno(libc::EAGAIN)) => return Step::Full,
            Err(errno) => return Step::Failed(errno),
        }
    }
    while let Some((bytes, more)) = from.next() {
        let more = if more { libc::MSG_MORE } else { 0 };
        match sys::send(fd, bytes, flags | libc::MSG_DONTWAIT | more) {
            Ok(n) => from.done += n,
            Err(Errno(libc::EAGAIN)) => return Step::Full,
            Err(errno) => return Step::Failed(errno),
        }
    }
    Step::Over
}

fn to_lane(socket: &Ref<Socket>, slot: u32, from: &mut Gather<'_>, flags: c_int) -> Step {
    let Some(mut engine) = engine::get() else { return Step::Moved };
    if socket.slot() != Some(slot) {
        return Step::Moved;
    }
    let now = sys::now();
    let Some(connection) = engine.stack.connection(slot) else { return Step::Moved };
    if connection.tcb.is_reset() {
        drop(engine);
        return match tier::demote(socket, Reason::PeerReset) {
            Ok(()) => Step::Moved,
            Err(_) => Step::Failed(Errno(libc::ECONNRESET)),
        };
    }
    if write_closed(connection.tcb) {
        return Step::Failed(Errno(libc::EPIPE));
    }
    let mut full = false;
    while let Some((bytes, more)) = from.next() {
        let n = engine.stack.send(slot, now, bytes, more || flags & libc::MSG_MORE != 0).unwrap_or(0);
        from.done += n;
        if n < bytes.len() {
            full = true;
            break;
        }
    }
    engine.flush(now);
    if full { Step::Full } else { Step::Over }
}

/// Waits until there is room for a good part of what is left.
fn await_space(
    socket: &Socket,
    fd: RawFd,
    left: usize,
    deadline: Option<underpass_stack::tcp::Instant>,
    watch: Watch,
) -> std::result::Result<(), Ended> {
    let Where::Lane(slot) = socket.place() else {
        let kernel = [pollfd { fd, events: libc::POLLOUT, revents: 0 }];
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
        let enough = left.min(connection.send_limit() / 3).max(1);
        (connection.send_space() >= enough || write_closed(connection.tcb)).then_some(())
    })
}
