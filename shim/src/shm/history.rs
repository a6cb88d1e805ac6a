//! How many bytes have gone through a kernel socket, in each direction, since the connection began.
//!
//! A direction that changes its carrier does so at a byte of the stream, which both ends have to count alike. The kernel counts
//! already (`struct tcp_info`, <linux/tcp.h>); what it says is taken only where two ways of counting agree.

use std::os::fd::RawFd;

use crate::{carry, sys};

/// Offsets in `struct tcp_info`.
mod at {
    pub const STATE: usize = 0;
    pub const OPTIONS: usize = 5;
    pub const BYTES_ACKED: usize = 120;
    pub const BYTES_RECEIVED: usize = 128;
    pub const NOTSENT_BYTES: usize = 144;
    pub const BYTES_SENT: usize = 200;
    pub const BYTES_RETRANS: usize = 208;
    pub const END: usize = 216;
}

/// TCPI_OPT_SYN_DATA: data went along with the SYN, which the two ways count differently.
const SYN_DATA: u8 = 32;
/// States in which a connection is open in our direction (<net/tcp_states.h>).
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;
/// States before the peer's FIN.
const BEFORE_FIN: [u8; 3] = [ESTABLISHED, 4, 5];

struct Info([u8; 256]);

impl Info {
    fn of(fd: RawFd) -> Option<Self> {
        let mut bytes = [0; 256];
        let len = sys::sockopt_bytes(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut bytes).ok()?;
        (len >= at::END).then_some(Self(bytes))
    }

    fn byte(&self, offset: usize) -> u8 {
        self.0[offset]
    }

    fn word(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[offset..offset + 8]);
        u64::from_ne_bytes(bytes)
    }

    fn half(&self, offset: usize) -> u64 {
        self.word(offset) & 0xffff_ffff
    }

    /// Bytes that the program has written, whether they have been sent or not.
    fn written(&self) -> u64 {
        let sent = self.word(at::BYTES_SENT).wrapping_sub(self.word(at::BYTES_RETRANS));
        sent.wrapping_add(self.half(at::NOTSENT_BYTES))
    }
}

/// Is the connection established in both directions, with nothing in its past that spoils the counting?
pub fn is_countable(fd: RawFd) -> bool {
    Info::of(fd).is_some_and(|info| info.byte(at::STATE) == ESTABLISHED && info.byte(at::OPTIONS) & SYN_DATA == 0)
}

/// Has the peer's stream come to its end, by its FIN or by a reset?
pub fn is_ended(fd: RawFd) -> bool {
    Info::of(fd).is_some_and(|info| !BEFORE_FIN.contains(&info.byte(at::STATE)))
}

/// Bytes that the program has written to the socket, ever. The caller keeps everybody from writing. `None`: the kernel's counts do
/// not agree (now, or ever, after TCP_REPAIR).
pub fn bytes_written(fd: RawFd) -> Option<u64> {
    for _ in 0..4 {
        let before = Info::of(fd)?;
        let queued = u64::from(sys::queue_length(fd, libc::TIOCOUTQ)?);
        let after = Info::of(fd)?;
        let open = [ESTABLISHED, CLOSE_WAIT].contains(&after.byte(at::STATE));
        if !open || after.byte(at::OPTIONS) & SYN_DATA != 0 {
            return None;
        }
        if before.word(at::BYTES_ACKED) != after.word(at::BYTES_ACKED) {
            continue;
        }
        // A client's SYN counts as an acknowledged byte.
        let excess = before.word(at::BYTES_ACKED).wrapping_add(queued).wrapping_sub(after.written());
        if excess <= 1 {
            return Some(after.written());
        }
    }
    None
}

/// Bytes that the program has read from the socket, ever. The caller keeps everybody from reading. `None`: not to be known now,
/// while urgent data hides what is behind it, or bytes keep coming.
pub fn bytes_read(fd: RawFd) -> Option<u64> {
    if carry::kernel::ready(fd, libc::POLLPRI) & libc::POLLPRI != 0 {
        return None;
    }
    for _ in 0..16 {
        let before = u64::from(sys::queue_length(fd, libc::FIONREAD)?);
        let info = Info::of(fd)?;
        let after = u64::from(sys::queue_length(fd, libc::FIONREAD)?);
        if before == after {
            let fin = u64::from(!BEFORE_FIN.contains(&info.byte(at::STATE)));
            return Some(info.word(at::BYTES_RECEIVED).wrapping_sub(fin).wrapping_sub(after));
        }
    }
    None
}
