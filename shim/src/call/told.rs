//! What only the kernel can tell: ancillary data beside the bytes of recvmsg(2), reports on the error queue, and where a peek goes on. A
//! ring keeps bytes, not the packets that brought them.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use libc::c_int;
use underpass_stack::lane::Reason;

use super::{conn, socket_of};
use crate::socket::Socket;
use crate::sys;

/// socket(7), tcp(7), linux/net_tstamp.h; the last three with 64-bit times (asm-generic/socket.h).
const OPTIONS: [(c_int, c_int); 9] = [
    (libc::SOL_SOCKET, libc::SO_TIMESTAMP),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPING),
    (libc::SOL_SOCKET, 63),
    (libc::SOL_SOCKET, 64),
    (libc::SOL_SOCKET, 65),
    (libc::SOL_SOCKET, libc::SO_ZEROCOPY),
    (libc::IPPROTO_TCP, libc::TCP_INQ),
    PEEK_OFFSET,
];
/// Off when negative, unlike the others.
const PEEK_OFFSET: (c_int, c_int) = (libc::SOL_SOCKET, libc::SO_PEEK_OFF);

/// Values of [`Socket::told`].
const UNKNOWN: u8 = 0;
const BYTES_ALONE: u8 = 1;
const MORE: u8 = 2;

/// Does setting this option to this value ask the kernel to tell more than bytes?
pub fn is_asked_by(name: (c_int, c_int), value: Option<c_int>) -> bool {
    let off = if name == PEEK_OFFSET { value.is_some_and(|at| at < 0) } else { value == Some(0) };
    OPTIONS.contains(&name) && !off
}

/// Has anybody asked the kernel to tell more than bytes? An accepted socket has this from its listener.
pub fn is_asked(fd: RawFd) -> bool {
    OPTIONS.iter().any(|&name| sys::sockopt(fd, name.0, name.1).is_ok_and(|value| is_asked_by(name, Some(value))))
}

/// An option has changed: what was known no longer holds.
pub fn forget(socket: &Socket) {
    socket.told.store(UNKNOWN, Relaxed);
}

/// Before a call that has room for ancillary data: where there may be some, the connection stays in the kernel for good.
pub fn heed(fd: RawFd) {
    let Some(socket) = socket_of(fd) else { return };
    if socket.told.load(Relaxed) != UNKNOWN {
        return;
    }
    let more = is_asked(fd);
    socket.told.store(if more { MORE } else { BYTES_ALONE }, Relaxed);
    if more {
        conn::pin(fd, Reason::SocketOption);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_are_off_ask_for_nothing() {
        let zero_copy = (libc::SOL_SOCKET, libc::SO_ZEROCOPY);
        assert!(is_asked_by(zero_copy, Some(1)) && !is_asked_by(zero_copy, Some(0)));
        assert!(is_asked_by(PEEK_OFFSET, Some(0)) && !is_asked_by(PEEK_OFFSET, Some(-1)));
        // A structure (SO_TIMESTAMPING) cannot be told from here.
        assert!(is_asked_by((libc::SOL_SOCKET, libc::SO_TIMESTAMPING), None));
        assert!(!is_asked_by((libc::SOL_SOCKET, libc::SO_KEEPALIVE), Some(1)));
    }
}
