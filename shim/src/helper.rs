//! The helper thread: runs the passes while the program computes, listens to the daemon, finds its successor.
//!
//! While application threads are at work in the library it only looks in from time to time; when they have gone it sleeps on the
//! AF_XDP sockets itself.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};

use libc::{pollfd, timespec};
use underpass_stack::control::{self, DemoteAsk, PathChanged, TooBig};
use underpass_stack::lane::Reason;
use underpass_stack::stats::Counter;

use crate::doorbell::{Doorbell, Waiters};
use crate::guard::Guard;
use crate::session::{self, Heard};
use crate::{engine, fork, log, shm, sys, tier, wait};

/// First look after application threads were seen at work, ns; doubled while nothing changes.
const LOOK_SOON: u64 = 2_000_000;
/// Longest time between looks while an application thread sleeps on the AF_XDP sockets, ns.
const LOOK_LATE: u64 = 32_000_000;
/// Time between attempts to find the next daemon, ns.
const RECONNECT: u64 = 1_000_000_000;

static BELL: Waiters = Waiters::new();
static STARTED: AtomicBool = AtomicBool::new(false);
static ASKED: parking_lot::Mutex<Vec<DemoteAsk>> = parking_lot::const_mutex(Vec::new());

/// Starts the helper, once.
pub fn start() {
    if STARTED.swap(true, AcqRel) {
        return;
    }
    let spawned = std::thread::Builder::new().name("underpass".into()).stack_size(256 << 10).spawn(|| {
        let _guard = Guard::enter();
        sys::block_all_signals();
        while std::panic::catch_unwind(run).is_err() {
            engine::count(Counter::Panics, 1);
            log::error(format_args!("the helper thread failed and starts again"));
        }
    });
    if let Err(error) = spawned {
        STARTED.store(false, Release);
        log::error(format_args!("no helper thread: {error}"));
    }
}

/// After fork(2), in the child: the thread does not exist here.
pub fn forget() {
    STARTED.store(false, Release);
    BELL.renew();
    fork::renew(&ASKED);
}

/// Wakes it from whatever it sleeps on.
pub fn wake() {
    BELL.ring();
}

/// The helper's doorbell, where others find it.
struct Entered<'a>(&'a Arc<Doorbell>);

impl<'a> Entered<'a> {
    fn new(bell: &'a Arc<Doorbell>) -> Self {
        BELL.enter(bell);
        Self(bell)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        BELL.leave(self.0);
    }
}

fn run() {
    let Ok(bell) = Doorbell::new().map(Arc::new) else { return };
    let _entered = Entered::new(&bell);
    let mut pause = LOOK_SOON;
    let mut seen = engine::passes();
    loop {
        let due = [attend_channels(), tier::silence::attend()].into_iter().flatten().min();
        listen();
        demote_asked();
        let now = engine::passes();
        let busy = now != seen;
        seen = now;
        publish();
        if busy {
            pause = LOOK_SOON;
            sleep(&bell, false, due, Some(pause));
        } else if wait::is_attended() {
            sleep(&bell, false, due, Some(pause));
            pause = (pause * 2).min(LOOK_LATE);
        } else {
            pass();
            seen = engine::passes();
            sleep(&bell, true, due, None);
            pause = LOOK_SOON;
            // Whoever else woke up for the same packets may have taken them.
            if engine::passes() == seen {
                pass();
                seen = engine::passes();
            }
        }
    }
}

/// Channels: news from other processes, meetings, children that ask for sockets. Returns how long to sleep at most, ns.
fn attend_channels() -> Option<u64> {
    shm::inherited::answer_children();
    let due = if shm::leave::condemn_waiting() { None } else { Some(LOOK_LATE) };
    let due = [due, shm::meet::attend()].into_iter().flatten().min();
    // What comes from here on rings; what came before is seen by one more look.
    shm::places::doze_general();
    shm::places::collect_if_any(shm::places::GENERAL);
    due
}

fn pass() {
    if let Some(mut engine) = engine::get() {
        engine.pass(sys::now());
    }
    engine::count(Counter::PassesHelper, 1);
    engine::settle();
}

/// Brings the counters on the arena's page up to date, unless somebody is at work in the stack.
fn publish() {
    if let Some(mut engine) = engine::try_get() {
        engine.publish_counts();
        engine.stack.count_drops();
    }
}

/// Sleeps on the doorbell and the daemon's events, with `guarding` also on the AF_XDP sockets, until the next timer or for `pause`.
fn sleep(bell: &Arc<Doorbell>, guarding: bool, due: Option<u64>, pause: Option<u64>) {
    let watch = |fd: RawFd| pollfd { fd, events: libc::POLLIN, revents: 0 };
    bell.arm();
    let mut fds = vec![watch(bell.fd()), watch(session::events_fd()), watch(shm::news_fd())];
    if guarding && let Some(engine) = engine::get() {
        fds.extend(engine.xsk_fds().iter().map(|&fd| watch(fd)));
    }
    let now = sys::now();
    let timer = if guarding { engine::deadline().map(|at| at.nanos_since(now)) } else { None };
    let reconnect = (session::is_wanted() && !session::is_open()).then_some(RECONNECT);
    let nanos = [pause, timer, reconnect, due].into_iter().flatten().min();
    let timeout = nanos.map(|n| timespec { tv_sec: (n / 1_000_000_000) as i64, tv_nsec: (n % 1_000_000_000) as i64 });
    let _ = sys::ppoll(&mut fds, timeout, None);
    bell.disarm();
}

/// Hears what the daemon has to say; finds the next one if it is gone.
fn listen() {
    if !session::is_wanted() {
        return;
    }
    if !session::is_open() {
        tier::adopt();
        return;
    }
    loop {
        match session::hear() {
            Heard::Nothing => return,
            Heard::Gone => {
                tier::adopt();
                return;
            }
            Heard::Message(message) => {
                if let Ok(ask) = message.expect::<DemoteAsk>() {
                    ASKED.lock().push(ask);
                } else if let Ok(change) = message.expect::<PathChanged>() {
                    path_changed(&change);
                } else if let Ok(claim) = message.expect::<TooBig>() {
                    packet_too_big(&claim);
                }
            }
        }
    }
}

fn path_changed(change: &control::PathChanged) {
    if let Some(mut engine) = engine::get() {
        let now = sys::now();
        engine.stack.set_path(change.slot, change.generation, change.path, now);
        engine.flush(now);
    }
}

fn packet_too_big(claim: &TooBig) {
    if let Some(mut engine) = engine::get() {
        let now = sys::now();
        engine.stack.packet_too_big(claim.slot, claim.generation, claim.seq, claim.mtu, now);
        engine.flush(now);
    }
}

fn demote_asked() {
    let asked = std::mem::take(&mut *ASKED.lock());
    for ask in asked {
        let mut sockets = match engine::get() {
            Some(engine) if ask.slot == u32::MAX => engine.owners(),
            Some(engine) => engine.owner(ask.slot).into_iter().collect(),
            None => Vec::new(),
        };
        if ask.slot == u32::MAX {
            sockets.extend(shm::channels().into_iter().filter_map(|channel| Some(channel.end()?.socket)));
        }
        for socket in sockets {
            if let Err(reason) = tier::demote(&socket, Reason::from_raw(ask.reason)) {
                log::warn(format_args!("asked to demote: {}", reason.text()));
            }
        }
    }
}
