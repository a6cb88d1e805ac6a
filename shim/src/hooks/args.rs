//! The program's arguments as values.

use std::ffi::c_void;
use std::io::{IoSlice, IoSliceMut};

use libc::{c_int, iovec, msghdr, timespec, timeval};
use underpass_stack::tcp::Instant;

use crate::sys;

/// More places than the kernel takes (UIO_MAXIOV).
const MAX_IOV: usize = 1024;

/// A buffer to be filled.
///
/// # Safety
/// As read(2): `len` writable bytes at `buf`.
pub unsafe fn buffer_mut<'a>(buf: *mut c_void, len: usize) -> Option<&'a mut [u8]> {
    if buf.is_null() || len > isize::MAX as usize {
        return (len == 0).then_some(&mut []);
    }
    // SAFETY: the caller's promise.
    Some(unsafe { std::slice::from_raw_parts_mut(buf.cast(), len) })
}

/// A buffer to be sent.
///
/// # Safety
/// As write(2): `len` readable bytes at `buf`.
pub unsafe fn buffer<'a>(buf: *const c_void, len: usize) -> Option<&'a [u8]> {
    if buf.is_null() || len > isize::MAX as usize {
        return (len == 0).then_some(&[]);
    }
    // SAFETY: the caller's promise.
    Some(unsafe { std::slice::from_raw_parts(buf.cast(), len) })
}

unsafe fn raw_iov<'a>(iov: *const iovec, count: usize) -> Option<&'a [iovec]> {
    if count > MAX_IOV || (iov.is_null() && count > 0) {
        return None;
    }
    if count == 0 {
        return Some(&[]);
    }
    // SAFETY: the caller's promise.
    let all = unsafe { std::slice::from_raw_parts(iov, count) };
    all.iter().all(|v| v.iov_len <= isize::MAX as usize && (!v.iov_base.is_null() || v.iov_len == 0)).then_some(all)
}

/// The places of a readv(2). `None`: the kernel is to judge them.
///
/// # Safety
/// As readv(2).
pub unsafe fn places_mut<'a>(iov: *const iovec, count: usize) -> Option<Vec<IoSliceMut<'a>>> {
    // SAFETY: the caller's promise.
    let all = unsafe { raw_iov(iov, count) }?;
    // SAFETY: the same, place by place.
    all.iter().map(|v| unsafe { buffer_mut(v.iov_base, v.iov_len) }.map(IoSliceMut::new)).collect()
}

/// The places of a writev(2). `None`: the kernel is to judge them.
///
/// # Safety
/// As writev(2).
pub unsafe fn places<'a>(iov: *const iovec, count: usize) -> Option<Vec<IoSlice<'a>>> {
    // SAFETY: the caller's promise.
    let all = unsafe { raw_iov(iov, count) }?;
    // SAFETY: the same, place by place.
    all.iter().map(|v| unsafe { buffer(v.iov_base, v.iov_len) }.map(IoSlice::new)).collect()
}

/// The places of a message, if it is one.
pub fn message_places(msg: *const msghdr) -> Option<(*const iovec, usize)> {
    // SAFETY: null or valid by the program's promise to recvmsg(2) and sendmsg(2).
    unsafe { msg.as_ref() }.map(|msg| (msg.msg_iov.cast_const(), msg.msg_iovlen))
}

/// Has recvmsg(2) a place for ancillary data?
pub fn has_control_room(msg: *const msghdr) -> bool {
    // SAFETY: null or valid by the program's promise to recvmsg(2).
    unsafe { msg.as_ref() }.is_some_and(|msg| !msg.msg_control.is_null() && msg.msg_controllen > 0)
}

/// The descriptors that a message carries to another process (SCM_RIGHTS, unix(7)).
///
/// # Safety
/// `message` is null or a valid message header.
pub unsafe fn passed_fds(message: *const msghdr) -> Vec<c_int> {
    let mut fds = Vec::new();
    // SAFETY: the caller's promise; the CMSG macros stay inside msg_controllen.
    unsafe {
        if message.is_null() || (*message).msg_control.is_null() || (*message).msg_controllen == 0 {
            return fds;
        }
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let len = ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize) / size_of::<c_int>();
                let first: *const c_int = libc::CMSG_DATA(header).cast();
                fds.extend((0..len.min(253)).map(|n| first.add(n).read_unaligned()));
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    fds
}

/// When a wait of so many milliseconds ends; negative: never.
pub fn deadline_ms(timeout: c_int) -> Option<Instant> {
    (timeout >= 0).then(|| sys::now().after(timeout as u64 * 1_000_000))
}

/// When a wait of this length ends; null: never. `Err` for a time that is none.
///
/// # Safety
/// `timeout` is null or valid.
pub unsafe fn deadline_timespec(timeout: *const timespec) -> Result<Option<Instant>, ()> {
    // SAFETY: the caller's promise.
    match unsafe { timeout.as_ref() } {
        None => Ok(None),
        Some(t) if t.tv_sec < 0 || !(0..1_000_000_000).contains(&t.tv_nsec) => Err(()),
        Some(t) => {
            let nanos = (t.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec as u64);
            Ok(Some(sys::now().after(nanos)))
        }
    }
}

/// As [`deadline_timespec`], for select(2).
///
/// # Safety
/// `timeout` is null or valid.
pub unsafe fn deadline_timeval(timeout: *const timeval) -> Result<Option<Instant>, ()> {
    // SAFETY: the caller's promise.
    match unsafe { timeout.as_ref() } {
        None => Ok(None),
        Some(t) if t.tv_sec < 0 || t.tv_usec < 0 => Err(()),
        Some(t) => {
            let nanos = (t.tv_sec as u64)
                .saturating_mul(1_000_000_000)
                .saturating_add((t.tv_usec as u64).saturating_mul(1_000));
            Ok(Some(sys::now().after(nanos)))
        }
    }
}
