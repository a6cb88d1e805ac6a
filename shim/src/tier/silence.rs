//! Connections that came back because their peer is silent: the kernel waits for as long as was left on the lane, and keeps them until the
//! peer is heard of.
//!
//! The kernel counts anew from the moment of the demotion. So that a peer that has died is noticed when the program wants it, the options
//! that say when are lent shorter values until the peer speaks; the program never sees these.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering::*};

use libc::c_int;
use parking_lot::{Mutex, MutexGuard};
use underpass_stack::tcp::{Instant, Silence};

use crate::fd::Ref;
use crate::socket::Socket;
use crate::{fork, helper, policy, sys, tcp_info};

/// Time between looks whether a peer has spoken, ns.
const LOOK: u64 = 1_000_000_000;
/// The kernel sends again for the first time, and counts from there, so long after a demotion or (with new data as a loss probe) up to 3 s
/// later, ms.
const FIRST_TIMEOUT: u64 = 1_000;
/// What the daemon makes up for the kernel's socket to hear arrives within this time after a demotion, ns.
const SETTLED: u64 = 100_000_000;

static SILENT: Mutex<Vec<Silent>> = parking_lot::const_mutex(Vec::new());
/// When to look next, ns; 0 while nobody is silent.
static NEXT: AtomicU64 = AtomicU64::new(0);

struct Silent {
    socket: Ref<Socket>,
    since: Instant,
    /// The program's.
    own: Patience,
    lent: Patience,
}

/// Values of TCP_USER_TIMEOUT (ms), TCP_KEEPIDLE and TCP_KEEPINTVL (s), TCP_KEEPCNT.
type Patience = [c_int; 4];
const NAMES: [c_int; 4] = [libc::TCP_USER_TIMEOUT, libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT];

/// A connection is back in the kernel after `silence` on the lane.
pub(super) fn begin(socket: &Ref<Socket>, fd: RawFd, silence: Silence) {
    let Some(own) = patience(fd) else { return };
    let has_probes = sys::sockopt(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE).is_ok_and(|on| on != 0);
    let lent = rest(own, silence, has_probes);
    let mut list = hold();
    change(fd, own, lent);
    socket.silent.store(true, Relaxed);
    list.push(Silent { socket: socket.clone(), since: sys::now(), own, lent });
    NEXT.store(sys::now().0 + LOOK, Relaxed);
    helper::wake();
}

/// Looks after the silent; returns how long to sleep at most, ns.
pub fn attend() -> Option<u64> {
    let next = NEXT.load(Relaxed);
    let now = sys::now().0;
    if next == 0 || now < next {
        return (next != 0).then(|| next - now);
    }
    let mut list = hold();
    list.retain(Silent::goes_on);
    NEXT.store(if list.is_empty() { 0 } else { now + LOOK }, Relaxed);
    (!list.is_empty()).then_some(LOOK)
}

/// The program's value of an option that is lent another.
pub fn value_of(socket: &Socket, level: c_int, name: c_int) -> Option<c_int> {
    if !socket.silent.load(Relaxed) || level != libc::IPPROTO_TCP {
        return None;
    }
    let at = NAMES.iter().position(|&known| known == name)?;
    let list = hold();
    let silent = list.iter().find(|silent| silent.socket.is(socket))?;
    (silent.own[at] != silent.lent[at]).then(|| silent.own[at])
}

/// The program is about to say how long to wait: the kernel waits as it says from here on.
pub fn lend_no_more(socket: &Socket, fd: RawFd, level: c_int, name: c_int) {
    let speaks_of_it = level == libc::IPPROTO_TCP && NAMES.contains(&name);
    if speaks_of_it || (level, name) == (libc::SOL_SOCKET, libc::SO_KEEPALIVE) {
        take_back(socket, fd);
    }
}

/// The kernel waits as the program wants. Others are about to share the socket, who would not know, or the program speaks of it.
pub fn take_back(socket: &Socket, fd: RawFd) {
    if socket.silent.load(Relaxed) {
        hold().iter_mut().filter(|silent| silent.socket.is(socket)).for_each(|silent| silent.take_back(fd));
    }
}

/// Others are about to share all sockets.
pub fn lend_nobody() {
    if NEXT.load(Relaxed) != 0 {
        for silent in hold().iter_mut().filter(|silent| silent.lent != silent.own) {
            if let Ok(mine) = silent.socket.duplicate() {
                silent.take_back(mine.as_raw_fd());
            }
        }
    }
}

/// After fork(2), in the child: they are the parent's to look after.
pub fn leave_to_parent() {
    fork::renew(&SILENT);
    for silent in hold().drain(..) {
        silent.socket.silent.store(false, Relaxed);
    }
    NEXT.store(0, Relaxed);
}

fn hold() -> MutexGuard<'static, Vec<Silent>> {
    SILENT.lock()
}

impl Silent {
    /// Is the peer still silent?
    fn goes_on(&self) -> bool {
        let Ok(mine) = self.socket.duplicate() else {
            // An open one cannot be looked at while the process has no descriptor left.
            let is_open = self.socket.is_open();
            self.socket.silent.store(is_open, Relaxed);
            return is_open;
        };
        let fd = mine.as_raw_fd();
        let over = tcp_info::is_closed(fd);
        let heard = tcp_info::last_ack(fd, sys::now()).is_some_and(|at| at > self.since.after(SETTLED));
        if heard {
            change(fd, self.lent, self.own);
        }
        if heard || over {
            self.socket.silent.store(false, Relaxed);
            policy::heard_again(&self.socket);
        }
        !heard && !over
    }

    fn take_back(&mut self, fd: RawFd) {
        change(fd, self.lent, self.own);
        self.lent = self.own;
    }
}

/// How long the kernel still has to wait, of what the program wants.
fn rest(own: Patience, silence: Silence, has_probes: bool) -> Patience {
    let [user_timeout, idle, interval, count] = own;
    let waited = silence.nanos / 1_000_000 + if silence.idle { 0 } else { FIRST_TIMEOUT };
    let left = u64::try_from(user_timeout).unwrap_or(0).saturating_sub(waited).max(1);
    let user_timeout = if user_timeout > 0 { left as c_int } else { user_timeout };
    // Only the last keepalive probe that stays unanswered makes an idle connection go.
    if silence.idle && has_probes { [user_timeout, 1, 1, 1] } else { [user_timeout, idle, interval, count] }
}

fn patience(fd: RawFd) -> Option<Patience> {
    let mut values = [0; 4];
    for (value, name) in values.iter_mut().zip(NAMES) {
        *value = sys::sockopt(fd, libc::IPPROTO_TCP, name).ok()?;
    }
    Some(values)
}

/// Sets what differs and nobody else has changed.
fn change(fd: RawFd, from: Patience, to: Patience) {
    let Some(now) = patience(fd) else { return };
    for (at, name) in NAMES.into_iter().enumerate() {
        if from[at] != to[at] && now[at] == from[at] {
            // A socket whose connection has ended takes no options, and needs none.
            let _ = sys::set_sockopt(fd, libc::IPPROTO_TCP, name, to[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_the_lane_has_not_waited() {
        let after = |seconds: u64, idle| Silence { nanos: seconds * 1_000_000_000, idle };
        let busy = |user_timeout, seconds| rest([user_timeout, 60, 10, 3], after(seconds, false), true);
        assert_eq!(busy(30_000, 6), [23_000, 60, 10, 3]);
        assert_eq!(busy(4_000, 4), [1, 60, 10, 3], "0 would be without a limit");
        assert_eq!(busy(0, 6), [0, 60, 10, 3]);
        assert_eq!(rest([0, 60, 10, 3], after(90, true), true), [0, 1, 1, 1]);
        assert_eq!(rest([80_000, 60, 10, 3], after(90, true), true), [1, 1, 1, 1]);
        assert_eq!(rest([0, 60, 10, 3], after(90, true), false), [0, 60, 10, 3]);
    }
}
