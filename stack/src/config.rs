//! The library's options: environment variables, each defined once in [`OPTIONS`].
//!
//! Standard library only, and nothing here panics: this runs early, inside somebody's program.

mod options;
mod problem;
mod value;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

pub use options::{OPTIONS, OptionSpec};
pub use problem::{Problem, unknown_variables};

use crate::tcp::Algorithm;

/// When to promote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promote {
    /// Once the connection has shown some traffic.
    Auto,
    /// At the first data call.
    Eager,
    /// Never.
    Off,
}

/// How long to spin before sleeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spin {
    /// While it pays.
    Auto,
    /// Sleep at once.
    Never,
    /// Until the wait ends.
    Always,
    /// This many microseconds.
    Usec(u32),
}

/// Which lanes may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// Shared memory between two processes of this host.
    pub shm: bool,
    /// AF_XDP and the user-level TCP.
    pub xdp: bool,
}

/// How much is reported, from nothing to everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// What is odd, bad option values too.
    Warn,
    /// Promotions and demotions.
    Info,
    /// Decisions.
    Debug,
    /// Calls.
    Trace,
}

/// The library's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `UNDERPASS`.
    pub enabled: bool,
    /// `UNDERPASS_LANES`.
    pub lanes: Lanes,
    /// `UNDERPASS_PROMOTE`.
    pub promote: Promote,
    /// `UNDERPASS_SPIN_USEC`.
    pub spin: Spin,
    /// `UNDERPASS_SOCKET`.
    pub socket: PathBuf,
    /// `UNDERPASS_INTERFACES`; empty: all.
    pub interfaces: Vec<String>,
    /// `UNDERPASS_LOG`.
    pub log: LogLevel,
    /// `UNDERPASS_LOG_FILE`; `None`: stderr.
    pub log_file: Option<PathBuf>,
    /// `UNDERPASS_NAME`; `None`: the command's name.
    pub name: Option<String>,
    /// `UNDERPASS_FRAMES`, a power of two.
    pub frames: u32,
    /// `UNDERPASS_RING`, a power of two.
    pub ring: u32,
    /// `UNDERPASS_RCVBUF`, bytes, a power of two.
    pub rcvbuf: u32,
    /// `UNDERPASS_SNDBUF`, bytes, a power of two.
    pub sndbuf: u32,
    /// `UNDERPASS_RCVBUF_MAX`, bytes, a power of two.
    pub rcvbuf_max: u32,
    /// `UNDERPASS_SNDBUF_MAX`, bytes, a power of two.
    pub sndbuf_max: u32,
    /// `UNDERPASS_SHM_RING`, bytes, a power of two.
    pub shm_ring: u32,
    /// `UNDERPASS_CC`.
    pub congestion: Option<Algorithm>,
}

impl Default for Config {
    fn default() -> Self {
        let mut config = Self {
            enabled: true,
            lanes: Lanes { shm: false, xdp: false },
            promote: Promote::Off,
            spin: Spin::Never,
            socket: PathBuf::new(),
            interfaces: Vec::new(),
            log: LogLevel::Off,
            log_file: None,
            name: None,
            frames: 0,
            ring: 0,
            rcvbuf: 0,
            sndbuf: 0,
            rcvbuf_max: 0,
            sndbuf_max: 0,
            shm_ring: 0,
            congestion: Some(Algorithm::Reno),
        };
        for option in OPTIONS {
            // The defaults come from the table alone; a test parses each of them.
            let accepted = (option.set)(&mut config, OsStr::new(option.default));
            debug_assert!(accepted.is_some(), "default of {}", option.name);
        }
        config
    }
}

impl Config {
    /// Reads every option through `var` (normally `std::env::var_os`). Unset and empty mean the default; so does a bad
    /// value, which is returned as a [`Problem`].
    pub fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> (Self, Vec<Problem>) {
        let mut config = Self::default();
        let mut problems = Vec::new();
        for option in OPTIONS {
            let names = std::iter::once(option.name).chain(option.alias);
            let found = names.filter_map(|name| Some((name, var(name)?))).find(|(_, value)| !value.is_empty());
            let Some((given, value)) = found else { continue };
            if (option.set)(&mut config, &value).is_none() {
                problems.push(Problem::Value { option, given, value });
            }
        }
        (config, problems)
    }

    /// Reads the process's environment, unknown variables included in the problems.
    pub fn from_env() -> (Self, Vec<Problem>) {
        let (config, mut problems) = Self::from_vars(|name| std::env::var_os(name));
        problems.extend(unknown_variables(std::env::vars_os().map(|(name, _)| name)));
        (config, problems)
    }
}

#[cfg(test)]
mod tests;
