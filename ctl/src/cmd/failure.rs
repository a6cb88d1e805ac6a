//! How a subcommand fails.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// The end of a subcommand that did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage, malformed input: exit code 2.
    Usage(String),
    /// It was tried: exit code 1.
    Failed(String),
    /// All has been said already: exit code 1.
    Said,
    /// Nobody reads our output any more: no failure of ours.
    Unheard,
}

impl Failure {
    /// Says it on stderr and gives the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Usage(text) => {
                eprintln!("underpass: {text}");
                ExitCode::from(2)
            }
            Self::Failed(text) => {
                eprintln!("underpass: {text}");
                ExitCode::FAILURE
            }
            Self::Said => ExitCode::FAILURE,
            Self::Unheard => ExitCode::SUCCESS,
        }
    }

    /// A failed step with its error.
    pub fn of(what: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unheard,
            _ => Self::Failed(error.to_string()),
        }
    }
}
