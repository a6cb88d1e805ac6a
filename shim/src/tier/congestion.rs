//! Which congestion control, and what limit on its rate, goes over to the lane with a socket?

use std::os::fd::RawFd;

use underpass_stack::tcp::Algorithm;
use zerocopy::IntoBytes;

use crate::{options, sys};

/// TCP_CA_NAME_MAX, net/tcp.h.
const NAME_MAX: usize = 16;

/// The algorithm for a connection: UNDERPASS_CC, else the socket's own (TCP_CONGESTION). `None`: the engine does not have it.
pub fn algorithm_for(fd: RawFd) -> Option<Algorithm> {
    options::get().congestion.or_else(|| algorithm_of(fd))
}

/// The socket's own.
fn algorithm_of(fd: RawFd) -> Option<Algorithm> {
    let mut name = [0; NAME_MAX];
    let len = sys::sockopt_bytes(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, &mut name).ok()?;
    Algorithm::named(name[..len].split(|byte| *byte == 0).next()?)
}

/// SO_MAX_PACING_RATE, bytes a second; `u64::MAX`: no limit.
pub fn pacing_limit_of(fd: RawFd) -> u64 {
    let mut rate = u64::MAX;
    match sys::sockopt_bytes(fd, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, rate.as_mut_bytes()) {
        Ok(len) if len == size_of::<u64>() => rate,
        _ => u64::MAX,
    }
}
