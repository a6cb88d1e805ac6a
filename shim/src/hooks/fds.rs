//! close, dup and their kin; ioctl and fcntl.

use std::ffi::{c_char, c_int, c_uint, c_ulong, c_void};

use underpass_stack::lane::Reason;

use super::{after, run};
use crate::call::short::{self, Closing};
use crate::call::{Act, conn, ioctl, opt};
use crate::{errno, fd as table, guard, sys};

/// close(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn close(fd: c_int) -> c_int {
    match short::close(fd) {
        Closing::Done => return pass!(close(fd)),
        Closing::Rest(rest) => after(|| rest.finish()),
        Closing::Other => {}
    }
    run(|| conn::close(fd)).unwrap_or_else(|| pass!(close(fd)))
}

/// close_range(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    run(|| conn::close_range(first, last, flags)).unwrap_or_else(|| pass!(close_range(first, last, flags)))
}

/// closefrom(3).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn closefrom(first: c_int) {
    // SAFETY: scalars.
    unsafe { close_range(first.max(0) as c_uint, c_uint::MAX, 0) };
}

/// dup(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dup(fd: c_int) -> c_int {
    let copy = pass!(dup(fd));
    after(|| conn::duplicated(fd, copy));
    copy
}

/// Before a descriptor is replaced: what it was ends; one of ours moves out of the way first, which cannot be done here.
fn replace(from: c_int, to: c_int, flags: c_int) -> Option<c_int> {
    run(|| {
        // A call that is going to fail replaces nothing.
        if from == to || flags & !libc::O_CLOEXEC != 0 || sys::status_flags(from).is_err() {
            return Act::Real;
        }
        if conn::is_own(to) {
            return Act::Done(Err(errno::Errno(libc::EBUSY)));
        }
        conn::forget(to);
        Act::Real
    })
}

/// dup2(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dup2(from: c_int, to: c_int) -> c_int {
    if let Some(failed) = replace(from, to, 0) {
        return failed;
    }
    let copy = pass!(dup2(from, to));
    after(|| conn::duplicated(from, copy));
    copy
}

/// dup3(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int {
    if let Some(failed) = replace(from, to, flags) {
        return failed;
    }
    let copy = pass!(dup3(from, to, flags));
    after(|| conn::duplicated(from, copy));
    copy
}

/// fcntl(2). Every command takes at most one argument of pointer size.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fcntl(fd: c_int, command: c_int, arg: *mut c_void) -> c_int {
    if guard::inside() || table::is_plain(fd) && !matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
        return pass!(fcntl(fd, command, arg));
    }
    if command == libc::F_SETFL {
        after(|| opt::status_flags(fd, arg as usize as c_int));
    }
    let result = pass!(fcntl(fd, command, arg));
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
        after(|| conn::duplicated(fd, result));
    }
    result
}

/// fcntl(2) of programs with 64-bit offsets, the same here.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fcntl64(fd: c_int, command: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: the same call.
    unsafe { fcntl(fd, command, arg) }
}

/// ioctl(2). Every request takes at most one argument of pointer size.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn ioctl(fd: c_int, request: c_ulong, arg: *mut c_void) -> c_int {
    if !table::is_plain(fd)
        && let Some(result) = run(|| {
            ioctl::ioctl(
                fd,
                request,
                arg.is_null(),
                &mut |value| {
                    // SAFETY: the program's promise for these requests: an int.
                    unsafe { arg.cast::<c_int>().write_unaligned(value) };
                },
                &mut || {
                    // SAFETY: the same.
                    unsafe { arg.cast::<c_int>().read_unaligned() }
                },
            )
        })
    {
        return result;
    }
    pass!(ioctl(fd, request, arg))
}

/// fdopen(3): stdio reads and writes through calls of its own, past every hook; the socket stays in the kernel.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fdopen(fd: c_int, mode: *const c_char) -> *mut c_void {
    if !table::is_plain(fd) {
        after(|| conn::pin(fd, Reason::Stdio));
    }
    pass!(fdopen(fd, mode))
}
