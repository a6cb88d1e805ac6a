//! Which processes a `-p` option means.

use std::io::ErrorKind;

use super::failure::Failure;
use crate::inspect::{self, Process};

/// All preloaded processes that we may look into, or the one that was asked for; an error if that one cannot be shown.
pub fn processes(pid: Option<u32>) -> Result<Vec<Process>, Failure> {
    let found = match pid {
        Some(pid) => inspect::find(Some(pid)).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Failure::Failed(format!("there is no process {pid}")),
            _ => Failure::of(format!("cannot look into process {pid}"), error),
        })?,
        None => inspect::find(None)?,
    };
    for (pid, error) in &found.unreadable {
        eprintln!("underpass: process {pid}: {error}");
    }
    match pid {
        Some(_) if !found.unreadable.is_empty() => Err(Failure::Said),
        Some(pid) if found.processes.is_empty() => {
            Err(Failure::Failed(format!("process {pid} does not run under underpass (see underpass ps)")))
        }
        _ => Ok(found.processes),
    }
}
