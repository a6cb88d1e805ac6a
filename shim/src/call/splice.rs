//! splice(2) from a connection on the shm lane into a pipe, by copying: bytes in the ring whose sender was killed cannot come to the
//! kernel any more, which would have to move them.

use std::io::IoSliceMut;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use libc::{c_int, c_uint, pollfd};
use underpass_stack::lane::Reason;

use super::conn::kernel_receives;
use super::recv::receive;
use super::{Act, socket_of};
use crate::buffers::Scatter;
use crate::errno::{Errno, Result};
use crate::fd::Ref;
use crate::socket::{Lane, Socket};
use crate::{carry, sys};

/// Bytes that go at once at most: what a pipe holds.
const CHUNK: usize = 64 << 10;
/// Bytes that a pipe takes whole if it can take any (pipe(7)).
const WHOLE: usize = 4 << 10;

/// Splices from a TCP socket.
pub fn splice(input: RawFd, out: RawFd, len: usize, flags: c_uint) -> Act<isize> {
    let Some(socket) = socket_of(input) else { return Act::Real };
    if !matches!(socket.lane(), Some(Lane::Shm(_))) || len == 0 || !sys::is_pipe(out) {
        return kernel_receives(input, Reason::CallNotCarried);
    }
    let mut bytes = vec![0; len.min(CHUNK)];
    loop {
        match pass_on(&socket, input, out, &mut bytes, flags & libc::SPLICE_F_NONBLOCK == 0) {
            // The pipe was filled by somebody else meanwhile.
            Some(Err(Errno(libc::EAGAIN))) if flags & libc::SPLICE_F_NONBLOCK == 0 && may_wait(&socket, out) => {}
            Some(result) => return Act::Done(result.map(|n| n as isize)),
            None => return kernel_receives(input, Reason::CallNotCarried),
        }
    }
}

/// Is it only the pipe that is waited for, and may it be?
fn may_wait(socket: &Socket, out: RawFd) -> bool {
    let waits = |fd| sys::status_flags(fd).is_ok_and(|flags| flags & libc::O_NONBLOCK == 0);
    waits(out) && !socket.nonblocking.load(Relaxed) && socket.recv_timeout.load(Relaxed) == 0
}

/// Looks at what is there, puts into the pipe what goes, and takes that much. `None`: the socket has left the lane. Only the pipe is
/// asked whether to wait for it by `waits`: the socket's own mode says whether its bytes are waited for (splice(2)).
fn pass_on(socket: &Ref<Socket>, fd: RawFd, out: RawFd, bytes: &mut [u8], waits: bool) -> Option<Result<usize>> {
    if let Err(errno) = await_pipe(out, waits) {
        return Some(Err(errno));
    }
    let seen = match look(socket, fd, bytes, libc::MSG_PEEK)? {
        Ok(seen @ 1..) => seen,
        end => return Some(end),
    };
    let went = match sys::write_what_fits(out, &bytes[..seen], WHOLE) {
        Ok(went) => went,
        Err(errno) => return Some(Err(errno)),
    };
    // They are in the pipe now: wherever they are on their way to meanwhile, they are waited for.
    look(socket, fd, &mut bytes[..went], libc::MSG_WAITALL)
}

fn look(socket: &Ref<Socket>, fd: RawFd, bytes: &mut [u8], flags: c_int) -> Option<Result<usize>> {
    match receive(socket, fd, &mut Scatter::new(&mut [IoSliceMut::new(bytes)]), flags) {
        Act::Done(result) => Some(result),
        Act::Sleep(sleepers, _) => {
            let result = (flags & libc::MSG_PEEK == 0).then(|| sys::recv(fd, bytes, flags));
            sleepers.wake();
            result
        }
        Act::Again if flags & libc::MSG_PEEK != 0 => Some(Err(Errno(libc::EINTR))),
        Act::Real if flags & libc::MSG_PEEK == 0 => Some(sys::recv(fd, bytes, flags)),
        Act::Real | Act::Again => None,
    }
}

/// Room in the pipe.
fn await_pipe(out: RawFd, waits: bool) -> Result<()> {
    if carry::kernel::ready(out, libc::POLLOUT) != 0 {
        return Ok(());
    }
    if !waits || sys::status_flags(out)? & libc::O_NONBLOCK != 0 {
        return Err(Errno(libc::EAGAIN));
    }
    let mut room = [pollfd { fd: out, events: libc::POLLOUT, revents: 0 }];
    sys::ppoll(&mut room, None, None).map(|_| ())
}
