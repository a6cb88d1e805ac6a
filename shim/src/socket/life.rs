//! A record's lives: one for every TCP socket that it stands for.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use underpass_stack::lane::Reason;

use super::asleep::ASLEEP;
use super::{Blocking, KERNEL, POOL, Socket};
use crate::fd::{self, Ref};
use crate::shm::Locality;
use crate::tcp_info::Earlier;

impl Socket {
    /// A record for the socket behind `fd`, in the kernel tier; its inode, or 0 if that is not known yet.
    pub fn open(fd: RawFd, inode: u64, blocking: Blocking) -> Ref<Self> {
        let socket = POOL.take(Self::blank);
        socket.fds.store(0, Release);
        socket.begin(fd, inode, blocking, Reason::NotConnected);
        socket
    }

    /// The same without a lock, if a used record is at hand: entered in the table for `fd`, which is vacant there.
    pub fn open_spare(fd: RawFd, blocking: Blocking, reason: Reason) -> bool {
        let Some(socket) = POOL.take_spare() else { return false };
        socket.begin(fd, 0, blocking, reason);
        fd::set_first(fd, socket);
        true
    }

    /// Drops the entry's reference, which the caller has, if it is the last one: the record is the caller's alone then.
    #[inline(always)]
    pub fn end(&self) -> bool {
        self.refs.compare_exchange(1, 0, AcqRel, Relaxed).is_ok()
    }

    /// Puts a record back that is the caller's alone.
    pub fn give_back(&'static self) {
        POOL.put(self);
    }

    /// The same without a lock. False: there is no room.
    #[inline(always)]
    pub fn give_back_spare(&'static self) -> bool {
        POOL.put_spare(self)
    }

    /// Has nothing ever happened to it but data calls, so that there is nothing to undo when it is closed?
    #[inline(always)]
    pub fn is_untouched(&self) -> bool {
        self.refs.load(Acquire) == 1
            && self.word.load(Relaxed) == KERNEL
            && self.holder.load(Relaxed) == 0
            && !self.shown.load(Relaxed)
            && !self.watched.load(Relaxed)
            && !self.seeking.load(Relaxed)
    }

    /// Has it come back from a lane?
    pub fn was_demoted(&self) -> bool {
        self.moves[1].load(Relaxed) != 0
    }

    /// Its next connection has counted nothing yet.
    pub fn forget_earlier(&self) {
        *self.earlier.lock() = Earlier::NONE;
    }

    /// The record's next life.
    fn begin(&self, fd: RawFd, inode: u64, blocking: Blocking, reason: Reason) {
        self.word.store(KERNEL, Relaxed);
        // Who fell asleep in the last one is told by its age, and changes nothing any more.
        self.asleep.store((self.asleep.load(Relaxed) | ASLEEP).wrapping_add(1), Release);
        self.inode.store(inode, Relaxed);
        for flag in [&self.shown, &self.watched, &self.dual, &self.seeking, &self.closing, &self.silent] {
            flag.store(false, Relaxed);
        }
        self.fd.store(fd, Relaxed);
        self.reason.store(reason as u16, Relaxed);
        if self.was_demoted() {
            self.forget_earlier();
        }
        for counter in [&self.score, &self.bulk, &self.refusals, &self.holder, &self.moves[0], &self.moves[1]] {
            counter.store(0, Relaxed);
        }
        self.retry_at.store(0, Relaxed);
        self.foreign.store(0, Relaxed);
        self.told.store(0, Relaxed);
        self.locality.store(Locality::Unknown as u8, Relaxed);
        self.arrived.store(0, Relaxed);
        self.set_blocking(blocking);
    }
}
