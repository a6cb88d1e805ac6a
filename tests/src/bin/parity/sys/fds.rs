//! Descriptors.

use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use libc::c_int;

use super::outcome;

/// A file without a name that holds these bytes.
pub fn file_of(bytes: &[u8]) -> std::io::Result<File> {
    let path = std::env::temp_dir().join(format!("parity-{}", std::process::id()));
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    std::fs::remove_file(&path)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// close(2).
pub fn close(fd: RawFd) -> i64 {
    // SAFETY: the cases own their descriptors as numbers.
    outcome(unsafe { libc::close(fd) })
}

/// dup(2).
pub fn dup(fd: RawFd) -> RawFd {
    // SAFETY: no memory involved.
    outcome(unsafe { libc::dup(fd) }) as RawFd
}

/// A descriptor that nobody else will close.
pub fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: called with fresh duplicates only.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// dup2(2).
pub fn dup2(fd: RawFd, to: RawFd) -> i64 {
    // SAFETY: no memory involved.
    outcome(unsafe { libc::dup2(fd, to) })
}

/// dup3(2).
pub fn dup3(fd: RawFd, to: RawFd, flags: c_int) -> i64 {
    // SAFETY: no memory involved.
    outcome(unsafe { libc::dup3(fd, to, flags) })
}

/// fcntl(2) with an int.
pub fn fcntl(fd: RawFd, command: c_int, argument: c_int) -> i64 {
    // SAFETY: used with commands that take an int only.
    outcome(unsafe { libc::fcntl(fd, command, argument) })
}

/// ioctl(2) that reads or writes an int: the result and the int.
pub fn ioctl(fd: RawFd, request: libc::Ioctl, value: c_int) -> (i64, c_int) {
    let mut value = value;
    // SAFETY: used with requests that take a pointer to an int only.
    let got = outcome(unsafe { libc::ioctl(fd, request, &raw mut value) });
    (got, value)
}

/// pipe2(2).
pub fn pipe(flags: c_int) -> [RawFd; 2] {
    let mut fds = [-1; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), flags) }, 0, "pipe");
    fds
}

/// eventfd(2).
pub fn eventfd() -> RawFd {
    // SAFETY: no memory involved.
    outcome(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) }) as RawFd
}

/// timerfd_create(2), and set to go off once.
pub fn timerfd(millis: i64) -> RawFd {
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let value = libc::timespec { tv_sec: 0, tv_nsec: millis * 1_000_000 };
    let when = libc::itimerspec { it_interval: zero, it_value: value };
    // SAFETY: a timer specification of ours.
    unsafe {
        let fd = libc::timerfd_create(libc::CLOCK_MONOTONIC, 0);
        assert_eq!(libc::timerfd_settime(fd, 0, &raw const when, std::ptr::null_mut()), 0, "timerfd_settime");
        fd
    }
}

/// socketpair(2) of Unix stream sockets.
pub fn socketpair() -> [RawFd; 2] {
    let mut fds = [-1; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, fds.as_mut_ptr()) }, 0, "socketpair");
    fds
}

/// The file type bits of fstat(2).
pub fn file_type(fd: RawFd) -> i64 {
    // SAFETY: plain data, filled by the kernel.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        match outcome(libc::fstat(fd, &raw mut stat)) {
            0 => i64::from(stat.st_mode & libc::S_IFMT),
            error => error,
        }
    }
}

/// fsync(2).
pub fn fsync(fd: RawFd) -> i64 {
    // SAFETY: no memory involved.
    outcome(unsafe { libc::fsync(fd) })
}

/// ftruncate(2) to nothing.
pub fn ftruncate(fd: RawFd) -> i64 {
    // SAFETY: no memory involved.
    outcome(unsafe { libc::ftruncate(fd, 0) })
}

/// mmap(2) of a page; it must fail.
pub fn mmap(fd: RawFd) -> i64 {
    // SAFETY: a new mapping, never accessed.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0) };
    if at == libc::MAP_FAILED { outcome(-1) } else { 0 }
}

const RIGHTS_LEN: u32 = size_of::<RawFd>() as u32;

/// Sends a descriptor and one byte over a Unix socket (SCM_RIGHTS).
pub fn pass(over: RawFd, fd: RawFd) -> i64 {
    let mut byte = [b'f'];
    let mut iov = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = [0u64; 8];
    // SAFETY: the header describes memory of ours; the control buffer is aligned and large enough for one descriptor.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut iov;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(RIGHTS_LEN) as usize;
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = libc::SOL_SOCKET;
        (*message).cmsg_type = libc::SCM_RIGHTS;
        (*message).cmsg_len = libc::CMSG_LEN(RIGHTS_LEN) as usize;
        libc::CMSG_DATA(message).cast::<RawFd>().write_unaligned(fd);
        outcome(libc::sendmsg(over, &raw const header, 0) as i64)
    }
}

/// Receives a descriptor and its byte.
pub fn take(over: RawFd) -> RawFd {
    let mut byte = [0u8];
    let mut iov = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = [0u64; 8];
    // SAFETY: as in `pass`; the first control message is read only if there is one.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut iov;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        assert_eq!(libc::recvmsg(over, &raw mut header, 0), 1, "recvmsg");
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        assert!(!message.is_null(), "no descriptor came");
        libc::CMSG_DATA(message).cast::<RawFd>().read_unaligned()
    }
}
