//! Socket options, names, and state.

use std::mem::size_of;
use std::os::fd::RawFd;

use libc::{c_int, socklen_t};

use super::outcome;

/// getsockopt(2) into a buffer of `room` bytes: the result and what was written.
pub fn getsockopt(fd: RawFd, level: c_int, name: c_int, room: usize) -> (i64, Vec<u8>) {
    let mut value = vec![0u8; room];
    let mut len = room as socklen_t;
    // SAFETY: a buffer of ours and its length.
    let got = outcome(unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut len) });
    value.truncate(len as usize);
    (got, value)
}

/// An option that is an int; errors as in [`outcome`].
pub fn get_int(fd: RawFd, level: c_int, name: c_int) -> i64 {
    match getsockopt(fd, level, name, size_of::<c_int>()) {
        (0, value) => value.try_into().map_or(i64::MIN, |bytes| i64::from(c_int::from_ne_bytes(bytes))),
        (error, _) => error,
    }
}

/// setsockopt(2) with any bytes.
pub fn setsockopt(fd: RawFd, level: c_int, name: c_int, value: &[u8]) -> i64 {
    // SAFETY: a slice and its length.
    outcome(unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), value.len() as socklen_t) })
}

/// setsockopt(2) with an int.
pub fn set_int(fd: RawFd, level: c_int, name: c_int, value: c_int) -> i64 {
    setsockopt(fd, level, name, &value.to_ne_bytes())
}

/// SO_RCVTIMEO or SO_SNDTIMEO in milliseconds.
pub fn set_timeout(fd: RawFd, name: c_int, millis: i64) -> i64 {
    let value = [millis / 1000, millis % 1000 * 1000].map(i64::to_ne_bytes).concat();
    setsockopt(fd, libc::SOL_SOCKET, name, &value)
}

/// SO_LINGER.
pub fn set_linger(fd: RawFd, on: bool, seconds: c_int) -> i64 {
    let value = [c_int::from(on), seconds].map(c_int::to_ne_bytes).concat();
    setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, &value)
}

/// The state in TCP_INFO.
pub fn tcp_state(fd: RawFd) -> i64 {
    match getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, 104) {
        (0, info) => info.first().map_or(-1, |&state| i64::from(state)),
        (error, _) => error,
    }
}

/// getsockname(2) or getpeername(2): the result, the length, and family and the rest as text (no port: it differs).
fn name(call: impl FnOnce(*mut libc::sockaddr, *mut socklen_t) -> c_int) -> (i64, u32, String) {
    let mut address = [0u8; 128];
    let mut len = address.len() as socklen_t;
    let got = outcome(call(address.as_mut_ptr().cast(), &raw mut len));
    let rest = &address[4..(len as usize).clamp(8, address.len())];
    (got, len, format!("family {} address {rest:?}", u16::from_ne_bytes([address[0], address[1]])))
}

/// getsockname(2).
pub fn getsockname(fd: RawFd) -> (i64, u32, String) {
    // SAFETY: called with a buffer and its length.
    name(|address, len| unsafe { libc::getsockname(fd, address, len) })
}

/// getpeername(2).
pub fn getpeername(fd: RawFd) -> (i64, u32, String) {
    // SAFETY: called with a buffer and its length.
    name(|address, len| unsafe { libc::getpeername(fd, address, len) })
}

/// The whole addresses of both ends, the local one first.
pub fn ends(fd: RawFd) -> [Vec<u8>; 2] {
    type Ask = unsafe extern "C" fn(c_int, *mut libc::sockaddr, *mut socklen_t) -> c_int;
    [libc::getsockname as Ask, libc::getpeername as Ask].map(|ask| {
        let mut address = vec![0u8; 128];
        let mut len = address.len() as socklen_t;
        // SAFETY: a buffer of ours and its length.
        outcome(unsafe { ask(fd, address.as_mut_ptr().cast(), &raw mut len) });
        address.truncate(len as usize);
        address
    })
}

/// A socket that connects between these ends, without waiting; its number, or an error as in [`outcome`].
pub fn connect_between([local, remote]: &[Vec<u8>; 2]) -> i64 {
    let family = u16::from_ne_bytes([local[0], local[1]]).into();
    // SAFETY: no memory involved.
    let fd = outcome(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0) }) as RawFd;
    // SAFETY: a whole address each, and its length.
    let (bound, connected) = unsafe {
        let bound = libc::bind(fd, local.as_ptr().cast(), local.len() as socklen_t);
        (outcome(bound), outcome(libc::connect(fd, remote.as_ptr().cast(), remote.len() as socklen_t)))
    };
    match (bound, connected) {
        (0, 0) => fd.into(),
        (0, error) if error == -i64::from(libc::EINPROGRESS) => fd.into(),
        (0, error) | (error, _) => error,
    }
}

/// shutdown(2).
pub fn shutdown(fd: RawFd, how: c_int) -> i64 {
    // SAFETY: no memory involved.
    outcome(unsafe { libc::shutdown(fd, how) })
}

/// listen(2).
pub fn listen(fd: RawFd) -> i64 {
    // SAFETY: no memory involved.
    outcome(unsafe { libc::listen(fd, 1) })
}

/// accept(2).
pub fn accept(fd: RawFd) -> i64 {
    // SAFETY: no address wanted.
    outcome(unsafe { libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut()) })
}

/// connect(2) to 127.0.0.1:9.
pub fn connect(fd: RawFd) -> i64 {
    let address = loopback();
    // SAFETY: a complete address.
    outcome(unsafe { libc::connect(fd, (&raw const address).cast(), size_of::<libc::sockaddr_in>() as socklen_t) })
}

/// bind(2) to 127.0.0.1:9.
pub fn bind(fd: RawFd) -> i64 {
    let address = loopback();
    // SAFETY: a complete address.
    outcome(unsafe { libc::bind(fd, (&raw const address).cast(), size_of::<libc::sockaddr_in>() as socklen_t) })
}

fn loopback() -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 9u16.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_be_bytes([127, 0, 0, 1]).to_be() },
        sin_zero: [0; 8],
    }
}
