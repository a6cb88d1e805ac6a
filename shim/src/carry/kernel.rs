//! The kernel tier: real calls that never block.

use std::os::fd::RawFd;

use libc::{c_int, pollfd};

use super::Step;
use crate::buffers::{Gather, Scatter};
use crate::errno::Errno;
use crate::socket::{Socket, Where};
use crate::sys;

/// MSG_TRUNC alone throws bytes away (tcp(7)).
const PEEK_OR_DISCARD: c_int = libc::MSG_PEEK | libc::MSG_TRUNC;

/// Receives until `want` bytes have come, while no tier change can come between.
pub fn receive(socket: &Socket, fd: RawFd, into: &mut Scatter<'_, '_>, flags: c_int, want: usize) -> Step {
    let Some(_inside) = socket.enter_kernel() else { return Step::Moved };
    receive_up_to(fd, into, flags, want, u64::MAX)
}

/// The same for a caller who sees to it that nobody comes between; takes no more than `limit` bytes.
pub fn receive_up_to(fd: RawFd, into: &mut Scatter<'_, '_>, flags: c_int, want: usize, limit: u64) -> Step {
    if into.len == 0 {
        return match sys::recv(fd, &mut [], flags | libc::MSG_DONTWAIT) {
            Ok(_) => Step::Over,
            Err(Errno(libc::EAGAIN)) => Step::Blocked,
            Err(errno) => Step::Failed(errno),
        };
    }
    let flags = (flags & !libc::MSG_WAITALL) | libc::MSG_DONTWAIT;
    if flags & libc::MSG_PEEK != 0 && (into.is_scattered() || into.has_no_places()) {
        let len = queued(fd).min(most(limit));
        match show(fd, into, 0, len) {
            Ok(0) | Err(Errno(libc::EAGAIN)) => {}
            Ok(_) => return Step::Over,
            Err(errno) => return Step::Failed(errno),
        }
    }
    let mut left = limit;
    while left > 0 {
        // One call of the kernel's would stop at the urgent mark; the next one steps over it.
        if into.done > 0 && sys::is_at_mark(fd) {
            return Step::Over;
        }
        let Some((asked, received)) = receive_once(fd, into, flags, left) else { break };
        match received {
            Ok(0) => return Step::Over,
            Ok(n) => {
                // It would see the same bytes again.
                if flags & libc::MSG_PEEK != 0 {
                    return Step::Over;
                }
                left -= n as u64;
                if n < asked {
                    break;
                }
            }
            Err(Errno(libc::EAGAIN)) => break,
            Err(errno) => return Step::Failed(errno),
        }
    }
    let is_over = into.done >= want || (into.done > 0 && sys::is_at_mark(fd));
    if is_over { Step::Over } else { Step::Blocked }
}

/// One call of the kernel's, for at most `left` bytes: how many were asked for, and what it said. `None`: there is room for none.
fn receive_once(
    fd: RawFd,
    into: &mut Scatter<'_, '_>,
    flags: c_int,
    left: u64,
) -> Option<(usize, Result<usize, Errno>)> {
    if flags & PEEK_OR_DISCARD == libc::MSG_TRUNC {
        let asked = into.left().min(most(left));
        return (asked > 0).then(|| (asked, sys::discard(fd, asked).inspect(|n| into.done += n)));
    }
    if into.has_no_places() && into.left() > 0 {
        // Whether there is anything, or ever will be, one byte tells as well.
        return Some((1, sys::recv(fd, &mut [0], flags & !libc::MSG_TRUNC).inspect(|n| into.done += n)));
    }
    let room = into.next()?;
    let asked = room.len().min(most(left));
    Some((asked, sys::recv(fd, &mut room[..asked], flags).inspect(|n| into.advance((*n).min(asked)))))
}

fn most(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Shows at most `len` bytes of the queue, after the first `skip`, in all places that there are; says how many.
pub fn show(fd: RawFd, into: &mut Scatter<'_, '_>, skip: usize, len: usize) -> Result<usize, Errno> {
    let len = len.min(into.left());
    if len == 0 || into.has_no_places() {
        into.done += len;
        return Ok(len);
    }
    // A peek begins at the front: SO_PEEK_OFF is for TCP since Linux 6.9 only.
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(skip + len).map_err(|_| Errno(libc::ENOMEM))?;
    bytes.resize(skip + len, 0);
    let got = sys::recv(fd, &mut bytes, libc::MSG_PEEK | libc::MSG_DONTWAIT)?;
    Ok(into.put(bytes.get(skip..got).unwrap_or_default()))
}

/// Bytes that can be read (SIOCINQ).
pub fn queued(fd: RawFd) -> usize {
    sys::queue_length(fd, libc::FIONREAD).map_or(0, |n| n as usize)
}

/// Sends, while no tier change can come between.
pub fn send(socket: &Socket, fd: RawFd, from: &mut Gather<'_>, flags: c_int) -> Step {
    let Some(_inside) = socket.enter_kernel() else { return Step::Moved };
    send_now(fd, from, flags)
}

/// The same for a caller who sees to it that nobody comes between.
pub fn send_now(fd: RawFd, from: &mut Gather<'_>, flags: c_int) -> Step {
    if from.len == 0 {
        return match sys::send(fd, &[], flags | libc::MSG_DONTWAIT) {
            Ok(_) => Step::Over,
            Err(errno) => Step::Failed(errno),
        };
    }
    if from.done == 0 && from.bufs.len() > 1 {
        match sys::send_vectored(fd, from.bufs, flags | libc::MSG_DONTWAIT) {
            Ok(n) => from.done = n,
            Err(Errno(libc::EAGAIN)) => return Step::Blocked,
            Err(errno) => return Step::Failed(errno),
        }
    }
    while let Some((bytes, more)) = from.next() {
        let more = if more { libc::MSG_MORE } else { 0 };
        match sys::send(fd, bytes, flags | libc::MSG_DONTWAIT | more) {
            Ok(n) => from.done += n,
            Err(Errno(libc::EAGAIN)) => return Step::Blocked,
            Err(errno) => return Step::Failed(errno),
        }
    }
    Step::Over
}

/// Has the kernel something for a waiting call, or did the socket leave its tier?
pub fn has(socket: &Socket, kernel: &[pollfd]) -> Option<()> {
    if socket.place() != Where::Kernel {
        return Some(());
    }
    let [only] = kernel else { return None };
    (ready(only.fd, only.events) != 0).then_some(())
}

/// What of `events` a descriptor is ready for now, errors and hang-ups included, as poll(2) tells it.
pub fn ready(fd: RawFd, events: i16) -> i16 {
    let mut look = [pollfd { fd, events, revents: 0 }];
    let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    match sys::ppoll(&mut look, Some(none), None) {
        Ok(n) if n > 0 => look[0].revents,
        _ => 0,
    }
}
