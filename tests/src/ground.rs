//! What every lab stands on: a machine that can make one, its turn, and a directory for its files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::artifact::Profile;
use crate::child::is_root;
use crate::error::{Doing, LabError};
use crate::failure;
use crate::namespace::{ip, sweep};
use crate::turn::Turn;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The turn and the directory of one lab; both are given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Ground {
    number: u32,
    dir: PathBuf,
    _turn: Arc<Turn>,
}

impl Ground {
    /// Waits for its turn. From now on a panic shows the state of the programs that run with this build.
    pub(crate) fn take(profile: Profile) -> Result<Self, LabError> {
        check_machine()?;
        let turn = Turn::take()?;
        failure::show_state_at_panic(profile);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            sweep();
        }
        let dir = std::env::temp_dir().join(format!("underpass-lab-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).doing(format_args!("create {}", dir.display()))?;
        Ok(Self { number, dir, _turn: turn })
    }

    /// Which lab of this process it is.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// For the lab's files.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Nothing but logs in it.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn check_machine() -> Result<(), LabError> {
    if !is_root() {
        return Err(LabError::new("the lab makes network namespaces: run as root"));
    }
    ip(&["-V"]).map(|_| ()).doing("the lab needs ip(8), package iproute2")
}
