//! Where the built library and command are.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::LabError;
use crate::view::{self, SocketView};

/// Which build is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The optimised one, for figures.
    Release,
    /// The one built last.
    Newest,
}

/// The library and the command of one build.
#[derive(Clone, Debug)]
pub struct Artifacts {
    /// `libunderpass.so`.
    pub library: PathBuf,
    /// `underpass`.
    pub command: PathBuf,
}

impl Artifacts {
    /// Finds them in `$UNDERPASS_TARGET_DIR` (the directory that holds both, or cargo's target directory), else in the
    /// workspace's target directory.
    pub fn find(profile: Profile) -> Result<Self, LabError> {
        let target = std::env::var_os("UNDERPASS_TARGET_DIR").map_or_else(workspace_target, PathBuf::from);
        let dirs = [target.join("release"), target.join("debug"), target.clone()];
        let mut complete: Vec<Self> = dirs.iter().map(|dir| Self::in_dir(dir)).filter(Self::exist).collect();
        match profile {
            Profile::Release => complete.retain(|found| !found.library.starts_with(target.join("debug"))),
            Profile::Newest => complete.sort_by_key(|found| std::cmp::Reverse(modified(&found.library))),
        }
        complete.into_iter().next().ok_or_else(|| {
            let (release, place) = (if profile == Profile::Release { " --release" } else { "" }, target.display());
            LabError::new(format!(
                "no libunderpass.so and underpass under {place}: run 'cargo build{release} -p underpass-shim -p underpass-ctl', \
                 or set UNDERPASS_TARGET_DIR"
            ))
        })
    }

    /// Has `command` run with the library preloaded and the daemon at `socket`.
    pub fn preload(&self, command: &mut Command, socket: &Path) {
        command.env("LD_PRELOAD", &self.library).env("UNDERPASS_SOCKET", socket);
        // Meant for the tests; the library would say that it does not know them.
        command.env_remove("UNDERPASS_TEST_CASE").env_remove("UNDERPASS_TEST_CYCLES");
    }

    /// The sockets of a preloaded process (`underpass ss`).
    pub fn sockets(&self, pid: u32) -> Result<Vec<SocketView>, LabError> {
        view::sockets(&self.command, pid)
    }

    fn in_dir(dir: &Path) -> Self {
        Self { library: dir.join("libunderpass.so"), command: dir.join("underpass") }
    }

    fn exist(&self) -> bool {
        self.library.is_file() && self.command.is_file()
    }
}

fn workspace_target() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built_at = manifest.parent().unwrap_or(manifest).join("target");
    std::env::var_os("CARGO_TARGET_DIR").map_or(built_at, PathBuf::from)
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata().and_then(|meta| meta.modified()).ok()
}
