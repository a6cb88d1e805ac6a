//! What the `underpass` command says of a process, and what the kernel counts in a namespace.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::LabError;
use crate::error::Doing;
use crate::namespace::Namespace;

/// One line of `underpass ss`.
#[derive(Clone, Debug)]
pub struct SocketView {
    /// The descriptor.
    pub fd: i64,
    /// `kernel`, `xdp` or `shm`.
    pub tier: String,
    /// Why, in short.
    pub reason: String,
    /// TCP state.
    pub state: String,
    /// Times promoted.
    pub promoted: u64,
    /// Times demoted.
    pub demoted: u64,
}

/// The sockets of a preloaded process.
pub(crate) fn sockets(command: &Path, pid: u32) -> Result<Vec<SocketView>, LabError> {
    let rows = json(command, &["ss", "--json", "-p", &pid.to_string()])?;
    let row = |row: &Value| {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| row[key].as_u64().unwrap_or_default();
        SocketView {
            fd: row["fd"].as_i64().unwrap_or(-1),
            tier: text("tier"),
            reason: text("reason"),
            state: text("state"),
            promoted: number("promoted"),
            demoted: number("demoted"),
        }
    };
    Ok(rows.as_array().into_iter().flatten().map(row).collect())
}

/// A counter of a preloaded process.
pub(crate) fn counter(command: &Path, pid: u32, name: &str) -> Result<u64, LabError> {
    let sheets = json(command, &["stats", "--json", "-p", &pid.to_string()])?;
    let value = sheets[0]["counters"][name].as_u64();
    value.ok_or_else(|| LabError::new(format!("underpass stats knows no counter {name} of process {pid}: {sheets}")))
}

fn json(command: &Path, args: &[&str]) -> Result<Value, LabError> {
    let text = said(Command::new(command).args(args))?;
    serde_json::from_str(&text).map_err(|error| LabError::new(format!("underpass {}: {error}: {text}", args.join(" "))))
}

/// Runs the `underpass` command; its stdout.
pub(crate) fn said(command: &mut Command) -> Result<String, LabError> {
    let output = command.output().doing("run underpass")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(LabError::new(format!("{command:?}: {}: {}", output.status, complaint.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Namespace {
    /// A counter of the namespace's kernel stack as /proc/net/snmp or /proc/net/netstat names it (`Tcp`, `RetransSegs`).
    pub fn kernel_counter(&self, table: &str, name: &str) -> Result<u64, LabError> {
        let read = || ["snmp", "netstat"].map(|file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")));
        let prefix = format!("{table}: ");
        for text in self.inside(read)? {
            let text = text.doing("read the kernel's counters")?;
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::split_whitespace);
            let (Some(mut names), Some(mut values)) = (lines.next(), lines.next()) else { continue };
            let found = names.position(|word| word == name).and_then(|at| values.nth(at));
            if let Some(value) = found.and_then(|word| word.parse().ok()) {
                return Ok(value);
            }
        }
        Err(LabError::new(format!("the kernel counts no {table} {name}")))
    }
}
