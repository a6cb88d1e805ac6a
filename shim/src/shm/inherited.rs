//! Sockets that a child has from its parent while the parent carries them on this lane: at the child's first touch the parent gives
//! them back to the kernel, where both can use them.
//!
//! The child asks through the page of holders, which both have mapped, and rings the parent's general bell.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::*};

use underpass_stack::lane::Reason;

use super::channels;
use crate::fd::Ref;
use crate::socket::{Lane, Socket};
use crate::{holders, log, sys, tier};

/// Time that a parent may take, ns.
const PATIENCE: u64 = 5_000_000_000;
/// Pause between looks whether it has, ns.
const LOOK: i64 = 50_000;

/// The parent's general bell, kept by a child; -1 in others.
static PARENTS_BELL: AtomicI32 = AtomicI32::new(-1);
static PARENT: AtomicU32 = AtomicU32::new(0);

/// After fork(2), in the child: how to call the parent.
pub fn remember_parent(bell: RawFd) {
    PARENTS_BELL.store(bell, Relaxed);
    PARENT.store(sys::getppid(), Relaxed);
}

/// Is this the descriptor that a child keeps of its parent's?
pub fn is_parents_bell(fd: RawFd) -> bool {
    fd >= 0 && PARENTS_BELL.load(Relaxed) == fd
}

/// In the child: has the parent give a socket back. A parent that is gone has done so: its peers noticed.
pub fn call_home(socket: &Socket) {
    holders::ask_back(socket);
    let bell = PARENTS_BELL.load(Relaxed);
    if bell >= 0 {
        sys::ring(bell);
    }
    let until = sys::now().after(PATIENCE);
    while holders::is_asked_back(socket) && sys::getppid() == PARENT.load(Relaxed) {
        if sys::now() >= until {
            log::error(format_args!("fd {}: on the parent's lane, which does not let go", socket.fd.load(Relaxed)));
            return;
        }
        let _ = sys::ppoll(&mut [], Some(libc::timespec { tv_sec: 0, tv_nsec: LOOK }), None);
    }
}

/// In the parent, by the helper: gives back what children ask for.
pub fn answer_children() {
    if !holders::any_asked_back() {
        return;
    }
    let asked: Vec<Ref<Socket>> = channels()
        .into_iter()
        .filter_map(|channel| Some(channel.end()?.socket))
        .filter(|socket| holders::is_asked_back(socket))
        .collect();
    for socket in asked {
        if let Some(Lane::Shm(_)) = socket.lane()
            && let Err(reason) = tier::demote(&socket, Reason::Shared)
        {
            log::warn(format_args!("a child's socket stays on the lane: {}", reason.text()));
            continue;
        }
        holders::given_back(&socket);
    }
}
