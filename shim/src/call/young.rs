//! Data calls on connections that `auto` will not promote for another few: the kernel's own, and next to nothing of ours around them.
//! Short connections never get beyond these.

use std::os::fd::RawFd;

use super::Flow;
use crate::policy::{self, Seen};
use crate::socket::Asleep;
use crate::{engine, fd, signals};

/// A real call on such a connection is under way. As [`Asleep`], without a destructor.
#[derive(Clone, Copy)]
pub struct Young {
    asleep: Asleep,
    flow: Flow,
}

impl Young {
    /// Before the real call. `None`: the descriptor is something else, or there is more to do.
    #[inline]
    pub fn begin(fd: RawFd, flow: Flow) -> Option<Self> {
        let (socket, glimpse) = fd::glimpse(fd)?;
        if !policy::is_young(socket) || signals::cancels() || engine::has_work() {
            return None;
        }
        let asleep = socket.fall_asleep()?;
        if !glimpse.holds() {
            asleep.wake();
            return None;
        }
        Some(Self { asleep, flow })
    }

    /// After it, which returned `result`. What it has shown, if that is not noted yet.
    #[inline]
    pub fn end(self, result: isize) -> Option<Seen> {
        self.asleep.wake();
        let moved = usize::try_from(result).ok().filter(|moved| *moved > 0)?;
        let seen = self.flow.seen(moved);
        (!policy::note_young(self.asleep.socket(), seen)).then_some(seen)
    }
}
