//! When to promote (`UNDERPASS_PROMOTE`), and when to ask again after a refusal.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use underpass_stack::config::Promote;
use underpass_stack::lane::Reason;

use crate::fd::Ref;
use crate::shm::Locality;
use crate::socket::{Lane, Socket, Where};
use crate::{engine, options, shm, sys, tier, unusual};

/// What `auto` waits for: so many small receives, as a conversation makes them.
const PROVEN: u32 = 4;
/// A receive of more bytes than a message of a conversation has says nothing: so does the slow start of a bulk transfer look.
const MESSAGE: usize = 4 << 10;
/// A call that moves this many bytes is part of a bulk transfer, which the kernel's segmentation offload carries better.
const BULK: usize = 16 << 10;
/// Small sends that count as much as one small receive.
const SENDS: u32 = 8;
/// Bulk calls, less small ones, after which `auto` gives a connection back.
const BULK_PROVEN: u32 = 256;
/// First pause after a refusal that may pass, ns; doubled each time.
const FIRST_PAUSE: u64 = 10_000_000;
/// Longest pause, ns.
const LONGEST_PAUSE: u64 = 10_000_000_000;

/// What a data call showed of the connection.
#[derive(Clone, Copy)]
pub enum Seen {
    /// A data call begins.
    Call,
    /// Bytes came.
    Received(usize),
    /// Bytes went.
    Sent(usize),
}

/// Takes note of a data call on a socket in the kernel tier and promotes it when it is time.
pub fn observe(socket: &Ref<Socket>, fd: RawFd, seen: Seen) {
    if socket.place() != Where::Kernel || !may_promote(socket) {
        return;
    }
    if socket.seeking.load(Relaxed) {
        if socket.arrived.load(Relaxed) != 0 {
            shm::meet::arrive(socket);
        }
        return;
    }
    let score = match seen {
        Seen::Call => socket.score.load(Relaxed),
        Seen::Received(n) | Seen::Sent(n) if n >= MESSAGE && locality(socket, fd) == Locality::Local => {
            socket.score.fetch_add(SENDS, Relaxed) + SENDS
        }
        Seen::Received(n) | Seen::Sent(n) if n >= BULK => {
            socket.score.store(0, Relaxed);
            0
        }
        Seen::Received(n) if n > MESSAGE => socket.score.load(Relaxed),
        Seen::Received(_) => socket.score.fetch_add(SENDS, Relaxed) + SENDS,
        Seen::Sent(_) => socket.score.fetch_add(1, Relaxed) + 1,
    };
    if options::get().promote != Promote::Eager && score < PROVEN * SENDS {
        return;
    }
    let due = socket.retry_at.load(Relaxed);
    if due != 0 && sys::now().0 < due {
        return;
    }
    let lanes = options::get().lanes;
    match locality(socket, fd) {
        Locality::Local if lanes.shm => shm::meet::seek(socket),
        Locality::Local => refused(socket, Reason::Loopback),
        Locality::Remote if socket.silent.load(Relaxed) => refused(socket, Reason::Timeouts),
        Locality::Remote if lanes.xdp => tier::promote(socket, fd),
        Locality::Remote => refused(socket, Reason::Off),
        Locality::Unknown => refused(socket, Reason::NotConnected),
    }
}

/// Is there nothing for the next data call on this connection to do but the kernel's part? `auto` will not promote it for another few
/// calls, or waits for the process at the other end.
#[inline(always)]
pub fn is_young(socket: &Socket) -> bool {
    if unusual::any() || socket.foreign.load(Relaxed) != 0 {
        return false;
    }
    if socket.seeking.load(Relaxed) {
        return socket.arrived.load(Relaxed) == 0;
    }
    socket.score.load(Relaxed) < PROVEN * SENDS
}

/// Takes note of a data call on a connection that was young when it began. False: it takes [`observe`]. The record may have become another
/// socket's; that one then seems a call or two older.
#[inline(always)]
pub fn note_young(socket: &Socket, seen: Seen) -> bool {
    if socket.seeking.load(Relaxed) {
        return socket.arrived.load(Relaxed) == 0;
    }
    let weight = match seen {
        Seen::Received(n) if n < MESSAGE => SENDS,
        Seen::Sent(n) if n < MESSAGE => 1,
        _ => return false,
    };
    let score = socket.score.load(Relaxed) + weight;
    let stays_young = score < PROVEN * SENDS;
    if stays_young {
        // Two calls at once may count as one.
        socket.score.store(score, Relaxed);
    }
    stays_young
}

/// Can the socket not leave the kernel for the time being, so that a real call may sleep?
pub fn is_put_off(socket: &Socket) -> bool {
    if socket.place() != Where::Kernel {
        return false;
    }
    if options::get().promote == Promote::Auto && socket.score.load(Relaxed) < PROVEN * SENDS {
        return true;
    }
    let due = socket.retry_at.load(Relaxed);
    socket.seeking.load(Relaxed) || (due != 0 && sys::now().0 < due)
}

/// Where the other end is; found out once.
fn locality(socket: &Socket, fd: RawFd) -> Locality {
    let known = Locality::from_raw(socket.locality.load(Relaxed));
    if known != Locality::Unknown {
        return known;
    }
    let found = Locality::of(fd);
    socket.locality.store(found as u8, Relaxed);
    found
}

/// Takes note of bytes moved on the lane. With `auto`, a connection that has become a bulk transfer leaves the xdp lane, which has no
/// segmentation offload.
pub fn carried(socket: &Ref<Socket>, n: usize) {
    if !matches!(socket.lane(), Some(Lane::Xdp(_))) {
        return;
    }
    if n < BULK {
        if socket.bulk.load(Relaxed) > 0 {
            let _ = socket.bulk.fetch_update(Relaxed, Relaxed, |bulk| bulk.checked_sub(1));
        }
        return;
    }
    let bulk = socket.bulk.fetch_add(1, Relaxed) + 1;
    if bulk >= BULK_PROVEN && options::get().promote == Promote::Auto {
        socket.bulk.store(0, Relaxed);
        if let Err(reason) = tier::demote(socket, Reason::Bulk) {
            crate::log::warn(format_args!("a bulk transfer stays on the lane: {}", reason.text()));
        }
    }
}

/// Can it come to a promotion in this process at all?
pub fn may_promote(socket: &Socket) -> bool {
    socket.retry_at.load(Relaxed) != u64::MAX && options::promotes()
}

/// After a promotion.
pub fn promoted(socket: &Socket) {
    socket.reason.store(Reason::Busy as u16, Relaxed);
    socket.refusals.store(0, Relaxed);
    socket.retry_at.store(0, Relaxed);
}

/// After a refusal.
pub fn refused(socket: &Socket, reason: Reason) {
    engine::count_refusal(reason);
    socket.reason.store(reason as u16, Relaxed);
    if !reason.is_passing() {
        socket.retry_at.store(u64::MAX, Relaxed);
        return;
    }
    let times = socket.refusals.fetch_add(1, Relaxed).min(20);
    let longest = if reason == Reason::Unsettled { FIRST_PAUSE * 8 } else { LONGEST_PAUSE };
    let pause = (FIRST_PAUSE << times).min(longest);
    socket.retry_at.store(sys::now().0 + pause, Relaxed);
}

/// The peer, silent on the lane, was heard of in the kernel. Whether the network was to blame or the lane, nobody knows.
pub fn heard_again(socket: &Socket) {
    socket.retry_at.store(sys::now().0 + LONGEST_PAUSE, Relaxed);
}

/// After a demotion.
pub fn demoted(socket: &Socket, reason: Reason) {
    socket.reason.store(reason as u16, Relaxed);
    socket.score.store(0, Relaxed);
    let retry = match reason {
        Reason::Closing
        | Reason::PeerReset
        | Reason::Exit
        | Reason::Exec
        | Reason::Stdio
        | Reason::Panic
        | Reason::IoUring => u64::MAX,
        Reason::Asked if options::get().promote == Promote::Eager => 0,
        Reason::Asked | Reason::Bulk => sys::now().0 + 1_000_000_000,
        _ => {
            let times = socket.refusals.fetch_add(1, Relaxed).min(20);
            sys::now().0 + (FIRST_PAUSE << times).min(LONGEST_PAUSE)
        }
    };
    socket.retry_at.store(retry, Relaxed);
}
