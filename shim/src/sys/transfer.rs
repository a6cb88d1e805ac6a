//! Bytes into sockets and out of them. One of the files with `unsafe`.

use std::ffi::c_int;
use std::os::fd::RawFd;

use super::check;
use crate::errno::Result;

/// recvfrom(2) without an address.
pub fn recv(fd: RawFd, buf: &mut [u8], flags: c_int) -> Result<usize> {
    call!(libc::SYS_recvfrom, fd, buf.as_mut_ptr(), buf.len(), flags, 0usize, 0usize).map(|n| n as usize)
}

/// Throws bytes of a TCP socket's queue away, without waiting (MSG_TRUNC, tcp(7)).
pub fn discard(fd: RawFd, count: usize) -> Result<usize> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    call!(libc::SYS_recvfrom, fd, 0usize, count, flags, 0usize, 0usize).map(|n| n as usize)
}

/// sendto(2) without an address.
pub fn send(fd: RawFd, buf: &[u8], flags: c_int) -> Result<usize> {
    call!(libc::SYS_sendto, fd, buf.as_ptr(), buf.len(), flags, 0usize, 0usize).map(|n| n as usize)
}

/// sendmsg(2) from several places.
pub fn send_vectored(fd: RawFd, bufs: &[std::io::IoSlice<'_>], flags: c_int) -> Result<usize> {
    // SAFETY: IoSlice has the layout of iovec.
    send_spans(fd, unsafe { std::slice::from_raw_parts(bufs.as_ptr().cast(), bufs.len()) }, flags)
}

/// sendmsg(2) from memory that other processes write, too, so that no slices of it may be made.
pub fn send_spans(fd: RawFd, spans: &[libc::iovec], flags: c_int) -> Result<usize> {
    // SAFETY: plain data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // The kernel only reads, and says so (EFAULT) where it cannot.
    message.msg_iov = spans.as_ptr().cast_mut();
    message.msg_iovlen = spans.len() as _;
    call!(libc::SYS_sendmsg, fd, &raw const message, flags).map(|n| n as usize)
}

/// sendmsg(2) as given.
///
/// # Safety
/// `message` is a valid message header.
pub unsafe fn sendmsg(fd: RawFd, message: *const libc::msghdr, flags: c_int) -> Result<usize> {
    call!(libc::SYS_sendmsg, fd, message, flags).map(|n| n as usize)
}

/// recvmsg(2) as given.
///
/// # Safety
/// `message` is a valid message header.
pub unsafe fn recvmsg(fd: RawFd, message: *mut libc::msghdr, flags: c_int) -> Result<usize> {
    call!(libc::SYS_recvmsg, fd, message, flags).map(|n| n as usize)
}
