//! write and its kin.

use std::ffi::{c_int, c_uint, c_void};
use std::io::IoSlice;

use libc::{iovec, mmsghdr, msghdr, off_t, size_t, sockaddr, socklen_t, ssize_t};
use underpass_stack::lane::Reason;

use super::args::{buffer, message_places, passed_fds, places};
use super::{count, run};
use crate::buffers::Gather;
use crate::call::send::send as send_bytes;
use crate::call::{Act, conn, socket_of, splice};
use crate::fd as table;

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

/// Does a message carry ancillary data?
fn has_ancillary(msg: *const msghdr) -> bool {
    // SAFETY: as in `message_places`.
    unsafe { msg.as_ref() }.is_some_and(|msg| msg.msg_controllen > 0)
}

/// write(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn write(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t {
    young!(Out write(fd, buf, len));
    // SAFETY: the same call.
    unsafe { write_at_length(fd, buf, len) }
}

#[inline(never)]
unsafe extern "C-unwind" fn write_at_length(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t {
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
    // SAFETY: the same call.
    unsafe { writev_at_length(fd, iov, count) }
}

#[inline(never)]
unsafe extern "C-unwind" fn writev_at_length(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t {
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
    // SAFETY: the same call.
    unsafe { send_at_length(fd, buf, len, flags) }
}

#[inline(never)]
unsafe extern "C-unwind" fn send_at_length(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
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
    // SAFETY: the same call.
    unsafe { sendto_at_length(fd, buf, len, flags, addr, alen) }
}

#[inline(never)]
unsafe extern "C-unwind" fn sendto_at_length(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    addr: *const sockaddr,
    alen: socklen_t,
) -> ssize_t {
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
