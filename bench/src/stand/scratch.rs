//! A directory for the files of one run.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use underpass_lab::LabError;

/// Names that are tried: what a killed run with the same process id has left may be in the way.
const TRIES: u32 = 16;

/// A directory that only we may enter; removed with all that is in it when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new directory among the temporary files.
    pub fn new() -> Result<Self, LabError> {
        let name = |number| std::env::temp_dir().join(format!("underpass-bench-{}-{number}", std::process::id()));
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
}
