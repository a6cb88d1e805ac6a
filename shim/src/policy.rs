//! When to promote (`UNDERPASS_PROMOTE`), and when to ask again after a refusal.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use underpass_stack::config::Promote;
use underpass_stack::lane::Reason;

use crate::fd::Ref;
use crate::socket::Socket;
use crate::{options, sys, tier};

/// What `auto` waits for: each wait for the peer and each [`BULK`] bytes count one.
const PROVEN: u32 = 4;
/// Bytes that count as one wait.
const BULK: usize = 32 << 10;
/// First pause after a refusal that may pass, ns; doubled each time.
const FIRST_PAUSE: u64 = 10_000_000;
/// Longest pause, ns.
const LONGEST_PAUSE: u64 = 10_000_000_000;

/// What a data call showed of the connection.
#[derive(Clone, Copy)]
pub enum Seen {
    /// A data call begins.
    Call,
    /// The program has to wait for the peer, or would.
    Wait,
    /// Bytes moved.
    Bytes(usize),
}

/// Takes note of a data call on a socket in the kernel tier and promotes it when it is time. Returns whether it was tried.
pub fn observe(socket: &Ref<Socket>, fd: RawFd, seen: Seen) -> bool {
    if !may_promote(socket) {
        return false;
    }
    let eager = options::get().promote == Promote::Eager;
    let gained = match seen {
        Seen::Call => 0,
        Seen::Wait => 1,
        Seen::Bytes(n) => bulk(socket, n),
    };
    let score = socket.score.fetch_add(gained, Relaxed) + gained;
    if !eager && score < PROVEN {
        return false;
    }
    let due = socket.retry_at.load(Relaxed);
    if due != 0 && sys::now().0 < due {
        return false;
    }
    tier::promote(socket, fd);
    true
}

/// Large transfers count by their size, small ones in the waits that they cause.
fn bulk(socket: &Socket, n: usize) -> u32 {
    if n >= BULK {
        return (n / BULK) as u32;
    }
    let before = socket.moved.fetch_add(n as u32, Relaxed);
    u32::from((before as usize + n) / BULK > before as usize / BULK)
}

/// Can it come to a promotion in this process at all?
pub fn may_promote(socket: &Socket) -> bool {
    options::promotes() && socket.retry_at.load(Relaxed) != u64::MAX
}

/// After a promotion.
pub fn promoted(socket: &Socket) {
    socket.reason.store(Reason::Busy as u16, Relaxed);
    socket.refusals.store(0, Relaxed);
    socket.retry_at.store(0, Relaxed);
}

/// After a refusal.
pub fn refused(socket: &Socket, reason: Reason) {
    socket.reason.store(reason as u16, Relaxed);
    if !reason.is_passing() {
        socket.retry_at.store(u64::MAX, Relaxed);
        return;
    }
    let times = socket.refusals.fetch_add(1, Relaxed).min(20);
    let pause = (FIRST_PAUSE << times).min(LONGEST_PAUSE);
    socket.retry_at.store(sys::now().0 + pause, Relaxed);
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
        Reason::Asked => sys::now().0 + 1_000_000_000,
        _ => {
            let times = socket.refusals.fetch_add(1, Relaxed).min(20);
            sys::now().0 + (FIRST_PAUSE << times).min(LONGEST_PAUSE)
        }
    };
    socket.retry_at.store(retry, Relaxed);
}
