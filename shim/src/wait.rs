//! Waiting, in one place: spin while it pays, then sleep in one system call that covers the doorbell, the AF_XDP sockets, the
//! next timer and whatever kernel descriptors the caller waits for.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::*};

use libc::{pollfd, sigset_t, timespec};
use underpass_stack::config::Spin;
use underpass_stack::stats::Counter;
use underpass_stack::tcp::Instant;

use crate::doorbell::{self, Doorbell, Waiters};
use crate::errno::{Errno, Result};
use crate::shm::places::Dozing;
use crate::signals::{self, Disturbance, Watch};
use crate::{carry, engine, options, sys};

/// Spin budget while spinning pays, ns.
const BUDGET: u64 = 200_000;
/// Wasted spins in a row after which a thread sleeps at once.
const GIVE_UP: u32 = 16;
/// Short waits in a row after which it tries spinning again; doubled each time that did not pay.
const TRY_AGAIN: u32 = 4;
/// A spinning thread offers its core to others every so many looks.
const YIELD_EVERY: u32 = 64;
/// A yield that lasted longer let somebody else run, ns.
const TAKEN: u64 = 1_500;
/// It notices signals and cancellations every so many looks.
const NOTICE_EVERY: u32 = 8;
/// A spinning thread looks at the clock every so many looks.
const CLOCK_EVERY: u32 = 8;
/// A brief wait, in looks.
const BRIEF: u32 = 40;
/// Threads that sleep on the AF_XDP sockets at most; others are woken by them.
const ATTENDANTS: u32 = 4;

/// Threads that sleep on the AF_XDP sockets now.
static ATTENDING: AtomicU32 = AtomicU32::new(0);
/// All threads that sleep.
static ALL: Waiters = Waiters::new();
/// Threads that sleep without them.
static OTHERS: Waiters = Waiters::new();

/// Is somebody asleep on the AF_XDP sockets, or spinning over them?
pub fn is_attended() -> bool {
    ATTENDING.load(SeqCst) > 0
}

/// What a thread has learnt about its waits.
#[derive(Clone, Copy)]
struct Habit {
    spins: bool,
    wasted: u32,
    short: u32,
    try_again: u32,
    /// Others want this processor: when the thread offered it, somebody took it.
    contended: bool,
}

thread_local! {
    static HABIT: Cell<Habit> = const { Cell::new(Habit { spins: true, wasted: 0, short: 0, try_again: TRY_AGAIN, contended: false }) };
}

fn budget() -> u64 {
    match options::get().spin {
        Spin::Never => 0,
        Spin::Always => u64::MAX,
        Spin::Usec(us) => u64::from(us) * 1_000,
        Spin::Auto if carry::live() == 0 => 0,
        Spin::Auto => HABIT.with(|habit| if habit.get().spins { BUDGET } else { 0 }),
    }
}

/// Looks that a call may take at a ring before it waits in earnest: an answer that is under way is there within a microsecond or two.
pub fn brief_looks() -> u32 {
    if budget() > 0 && !HABIT.with(Cell::get).contended { BRIEF } else { 0 }
}

fn learn(spun: bool, paid: bool, waited: u64) {
    HABIT.with(|cell| {
        let mut habit = cell.get();
        match (spun, paid) {
            (true, true) => {
                habit.wasted = 0;
                habit.short = habit.short.saturating_add(1);
                if habit.short > 256 {
                    habit.try_again = TRY_AGAIN;
                }
            }
            (true, false) => {
                habit.wasted += 1;
                habit.short = 0;
                if habit.wasted >= GIVE_UP {
                    habit.spins = false;
                    habit.wasted = 0;
                    habit.try_again = (habit.try_again * 2).min(4096);
                }
            }
            (false, _) if waited < BUDGET => {
                habit.short += 1;
                if habit.short >= habit.try_again {
                    habit.spins = true;
                    habit.short = 0;
                }
            }
            (false, _) => habit.short = 0,
        }
        cell.set(habit);
    });
}

/// What is waited for beside lanes.
pub struct Sleep<'a> {
    /// Where other threads find our doorbell.
    pub places: &'a [&'a Waiters],
    /// Kernel descriptors.
    pub kernel: &'a [pollfd],
    /// When to give up; `None` never.
    pub deadline: Option<Instant>,
    /// The signal mask of the wait (ppoll, pselect, epoll_pwait).
    pub mask: Option<&'a sigset_t>,
    /// Spinning makes sense: something on a lane may end the wait.
    pub lanes: bool,
    /// The places where other processes find us, asked for before each sleep: a socket may come to a lane in the middle of the wait.
    pub bells: &'a dyn Fn() -> Vec<usize>,
    /// Tells what ends the wait before its time.
    pub watch: Watch,
}

impl Sleep<'_> {
    /// For ever, for nothing.
    pub fn new(watch: Watch) -> Self {
        Self { places: &[], kernel: &[], deadline: None, mask: None, lanes: false, bells: &Vec::new, watch }
    }
}

/// How a wait ended without what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The deadline passed.
    Timeout,
    /// A signal handler ran.
    Signal,
    /// A thread of the process is being cancelled, perhaps this one.
    Cancel,
}

impl From<Disturbance> for Ended {
    fn from(disturbance: Disturbance) -> Self {
        match disturbance {
            Disturbance::Signal => Self::Signal,
            Disturbance::Cancel => Self::Cancel,
        }
    }
}

/// One look at what is waited for.
#[derive(Clone, Copy)]
pub struct Look {
    /// The time.
    pub now: Instant,
    /// Everything has to be looked at: the thread is about to sleep or to give up. Else only the lanes, as they are found
    /// without waiting for a lock, and the kernel from time to time: such looks follow each other quickly.
    pub sure: bool,
}

/// Waits until `look` finds something.
pub fn until<T>(sleep: &Sleep<'_>, mut look: impl FnMut(Look) -> Option<T>) -> std::result::Result<T, Ended> {
    let start = sys::now();
    let over = sleep.deadline.is_some_and(|at| start >= at);
    let budget = match sleep.mask {
        _ if !sleep.lanes => 0,
        // Signals that only the sleep lets through must not wait for ever.
        Some(_) => budget().min(BUDGET),
        None => budget(),
    };
    if over || budget == 0 {
        if let Some(found) = look(Look { now: start, sure: true }) {
            return Ok(found);
        }
        if over {
            return Err(Ended::Timeout);
        }
    }
    if budget > 0 {
        if let Some(found) = spin(sleep, start, budget, &mut look) {
            learn(true, true, 0);
            engine::count(Counter::SpinsPaid, 1);
            return Ok(found);
        }
        engine::count(Counter::SpinsWasted, 1);
    }
    let ended = sleep_until(sleep, &mut look);
    if sleep.lanes {
        learn(budget > 0, false, sys::now().nanos_since(start));
    }
    ended
}

fn spin<T>(sleep: &Sleep<'_>, start: Instant, budget: u64, look: &mut impl FnMut(Look) -> Option<T>) -> Option<T> {
    let mut now = start;
    let mut every = if HABIT.with(Cell::get).contended { 1 } else { YIELD_EVERY };
    for looks in 1u32.. {
        let found = look(Look { now, sure: false });
        if found.is_some() {
            return found;
        }
        if looks % every == 0 {
            every = offer_processor();
            now = sys::now();
        } else {
            sys::relax();
            // The stack of the xdp lane wants to know the time at every look; rings do not.
            if engine::live() > 0 || looks % CLOCK_EVERY == 0 {
                now = sys::now();
            }
        }
        let disturbed = looks % NOTICE_EVERY == 0 && sleep.watch.disturbance().is_some();
        if disturbed || now.nanos_since(start) >= budget || sleep.deadline.is_some_and(|at| now >= at) {
            break;
        }
    }
    None
}

/// Lets others run who want to. Returns after how many looks to do so again: who we wait for may be one of them.
fn offer_processor() -> u32 {
    let before = sys::now();
    std::thread::yield_now();
    let contended = sys::now().nanos_since(before) > TAKEN;
    HABIT.with(|habit| habit.set(Habit { contended, ..habit.get() }));
    if contended { 1 } else { YIELD_EVERY }
}

/// Enters a doorbell everywhere, and takes it out again on the way out.
struct Entered<'a> {
    bell: Arc<Doorbell>,
    places: &'a [&'a Waiters],
    attends: bool,
    dozing: Vec<Dozing>,
}

impl<'a> Entered<'a> {
    fn new(places: &'a [&'a Waiters], bells: &dyn Fn() -> Vec<usize>) -> Result<Self> {
        let bell = doorbell::mine()?;
        bell.arm();
        places.iter().chain([&&ALL]).for_each(|place| place.enter(&bell));
        let attends =
            engine::live() > 0 && ATTENDING.fetch_update(SeqCst, SeqCst, |n| (n < ATTENDANTS).then_some(n + 1)).is_ok();
        if !attends {
            OTHERS.enter(&bell);
        }
        Ok(Self { bell, places, attends, dozing: bells().into_iter().map(Dozing::new).collect() })
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.places.iter().chain([&&ALL]).for_each(|place| place.leave(&self.bell));
        if self.attends {
            ATTENDING.fetch_sub(1, SeqCst);
            // Somebody else may now have to sleep on the AF_XDP sockets.
            OTHERS.ring_one();
        } else {
            OTHERS.leave(&self.bell);
        }
        self.bell.disarm();
    }
}

fn sleep_until<T>(sleep: &Sleep<'_>, look: &mut impl FnMut(Look) -> Option<T>) -> std::result::Result<T, Ended> {
    let mut look = || look(Look { now: sys::now(), sure: true });
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        let Ok(entered) = Entered::new(sleep.places, sleep.bells) else { return Err(Ended::Signal) };
        // Once more now that others find the doorbell: what came before is seen here, what comes later rings.
        if let Some(found) = look() {
            return Ok(found);
        }
        // What arrived together with a signal counted first.
        if let Some(disturbance) = sleep.watch.disturbance() {
            return Err(disturbance.into());
        }
        if sleep.deadline.is_some_and(|at| sys::now() >= at) {
            return Err(Ended::Timeout);
        }
        if let Some(mut engine) = engine::try_get() {
            engine.publish_counts();
        }
        engine::count(Counter::Sleeps, 1);
        let handled = signals::handled();
        let interrupted = sleep_once(sleep, &entered);
        drop(entered);
        if interrupted && signals::handled() == handled && signals::others_end(&sleep.watch) {
            // A handler ran that was installed behind our back. What arrived together with the signal counts first.
            return look().ok_or(Ended::Signal);
        }
    }
}

/// One real wait. Returns whether a signal handler ran.
fn sleep_once(sleep: &Sleep<'_>, entered: &Entered<'_>) -> bool {
    let watch = |fd, events| pollfd { fd, events, revents: 0 };
    let mut fds = Vec::with_capacity(sleep.kernel.len() + 4);
    fds.push(watch(entered.bell.fd(), libc::POLLIN));
    fds.extend_from_slice(sleep.kernel);
    fds.extend(entered.dozing.iter().flat_map(Dozing::bells).map(|bell| watch(bell, libc::POLLIN)));
    if entered.attends
        && let Some(engine) = engine::get()
    {
        fds.extend(engine.xsk_fds().iter().map(|&fd| watch(fd, libc::POLLIN)));
    }
    let timer = if entered.attends { engine::deadline() } else { None };
    let end = [sleep.deadline, timer].into_iter().flatten().min();
    let timeout = end.map(|at| {
        let nanos = at.nanos_since(sys::now());
        timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 }
    });
    // Signals are let in by the system call alone: none slips in between the last look at the counts and the sleep.
    let before = sys::block_signals();
    let undisturbed = sleep.watch.disturbance().is_none();
    let mask = sleep.mask.map_or(before, sys::kernel_mask);
    let interrupted = undisturbed && matches!(sys::ppoll(&mut fds, timeout, Some(mask)), Err(Errno(libc::EINTR)));
    sys::set_signal_mask(before);
    interrupted
}

/// After fork(2), in the child: no other thread waits.
pub fn forget_all() {
    ATTENDING.store(0, SeqCst);
    OTHERS.renew();
    ALL.renew();
}

/// Wakes every thread that sleeps, to look around.
pub fn wake_all() {
    ALL.ring();
}
