//! read, write and their kin.

use std::ffi::{c_int, c_uint, c_void};
use std::io::{IoSlice, IoSliceMut};

use libc::{iovec, mmsghdr, msghdr, off_t, size_t, sockaddr, socklen_t, ssize_t, timespec};
use underpass_stack::lane::Reason;

use super::args::{buffer, buffer_mut, passed_fds, places, places_mut};
use super::run;
use crate::buffers::{Gather, Scatter};
use crate::call::recv::receive;
use crate::call::send::send as send_bytes;
use crate::call::{Act, conn, socket_of, splice};
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

/// The own part of a sending hook.
fn send_from(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> Option<ssize_t> {
    run(|| {
        let Some(socket) = socket_of(fd) else { return Act::Real };
        // SAFETY: the program's promise to write(2).
        let Some(bytes) = (unsafe { buffer(buf, len) }) else { return Act::Real };
        count(send_bytes(&socket, fd, &mut Gather::new(&[IoSlice::new(bytes)]), flags))
    })
}

/// The own part of a sending hook with several places.
fn send_places(fd: c_int, iov: *const iovec, count_iov: size_t, flags: c_int) -> Option<ssize_t> {
    run(|| {
        let Some(socket) = socket_of(fd) else { return Act::Real };
        // SAFETY: the program's promise to writev(2).
        let Some(bufs) = (unsafe { places(iov, count_iov) }) else { return Act::Real };
        count(send_bytes(&socket, fd, &mut Gather::new(&bufs), flags))
    })
}

/// The places of a message, if it is one.
fn message_places(msg: *const msghdr) -> Option<(*const iovec, usize)> {
    // SAFETY: null or valid by the program's promise to recvmsg(2) and sendmsg(2).
    unsafe { msg.as_ref() }.map(|msg| (msg.msg_iov.cast_const(), msg.msg_iovlen))
}

/// Is there room for a byte at all?
fn wants_bytes(iov: *const iovec, count: usize) -> bool {
    // SAFETY: the program's promise to readv(2).
    unsafe { places_mut(iov, count) }.is_none_or(|all| all.iter().any(|place| !place.is_empty()))
}

/// Does a message carry ancillary data?
fn has_ancillary(msg: *const msghdr) -> bool {
    // SAFETY: as in `message_places`.
    unsafe { msg.as_ref() }.is_some_and(|msg| msg.msg_controllen > 0)
}

fn count(act: Act<usize>) -> Act<ssize_t> {
    match act {
        Act::Done(result) => Act::Done(result.map(|n| n as ssize_t)),
        Act::Real => Act::Real,
        Act::Sleep(sleepers, flow) => Act::Sleep(sleepers, flow),
        Act::Again => Act::Again,
    }
}

/// read(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    young!(In read(fd, buf, len));
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

/// write(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn write(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t {
    young!(Out write(fd, buf, len));
    if !table::is_plain(fd)
        && let Some(n) = send_from(fd, buf, len, 0)
    {
        return n;
    }
    sleep!(write(fd, buf, len))
}

/// writev(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn writev(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t {
    young!(Out writev(fd, iov, count));
    if !table::is_plain(fd)
        && let Ok(places) = usize::try_from(count)
        && let Some(n) = send_places(fd, iov, places, 0)
    {
        return n;
    }
    sleep!(writev(fd, iov, count))
}

/// send(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    young!(Out send(fd, buf, len, flags));
    if !table::is_plain(fd)
        && let Some(n) = send_from(fd, buf, len, flags)
    {
        return n;
    }
    sleep!(send(fd, buf, len, flags))
}

/// sendto(2). A connected TCP socket takes no notice of the address, except with MSG_FASTOPEN, which is the kernel's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendto(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    addr: *const sockaddr,
    alen: socklen_t,
) -> ssize_t {
    young!(Out sendto(fd, buf, len, flags, addr, alen));
    if !table::is_plain(fd)
        && let Some(n) = send_from(fd, buf, len, flags)
    {
        return n;
    }
    sleep!(sendto(fd, buf, len, flags, addr, alen))
}

/// sendmsg(2). Ancillary data on a TCP socket is the kernel's; descriptors that leave the process are given back first.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t {
    if has_ancillary(msg) {
        pass_on(fd, msg);
    } else if !table::is_plain(fd)
        && let Some((iov, places)) = message_places(msg)
        && let Some(n) = send_places(fd, iov, places, flags)
    {
        return n;
    }
    sleep!(sendmsg(fd, msg, flags))
}

/// A message with ancillary data: the kernel sends it.
fn pass_on(fd: c_int, msg: *const msghdr) {
    let _: Option<ssize_t> = run(|| {
        // SAFETY: the program's promise to sendmsg(2).
        conn::passed_on(&unsafe { passed_fds(msg) });
        conn::kernel_sends(fd, Reason::CallNotCarried)
    });
}

/// sendmmsg(2): given back to the kernel first.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendmmsg(fd: c_int, msgs: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    for n in 0..count.min(1024) as usize {
        if msgs.is_null() {
            break;
        }
        // SAFETY: the program's promise to sendmmsg(2): `count` headers.
        let msg = unsafe { &raw const (*msgs.add(n)).msg_hdr };
        if has_ancillary(msg) {
            pass_on(fd, msg);
        }
    }
    if !table::is_plain(fd)
        && let Some(n) = run(|| conn::kernel_sends(fd, Reason::CallNotCarried))
    {
        return n;
    }
    sleep!(sendmmsg(fd, msgs, count, flags))
}

/// sendfile(2) to a socket: given back to the kernel first.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendfile(out: c_int, input: c_int, offset: *mut off_t, len: size_t) -> ssize_t {
    if !table::is_plain(out)
        && let Some(n) = run(|| conn::kernel_sends(out, Reason::CallNotCarried))
    {
        return n;
    }
    sleep!(sendfile(out, input, offset, len))
}

/// sendfile(2) with a 64-bit offset, the same here.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendfile64(out: c_int, input: c_int, offset: *mut off_t, len: size_t) -> ssize_t {
    // SAFETY: the same call.
    unsafe { sendfile(out, input, offset, len) }
}

/// splice(2) from or to a socket: given back to the kernel first.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn splice(
    input: c_int,
    in_off: *mut i64,
    out: c_int,
    out_off: *mut i64,
    len: size_t,
    flags: c_uint,
) -> ssize_t {
    if !table::is_plain(input)
        && let Some(n) = run(|| splice::splice(input, out, len, flags))
    {
        return n;
    }
    if !table::is_plain(out)
        && let Some(n) = run(|| conn::kernel_sends(out, Reason::CallNotCarried))
    {
        return n;
    }
    sleep!(splice(input, in_off, out, out_off, len, flags))
}
