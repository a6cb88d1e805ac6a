//! When the machine itself stood still: a virtual machine's processors run now and then for somebody else. What a test sees of
//! timeouts then is not the fault of what it tests.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::error::{Doing, LabError};
use crate::priority::{Urgent, be_punctual};

/// How often a processor is looked after.
const EVERY: Duration = Duration::from_millis(1);
/// A thread that goes before all others runs within microseconds. So much later, and its processor was not there.
const LATE: Duration = Duration::from_millis(8);

/// What was seen. Processors that were away at the same time were so once.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    count: u64,
    total: Duration,
    longest: Duration,
    /// When the last time ended.
    over: Option<Instant>,
}

impl Seen {
    /// A processor was away.
    fn note(&mut self, from: Instant, to: Instant) {
        self.longest = self.longest.max(to.saturating_duration_since(from));
        let begin = self.over.map_or(from, |over| over.max(from));
        self.count += u64::from(begin == from);
        self.total += to.saturating_duration_since(begin);
        self.over = Some(self.over.map_or(to, |over| over.max(to)));
    }
}

#[derive(Debug, Default)]
struct Board {
    seen: Mutex<Seen>,
    end: AtomicBool,
}

/// Watches all processors that the caller may use until it is dropped, with a thread on each that goes before those of the lab.
#[derive(Debug)]
pub struct Standstills {
    board: Arc<Board>,
    threads: Vec<JoinHandle<()>>,
}

impl Standstills {
    /// Begins to watch. Needs root.
    pub fn watch() -> Result<Self, LabError> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).doing("ask which processors there are")?;
        let mut watch = Self { board: Arc::default(), threads: Vec::new() };
        for cpu in (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)) {
            let board = watch.board.clone();
            let (tell, told) = std::sync::mpsc::channel();
            watch.threads.push(std::thread::spawn(move || {
                let settled = settle(cpu);
                let works = settled.is_ok();
                let _ = tell.send(settled);
                if works {
                    board.look_after();
                }
            }));
            told.recv().map_err(|_| LabError::new("a watching thread has panicked"))??;
        }
        Ok(watch)
    }

    /// Times that a processor was away for more than eight milliseconds since the beginning.
    pub fn count(&self) -> u64 {
        self.board.seen().count
    }

    /// The longest of them.
    pub fn longest(&self) -> Duration {
        self.board.seen().longest
    }

    /// All together.
    pub fn total(&self) -> Duration {
        self.board.seen().total
    }
}

impl Board {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nothing is left half done under this lock.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_after(&self) {
        let mut due = Instant::now() + EVERY;
        while !self.end.load(Relaxed) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let now = Instant::now();
            if now.saturating_duration_since(due) > LATE {
                self.seen().note(due, now);
            }
            due = now + EVERY;
        }
    }
}

fn settle(cpu: usize) -> Result<(), LabError> {
    let mut only = CpuSet::new();
    only.set(cpu).doing("name a processor")?;
    sched_setaffinity(Pid::from_raw(0), &only).doing(format_args!("stay on processor {cpu}"))?;
    be_punctual(Urgent::Watch).doing("go before other threads")
}

impl Drop for Standstills {
    fn drop(&mut self) {
        self.board.end.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl fmt::Display for Standstills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { count, total, longest, .. } = *self.board.seen();
        write!(f, "the machine stood still {count} times, {total:.0?} in all, {longest:.0?} at once")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_runs_for_something_else_is_noticed() {
        let watch = Standstills::watch().unwrap();
        // As urgent as those that watch, it does not let them run before it is done.
        let urgent = std::thread::spawn(|| {
            settle(0).unwrap();
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(300) {
                std::hint::spin_loop();
            }
        });
        urgent.join().unwrap();
        let told = || watch.longest() >= Duration::from_millis(250);
        crate::wait_for("the watch to tell", Duration::from_secs(5), told)
            .unwrap_or_else(|error| panic!("{error}: {watch}"));
        assert!(watch.count() > 0 && watch.total() >= watch.longest(), "{watch}");
    }

    #[test]
    fn processors_that_are_away_together_are_so_once() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut seen = Seen::default();
        for (from, to) in [(0, 100), (2, 101), (50, 60), (200, 220)] {
            seen.note(at(from), at(to));
        }
        let millis = Duration::from_millis;
        assert_eq!((seen.count, seen.total, seen.longest), (2, millis(121), millis(100)));
    }
}
