//! Waking threads that sleep in the shim.
//!
//! A thread that is about to sleep arms its doorbell, enters it with everything it waits for, looks once more, and sleeps on the
//! doorbell's eventfd among others. Who changes something rings the doorbells entered there: only armed ones cost a system call.

use std::cell::RefCell;
use std::os::fd::{IntoRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::*};

use parking_lot::Mutex;
use underpass_stack::stats::Counter;

use crate::errno::Result;
use crate::{engine, fd, sys};

/// One thread's doorbell.
pub struct Doorbell {
    fd: AtomicI32,
    armed: AtomicBool,
}

impl Doorbell {
    /// A doorbell with an eventfd of its own.
    pub fn new() -> Result<Self> {
        let raw = sys::eventfd()?.into_raw_fd();
        fd::set_own(raw);
        Ok(Self { fd: AtomicI32::new(raw), armed: AtomicBool::new(false) })
    }

    /// The eventfd to sleep on.
    pub fn fd(&self) -> RawFd {
        self.fd.load(Relaxed)
    }

    /// From now on ringing costs a system call and wakes.
    pub fn arm(&self) {
        self.armed.store(true, SeqCst);
    }

    /// The owner is awake again.
    pub fn disarm(&self) {
        if !self.armed.swap(false, SeqCst) {
            // Somebody rang: take the count away so that the next sleep is one.
            sys::drain(self.fd());
        }
    }

    /// Wakes the owner if it sleeps or is about to.
    pub fn ring(&self) {
        if self.armed.swap(false, SeqCst) {
            sys::ring(self.fd());
            engine::count(Counter::Doorbells, 1);
        }
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        let raw = self.fd();
        fd::clear(raw);
        sys::close(raw);
    }
}

thread_local! {
    static MINE: RefCell<Option<Arc<Doorbell>>> = const { RefCell::new(None) };
}

/// The calling thread's doorbell.
pub fn mine() -> Result<Arc<Doorbell>> {
    MINE.with(|cell| {
        if let Some(bell) = &*cell.borrow() {
            return Ok(bell.clone());
        }
        let bell = Arc::new(Doorbell::new()?);
        Ok(cell.borrow_mut().insert(bell).clone())
    })
}

/// After fork(2), in the child: the descriptor is closed with all own ones; the thread makes another when it sleeps.
pub fn forget_mine() {
    MINE.with(|cell| std::mem::forget(cell.take()));
}

/// The doorbells of those who wait for one thing.
pub struct Waiters {
    count: AtomicU32,
    bells: Mutex<Vec<Arc<Doorbell>>>,
}

impl Waiters {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self { count: AtomicU32::new(0), bells: parking_lot::const_mutex(Vec::new()) }
    }

    /// Enters a doorbell.
    pub fn enter(&self, bell: &Arc<Doorbell>) {
        let mut bells = self.bells.lock();
        bells.push(bell.clone());
        self.count.store(bells.len() as u32, SeqCst);
    }

    /// Takes a doorbell out again.
    pub fn leave(&self, bell: &Arc<Doorbell>) {
        let mut bells = self.bells.lock();
        if let Some(at) = bells.iter().position(|other| Arc::ptr_eq(other, bell)) {
            bells.swap_remove(at);
        }
        self.count.store(bells.len() as u32, SeqCst);
    }

    /// Wakes everybody entered.
    pub fn ring(&self) {
        if self.count.load(SeqCst) == 0 {
            return;
        }
        for bell in self.bells.lock().iter() {
            bell.ring();
        }
    }

    /// Wakes one.
    pub fn ring_one(&self) {
        if self.count.load(SeqCst) != 0
            && let Some(bell) = self.bells.lock().first()
        {
            bell.ring();
        }
    }

    /// After fork(2), in the child: as if new.
    pub fn renew(&self) {
        crate::fork::renew(&self.bells);
        self.forget_all();
    }

    /// None of the waiting threads exists any more.
    pub fn forget_all(&self) {
        let mut bells = self.bells.lock();
        std::mem::take(&mut *bells).into_iter().for_each(std::mem::forget);
        self.count.store(0, SeqCst);
    }
}
