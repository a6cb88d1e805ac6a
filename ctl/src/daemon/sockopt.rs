//! Socket options and socket calls that neither the standard library nor `nix` has: the `unsafe` of this room.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use underpass_stack::ip::flow::Addr;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// Who holds the socket: IPv4, or IPv6, perhaps with v4-mapped addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// getsockopt(2) into a record. Shorter answers leave the rest zero; the length answered is returned too.
pub fn get<T: FromZeros + FromBytes + IntoBytes>(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<(T, usize)> {
    let mut value = T::new_zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is `len` writable bytes for which any content is a value (FromBytes).
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &mut len) })?;
    Ok((value, len as usize))
}

/// An option that is a number, or a record that goes in and comes out of the same place.
pub fn get_int(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    get::<i32>(fd, level, name).map(|(value, _)| value)
}

/// Length of what an option answers when it is given no room at all (SO_GET_FILTER counts instructions so).
pub fn get_len(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<usize> {
    let mut len: libc::socklen_t = 0;
    // SAFETY: a length of zero forbids the kernel to write.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, std::ptr::null_mut(), &mut len) })?;
    Ok(len as usize)
}

/// setsockopt(2) from a record.
pub fn set<T: IntoBytes + Immutable + ?Sized>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    let bytes = value.as_bytes();
    // SAFETY: the kernel reads `bytes.len()` bytes of `bytes`.
    let done =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, bytes.as_ptr().cast(), bytes.len() as libc::socklen_t) };
    check(done).map(drop)
}

/// An option that is a number.
pub fn set_int(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    set(fd, level, name, &value)
}

/// An ioctl(2) that answers a number (SIOCOUTQ and its like, tcp(7)).
pub fn ioctl_int(fd: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    // SAFETY: the requests of this daemon's callers write one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut value) })?;
    Ok(value)
}

/// What poll(2) sees on the socket right now.
pub fn poll_now(fd: BorrowedFd<'_>, events: libc::c_short) -> io::Result<libc::c_short> {
    let mut watched = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one pollfd, which outlives the call.
    check(unsafe { libc::poll(&raw mut watched, 1, 0) })?;
    Ok(watched.revents)
}

/// From now on the socket receives nothing: a classic filter whose verdict is "keep 0 bytes".
pub fn attach_drop_all(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut code = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut code };
    // SAFETY: `program` names one instruction that outlives the call; the kernel copies both.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    check(done).map(drop)
}

/// Removes the socket's filter. Having none is not an error.
pub fn detach_filter(fd: BorrowedFd<'_>) -> io::Result<()> {
    match set_int(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// connect(2) to nowhere: dissolves the association (connect(2), AF_UNSPEC).
pub fn disconnect(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: all-zero is a sockaddr (AF_UNSPEC is 0).
    let address: libc::sockaddr = unsafe { std::mem::zeroed() };
    call_with_address(fd, libc::connect, &address)
}

/// bind(2).
pub fn bind(fd: BorrowedFd<'_>, family: Family, address: SocketAddr) -> io::Result<()> {
    match family {
        Family::V4 => call_with_address(fd, libc::bind, &v4(address)?),
        Family::V6 => call_with_address(fd, libc::bind, &v6(address, 0)),
    }
}

/// connect(2). `flow_info` is that of `struct sockaddr_in6`, network order.
pub fn connect(fd: BorrowedFd<'_>, family: Family, address: SocketAddr, flow_info: u32) -> io::Result<()> {
    match family {
        Family::V4 => call_with_address(fd, libc::connect, &v4(address)?),
        Family::V6 => call_with_address(fd, libc::connect, &v6(address, flow_info)),
    }
}

type AddressCall = unsafe extern "C" fn(libc::c_int, *const libc::sockaddr, libc::socklen_t) -> libc::c_int;

fn call_with_address<A>(fd: BorrowedFd<'_>, call: AddressCall, address: &A) -> io::Result<()> {
    let len = size_of::<A>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `address`, which is one of the sockaddr types.
    check(unsafe { call(fd.as_raw_fd(), (&raw const *address).cast(), len) }).map(drop)
}

fn v4(address: SocketAddr) -> io::Result<libc::sockaddr_in> {
    let SocketAddr::V4(address) = address else { return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)) };
    Ok(libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    })
}

fn v6(address: SocketAddr, flow_info: u32) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as libc::sa_family_t,
        sin6_port: address.port().to_be(),
        sin6_flowinfo: flow_info,
        sin6_addr: libc::in6_addr { s6_addr: Addr::from(address.ip()).0 },
        sin6_scope_id: 0,
    }
}

/// Takes ownership of a descriptor that the kernel has just handed to this process (SCM_RIGHTS).
pub fn adopt_fd(raw: RawFd) -> OwnedFd {
    // SAFETY: callers pass descriptors out of a control message they have just received, each once; nobody else
    // knows their numbers.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// Most descriptors of one message (SCM_MAX_FD of linux/net/scm.h).
const SCM_MAX_FD: usize = 253;

const CONTROL_LEN: usize = 24 + 4 * SCM_MAX_FD;

/// Room for the control message that brings them, aligned for its header.
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// A datagram with the descriptors beside it.
#[derive(Debug)]
pub struct Datagram {
    /// Bytes; 0 with nothing beside them: the peer is gone.
    pub len: usize,
    /// Close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// It was longer than the room for it.
    pub is_cut: bool,
    /// Not all descriptors came: this process may have no more.
    pub lacks_fds: bool,
}

/// Receives one datagram without waiting. Every descriptor that the kernel has handed over has an owner afterwards, also where it could not
/// hand over all.
pub fn receive_with_fds(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<Datagram> {
    let mut control = Control([0; CONTROL_LEN]);
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: plain data, for which all zeros is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut iov, 1);
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = CONTROL_LEN as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header and all it points to live here.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let mut fds = Vec::new();
    let Ok(len) = usize::try_from(len) else {
        let error = io::Error::last_os_error();
        let gone = Datagram { len: 0, fds, is_cut: false, lacks_fds: false };
        return if error.raw_os_error() == Some(libc::ECONNRESET) { Ok(gone) } else { Err(error) };
    };
    // SAFETY: the kernel filled the control buffer, and the CMSG macros stay within msg_controllen, which is 0 if there is nothing.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if ((*header).cmsg_level, (*header).cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let first: *const RawFd = libc::CMSG_DATA(header).cast();
                let count = ((*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                fds.extend((0..count).map(|n| adopt_fd(first.add(n).read_unaligned())));
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    let has = |flag| message.msg_flags & flag != 0;
    Ok(Datagram { len, fds, is_cut: has(libc::MSG_TRUNC), lacks_fds: has(libc::MSG_CTRUNC) })
}
