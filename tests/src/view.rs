//! What the `underpass` command says of a process, and what the kernel counts in a namespace.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::LabError;
use crate::error::Doing;
use crate::namespace::Namespace;

/// Counters by name.
pub type Counters = BTreeMap<String, u64>;

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
    /// Bytes that the peer has not acknowledged, sent or not.
    pub send_q: u64,
    /// Congestion window on the lane, segments; 0 elsewhere.
    pub cwnd: u64,
}

/// One line of `underpass ss`, with whose it is and between which addresses.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The process.
    pub pid: u32,
    /// Its own address.
    pub local: Option<SocketAddr>,
    /// The other end's; none of a listening socket.
    pub peer: Option<SocketAddr>,
    /// The rest.
    pub socket: SocketView,
}

/// The sockets of a preloaded process.
pub(crate) fn sockets(command: &Path, pid: u32) -> Result<Vec<SocketView>, LabError> {
    let rows = json(command, &["ss", "--json", "-p", &pid.to_string()])?;
    Ok(rows.as_array().into_iter().flatten().map(socket).collect())
}

/// The sockets of all preloaded processes.
pub(crate) fn connections(command: &Path) -> Result<Vec<Connection>, LabError> {
    let rows = json(command, &["ss", "--json"])?;
    let row = |row: &Value| {
        let address = |key: &str| row[key].as_str().and_then(|text| text.parse().ok());
        let pid = row["pid"].as_u64().and_then(|pid| pid.try_into().ok()).unwrap_or_default();
        Connection { pid, local: address("local"), peer: address("peer"), socket: socket(row) }
    };
    Ok(rows.as_array().into_iter().flatten().map(row).collect())
}

fn socket(row: &Value) -> SocketView {
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| row[key].as_u64().unwrap_or_default();
    SocketView {
        fd: row["fd"].as_i64().unwrap_or(-1),
        tier: text("tier"),
        reason: text("reason"),
        state: text("state"),
        promoted: number("promoted"),
        demoted: number("demoted"),
        send_q: number("send_q"),
        cwnd: number("cwnd"),
    }
}

/// A counter of a preloaded process.
pub(crate) fn counter(command: &Path, pid: u32, name: &str) -> Result<u64, LabError> {
    let all = counters(command, pid)?;
    all.get(name).copied().ok_or_else(|| LabError::new(format!("underpass stats knows no counter {name}: {all:?}")))
}

/// All counters of a preloaded process.
pub(crate) fn counters(command: &Path, pid: u32) -> Result<Counters, LabError> {
    let sheets = json(command, &["stats", "--json", "-p", &pid.to_string()])?;
    let entries = sheets[0]["counters"].as_object();
    let entries = entries.ok_or_else(|| LabError::new(format!("no counters of process {pid}: {sheets}")))?;
    Ok(entries.iter().filter_map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect())
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
    /// The counters of the namespace's kernel stack, as /proc/net/snmp and /proc/net/netstat name them: `Tcp.RetransSegs`.
    pub fn kernel_counters(&self) -> Result<Counters, LabError> {
        let read = || ["snmp", "netstat"].map(|file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")));
        let mut all = Counters::new();
        for text in self.inside(read)? {
            let text = text.doing("read the kernel's counters")?;
            let lines: Vec<&str> = text.lines().collect();
            // A line of names, then one of values, each after the name of their table.
            for (names, values) in lines.chunks_exact(2).filter_map(|pair| Some((pair[0].split_once(": ")?, pair[1]))) {
                let values = values.split_whitespace().skip(1);
                let named = names.1.split_whitespace().zip(values);
                all.extend(named.filter_map(|(name, v)| Some((format!("{}.{name}", names.0), v.parse().ok()?))));
            }
        }
        Ok(all)
    }
}
