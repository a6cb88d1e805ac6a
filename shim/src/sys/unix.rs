//! Unix sockets, and what they carry beside bytes. One of the files with `unsafe`.

use std::ffi::{c_int, c_uint};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{out_of_the_way, recvmsg, sendmsg, sockopt_of};
use crate::errno::{Errno, Result, check};

const CMSG_SPACE: usize = 24 + underpass_stack::control::MAX_FDS * 4;

#[repr(C, align(8))]
struct Control([u8; CMSG_SPACE]);

/// Connects a SEQPACKET Unix socket to `path` (unix(7)).
pub fn connect_seqpacket(path: &std::path::Path) -> Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: plain data.
    let mut addr: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    if bytes.len() >= addr.sun_path.len() {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    addr.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in addr.sun_path.iter_mut().zip(bytes) {
        *to = *from as _;
    }
    let fd = call!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0)?;
    // SAFETY: just made, ours alone.
    let fd = out_of_the_way(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
    call!(libc::SYS_connect, fd.as_raw_fd(), &raw const addr, size_of::<libc::sockaddr_un>())?;
    Ok(fd)
}

/// Bounds how long a send or receive on `fd` may take.
pub fn set_timeouts(fd: BorrowedFd<'_>, seconds: i64) -> Result<()> {
    for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        let time = [seconds, 0i64];
        call!(libc::SYS_setsockopt, fd.as_raw_fd(), libc::SOL_SOCKET, name, &raw const time, size_of::<[i64; 2]>())?;
    }
    Ok(())
}

/// Sends one datagram with descriptors beside it (SCM_RIGHTS, unix(7)).
pub fn send_with_fds(fd: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> Result<()> {
    if fds.len() > underpass_stack::control::MAX_FDS {
        return Err(Errno(libc::EMSGSIZE));
    }
    let mut control = Control([0; CMSG_SPACE]);
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: plain data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        let len = size_of_val(fds) as c_uint;
        message.msg_control = (&raw mut control).cast();
        // SAFETY: pure arithmetic.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(len) } as _;
        // SAFETY: the control buffer is aligned and large enough for one header and MAX_FDS descriptors.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(len) as _;
            std::ptr::copy_nonoverlapping(fds.as_ptr(), libc::CMSG_DATA(header).cast(), fds.len());
        }
    }
    // SAFETY: the header and all it points to live here.
    unsafe { sendmsg(fd.as_raw_fd(), &message, libc::MSG_NOSIGNAL) }.map(drop)
}

/// Receives one datagram and the descriptors beside it (close-on-exec). Zero bytes: the peer is gone.
pub fn recv_with_fds(fd: BorrowedFd<'_>, bytes: &mut [u8], flags: c_int) -> Result<(usize, Vec<OwnedFd>)> {
    let mut control = Control([0; CMSG_SPACE]);
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: plain data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = CMSG_SPACE as _;
    // SAFETY: the header and all it points to live here.
    let len = unsafe { recvmsg(fd.as_raw_fd(), &raw mut message, flags | libc::MSG_CMSG_CLOEXEC) }?;
    let mut fds = Vec::new();
    // SAFETY: the kernel filled the control buffer; the CMSG macros stay inside msg_controllen.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let first: *const RawFd = libc::CMSG_DATA(header).cast();
                for n in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(first.add(n).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
    }
    Ok((len, fds))
}

/// The user at the other end of a Unix socket when it connected or listened (SO_PEERCRED, unix(7)).
pub fn peer_user(fd: BorrowedFd<'_>) -> Result<u32> {
    let credentials: [u32; 3] = sockopt_of(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED)?;
    Ok(credentials[1])
}

/// A SEQPACKET socket and the abstract address of this name (unix(7)).
fn abstract_socket(name: &str) -> Result<(OwnedFd, libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: plain data.
    let mut addr: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    if name.len() >= addr.sun_path.len() {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    addr.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in addr.sun_path[1..].iter_mut().zip(name.bytes()) {
        *to = from as _;
    }
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let fd = call!(libc::SYS_socket, libc::AF_UNIX, kind, 0)?;
    // SAFETY: just made, ours alone.
    let fd = out_of_the_way(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
    let len = std::mem::offset_of!(libc::sockaddr_un, sun_path) + 1 + name.len();
    Ok((fd, addr, len as libc::socklen_t))
}

/// Connects to whoever listens at an abstract name.
pub fn connect_abstract(name: &str) -> Result<OwnedFd> {
    let (fd, addr, len) = abstract_socket(name)?;
    call!(libc::SYS_connect, fd.as_raw_fd(), &raw const addr, len)?;
    Ok(fd)
}

/// Listens at an abstract name.
pub fn listen_abstract(name: &str) -> Result<OwnedFd> {
    let (fd, addr, len) = abstract_socket(name)?;
    call!(libc::SYS_bind, fd.as_raw_fd(), &raw const addr, len)?;
    call!(libc::SYS_listen, fd.as_raw_fd(), 1)?;
    Ok(fd)
}

/// Accepts on a Unix socket.
pub fn accept_seqpacket(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let fd = call!(libc::SYS_accept4, fd.as_raw_fd(), 0usize, 0usize, flags)?;
    // SAFETY: just made, ours alone.
    Ok(out_of_the_way(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}
