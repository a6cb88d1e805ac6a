//! A directory for the files of one run.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use underpass_lab::LabError;

/// Of all names; the process id follows, then a number.
const PREFIX: &str = "underpass-bench-";
/// Names that are tried: several are needed at once in tests.
const TRIES: u32 = 16;

/// A directory that only we may enter; removed with all that is in it when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new directory among the temporary files.
    pub fn new() -> Result<Self, LabError> {
        let place = std::env::temp_dir();
        sweep(&place);
        let name = |number| place.join(format!("{PREFIX}{}-{number}", std::process::id()));
        for path in (0..TRIES).map(name) {
            // Never one that is there already: on a machine with other users it need not be ours.
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(LabError::new(format!("create {}: {error}", path.display()))),
            }
        }
        Err(LabError::new(format!("no free name for a directory like {}", name(0).display())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing but logs in it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes what runs have left that were killed. What is not ours cannot be removed, and stays.
fn sweep(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().and_then(owner).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The process that a directory of this name belongs to; `None` if it is none of ours.
fn owner(name: &str) -> Option<u32> {
    let (pid, number) = name.strip_prefix(PREFIX)?.split_once('-')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_is_new_and_goes_away() {
        let (one, two) = (Scratch::new().unwrap(), Scratch::new().unwrap());
        assert_ne!(one.path(), two.path());
        std::fs::write(one.path().join("log"), "text").unwrap();
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists() && two.path().exists());
    }

    #[test]
    fn what_the_dead_have_left_is_swept() {
        let place = Scratch::new().unwrap();
        // No process has the first number (PID_MAX_LIMIT); the second is our own; the third is no name of ours.
        let names =
            [format!("{PREFIX}4194305-0"), format!("{PREFIX}{}-0", std::process::id()), format!("{PREFIX}test")];
        let made = names.map(|name| place.path().join(name));
        made.iter().for_each(|path| std::fs::create_dir(path).unwrap());
        sweep(place.path());
        assert_eq!(made.map(|path| path.exists()), [false, true, true]);
    }
}
