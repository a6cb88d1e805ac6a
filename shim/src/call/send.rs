//! send(2) and its kin.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use libc::{c_int, pollfd};
use underpass_stack::lane::Reason;

use super::{Act, Flow, is_settled, needs_kernel_to_send};
use crate::buffers::Gather;
use crate::carry::{self, Step};
use crate::errno::{Errno, Result};
use crate::fd::Ref;
use crate::policy::{self, Seen};
use crate::signals::Watch;
use crate::socket::{Lane, Socket, Where};
use crate::wait::{self, Ended, Sleep};
use crate::{shm, sys};

/// Flags that the lane carries exactly.
const CARRIED: c_int =
    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_MORE | libc::MSG_EOR | libc::MSG_CONFIRM | libc::MSG_DONTROUTE;

/// Sends on a TCP socket.
pub fn send(socket: &Ref<Socket>, fd: RawFd, from: &mut Gather<'_>, flags: c_int) -> Act<usize> {
    if flags & !CARRIED != 0 {
        return needs_kernel_to_send(
            socket,
            if flags & libc::MSG_OOB != 0 { Reason::Urgent } else { Reason::CallNotCarried },
        );
    }
    if from.done == 0 && is_settled(socket) {
        return Act::Real;
    }
    let timeout = socket.send_timeout.load(Relaxed);
    let watch = Watch::new(timeout == 0);
    policy::observe(socket, fd, Seen::Call);
    let blocking = flags & libc::MSG_DONTWAIT == 0 && !socket.nonblocking.load(Relaxed);
    if blocking
        && from.done == 0
        && policy::is_put_off(socket)
        && let Some(asleep) = socket.record().fall_asleep()
    {
        return Act::Sleep(asleep.into(), Some(Flow::Out));
    }
    let deadline = (timeout != 0).then(|| sys::now().after(timeout));
    loop {
        let step = match socket.place() {
            Where::Changing => {
                socket.await_change();
                Step::Moved
            }
            Where::Kernel => carry::kernel::send(socket, fd, from, flags),
            Where::Lane(lane) => carry::send(socket, fd, lane, from, flags),
        };
        match step {
            Step::Moved => continue,
            Step::Over => {
                note(socket, fd, from.done);
                return Act::Done(Ok(from.done));
            }
            Step::Failed(_) if from.done > 0 => return Act::Done(Ok(from.done)),
            Step::Failed(errno) => return Act::Done(failed(errno, flags, socket)),
            Step::Blocked => {}
        }
        if !blocking {
            note(socket, fd, from.done);
            if let Some(Lane::Shm(channel)) = socket.lane() {
                carry::shm::arm_space(socket, channel);
            }
            return Act::Done(if from.done > 0 { Ok(from.done) } else { Err(Errno(libc::EAGAIN)) });
        }
        // As in `receive`.
        let watch = if from.done == 0 { watch } else { watch.without_cancel() };
        match await_space(socket, fd, from.left(), deadline, watch) {
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
    if errno == Errno(libc::EPIPE) && flags & libc::MSG_NOSIGNAL == 0 && matches!(socket.lane(), Some(Lane::Xdp(_))) {
        sys::raise_sigpipe();
    }
    Err(errno)
}

/// Waits until there is room for a good part of what is left.
fn await_space(
    socket: &Socket,
    fd: RawFd,
    left: usize,
    deadline: Option<underpass_stack::tcp::Instant>,
    watch: Watch,
) -> std::result::Result<(), Ended> {
    let Where::Lane(lane) = socket.place() else {
        let kernel = [pollfd { fd, events: libc::POLLOUT, revents: 0 }];
        let sleep = Sleep { places: &[&socket.waiters], kernel: &kernel, deadline, ..Sleep::new(watch) };
        return wait::until(&sleep, |_| carry::kernel::has(socket, &kernel));
    };
    match lane {
        Lane::Xdp(slot) => {
            let sleep = Sleep { places: &[&socket.waiters], deadline, lanes: true, ..Sleep::new(watch) };
            wait::until(&sleep, |look| carry::xdp::has_space(socket, slot, left, look))
        }
        Lane::Shm(channel) => {
            let place = shm::places::mine();
            // A ring is full although the kernel has room; but it tells of errors, and of room when bytes go through it.
            let in_ring = carry::shm::sends_to_ring(channel);
            let kernel = [pollfd { fd, events: if in_ring { 0 } else { libc::POLLOUT }, revents: 0 }];
            let sleep = Sleep {
                places: &[&socket.waiters],
                kernel: &kernel,
                deadline,
                lanes: true,
                bells: &|| vec![place],
                ..Sleep::new(watch)
            };
            wait::until(&sleep, |look| carry::shm::has_space(socket, fd, channel, left, look, place))
        }
    }
}
