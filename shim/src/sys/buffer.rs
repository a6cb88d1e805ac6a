//! The send buffer of a socket: what it has room for, and room made for a moment.

use std::ffi::c_int;
use std::os::fd::RawFd;

use super::{check, sockopt, sockopt_of};
use crate::errno::Result;

/// Whether the program has set the buffers itself (SO_BUF_LOCK, <linux/socket.h>).
const SO_BUF_LOCK: c_int = 72;

/// Bytes that the send buffer has room for, the kernel's bookkeeping included (SO_MEMINFO, <linux/sock_diag.h>).
pub fn send_room(fd: RawFd) -> usize {
    const SO_MEMINFO: c_int = 55;
    const SNDBUF: usize = 3;
    const WMEM_QUEUED: usize = 5;
    let info: [u32; 9] = sockopt_of(fd, libc::SOL_SOCKET, SO_MEMINFO).unwrap_or_default();
    info[SNDBUF].saturating_sub(info[WMEM_QUEUED]) as usize
}

/// While one lives, a socket's send buffer is larger than the program knows.
pub struct LargerSendBuffer {
    fd: RawFd,
    size: c_int,
    locks: c_int,
}

impl LargerSendBuffer {
    /// One with room for `bytes` more, as far as the system lets anybody have it (net.core.wmem_max).
    pub fn new(fd: RawFd, bytes: usize) -> Result<Self> {
        let size = sockopt(fd, libc::SOL_SOCKET, libc::SO_SNDBUF)?;
        let locks = sockopt(fd, libc::SOL_SOCKET, SO_BUF_LOCK)?;
        // The kernel doubles what it is told, and says what it has (socket(7)).
        let more = c_int::try_from(bytes).unwrap_or(c_int::MAX / 2).saturating_add(size) / 2;
        set(fd, libc::SO_SNDBUF, more)?;
        Ok(Self { fd, size, locks })
    }
}

impl Drop for LargerSendBuffer {
    fn drop(&mut self) {
        let _ = set(self.fd, libc::SO_SNDBUF, self.size / 2);
        let _ = set(self.fd, SO_BUF_LOCK, self.locks);
    }
}

fn set(fd: RawFd, name: c_int, value: c_int) -> Result<()> {
    call!(libc::SYS_setsockopt, fd, libc::SOL_SOCKET, name, &raw const value, size_of::<c_int>()).map(drop)
}
