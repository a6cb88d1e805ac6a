//! Data calls on connections that `auto` will not promote for another few: the kernel's own, and next to nothing of ours around them.
//! Short connections never get beyond these.

use std::os::fd::RawFd;

use super::Flow;
use crate::fd::{self, Glance};
use crate::policy::{self, Seen};
use crate::socket::Asleep;

/// A real call on such a connection is under way. As [`Asleep`], without a destructor.
#[derive(Clone, Copy)]
pub struct Young {
    asleep: Asleep,
    flow: Flow,
}

/// What a data call finds at first sight.
pub enum First {
    /// Nothing of ours.
    Plain,
    /// A young connection.
    Young(Young),
    /// Something else, or there is more to do.
    Other,
}

impl Young {
    /// Before the real call.
    #[inline(always)]
    pub fn begin(fd: RawFd, flow: Flow) -> First {
        let (socket, glimpse) = match fd::glance(fd) {
            Glance::Socket(socket, glimpse) => (socket, glimpse),
            Glance::Plain => return First::Plain,
            Glance::Other => return First::Other,
        };
        if !policy::is_young(socket) {
            return First::Other;
        }
        let Some(asleep) = socket.fall_asleep() else { return First::Other };
        if !glimpse.holds() {
            asleep.wake();
            return First::Other;
        }
        First::Young(Self { asleep, flow })
    }

    /// After it, which returned `result`. What it has shown, if that is not noted yet.
    #[inline(always)]
    pub fn end(self, result: isize) -> Option<Seen> {
        self.asleep.wake();
        let moved = usize::try_from(result).ok().filter(|moved| *moved > 0)?;
        let seen = self.flow.seen(moved);
        (!policy::note_young(self.asleep.socket(), seen)).then_some(seen)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::sync::atomic::Ordering::*;

    use super::*;
    use crate::call::socket_of;
    use crate::socket::{Socket, Where};

    fn fresh() -> (OwnedFd, &'static Socket) {
        // SAFETY: scalars; the descriptor is nobody else's.
        let fd =
            unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)) };
        let socket = socket_of(fd.as_raw_fd()).expect("a TCP socket").record();
        (fd, socket)
    }

    fn begin(fd: &OwnedFd) -> Option<Young> {
        match Young::begin(fd.as_raw_fd(), Flow::In) {
            First::Young(young) => Some(young),
            First::Plain | First::Other => None,
        }
    }

    #[test]
    fn it_grows_up_by_small_receives_and_at_once_by_a_large_one() {
        let (fd, _socket) = fresh();
        let grown: Vec<bool> = (0..4).map(|_| begin(&fd).expect("young").end(64).is_some()).collect();
        assert_eq!(grown, [false, false, false, true]);
        let (fd, _socket) = fresh();
        assert!(begin(&fd).expect("young").end(1 << 20).is_some());
        assert!(begin(&fd).expect("young").end(0).is_none() && begin(&fd).expect("young").end(-1).is_none());
    }

    #[test]
    fn its_tier_does_not_change_during_a_call() {
        let (fd, socket) = fresh();
        let young = begin(&fd).expect("young");
        assert!(!socket.leave_kernel());
        assert!(young.end(1).is_none());
        assert!(socket.leave_kernel());
        assert!(begin(&fd).is_none(), "while it changes, calls wait");
        socket.settle(Where::Kernel);
        assert!(socket.leave_kernel(), "the call that found it changing has left no mark");
        socket.settle(Where::Kernel);
    }

    #[test]
    fn one_that_waits_for_the_other_end_is_left_alone_until_it_comes() {
        let (fd, socket) = fresh();
        socket.score.store(1000, Relaxed);
        assert!(begin(&fd).is_none());
        socket.seeking.store(true, Relaxed);
        assert!(begin(&fd).expect("waiting").end(1 << 20).is_none());
        let call = begin(&fd).expect("waiting");
        socket.arrived.store(1, Relaxed);
        assert!(call.end(64).is_some(), "it has come meanwhile");
        assert!(begin(&fd).is_none());
        socket.arrived.store(0, Relaxed);
        socket.seeking.store(false, Relaxed);
        assert_eq!(socket.score.load(Relaxed), 1000);
    }

    #[test]
    fn a_call_that_outlives_its_socket_leaves_no_mark_on_the_next_one() {
        let (fd, socket) = fresh();
        let young = begin(&fd).expect("young");
        drop(fd);
        let mut others = (0..1000).map(|_| fresh());
        let (next, _) = others.find(|(_, other)| std::ptr::eq(*other, socket)).expect("the record is used again");
        assert!(socket.leave_kernel(), "nobody sleeps on the new one");
        socket.settle(Where::Kernel);
        let call = begin(&next).expect("young");
        young.end(-1);
        assert!(!socket.leave_kernel(), "nor does the old call wake a new one");
        call.end(-1);
        assert!(socket.leave_kernel());
        socket.settle(Where::Kernel);
    }
}
