//! The constructor, and what the process is.

use std::sync::atomic::{AtomicU32, Ordering::*};

use crate::guard::{self, Guard};
use crate::{carry, engine, fork, options, real, session, shm, sys, tier};

static PID: AtomicU32 = AtomicU32::new(0);

/// Our pid, as of the last fork: a vfork child, which shares our memory, has another.
pub fn pid() -> u32 {
    PID.load(Relaxed)
}

/// Notes the pid.
pub fn note_pid() {
    PID.store(sys::getpid(), Relaxed);
}

extern "C" fn start() {
    let _guard = Guard::enter();
    let _ = std::panic::catch_unwind(|| {
        real::resolve();
        note_pid();
        options::read();
        fork::register();
    });
}

/// The process ends. A handler that ends it in the middle of a call of ours finds things locked.
extern "C" fn finish() {
    if carry::live() == 0 || guard::inside() || sys::getpid() != pid() {
        return;
    }
    let _guard = Guard::enter();
    let _ = std::panic::catch_unwind(|| {
        shm::exit::before_exit();
        shm::exit::at_exit();
        // The daemon, which hears of it by the hang-up of the session, gives every connection of its lane back to the kernel. Only
        // if there is no daemon now, another one is looked for.
        if engine::live() > 0 && !session::is_open() {
            tier::adopt();
        }
    });
}

/// The process ends now, _exit(2): perhaps in a signal handler, between any two instructions.
pub fn finish_at_once() {
    if shm::live() > 0 && !guard::inside() && sys::getpid() == pid() {
        let _guard = Guard::enter();
        let _ = std::panic::catch_unwind(shm::exit::at_exit);
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

#[used]
#[unsafe(link_section = ".fini_array")]
static FINISH: extern "C" fn() = finish;
