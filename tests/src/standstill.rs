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

/// When a processor was away, from and to.
type Away = (Instant, Instant);

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    count: u64,
    total: Duration,
    longest: Duration,
}

impl Seen {
    /// Processors that were away at the same time were so once.
    fn of(mut aways: Vec<Away>) -> Self {
        aways.sort();
        let mut seen = Self::default();
        let mut over = None;
        for (from, to) in aways {
            seen.longest = seen.longest.max(to.saturating_duration_since(from));
            let begin = over.map_or(from, |over: Instant| over.max(from));
            seen.count += u64::from(begin == from);
            seen.total += to.saturating_duration_since(begin);
            over = Some(over.map_or(to, |over| over.max(to)));
        }
        seen
    }
}

#[derive(Debug, Default)]
struct Board {
    aways: Mutex<Vec<Away>>,
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
    fn aways(&self) -> MutexGuard<'_, Vec<Away>> {
        // Nothing is left half done under this lock.
        self.aways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> Seen {
        Seen::of(self.aways().clone())
    }

    fn look_after(&self) {
        let mut due = Instant::now() + EVERY;
        while !self.end.load(Relaxed) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let now = Instant::now();
            if now.saturating_duration_since(due) > LATE {
                self.aways().push((due, now));
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
        let Seen { count, total, longest } = self.board.seen();
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
        let millis = Duration::from_millis;
        let at = |after| begin + millis(after);
        // In the order in which they are told: as they end.
        let aways = [(50, 60), (0, 100), (2, 101), (200, 220)].map(|(from, to)| (at(from), at(to)));
        let seen = Seen::of(aways.to_vec());
        assert_eq!(seen, Seen { count: 2, total: millis(121), longest: millis(100) });
    }
}
