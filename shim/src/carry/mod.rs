//! What one call comes to on one tier, tried once and without waiting: the kernel, or a lane.

pub mod kernel;
pub mod shm;
pub mod xdp;

use std::os::fd::RawFd;

use libc::c_int;

use crate::buffers::{Gather, Scatter};
use crate::errno::Errno;
use crate::fd::Ref;
use crate::socket::{Lane, Socket};
use crate::{engine, shm as channels};

/// What a try came to.
pub enum Step {
    /// The call is over with what has been moved.
    Over,
    /// It failed.
    Failed(Errno),
    /// Nothing more can be moved now.
    Blocked,
    /// The tier has changed: try there.
    Moved,
}

/// How a receiving call asks.
#[derive(Clone, Copy)]
pub struct Ask {
    /// MSG_PEEK and the like.
    pub flags: c_int,
    /// Bytes after which it is over.
    pub want: usize,
    /// It is going to wait if there is nothing.
    pub waits: bool,
}

/// Receives on a lane until the bytes asked for have come.
pub fn receive(socket: &Ref<Socket>, fd: RawFd, lane: Lane, into: &mut Scatter<'_, '_>, ask: Ask) -> Step {
    match lane {
        Lane::Xdp(slot) => xdp::receive(socket, slot, into, ask),
        Lane::Shm(channel) => shm::receive(socket, fd, channel, into, ask),
    }
}

/// Sends on a lane.
pub fn send(socket: &Ref<Socket>, fd: RawFd, lane: Lane, from: &mut Gather<'_>, flags: c_int) -> Step {
    match lane {
        Lane::Xdp(slot) => xdp::send(socket, slot, from, flags),
        Lane::Shm(channel) => shm::send(socket, fd, channel, from, flags),
    }
}

/// Connections on lanes.
pub fn live() -> u64 {
    engine::live() + channels::live()
}
