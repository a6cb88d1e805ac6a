//! A daemon of our own, beside any that the machine may run.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};

use crate::artifact::Artifacts;
use crate::error::{Doing, LabError};
use crate::process::Process;
use crate::wait::wait_for;

const START_LIMIT: Duration = Duration::from_secs(10);

/// A running daemon; stopped when dropped.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    socket: PathBuf,
    artifacts: Artifacts,
}

impl Daemon {
    /// Starts `launcher` (the `underpass` command, perhaps in a namespace) as a daemon with its socket in `dir`, and waits until
    /// it answers there itself.
    pub(crate) fn start(mut launcher: Command, artifacts: &Artifacts, dir: &Path) -> Result<Self, LabError> {
        let socket = dir.join("control.sock");
        launcher.args(["daemon", "--foreground", "--socket"]).arg(&socket);
        let process = Process::spawn("daemon", &mut launcher, dir)?;
        let mut daemon = Self { process, socket, artifacts: artifacts.clone() };
        let mut ended = None;
        let started = wait_for("the daemon to listen", START_LIMIT, || {
            ended = daemon.process.exited();
            ended.is_some() || answerer(&daemon.socket) == Some(daemon.process.pid())
        });
        match (started, ended) {
            (Ok(()), None) => Ok(daemon),
            (Ok(()), Some(status)) => {
                Err(LabError::new(format!("the daemon ended with {status}: {}", daemon.process.stderr().trim())))
            }
            (Err(error), _) => Err(LabError::new(format!("{error}\n{}", daemon.process.stderr().trim()))),
        }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The program itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its log and the counters of all preloaded programs, for people who look for a fault.
    pub fn report(&self) -> String {
        let stats = Command::new(&self.artifacts.command).arg("stats").output().map_or_else(
            |error| error.to_string(),
            |output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        );
        format!("daemon log:\n{}{}\nunderpass stats:\n{stats}", self.process.stdout(), self.process.stderr())
    }

    /// Runs `underpass` with these arguments and this daemon's socket in its environment; its stdout.
    pub fn underpass(&self, args: &[&str]) -> Result<String, LabError> {
        let mut command = Command::new(&self.artifacts.command);
        let output = command.args(args).env("UNDERPASS_SOCKET", &self.socket).output().doing("run underpass")?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            return Err(LabError::new(format!("underpass {}: {}", args.join(" "), complaint.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The process that listens on a socket. A preloaded program with privilege may have started a daemon of its own there, which
/// is not the one under test.
fn answerer(path: &Path) -> Option<u32> {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).ok()?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path).ok()?).ok()?;
    getsockopt(&fd, PeerCredentials).ok().map(|peer| peer.pid() as u32)
}
