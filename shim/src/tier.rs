//! Which tier a socket is in, changed: the program's side of promotion, demotion and what they need.

mod adopt;
mod attach;
pub mod congestion;
mod demote;
mod inject;
mod join;
mod promote;
pub mod silence;

use std::sync::atomic::Ordering::*;

pub use self::adopt::adopt;
pub use self::demote::demote;
pub use self::inject::inject;
pub use self::join::{join, part};
pub use self::promote::{buffer_of, promote};

use crate::epoll_set::{EpollSet, MODE_BITS, entry_on_lane};
use crate::fd::Ref;
use crate::socket::{Socket, Where};
use crate::sys;

/// Puts the socket where it belongs when a change ends, early ends and panics included.
struct Change<'a> {
    socket: &'a Socket,
    end: Where,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.socket.settle(self.end);
    }
}

/// Keeps a socket's epoll sets from being looked at in the kernel: its kernel socket is closed for a moment.
fn close_gates<R>(socket: &Socket, change: impl FnOnce() -> R) -> R {
    let mut sets: Vec<Ref<EpollSet>> = socket.sets.lock().iter().map(|(set, _)| set.clone()).collect();
    // A socket and its duplicate may be in one set, and two sockets in the same sets: each gate once, in one order for all.
    let place = |set: &Ref<EpollSet>| std::ptr::from_ref::<EpollSet>(set).addr();
    sets.sort_unstable_by_key(place);
    sets.dedup_by_key(|set| place(set));
    let gates: Vec<_> = sets.iter().map(|set| set.gate.write()).collect();
    let result = change();
    drop(gates);
    result
}

/// What the kernel is asked for about a socket that is on a lane, asked anew.
pub fn renew_entries(socket: &Socket) {
    let Some(lane) = socket.lane() else { return };
    for (set, fd) in socket.sets.lock().iter() {
        let asked = set.members.lock().get_mut(*fd).map(|member| (member.events, member.data));
        if let Some((events, data)) = asked {
            let entry = entry_on_lane(lane, *fd, events, data);
            let _ = sys::epoll_mod(set.fd.load(Relaxed), *fd, entry.events, entry.u64);
        }
    }
}

/// The epoll sets that watch the socket follow its tier: a laned member is silent in the kernel's set.
fn follow(socket: &Socket, laned: bool) {
    socket.sets.lock().retain(|(set, fd)| {
        let mut members = set.members.lock();
        if members.get_mut(*fd).is_some_and(|member| member.ghost) && !laned {
            members.remove(*fd);
            let _ = sys::epoll_del(set.fd.load(Relaxed), *fd);
            return false;
        }
        if let Some(member) = members.get_mut(*fd) {
            member.laned = laned;
            let ep = set.fd.load(Relaxed);
            if laned && member.events & libc::EPOLLONESHOT as u32 != 0 {
                member.disarmed = sys::epoll_events(ep, *fd).is_some_and(|events| events & !MODE_BITS == 0);
            }
            let entry = match socket.lane() {
                Some(lane) => entry_on_lane(lane, *fd, member.events, member.data),
                None => {
                    let events = if member.disarmed { member.events & MODE_BITS } else { member.events };
                    libc::epoll_event { events, u64: member.data }
                }
            };
            let _ = sys::epoll_mod(ep, *fd, entry.events, entry.u64);
        }
        members.mark(*fd);
        set.recount(&members);
        set.take_shm_place(socket);
        drop(members);
        set.waiters.ring();
        true
    });
}
