//! One lab at a time on a machine: tests measure time on few cores, whatever runner starts them.

use std::cell::RefCell;
use std::fs::File;
use std::sync::{Arc, Weak};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Doing, LabError};

thread_local! {
    /// The turn that this thread has: a benchmark needs several labs at once.
    static MINE: RefCell<Weak<Turn>> = const { RefCell::new(Weak::new()) };
}

/// Nobody else has a lab while one lives.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held, not read")] Flock<File>);

impl Turn {
    /// Waits until all other labs are gone.
    pub(crate) fn take() -> Result<Arc<Self>, LabError> {
        if let Some(turn) = MINE.with(|mine| mine.borrow().upgrade()) {
            return Ok(turn);
        }
        let path = std::env::temp_dir().join("underpass-lab.lock");
        let file = File::create(&path).doing(format_args!("create {}", path.display()))?;
        // The lock belongs to this opening of the file: another thread of ours waits as another process does.
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error);
        let turn = Arc::new(Self(lock.doing(format_args!("lock {}", path.display()))?));
        MINE.with(|mine| *mine.borrow_mut() = Arc::downgrade(&turn));
        Ok(turn)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn threads_take_turns_and_one_thread_has_several_labs() {
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (first, second) = (Turn::take().unwrap(), Turn::take().unwrap());
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                    drop(first);
                    std::thread::yield_now();
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1, "two at once");
                    drop(second);
                });
            }
        });
    }
}
