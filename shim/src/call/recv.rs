//! recv(2) and its kin.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use libc::{c_int, pollfd};
use underpass_stack::lane::Reason;

use super::{Act, Flow, is_settled, needs_kernel};
use crate::buffers::Scatter;
use crate::carry::{self, Ask, Step};
use crate::errno::Errno;
use crate::fd::Ref;
use crate::policy::{self, Seen};
use crate::signals::Watch;
use crate::socket::{Lane, Socket, Where};
use crate::wait::{self, Ended, Sleep};
use crate::{shm, sys, tier};

/// Flags that the lane carries exactly.
const CARRIED: c_int = libc::MSG_DONTWAIT
    | libc::MSG_PEEK
    | libc::MSG_WAITALL
    | libc::MSG_TRUNC
    | libc::MSG_NOSIGNAL
    | libc::MSG_CMSG_CLOEXEC;

/// Receives on a TCP socket.
pub fn receive(socket: &Ref<Socket>, fd: RawFd, into: &mut Scatter<'_, '_>, flags: c_int) -> Act<usize> {
    if flags & !CARRIED != 0 {
        return out_of_band(socket, flags);
    }
    if into.done == 0 && is_settled(socket) {
        return Act::Real;
    }
    if into.has_no_places()
        && socket.place() == Where::Kernel
        && let Some(asleep) = socket.record().fall_asleep()
    {
        return Act::Sleep(asleep.into(), Some(Flow::In));
    }
    let timeout = socket.recv_timeout.load(Relaxed);
    let watch = Watch::new(timeout == 0);
    policy::observe(socket, fd, Seen::Call);
    let blocking = flags & libc::MSG_DONTWAIT == 0 && !socket.nonblocking.load(Relaxed);
    if blocking
        && into.done == 0
        && policy::is_put_off(socket)
        && let Some(asleep) = socket.record().fall_asleep()
    {
        return Act::Sleep(asleep.into(), Some(Flow::In));
    }
    let deadline = (timeout != 0).then(|| sys::now().after(timeout));
    let (mut flags, mut ended) = (flags, None);
    loop {
        let waits = blocking && ended.is_none();
        if waits
            && is_patient_look(socket, into, flags)
            && let Some(asleep) = socket.record().fall_asleep()
        {
            return Act::Sleep(asleep.into(), Some(Flow::In));
        }
        let step = attempt(socket, fd, into, flags, waits);
        match step {
            Step::Moved => continue,
            Step::Over => {
                note(socket, fd, into.done);
                return Act::Done(Ok(into.done));
            }
            Step::Failed(_) if into.done > 0 => return Act::Done(Ok(into.done)),
            Step::Failed(errno) => return Act::Done(Err(errno)),
            Step::Blocked => {}
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
        if into.done > 0 && flags & libc::MSG_PEEK != 0 {
            // Some lies in a ring, and the rest comes through the kernel: only there can all of it be waited for.
            if tier::demote(socket, Reason::CallNotCarried).is_err() {
                return Act::Done(Ok(into.done));
            }
            into.restart();
            continue;
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

/// Tries once, where the socket is; `waits`: the call is going to wait if there is too little.
fn attempt(socket: &Ref<Socket>, fd: RawFd, into: &mut Scatter<'_, '_>, flags: c_int, waits: bool) -> Step {
    let want = wanted(socket, into, flags);
    match socket.place() {
        Where::Changing => {
            socket.await_change();
            Step::Moved
        }
        Where::Kernel => carry::kernel::receive(socket, fd, into, flags, want),
        Where::Lane(lane) => carry::receive(socket, fd, lane, into, Ask { flags, want, waits }),
    }
}

/// Flags that no lane carries. Urgent data is where the kernel has it, beside the stream: on the shm lane it comes through the kernel.
fn out_of_band(socket: &Ref<Socket>, flags: c_int) -> Act<usize> {
    match socket.lane() {
        Some(Lane::Shm(_)) if flags & libc::MSG_OOB != 0 => Act::Real,
        _ => needs_kernel(socket, if flags & libc::MSG_OOB != 0 { Reason::Urgent } else { Reason::CallNotCarried }),
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

/// Does a call wait for more than the first bytes, and leave all of them in the queue? In the kernel, only its own call can tell when they are
/// there.
fn is_patient_look(socket: &Socket, into: &Scatter<'_, '_>, flags: c_int) -> bool {
    flags & libc::MSG_PEEK != 0 && wanted(socket, into, flags) > 1
}

/// Bytes that no longer lie in the queue: with MSG_PEEK they all still do.
fn counted(into: &Scatter<'_, '_>, flags: c_int) -> usize {
    if flags & libc::MSG_PEEK != 0 { 0 } else { into.done }
}

/// Waits until `missing` bytes, the end of the stream, an error or another tier is there.
fn await_bytes(
    socket: &Socket,
    fd: RawFd,
    missing: usize,
    deadline: Option<underpass_stack::tcp::Instant>,
    watch: Watch,
) -> Result<(), Ended> {
    let Where::Lane(lane) = socket.place() else {
        let kernel = [pollfd { fd, events: libc::POLLIN | libc::POLLRDHUP, revents: 0 }];
        let sleep = Sleep { places: &[&socket.waiters], kernel: &kernel, deadline, ..Sleep::new(watch) };
        return wait::until(&sleep, |_| carry::kernel::has(socket, &kernel));
    };
    match lane {
        Lane::Xdp(slot) => {
            let sleep = Sleep { places: &[&socket.waiters], deadline, lanes: true, ..Sleep::new(watch) };
            wait::until(&sleep, |look| carry::xdp::has_bytes(socket, slot, missing, look))
        }
        Lane::Shm(channel) => {
            let place = shm::places::mine();
            let kernel = [pollfd { fd, events: libc::POLLIN | libc::POLLRDHUP, revents: 0 }];
            let sleep = Sleep {
                places: &[&socket.waiters],
                kernel: &kernel,
                deadline,
                lanes: true,
                bells: &|| vec![place],
                ..Sleep::new(watch)
            };
            wait::until(&sleep, |look| carry::shm::has_bytes(socket, fd, channel, missing, look, place))
        }
    }
}
