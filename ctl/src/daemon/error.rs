//! Why the daemon cannot run.

use std::io;
use std::path::PathBuf;

/// What ends the daemon before its time.
#[derive(Debug)]
pub enum Error {
    /// Another daemon listens on this socket.
    AlreadyRunning(PathBuf),
    /// The settings file cannot be read or is malformed.
    Settings(PathBuf, String),
    /// The control socket cannot be made.
    Listen(PathBuf, io::Error),
    /// A privilege or a kernel feature is missing.
    Steering(crate::bpf::Error),
    /// Something else that was being done failed.
    Io(&'static str, io::Error),
}

impl Error {
    /// Exit status of the command: 2 for a mistake of the user, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(..) => 2,
            _ => 1,
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AlreadyRunning(path) => write!(f, "another underpass daemon listens on {}", path.display()),
            Self::Settings(path, text) => write!(f, "{}: {text}", path.display()),
            Self::Listen(path, error) => write!(f, "cannot listen on {}: {error}", path.display()),
            Self::Steering(error) => {
                write!(f, "{error} (the daemon needs CAP_NET_ADMIN and CAP_BPF; see underpass doctor)")
            }
            Self::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for Error {}
