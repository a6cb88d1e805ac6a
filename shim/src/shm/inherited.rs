//! Sockets that a child has from its parent while the parent carries them on this lane: at the child's first touch the parent gives
//! them back to the kernel, where both can use them.
//!
//! The child asks through the page of holders, which both have mapped, and rings the parent's general bell.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::*};

use underpass_stack::lane::Reason;

use super::{channels, leave};
use crate::fd::Ref;
use crate::socket::{Lane, Socket};
use crate::{holders, log, sys, tier};

/// Time that a parent may take, ns.
const PATIENCE: u64 = 5_000_000_000;
/// Pause between looks whether it has, ns.
const LOOK: i64 = 50_000;
/// Looks after which it is called again.
const LOOKS_A_CALL: u32 = 256;

/// Processes that a socket may be inherited from, at most: further ones are taken for gone.
const ANCESTORS: usize = 4;

/// A process that we come from, and its general bell.
struct Ancestor {
    pid: AtomicU32,
    bell: AtomicI32,
}

static PARENTS: [Ancestor; ANCESTORS] =
    [const { Ancestor { pid: AtomicU32::new(0), bell: AtomicI32::new(-1) } }; ANCESTORS];

/// After fork(2), in the child: how to call the parent, besides those that it knew. -1: it has no lane.
pub fn remember_parent(bell: RawFd) {
    let free = PARENTS.iter().find(|parent| parent.bell.load(Relaxed) < 0);
    if let Some(parent) = free.filter(|_| bell >= 0) {
        parent.pid.store(sys::getppid(), Relaxed);
        parent.bell.store(bell, Relaxed);
    }
}

/// Is this a descriptor that a child keeps of its parent's?
pub fn is_parents_bell(fd: RawFd) -> bool {
    fd >= 0 && PARENTS.iter().any(|parent| parent.bell.load(Relaxed) == fd)
}

/// In the child: has the parent give a socket back. A parent that is gone has done so: its peers noticed. False: it does not let go.
pub fn call_home(socket: &Socket) -> bool {
    let until = sys::now().after(PATIENCE);
    let mut looks = 0u32;
    while holders::is_laned(socket) {
        if looks % LOOKS_A_CALL == 0 {
            if !PARENTS.iter().any(|parent| sys::is_running(parent.pid.load(Relaxed))) {
                return true;
            }
            holders::ask_back(socket);
            PARENTS.iter().map(|parent| parent.bell.load(Relaxed)).filter(|&bell| bell >= 0).for_each(sys::ring);
        }
        looks += 1;
        if sys::now() >= until {
            log::error(format_args!("fd {}: on the parent's lane, which does not let go", socket.fd.load(Relaxed)));
            return false;
        }
        let _ = sys::ppoll(&mut [], Some(libc::timespec { tv_sec: 0, tv_nsec: LOOK }), None);
    }
    true
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
        if let Some(Lane::Shm(number)) = socket.lane()
            && let Err(reason) = tier::demote(&socket, Reason::Shared)
        {
            log::warn(format_args!("a child's socket stays on the lane: {}", reason.text()));
            // What a dead sender has left in the ring is ours alone to read: the child is not to wait for it.
            let is_left = reason == Reason::PeerLeft && leave::send_through_kernel(&socket, number, 0).is_ok();
            if !is_left {
                continue;
            }
        }
        holders::given_back(&socket);
    }
}
