//! Which congestion control, with what knowledge of the path and what limit on its rate, goes over to the lane with a socket?

use std::os::fd::RawFd;

use underpass_stack::tcp::{Algorithm, Learnt};
use zerocopy::IntoBytes;

use crate::{options, sys};

/// TCP_CA_NAME_MAX, net/tcp.h.
const NAME_MAX: usize = 16;

/// TCP_CC_INFO, linux/tcp.h.
const TCP_CC_INFO: i32 = 26;

/// How a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// By which algorithm.
    pub algorithm: Algorithm,
    /// What the kernel's has learnt, if it is the same.
    pub learnt: Learnt,
}

impl Control {
    /// That of a connection, as long as its socket is alive in the kernel. `None`: the engine does not have the algorithm.
    pub fn of(fd: RawFd) -> Option<Self> {
        let algorithm = algorithm_for(fd)?;
        let learnt = if algorithm_of(fd) == Some(algorithm) { learnt_of(fd, algorithm) } else { Learnt::Nothing };
        Some(Self { algorithm, learnt })
    }
}

fn learnt_of(fd: RawFd, algorithm: Algorithm) -> Learnt {
    let mut info = [0; Learnt::INFO_LEN];
    let len = sys::sockopt_bytes(fd, libc::IPPROTO_TCP, TCP_CC_INFO, &mut info).unwrap_or(0);
    Learnt::of(algorithm, &info[..len])
}

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
