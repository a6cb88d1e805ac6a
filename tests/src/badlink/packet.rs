//! Whole frames from and to one interface (packet(7)). One of the files with `unsafe`: neither std
//! nor nix has these calls.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Longest frame of an interface whose segmentation offloads are off, with room to spare.
const FRAME_MAX: usize = 16 << 10;
/// Frames that wait for us while we are late, bytes.
const BUFFER: libc::c_int = 8 << 20;

/// A packet socket on one interface: every frame that arrives there, whoever it is for, and none that leaves.
pub(super) struct PacketSocket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl PacketSocket {
    /// On interface number `ifindex` of the calling thread's network namespace.
    pub fn open(ifindex: u32) -> io::Result<Self> {
        let all = u16::to_be(libc::ETH_P_ALL as u16);
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Protocol 0 receives nothing until the socket is bound.
        // SAFETY: plain system call.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the descriptor was just returned to us and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        set_option(&fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER)?;
        // SAFETY: integers only, and zero is a value of each.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = all;
        address.sll_ifindex = ifindex as i32;
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is ours and `len` bytes long.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) })?;
        Ok(Self { fd, buffer: vec![0; FRAME_MAX] })
    }

    /// The next frame that has arrived.
    pub fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let (at, room) = (self.buffer.as_mut_ptr(), self.buffer.len());
        // SAFETY: the kernel writes at most `room` bytes to the buffer; MSG_TRUNC only tells the true length.
        let got = unsafe { libc::recv(self.fd.as_raw_fd(), at.cast(), room, libc::MSG_TRUNC) };
        let len = match usize::try_from(got) {
            Ok(len) => len,
            Err(_) => return again(io::Error::last_os_error()).map(|()| None),
        };
        let frame = self.buffer.get(..len).map(<[u8]>::to_vec);
        frame.map(Some).ok_or_else(|| io::Error::other(format!("a frame of {len} bytes: segmentation offload is on")))
    }

    /// Sends a frame; false if there was no room for it.
    pub fn send(&self, frame: &[u8]) -> io::Result<bool> {
        // SAFETY: the kernel reads the frame.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent >= 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOBUFS) => Ok(false),
            _ => again(error).map(|()| false),
        }
    }

    /// Frames that were lost since the last call because we did not fetch them in time (PACKET_STATISTICS).
    pub fn take_drops(&self) -> io::Result<u64> {
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = size_of_val(&stats) as libc::socklen_t;
        let (fd, name) = (self.fd.as_raw_fd(), libc::PACKET_STATISTICS);
        // SAFETY: the kernel writes at most `len` bytes of integers.
        check(unsafe { libc::getsockopt(fd, libc::SOL_PACKET, name, (&raw mut stats).cast(), &raw mut len) })?;
        Ok(stats.tp_drops.into())
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Sleeps until one of `fds` can be read, at most for `limit` (ppoll(2)).
pub(super) fn sleep_on(fds: [RawFd; 3], limit: Option<Duration>) -> io::Result<()> {
    let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    let limit = limit
        .map(|limit| libc::timespec { tv_sec: limit.as_secs() as libc::time_t, tv_nsec: limit.subsec_nanos().into() });
    let timeout = limit.as_ref().map_or(std::ptr::null(), |limit| &raw const *limit);
    // SAFETY: three valid pollfds; the timeout outlives the call; no signal mask is given.
    let ready = unsafe { libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout, std::ptr::null()) };
    if ready < 0 { again(io::Error::last_os_error()) } else { Ok(()) }
}

fn set_option(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads one integer.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) }).map(|_| ())
}

/// Errors that mean "not now" (an interface that goes down tells of it once).
fn again(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR | libc::ENETDOWN) => Ok(()),
        _ => Err(error),
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
