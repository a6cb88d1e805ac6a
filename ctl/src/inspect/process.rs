//! Which processes are preloaded.

use std::io;

use underpass_stack::arena::{ArenaHeader, MAX_PORTS, PortEntry};

use super::arena_file::{ArenaFile, Unreadable};
use super::procfs::{self, Descriptors};

/// A preloaded process.
#[derive(Debug)]
pub struct Process {
    /// As this command's pid namespace numbers it.
    pub pid: u32,
    /// Its stack's name.
    pub name: String,
    /// Its command line.
    pub command: String,
    /// What its arena says first.
    pub header: ArenaHeader,
    /// Its arena.
    pub arena: ArenaFile,
    /// Its descriptors.
    pub descriptors: Descriptors,
}

impl Process {
    /// The attachments in use.
    pub fn ports(&self) -> &[PortEntry] {
        &self.header.port[..(self.header.ports as usize).min(MAX_PORTS)]
    }
}

/// The outcome of a search.
#[derive(Debug, Default)]
pub struct Found {
    /// Preloaded processes by pid.
    pub processes: Vec<Process>,
    /// Processes with an arena that cannot be read, and why.
    pub unreadable: Vec<(u32, Unreadable)>,
}

/// Finds preloaded processes: all that this user may look into, or one.
pub fn find(only: Option<u32>) -> io::Result<Found> {
    let mut found = Found::default();
    let pids = match only {
        Some(pid) => vec![pid],
        None => procfs::pids()?,
    };
    for pid in pids {
        match procfs::descriptors(pid) {
            Ok(descriptors) => look_into(pid, descriptors, &mut found),
            // Gone meanwhile, or not ours to look into; only worth a word if it was asked for by name.
            Err(error) if only.is_some() => return Err(error),
            Err(_) => {}
        }
    }
    Ok(found)
}

fn look_into(pid: u32, descriptors: Descriptors, found: &mut Found) {
    let mut failure = None;
    for &fd in &descriptors.arenas {
        match open(pid, fd) {
            Ok((arena, header)) if owns(pid, &header) => {
                let name = procfs::padded_text(&header.name);
                let command = procfs::command(pid);
                found.processes.push(Process { pid, name, command, header, arena, descriptors });
                return;
            }
            // Somebody else's arena: inherited by fork, or held by the daemon.
            Ok(_) => {}
            Err(error) => failure = Some(error),
        }
    }
    found.unreadable.extend(failure.map(|error| (pid, error)));
}

fn open(pid: u32, fd: i32) -> Result<(ArenaFile, ArenaHeader), Unreadable> {
    let arena = ArenaFile::open(&procfs::fd_path(pid, fd))?;
    let header = arena.header()?;
    Ok((arena, header))
}

fn owns(pid: u32, header: &ArenaHeader) -> bool {
    procfs::own_pid(pid) == Some(header.pid)
}
