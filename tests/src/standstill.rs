//! When the machine itself stood still: a virtual machine's processors run now and then for somebody else. What a test sees of
//! timeouts then is not the fault of what it tests.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::error::{Doing, LabError};
use crate::priority::be_punctual;

/// How often a processor is looked after.
const EVERY: Duration = Duration::from_millis(1);
/// A thread that goes before all others runs within microseconds. So much later, and its processor was not there.
const LATE: Duration = Duration::from_millis(4);

#[derive(Debug, Default)]
struct Seen {
    count: AtomicU64,
    longest_ns: AtomicU64,
    total_ns: AtomicU64,
    end: AtomicBool,
}

/// Watches all processors of the machine until it is dropped, with a thread of the highest priority on each.
#[derive(Debug)]
pub struct Standstills {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

impl Standstills {
    /// Begins to watch. Needs root.
    pub fn watch() -> Result<Self, LabError> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).doing("ask which processors there are")?;
        let mut watch = Self { seen: Arc::default(), threads: Vec::new() };
        for cpu in (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)) {
            let seen = watch.seen.clone();
            let (tell, told) = std::sync::mpsc::channel();
            watch.threads.push(std::thread::spawn(move || {
                let settled = settle(cpu);
                let works = settled.is_ok();
                let _ = tell.send(settled);
                if works {
                    seen.look_after();
                }
            }));
            told.recv().map_err(|_| LabError::new("a watching thread has panicked"))??;
        }
        Ok(watch)
    }

    /// Times that a processor was away for more than four milliseconds since the beginning.
    pub fn count(&self) -> u64 {
        self.seen.count.load(Relaxed)
    }

    /// The longest of them.
    pub fn longest(&self) -> Duration {
        Duration::from_nanos(self.seen.longest_ns.load(Relaxed))
    }

    /// All together.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.seen.total_ns.load(Relaxed))
    }
}

impl Seen {
    fn look_after(&self) {
        let mut before = Instant::now();
        while !self.end.load(Relaxed) {
            std::thread::sleep(EVERY);
            let now = Instant::now();
            let late = now.duration_since(before).saturating_sub(EVERY);
            before = now;
            if late > LATE {
                let nanos = late.as_nanos() as u64;
                self.count.fetch_add(1, Relaxed);
                self.total_ns.fetch_add(nanos, Relaxed);
                self.longest_ns.fetch_max(nanos, Relaxed);
            }
        }
    }
}

fn settle(cpu: usize) -> Result<(), LabError> {
    let mut only = CpuSet::new();
    only.set(cpu).doing("name a processor")?;
    sched_setaffinity(Pid::from_raw(0), &only).doing(format_args!("stay on processor {cpu}"))?;
    be_punctual().doing("go before other threads")
}

impl Drop for Standstills {
    fn drop(&mut self) {
        self.seen.end.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl fmt::Display for Standstills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, total, longest) = (self.count(), self.total(), self.longest());
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
        crate::wait_for("the watch to tell", Duration::from_secs(5), || watch.count() > 0).unwrap();
        assert!(watch.longest() >= Duration::from_millis(250) && watch.total() >= watch.longest(), "{watch}");
    }
}
