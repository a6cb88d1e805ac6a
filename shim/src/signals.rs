//! What signals and cancellations do to a waiting call (signal(7), "Interruption of system calls"; pthreads(7), "Cancellation points").
//!
//! Our waits are not the program's system calls, so the kernel cannot end or restart those. Therefore a small function stands in
//! front of every handler that the program installs (see `hooks/signal`): it counts, per thread, the handlers that run, and those
//! among them that end a call which could have been restarted. A wait compares the counts with those at its beginning.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::*};

use crate::sys;
use crate::unusual::{self, Unusual};

/// Signals are numbered from 1.
const SIGNALS: usize = 65;
/// Signals of the threading library, whose handlers the program does not see.
const INTERNAL: [i32; 2] = [32, 33];

/// What the program installed for one signal.
struct Disposition {
    /// Its handler's address.
    handler: AtomicUsize,
    /// SA_RESTART.
    restarts: AtomicBool,
    /// SA_SIGINFO; the function in front always has it.
    siginfo: AtomicBool,
}

static DISPOSITIONS: [Disposition; SIGNALS] = [const {
    Disposition { handler: AtomicUsize::new(0), restarts: AtomicBool::new(false), siginfo: AtomicBool::new(false) }
}; SIGNALS];
/// Signals for which siginterrupt(3) was called: signal(2) then leaves SA_RESTART out.
static INTERRUPTS: [AtomicBool; SIGNALS] = [const { AtomicBool::new(false) }; SIGNALS];
/// Held, with signals blocked, while a disposition changes.
static CHANGE: parking_lot::Mutex<()> = parking_lot::const_mutex(());
/// The address of the function that stands in front of handlers, once it does.
static FRONT: AtomicUsize = AtomicUsize::new(0);
/// Calls of pthread_cancel(3) so far.
static CANCELS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Handlers that ran on this thread.
    static HANDLED: AtomicU32 = const { AtomicU32::new(0) };
    /// Those installed without SA_RESTART.
    static HANDLED_ABRUPT: AtomicU32 = const { AtomicU32::new(0) };
}

/// A handler as the program installed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Its address.
    pub handler: usize,
    /// SA_RESTART.
    pub restarts: bool,
    /// SA_SIGINFO.
    pub siginfo: bool,
}

fn index(signal: i32) -> Option<usize> {
    usize::try_from(signal).ok().filter(|n| (1..SIGNALS).contains(n))
}

/// The program's handler for a signal.
pub fn installed(signal: i32) -> Option<Installed> {
    let d = &DISPOSITIONS[index(signal)?];
    let handler = d.handler.load(Acquire);
    (handler != 0).then(|| Installed { handler, restarts: d.restarts.load(Relaxed), siginfo: d.siginfo.load(Relaxed) })
}

/// Notes the program's handler for a signal, in front of which the function at `front` stands; false if there is no such signal.
pub fn install(signal: i32, new: Installed, front: usize) -> bool {
    FRONT.store(front, Relaxed);
    let Some(n) = index(signal) else { return false };
    let d = &DISPOSITIONS[n];
    d.restarts.store(new.restarts, Relaxed);
    d.siginfo.store(new.siginfo, Relaxed);
    d.handler.store(new.handler, Release);
    true
}

/// Notes what siginterrupt(3) asked for.
pub fn note_interrupts(signal: i32, on: bool) {
    if let Some(n) = index(signal) {
        INTERRUPTS[n].store(on, Relaxed);
    }
}

/// Did siginterrupt(3) ask that this signal ends calls?
pub fn interrupts(signal: i32) -> bool {
    index(signal).is_some_and(|n| INTERRUPTS[n].load(Relaxed))
}

/// Runs a change of dispositions, which no handler on this thread and no other thread sees half done.
pub fn changing<R>(change: impl FnOnce() -> R) -> R {
    held_back(|| {
        let _change = CHANGE.lock();
        change()
    })
}

/// After fork(2), in the child.
pub fn renew() {
    crate::fork::renew(&CHANGE);
}

/// A handler of the program begins to run on this thread; async-signal-safe.
pub fn note_handler(abrupt: bool) {
    HANDLED.with(|count| count.fetch_add(1, Relaxed));
    if abrupt {
        HANDLED_ABRUPT.with(|count| count.fetch_add(1, Relaxed));
    }
}

/// A thread of the process is being cancelled.
pub fn note_cancel() {
    CANCELS.fetch_add(1, SeqCst);
    unusual::raise(Unusual::Cancelled);
}

/// Was a thread of this process ever cancelled?
pub fn cancels() -> bool {
    CANCELS.load(Relaxed) != 0
}

/// Handlers that have run on this thread so far.
pub fn handled() -> u32 {
    HANDLED.with(|count| count.load(Relaxed))
}

/// Does a handler exist that was installed without our knowledge (by raw system calls) and would end the call? The threading
/// library's own handlers do not.
pub fn others_end(watch: &Watch) -> bool {
    let front = FRONT.load(Relaxed);
    (1..SIGNALS as i32).filter(|signal| !INTERNAL.contains(signal)).filter_map(sys::signal_action).any(
        |(handler, flags)| {
            let known = [libc::SIG_DFL, libc::SIG_IGN, front].contains(&handler);
            let ends = !watch.restartable || flags & libc::SA_RESTART as u64 == 0;
            !known && ends
        },
    )
}

/// Runs something long with signals held back: their handlers run when it is over.
pub fn held_back<R>(long: impl FnOnce() -> R) -> R {
    let before = sys::block_signals();
    let result = long();
    sys::set_signal_mask(before);
    result
}

/// What may end a wait before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// A handler ran after which the call fails with EINTR.
    Signal,
    /// A thread is being cancelled, perhaps this one.
    Cancel,
}

/// The state of affairs when a call began.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    handled: u32,
    cancels: u32,
    restartable: bool,
    ignores_cancel: bool,
}

impl Watch {
    /// From now on. A `restartable` call goes on after handlers installed with SA_RESTART.
    pub fn new(restartable: bool) -> Self {
        let mut watch = Self { handled: 0, cancels: CANCELS.load(SeqCst), restartable, ignores_cancel: false };
        watch.handled = watch.count();
        watch
    }

    /// The same for a call that a cancellation does not end.
    pub fn without_cancel(self) -> Self {
        Self { ignores_cancel: true, ..self }
    }

    fn count(&self) -> u32 {
        let counts = if self.restartable { &HANDLED_ABRUPT } else { &HANDLED };
        counts.with(|count| count.load(Relaxed))
    }

    /// What has happened since.
    #[inline]
    pub fn disturbance(&self) -> Option<Disturbance> {
        if self.count() != self.handled {
            Some(Disturbance::Signal)
        } else if !self.ignores_cancel && CANCELS.load(Relaxed) != self.cancels {
            Some(Disturbance::Cancel)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restartable_call_is_ended_by_abrupt_handlers_only() {
        let (restartable, timed) = (Watch::new(true), Watch::new(false));
        note_handler(false);
        assert_eq!((restartable.disturbance(), timed.disturbance()), (None, Some(Disturbance::Signal)));
        note_handler(true);
        assert_eq!(restartable.disturbance(), Some(Disturbance::Signal));
        assert_eq!(Watch::new(true).disturbance(), None);
    }

    #[test]
    fn handlers_of_other_threads_do_not_count() {
        let watch = Watch::new(false);
        std::thread::spawn(|| note_handler(true)).join().unwrap();
        assert_eq!(watch.disturbance(), None);
    }

    #[test]
    fn numbers_that_are_no_signals_are_refused() {
        let handler = Installed { handler: 1, restarts: true, siginfo: false };
        assert!([-1, 0, 65, i32::MAX].into_iter().all(|signal| !install(signal, handler, 2)));
        assert!(install(64, handler, 2));
        assert_eq!(installed(64), Some(handler));
        assert_eq!((installed(63), installed(65), installed(-1)), (None, None, None));
    }
}
