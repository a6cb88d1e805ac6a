//! Making, connecting and setting sockets.

use std::ffi::{c_int, c_void};

use libc::{sockaddr, socklen_t};
use underpass_stack::lane::Reason;

use super::{after, run};
use crate::call::{Act, conn, opt, short, socket_of, steady};
use crate::errno::check;
use crate::fd as table;

/// socket(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn socket(domain: c_int, kind: c_int, proto: c_int) -> c_int {
    let fd = pass!(socket(domain, kind, proto));
    if fd >= 0 && !short::made(fd, domain, kind, proto) {
        after(|| conn::made(fd, domain, kind, proto));
    }
    fd
}

/// bind(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    kernel_only(fd).unwrap_or_else(|| pass!(bind(fd, addr, len)))
}

/// listen(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn listen(fd: c_int, backlog: c_int) -> c_int {
    let result = kernel_only(fd).unwrap_or_else(|| pass!(listen(fd, backlog)));
    if result == 0 && !table::is_plain(fd) {
        after(|| opt::listens(fd));
    }
    result
}

fn kernel_only(fd: c_int) -> Option<c_int> {
    if table::is_plain(fd) { None } else { run(|| conn::kernel_only(fd, Reason::CallNotCarried)) }
}

/// accept(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    let made = pass!(accept(fd, addr, len));
    if made >= 0 && !short::accepted(fd, made, 0) {
        after(|| conn::accepted(fd, made, 0));
    }
    made
}

/// accept4(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int {
    let made = pass!(accept4(fd, addr, len, flags));
    if made >= 0 && !short::accepted(fd, made, flags) {
        after(|| conn::accepted(fd, made, flags));
    }
    made
}

/// connect(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    let own = if short::connects(fd) { None } else { run(|| conn::connect(fd)) };
    own.unwrap_or_else(|| pass!(connect(fd, addr, len)))
}

/// shutdown(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn shutdown(fd: c_int, how: c_int) -> c_int {
    let own = if table::is_plain(fd) { None } else { run(|| conn::shutdown(fd, how)) };
    own.unwrap_or_else(|| sleep!(shutdown(fd, how)))
}

/// getsockname(2). The kernel's answer is right in every tier, but not in the middle of a tier change.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    settled(fd, || pass!(getsockname(fd, addr, len)))
}

/// getpeername(2), likewise.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn getpeername(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    settled(fd, || pass!(getpeername(fd, addr, len)))
}

fn settled(fd: c_int, real: impl Fn() -> c_int) -> c_int {
    let own = if table::is_plain(fd) {
        None
    } else {
        run(|| match socket_of(fd) {
            Some(socket) => Act::Done(check(i64::from(steady(&socket, &real))).map(|n| n as c_int)),
            None => Act::Real,
        })
    };
    own.unwrap_or_else(real)
}

/// getsockopt(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    if !table::is_plain(fd) {
        let own = run(|| {
            let mut real = || check(i64::from(pass!(getsockopt(fd, level, name, value, len)))).map(|n| n as c_int);
            opt::get(fd, level, name, &mut real, &mut |bytes| store(value, len, bytes))
        });
        if let Some(result) = own {
            return result;
        }
    }
    pass!(getsockopt(fd, level, name, value, len))
}

/// Writes an option's value where the program wants it, as much as fits.
fn store(value: *mut c_void, len: *mut socklen_t, bytes: &[u8]) -> bool {
    if value.is_null() || len.is_null() {
        return false;
    }
    // SAFETY: the program's promise to getsockopt(2): `*len` bytes at `value`.
    unsafe {
        let n = bytes.len().min(*len as usize);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.cast(), n);
        *len = n as socklen_t;
    }
    true
}

/// setsockopt(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    if !table::is_plain(fd) {
        let own = run(|| {
            let mut real = || check(i64::from(pass!(setsockopt(fd, level, name, value, len)))).map(|n| n as c_int);
            opt::set(fd, level, name, int_of(value, len), &mut real)
        });
        if let Some(result) = own {
            return result;
        }
    }
    pass!(setsockopt(fd, level, name, value, len))
}

/// An int option's value.
fn int_of(value: *const c_void, len: socklen_t) -> Option<c_int> {
    if value.is_null() || (len as usize) < size_of::<c_int>() {
        return None;
    }
    // SAFETY: the program's promise to setsockopt(2): `len` bytes at `value`.
    Some(unsafe { value.cast::<c_int>().read_unaligned() })
}
