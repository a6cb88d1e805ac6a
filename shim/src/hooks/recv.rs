//! read and its kin.

use std::ffi::{c_int, c_uint, c_void};
use std::io::IoSliceMut;

use libc::{iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};
use underpass_stack::lane::Reason;

use super::args::{buffer_mut, has_control_room, message_places, places_mut};
use super::{count, run};
use crate::buffers::Scatter;
use crate::call::recv::receive;
use crate::call::{Act, conn, socket_of, told};
use crate::fd as table;

/// The own part of a receiving hook.
fn receive_into(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> Option<ssize_t> {
    run(|| {
        let Some(socket) = socket_of(fd) else { return Act::Real };
        if buf.is_null() && len > 0 && flags & libc::MSG_TRUNC != 0 {
            return count(receive(&socket, fd, &mut Scatter::discarding(len), flags));
        }
        // SAFETY: the program's promise to read(2).
        let Some(bytes) = (unsafe { buffer_mut(buf, len) }) else { return Act::Real };
        let mut bufs = [IoSliceMut::new(bytes)];
        count(receive(&socket, fd, &mut Scatter::new(&mut bufs), flags))
    })
}

/// The own part of a receiving hook with several places.
fn receive_places(fd: c_int, iov: *const iovec, count_iov: size_t, flags: c_int) -> Option<ssize_t> {
    run(|| {
        let Some(socket) = socket_of(fd) else { return Act::Real };
        // SAFETY: the program's promise to readv(2).
        let Some(mut bufs) = (unsafe { places_mut(iov, count_iov) }) else { return Act::Real };
        count(receive(&socket, fd, &mut Scatter::new(&mut bufs), flags))
    })
}

/// Is there room for a byte at all?
fn wants_bytes(iov: *const iovec, count: usize) -> bool {
    // SAFETY: the program's promise to readv(2).
    unsafe { places_mut(iov, count) }.is_none_or(|all| all.iter().any(|place| !place.is_empty()))
}

/// read(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    young!(In read(fd, buf, len));
    // SAFETY: the same call.
    unsafe { read_at_length(fd, buf, len) }
}

#[inline(never)]
unsafe extern "C-unwind" fn read_at_length(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    // Nothing wanted, nothing waited for: read(2) of no bytes returns at once.
    if !table::is_plain(fd)
        && len > 0
        && let Some(n) = receive_into(fd, buf, len, 0)
    {
        return n;
    }
    sleep!(read(fd, buf, len))
}

/// read(2) of fortified programs.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __read_chk(fd: c_int, buf: *mut c_void, len: size_t, room: size_t) -> ssize_t {
    if !table::is_plain(fd)
        && (1..=room).contains(&len)
        && let Some(n) = receive_into(fd, buf, len, 0)
    {
        return n;
    }
    sleep!(__read_chk(fd, buf, len, room))
}

/// readv(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn readv(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t {
    young!(In readv(fd, iov, count));
    // SAFETY: the same call.
    unsafe { readv_at_length(fd, iov, count) }
}

#[inline(never)]
unsafe extern "C-unwind" fn readv_at_length(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t {
    if !table::is_plain(fd)
        && let Ok(places) = usize::try_from(count)
        && wants_bytes(iov, places)
        && let Some(n) = receive_places(fd, iov, places, 0)
    {
        return n;
    }
    sleep!(readv(fd, iov, count))
}

/// recv(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    young!(In recv(fd, buf, len, flags));
    // SAFETY: the same call.
    unsafe { recv_at_length(fd, buf, len, flags) }
}

#[inline(never)]
unsafe extern "C-unwind" fn recv_at_length(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    if !table::is_plain(fd)
        && let Some(n) = receive_into(fd, buf, len, flags)
    {
        return n;
    }
    sleep!(recv(fd, buf, len, flags))
}

/// recv(2) of fortified programs.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __recv_chk(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    if !table::is_plain(fd)
        && len <= room
        && let Some(n) = receive_into(fd, buf, len, flags)
    {
        return n;
    }
    sleep!(__recv_chk(fd, buf, len, room, flags))
}

/// A TCP socket names no sender: the length of its address is zero (tcp(7)).
fn no_address(addr: *mut sockaddr, alen: *mut socklen_t) {
    if !addr.is_null() && !alen.is_null() {
        // SAFETY: the program's promise to recvfrom(2).
        unsafe { *alen = 0 };
    }
}

/// recvfrom(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn recvfrom(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    alen: *mut socklen_t,
) -> ssize_t {
    young!(In recvfrom(fd, buf, len, flags, addr, alen));
    // SAFETY: the same call.
    unsafe { recvfrom_at_length(fd, buf, len, flags, addr, alen) }
}

#[inline(never)]
unsafe extern "C-unwind" fn recvfrom_at_length(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    alen: *mut socklen_t,
) -> ssize_t {
    if !table::is_plain(fd)
        && let Some(n) = receive_into(fd, buf, len, flags)
    {
        if n >= 0 {
            no_address(addr, alen);
        }
        return n;
    }
    sleep!(recvfrom(fd, buf, len, flags, addr, alen))
}

/// recvfrom(2) of fortified programs.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __recvfrom_chk(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    room: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    alen: *mut socklen_t,
) -> ssize_t {
    if !table::is_plain(fd)
        && len <= room
        && let Some(n) = receive_into(fd, buf, len, flags)
    {
        if n >= 0 {
            no_address(addr, alen);
        }
        return n;
    }
    sleep!(__recvfrom_chk(fd, buf, len, room, flags, addr, alen))
}

/// recvmsg(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t {
    if !table::is_plain(fd) && has_control_room(msg) {
        run(|| {
            told::heed(fd);
            Act::<ssize_t>::Real
        });
    }
    if !table::is_plain(fd)
        && let Some((iov, places)) = message_places(msg)
        && let Some(n) = receive_places(fd, iov, places, flags)
    {
        if n >= 0 {
            // SAFETY: the program's promise to recvmsg(2).
            unsafe {
                (*msg).msg_namelen = 0;
                (*msg).msg_controllen = 0;
                (*msg).msg_flags = 0;
            }
        }
        return n;
    }
    sleep!(recvmsg(fd, msg, flags))
}

/// recvmmsg(2): given back to the kernel first.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn recvmmsg(
    fd: c_int,
    msgs: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    if !table::is_plain(fd)
        && let Some(n) = run(|| conn::kernel_receives(fd, Reason::CallNotCarried))
    {
        return n;
    }
    sleep!(recvmmsg(fd, msgs, count, flags, timeout))
}
