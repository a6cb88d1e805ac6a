//! The system calls that the shim makes for itself: raw, so that they meet no hook (ours or another preloaded library's) and are
//! no cancellation points. One of the files with `unsafe`.

use std::ffi::{c_int, c_uint};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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

/// recvfrom(2) without an address.
pub fn recv(fd: RawFd, buf: &mut [u8], flags: c_int) -> Result<usize> {
    call!(libc::SYS_recvfrom, fd, buf.as_mut_ptr(), buf.len(), flags, 0usize, 0usize).map(|n| n as usize)
}

/// sendto(2) without an address.
pub fn send(fd: RawFd, buf: &[u8], flags: c_int) -> Result<usize> {
    call!(libc::SYS_sendto, fd, buf.as_ptr(), buf.len(), flags, 0usize, 0usize).map(|n| n as usize)
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

/// sendmsg(2) from several places.
pub fn send_vectored(fd: RawFd, bufs: &[std::io::IoSlice<'_>], flags: c_int) -> Result<usize> {
    // SAFETY: plain data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // IoSlice has the layout of iovec; the kernel only reads.
    message.msg_iov = bufs.as_ptr().cast_mut().cast();
    message.msg_iovlen = bufs.len() as _;
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

/// epoll_ctl(2) MOD with these events.
pub fn epoll_mod(ep: RawFd, fd: RawFd, events: u32, data: u64) -> Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    call!(libc::SYS_epoll_ctl, ep, libc::EPOLL_CTL_MOD, fd, &raw mut event).map(drop)
}

/// What the kernel's entry of a set asks for now (`/proc/self/fdinfo`, proc_pid_fdinfo(5)): a used-up one-shot asks for nothing.
pub fn epoll_events(ep: RawFd, fd: RawFd) -> Option<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{ep}")).ok()?;
    let entry = info
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| matches!(words.as_slice(), ["tfd:", number, ..] if number.parse() == Ok(fd)))?;
    u32::from_str_radix(entry.get(3)?, 16).ok()
}

/// epoll_ctl(2) DEL.
pub fn epoll_del(ep: RawFd, fd: RawFd) -> Result<()> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    call!(libc::SYS_epoll_ctl, ep, libc::EPOLL_CTL_DEL, fd, &raw mut event).map(drop)
}

/// epoll_wait(2) that does not wait.
pub fn epoll_look(ep: RawFd, events: &mut [libc::epoll_event]) -> Result<usize> {
    let max = events.len().min(c_int::MAX as usize) as c_int;
    call!(libc::SYS_epoll_pwait, ep, events.as_mut_ptr(), max, 0, 0usize, SIGSET).map(|n| n as usize)
}

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

const CMSG_SPACE: usize = 24 + underpass_stack::control::MAX_FDS * 4;

#[repr(C, align(8))]
struct Control([u8; CMSG_SPACE]);

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

/// The user at the other end of a Unix socket when it connected or listened (SO_PEERCRED, unix(7)).
pub fn peer_user(fd: BorrowedFd<'_>) -> Result<u32> {
    let credentials: [u32; 3] = sockopt_of(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED)?;
    Ok(credentials[1])
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

/// SO_LINGER.
pub fn set_linger(fd: RawFd, on: bool, seconds: c_int) -> Result<()> {
    let linger = libc::linger { l_onoff: c_int::from(on), l_linger: seconds };
    let len = size_of::<libc::linger>();
    call!(libc::SYS_setsockopt, fd, libc::SOL_SOCKET, libc::SO_LINGER, &raw const linger, len).map(drop)
}

/// An epoll set of our own.
pub fn epoll_create() -> Result<OwnedFd> {
    let fd = call!(libc::SYS_epoll_create1, libc::EPOLL_CLOEXEC)?;
    // SAFETY: just made, ours alone.
    Ok(out_of_the_way(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}

/// epoll_ctl(2): ADD, or MOD of what is there.
pub fn epoll_set(ep: RawFd, fd: RawFd, events: u32, data: u64) -> Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    match call!(libc::SYS_epoll_ctl, ep, libc::EPOLL_CTL_ADD, fd, &raw mut event) {
        Err(Errno(libc::EEXIST)) => epoll_mod(ep, fd, events, data),
        other => other.map(drop),
    }
}

/// A netlink socket of this protocol (netlink(7)).
pub fn netlink_socket(protocol: c_int) -> Result<OwnedFd> {
    let fd = call!(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol)?;
    // SAFETY: just made, ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
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
