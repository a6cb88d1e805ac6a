//! Loopback: server and client on 127.0.0.1 of the namespace that we are in. No privilege, no daemon.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use serde::de::DeserializeOwned;
use underpass_lab::{Artifacts, CommandExt, LabError, Process, Profile, Side, SocketView};

use super::cpus;
use super::programs::{self, Programs};
use super::scratch::Scratch;
use super::{Carrier, Carriers, preload};
use crate::octets::carried_by_loopback;

/// Where all servers listen.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Files, programs and CPUs of the two sides.
pub struct Loopback {
    scratch: Scratch,
    // A missing library fails the modes that need it, not the run.
    artifacts: Result<Artifacts, String>,
    cpus: Option<[usize; 2]>,
    /// The programs.
    pub programs: Programs,
}

impl Loopback {
    /// An error only if not even the kernel can be measured.
    pub fn new(programs: Programs) -> Result<Self, LabError> {
        let scratch = Scratch::new()?;
        preload::check(Command::new("cat"), false)?;
        let artifacts = usable_artifacts(&scratch).map_err(|error| error.to_string());
        Ok(Self { scratch, artifacts, cpus: cpus::two(), programs })
    }

    /// A directory for the files of programs.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// A command on one side, pinned to a CPU of that side's own if there are two.
    pub fn command(
        &self,
        carriers: Carriers,
        side: Side,
        program: impl AsRef<std::ffi::OsStr>,
    ) -> Result<Command, LabError> {
        let mut command = Command::new(program);
        if carriers.of(side) == Carrier::Underpass {
            preload_into(&mut command, self.artifacts()?, &self.scratch);
        }
        carriers.instruct(side, &mut command);
        self.pin(&mut command, side);
        Ok(command)
    }

    /// Moves a command to the CPU of a side, if there are two.
    pub fn pin(&self, command: &mut Command, side: Side) {
        if let Some([server, client]) = self.cpus {
            command.pin(if side == Side::Server { server } else { client });
        }
    }

    /// Starts a command; its output goes to files in our directory.
    pub fn spawn(&self, name: &str, mut command: Command) -> Result<Process, LabError> {
        Process::spawn(name, &mut command, self.dir())
    }

    /// Starts one of our servers on a free port; its address.
    pub fn serve(&self, carriers: Carriers, args: &[&str]) -> Result<(Process, String), LabError> {
        let mut command = self.command(carriers, Side::Server, &self.programs.load)?;
        command.args(args).arg("--bind").arg(format!("{ADDRESS}:0"));
        let mut process = self.spawn("server", command)?;
        let address = programs::address(&mut process)?;
        Ok((process, address))
    }

    /// Runs one of our clients to its end; its figures.
    pub fn run<T: DeserializeOwned>(&self, command: Command, seconds: f64) -> Result<T, LabError> {
        programs::figures(self.spawn("client", command)?, seconds)
    }

    /// Runs `work` and says how many bytes the loopback interface carried meanwhile, if a side is preloaded. Those of everybody in this
    /// namespace: on a busy machine too many.
    pub fn watching_kernel<T>(
        &self,
        carriers: Carriers,
        work: impl FnOnce() -> Result<T, LabError>,
    ) -> Result<(T, Option<u64>), LabError> {
        if carriers.preloaded().next().is_none() {
            return Ok((work()?, None));
        }
        let before = carried_by_loopback()?;
        let result = work()?;
        Ok((result, Some(carried_by_loopback()?.saturating_sub(before))))
    }

    /// The sockets of a preloaded process (`underpass ss`).
    pub fn sockets(&self, pid: u32) -> Result<Vec<SocketView>, LabError> {
        self.artifacts()?.sockets(pid)
    }

    fn artifacts(&self) -> Result<&Artifacts, LabError> {
        self.artifacts.as_ref().map_err(|why| LabError::new(why.clone()))
    }
}

/// A port on which nobody listens now, for servers that cannot choose one themselves and say which.
pub fn free_port() -> Result<u16, LabError> {
    let failed = |error: std::io::Error| LabError::new(format!("a free port of {ADDRESS}: {error}"));
    let listener = TcpListener::bind((ADDRESS, 0)).map_err(failed)?;
    Ok(listener.local_addr().map_err(failed)?.port())
}

/// Does anybody listen there?
pub fn is_served(port: u16) -> bool {
    TcpStream::connect((ADDRESS, port)).is_ok()
}

/// Library and command, of which the library is known to be loaded into programs.
fn usable_artifacts(scratch: &Scratch) -> Result<Artifacts, LabError> {
    let artifacts = Artifacts::find(Profile::Release)?;
    let mut cat = Command::new("cat");
    preload_into(&mut cat, &artifacts, scratch);
    preload::check(cat, true)?;
    Ok(artifacts)
}

/// The library with the lane of loopback connections alone. No daemon listens at its socket, and none is started for that lane.
fn preload_into(command: &mut Command, artifacts: &Artifacts, scratch: &Scratch) {
    artifacts.preload(command, &scratch.path().join("control.sock"));
    command.env("UNDERPASS_LANES", "shm");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_served_by_nobody() {
        let port = free_port().unwrap();
        assert!(!is_served(port));
        let _listener = TcpListener::bind((ADDRESS, port)).unwrap();
        assert!(is_served(port));
    }
}
