//! The system calls that the shim makes for itself: raw, so that they meet no hook (ours or another preloaded library's) and are
//! no cancellation points. One of the files with `unsafe`.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::{nfds_t, pollfd, sigset_t, timespec};
use underpass_stack::tcp::Instant;

use crate::errno::{Errno, Result, check};

/// Bytes of the kernel's signal set.
const SIGSET: usize = 8;

macro_rules! call {
    ($number:expr $(, $arg:expr)* $(,)?) => {
        // SAFETY: the arguments are scalars, or pointers into live values of the caller's that the kernel reads or fills.
        check(unsafe { libc::syscall($number $(, $arg)*) })
    };
}

mod buffer;
mod epoll;
mod transfer;
mod unix;

pub use self::buffer::*;
pub use self::epoll::*;
pub use self::transfer::*;
pub use self::unix::*;

/// poll(2) without libc.
///
/// # Safety
/// `fds` points to `count` records.
pub unsafe fn poll_raw(fds: *mut pollfd, count: nfds_t, timeout_ms: c_int) -> c_int {
    let timeout = timespec { tv_sec: i64::from(timeout_ms / 1000), tv_nsec: i64::from(timeout_ms % 1000) * 1_000_000 };
    let timeout = if timeout_ms < 0 { std::ptr::null() } else { &raw const timeout };
    // SAFETY: the caller's promise; the time lives to the end of the call.
    unsafe { ppoll_raw(fds, count, timeout, std::ptr::null()) }
}

/// ppoll(2) without libc; the kernel writes the rest of the time, so it gets a copy.
///
/// # Safety
/// As for the libc function.
pub unsafe fn ppoll_raw(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int {
    // SAFETY: null or valid by the caller's promise.
    let mut copy = unsafe { timeout.as_ref() }.copied();
    let timeout = copy.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_ppoll, fds, count, timeout, mask, SIGSET) as c_int }
}

/// dup2(2), also where only dup3 exists.
///
/// # Safety
/// None beyond the call's effect on the descriptor table.
pub unsafe fn dup2_raw(from: c_int, to: c_int) -> c_int {
    if from != to {
        // SAFETY: scalars.
        return unsafe { libc::syscall(libc::SYS_dup3, from, to, 0) as c_int };
    }
    // SAFETY: scalars.
    if unsafe { libc::syscall(libc::SYS_fcntl, from, libc::F_GETFD) } < 0 { -1 } else { to }
}

/// A signal mask as the kernel has it, signal 1 in the lowest bit.
pub fn kernel_mask(set: &sigset_t) -> u64 {
    // SAFETY: a sigset_t begins with the kernel's 64 bits and is aligned for them.
    unsafe { *std::ptr::from_ref(set).cast() }
}

/// Waits on `fds` until `timeout` (none: for ever), with `mask` as the signal mask meanwhile if given.
pub fn ppoll(fds: &mut [pollfd], timeout: Option<timespec>, mask: Option<u64>) -> Result<usize> {
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mask = mask.as_ref().map_or(std::ptr::null(), |mask| std::ptr::from_ref(mask).cast());
    // SAFETY: a live slice and live values; the kernel reads 64 bits of the mask.
    check(i64::from(unsafe { ppoll_raw(fds.as_mut_ptr(), fds.len() as nfds_t, timeout, mask) })).map(|n| n as usize)
}

/// CLOCK_MONOTONIC.
pub fn now() -> Instant {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the result; the vDSO answers.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Instant(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// CLOCK_REALTIME in seconds.
pub fn realtime() -> u64 {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as in `now`.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut time) };
    time.tv_sec as u64
}

/// getpid(2), never cached.
pub fn getpid() -> u32 {
    call!(libc::SYS_getpid).unwrap_or(0) as u32
}

/// gettid(2).
pub fn gettid() -> u32 {
    call!(libc::SYS_gettid).unwrap_or(0) as u32
}

/// exit_group(2).
pub fn exit(status: c_int) -> ! {
    loop {
        let _ = call!(libc::SYS_exit_group, status);
    }
}

/// close(2).
pub fn close(fd: RawFd) {
    let _ = call!(libc::SYS_close, fd);
}

/// close_range(2).
pub fn close_range(first: u32, last: u32, flags: c_int) -> Result<()> {
    call!(libc::SYS_close_range, first, last, flags).map(drop)
}

/// Moves an own descriptor out of the program's way, above 1000 where the limit allows it, close-on-exec.
pub fn out_of_the_way(fd: OwnedFd) -> OwnedFd {
    for lowest in [1000, 200] {
        if let Ok(high) = call!(libc::SYS_fcntl, fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) {
            // SAFETY: just made, ours alone. The old one closes by its drop, through the raw call of `close` in libc's hook guard.
            return unsafe { OwnedFd::from_raw_fd(high as RawFd) };
        }
    }
    fd
}

/// eventfd(2), non-blocking and close-on-exec.
pub fn eventfd() -> Result<OwnedFd> {
    let fd = call!(libc::SYS_eventfd2, 0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)?;
    // SAFETY: just made, ours alone.
    Ok(out_of_the_way(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}

/// Adds one to an eventfd.
pub fn ring(fd: RawFd) {
    let one = 1u64;
    let _ = call!(libc::SYS_write, fd, &raw const one, 8usize);
}

/// Sets an eventfd back to zero.
pub fn drain(fd: RawFd) {
    let mut value = 0u64;
    let place = libc::iovec { iov_base: (&raw mut value).cast(), iov_len: 8 };
    // Another process may hold the eventfd, and have made it wait.
    let _ = call!(libc::SYS_preadv2, fd, &raw const place, 1usize, -1isize, -1isize, libc::RWF_NOWAIT);
}

/// getsockopt(2) of an int.
pub fn sockopt(fd: RawFd, level: c_int, name: c_int) -> Result<c_int> {
    let mut value: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    call!(libc::SYS_getsockopt, fd, level, name, &raw mut value, &raw mut len)?;
    Ok(value)
}

/// getsockopt(2) of a plain structure.
pub fn sockopt_of<T: Copy + zerocopy::FromZeros>(fd: RawFd, level: c_int, name: c_int) -> Result<T> {
    let mut value = T::new_zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    call!(libc::SYS_getsockopt, fd, level, name, &raw mut value, &raw mut len)?;
    Ok(value)
}

/// getsockopt(2) into bytes; returns how many the kernel has.
pub fn sockopt_bytes(fd: RawFd, level: c_int, name: c_int, value: &mut [u8]) -> Result<usize> {
    let mut len = value.len() as libc::socklen_t;
    call!(libc::SYS_getsockopt, fd, level, name, value.as_mut_ptr(), &raw mut len)?;
    Ok((len as usize).min(value.len()))
}

/// Does the next byte of a TCP socket lie right behind urgent data, where a receive call stops (sockatmark(3))?
pub fn is_at_mark(fd: RawFd) -> bool {
    const SIOCATMARK: libc::c_ulong = 0x8905;
    let mut mark: c_int = 0;
    call!(libc::SYS_ioctl, fd, SIOCATMARK, &raw mut mark).is_ok() && mark != 0
}

/// Is a TCP socket in repair mode, that is, somebody else's to speak for?
pub fn in_repair(fd: RawFd) -> bool {
    sockopt(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR).is_ok_and(|mode| mode != 0)
}

/// Ends a connection without a word to the peer (connect(2) with AF_UNSPEC).
pub fn disconnect(fd: RawFd) -> Result<()> {
    let nobody = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    call!(libc::SYS_connect, fd, &raw const nobody, size_of::<libc::sockaddr>()).map(drop)
}

/// SO_RCVTIMEO or SO_SNDTIMEO, as nanoseconds; zero for none.
pub fn socket_timeout(fd: RawFd, name: c_int) -> u64 {
    let pair: [i64; 2] = sockopt_of(fd, libc::SOL_SOCKET, name).unwrap_or([0, 0]);
    pair[0].max(0) as u64 * 1_000_000_000 + pair[1].max(0) as u64 * 1_000
}

/// File status flags, F_GETFL.
pub fn status_flags(fd: RawFd) -> Result<c_int> {
    call!(libc::SYS_fcntl, fd, libc::F_GETFL).map(|flags| flags as c_int)
}

/// Does a descriptor outlive exec(3)? (F_GETFD)
pub fn survives_exec(fd: RawFd) -> bool {
    call!(libc::SYS_fcntl, fd, libc::F_GETFD).is_ok_and(|flags| flags as c_int & libc::FD_CLOEXEC == 0)
}

/// Type bits and inode of what a descriptor names.
pub fn file_id(fd: RawFd) -> Result<(libc::mode_t, u64)> {
    // SAFETY: plain data.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    call!(libc::SYS_newfstatat, fd, c"".as_ptr(), &raw mut stat, libc::AT_EMPTY_PATH)?;
    Ok((stat.st_mode & libc::S_IFMT, stat.st_ino))
}

/// Is it a pipe?
pub fn is_pipe(fd: RawFd) -> bool {
    file_id(fd).is_ok_and(|(kind, _)| kind & libc::S_IFMT == libc::S_IFIFO)
}

/// Writes to a pipe what goes without waiting. A kernel that does not know how (RWF_NOWAIT, readv(2)) is given `whole` bytes at most, which
/// a pipe that polls as writable takes.
pub fn write_what_fits(fd: RawFd, bytes: &[u8], whole: usize) -> Result<usize> {
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let written = call!(libc::SYS_pwritev2, fd, &raw const part, 1usize, -1isize, -1isize, libc::RWF_NOWAIT);
    match written {
        Err(Errno(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS)) => {
            let bytes = &bytes[..bytes.len().min(whole)];
            call!(libc::SYS_write, fd, bytes.as_ptr(), bytes.len()).map(|n| n as usize)
        }
        written => written.map(|n| n as usize),
    }
}

/// The disposition of a signal: its handler address and flags.
pub fn signal_action(signal: c_int) -> Option<(usize, u64)> {
    #[repr(C)]
    struct KernelSigaction {
        handler: usize,
        flags: u64,
        restorer: usize,
        mask: u64,
    }
    let mut action = KernelSigaction { handler: 0, flags: 0, restorer: 0, mask: 0 };
    call!(libc::SYS_rt_sigaction, signal, 0usize, &raw mut action, SIGSET).ok()?;
    Some((action.handler, action.flags))
}

/// Blocks every signal in the calling thread and returns the mask that it had.
pub fn block_signals() -> u64 {
    let (all, mut before) = (u64::MAX, 0u64);
    let _ = call!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, &raw mut before, SIGSET);
    before
}

/// Sets the calling thread's signal mask; what it lets through is delivered at once.
pub fn set_signal_mask(mask: u64) {
    let _ = call!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, 0usize, SIGSET);
}

/// Blocks every signal in the calling thread; for threads of our own.
pub fn block_all_signals() {
    let all = u64::MAX;
    let _ = call!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0usize, SIGSET);
}

/// Sends SIGPIPE to the calling thread, as a failed write does.
pub fn raise_sigpipe() {
    let _ = call!(libc::SYS_tgkill, getpid(), gettid(), libc::SIGPIPE);
}

/// Lets the processor rest in a spin loop and other threads of this core run.
pub fn relax() {
    std::hint::spin_loop();
}

/// Maps zeroed memory shared with children to come.
pub fn shared_memory(len: usize) -> Result<*mut u8> {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    call!(libc::SYS_mmap, 0usize, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0).map(|at| at as *mut u8)
}

/// getppid(2).
pub fn getppid() -> u32 {
    call!(libc::SYS_getppid).unwrap_or(0) as u32
}

/// Random bits (getrandom(2)).
pub fn random() -> [u64; 2] {
    let mut bits = [0u64; 2];
    if call!(libc::SYS_getrandom, bits.as_mut_ptr(), 16usize, 0) != Ok(16) {
        bits = [now().0, u64::from(getpid())];
    }
    bits
}

/// The effective user.
pub fn user() -> u32 {
    call!(libc::SYS_geteuid).unwrap_or(u32::MAX as i64) as u32
}

/// SIOCINQ, SIOCOUTQ: bytes in a socket's queue.
pub fn queue_length(fd: RawFd, request: libc::c_ulong) -> Option<u32> {
    let mut length: c_int = 0;
    call!(libc::SYS_ioctl, fd, request, &raw mut length).ok()?;
    u32::try_from(length).ok()
}

fn address(number: libc::c_long, fd: RawFd) -> Result<std::net::SocketAddr> {
    let mut bytes = [0u8; size_of::<libc::sockaddr_storage>()];
    let mut len = bytes.len() as libc::socklen_t;
    call!(number, fd, bytes.as_mut_ptr(), &raw mut len)?;
    let known = &bytes[..(len as usize).min(bytes.len())];
    crate::shm::from_sockaddr(known).ok_or(Errno(libc::EAFNOSUPPORT))
}

/// getsockname(2) of an internet socket.
pub fn socket_name(fd: RawFd) -> Result<std::net::SocketAddr> {
    address(libc::SYS_getsockname, fd)
}

/// getpeername(2) of an internet socket.
pub fn peer_name(fd: RawFd) -> Result<std::net::SocketAddr> {
    address(libc::SYS_getpeername, fd)
}

/// setsockopt(2) with an int.
pub fn set_sockopt(fd: RawFd, level: c_int, name: c_int, value: c_int) -> Result<()> {
    call!(libc::SYS_setsockopt, fd, level, name, &raw const value, size_of::<c_int>()).map(drop)
}

/// SO_LINGER.
pub fn set_linger(fd: RawFd, on: bool, seconds: c_int) -> Result<()> {
    let linger = libc::linger { l_onoff: c_int::from(on), l_linger: seconds };
    let len = size_of::<libc::linger>();
    call!(libc::SYS_setsockopt, fd, libc::SOL_SOCKET, libc::SO_LINGER, &raw const linger, len).map(drop)
}

/// A netlink socket of this protocol (netlink(7)).
pub fn netlink_socket(protocol: c_int) -> Result<OwnedFd> {
    let fd = call!(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol)?;
    // SAFETY: just made, ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Does a process run, that is, exist and not merely wait to be reaped (proc_pid_stat(5))?
pub fn is_running(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// A duplicate of the program's descriptor, out of its way.
pub fn duplicate(fd: RawFd) -> Result<OwnedFd> {
    for lowest in [1000, 200, 3] {
        if let Ok(copy) = call!(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, lowest) {
            // SAFETY: just made, ours alone.
            return Ok(unsafe { OwnedFd::from_raw_fd(copy as RawFd) });
        }
    }
    Err(Errno(libc::EBADF))
}

/// Descriptors that the process may have open (RLIMIT_NOFILE).
pub fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    match call!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, 0usize, &raw mut limit) {
        Ok(_) => limit.rlim_cur,
        Err(_) => 256,
    }
}

/// Is it an eventfd?
pub fn is_eventfd(fd: RawFd) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|name| name.as_os_str() == "anon_inode:[eventfd]")
}
