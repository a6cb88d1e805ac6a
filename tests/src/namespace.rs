//! One network namespace, named so that a later run can tell whose it was.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use crate::child::{CommandExt, signal};
use crate::error::{Doing, LabError};

const PREFIX: &str = "uplab";

/// A namespace made by ip-netns(8); removed when dropped, with what still runs in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes `uplab-PID-number-role` with its loopback up.
    pub fn create(number: u32, role: &str) -> Result<Self, LabError> {
        let namespace = Self { name: format!("{PREFIX}-{}-{number}-{role}", std::process::id()) };
        ip(&["netns", "add", &namespace.name])?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name for ip(8).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A handle for setns(2).
    pub fn open(&self) -> Result<OwnedFd, LabError> {
        let path = PathBuf::from("/run/netns").join(&self.name);
        File::open(&path).map(OwnedFd::from).doing(format_args!("open {}", path.display()))
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command, LabError> {
        let mut command = Command::new(program);
        command.enter(self.open()?);
        Ok(command)
    }

    /// Runs a command inside to its end (tc, ethtool, nft); its output, or what it complained about.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String, LabError> {
        finished(self.command(program)?.args(args), &format!("{program} {}", args.join(" ")))
    }

    /// Runs `work` on a thread inside: sockets made there belong to this namespace for good.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let handle = self.open()?;
        let outcome = std::thread::scope(|scope| {
            let thread = scope.spawn(|| setns(&handle, CloneFlags::CLONE_NEWNET).map(|()| work()));
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        outcome.doing(format_args!("enter namespace {}", self.name))
    }

    /// Sets a variable of the namespace's network stack, named as below /proc/sys (sysctl(8)).
    pub fn set(&self, name: &str, value: &str) -> Result<(), LabError> {
        self.inside(|| std::fs::write(format!("/proc/sys/{name}"), value))?.doing(format_args!("set {name} to {value}"))
    }

    /// Runs ip(8) on this namespace; its output.
    pub fn ip(&self, args: &[&str]) -> Result<String, LabError> {
        ip(&[&["-n", &self.name], args].concat())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Runs ip(8); its output, or what it complained about.
pub(crate) fn ip(args: &[&str]) -> Result<String, LabError> {
    finished(Command::new("ip").args(args), &format!("ip {}", args.join(" ")))
}

fn finished(command: &mut Command, text: &str) -> Result<String, LabError> {
    let output = command.output().doing(format_args!("start '{text}'"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(LabError::new(format!("{text}: {}", complaint.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Removes the namespaces of runs that did not live to do so.
pub(crate) fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut parts = name.split('-');
        let (Some(PREFIX), Some(pid)) = (parts.next(), parts.next()) else { continue };
        if pid.parse::<u32>().is_ok_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            remove(&name);
        }
    }
}

fn remove(name: &str) {
    for pid in ip(&["netns", "pids", name]).unwrap_or_default().lines().filter_map(|line| line.trim().parse().ok()) {
        // It may have ended meanwhile.
        let _ = signal(pid, libc::SIGKILL);
    }
    if let Err(error) = ip(&["netns", "del", name]) {
        eprintln!("underpass lab: {error}");
    }
}
