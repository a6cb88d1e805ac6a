//! `underpass demote`: connections back to the kernel.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use underpass_stack::arena::Phase;
use underpass_stack::control::{AskDemote, Done};

use super::client::{Client, socket_path};
use super::failure::Failure;
use super::output::emit;
use super::ps_target::processes;
use crate::inspect::Process;
use crate::inspect::sockets::{self, Socket};

/// How long a process may take to give its connections back.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often we look whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Give connections of a process back to the kernel now; peers do not notice.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without a filter, all connections of the process are demoted. Filters narrow the choice together.\n\
                        A demoted connection may be promoted again when it proves busy.\n\n\
                        Examples:\n  underpass demote -p 1234\n  underpass demote -p 1234 --fd 17\n  \
                        underpass demote -p 1234 --remote 10.0.0.7\n  underpass demote -p 1234 --local :6379"
)]
pub struct Args {
    /// The process.
    #[arg(short, long, value_name = "PID")]
    pid: u32,
    /// All of its connections (the default).
    #[arg(long, conflicts_with_all = ["slot", "fd", "local", "remote"])]
    all: bool,
    /// The connection in this slot, as `underpass ss --json` tells it.
    #[arg(long, value_name = "N")]
    slot: Option<u32>,
    /// The connection of this descriptor.
    #[arg(long, value_name = "N")]
    fd: Option<i32>,
    /// Connections whose own end is this: IP, IP:PORT or :PORT.
    #[arg(long, value_name = "ADDRESS")]
    local: Option<Filter>,
    /// Connections whose peer is this: IP, IP:PORT or :PORT.
    #[arg(long, value_name = "ADDRESS")]
    remote: Option<Filter>,
    /// Do not wait until it is done.
    #[arg(long)]
    no_wait: bool,
    /// The daemon's socket.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// An end of a connection, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Filter {
    ip: Option<IpAddr>,
    port: Option<u16>,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse().ok()) {
            return Ok(Self { ip: None, port: Some(port) });
        }
        if let Ok(ip) = text.parse() {
            return Ok(Self { ip: Some(ip), port: None });
        }
        let full: SocketAddr = text.parse().map_err(|_| "expected IP, IP:PORT, [IP6]:PORT or :PORT".to_owned())?;
        Ok(Self { ip: Some(full.ip()), port: Some(full.port()) })
    }
}

impl Filter {
    fn matches(&self, end: Option<SocketAddr>) -> bool {
        let Some(end) = end else { return false };
        self.ip.is_none_or(|ip| ip == end.ip()) && self.port.is_none_or(|port| port == end.port())
    }
}

/// Runs the subcommand.
pub fn main(args: &Args) -> Result<(), Failure> {
    let mut chosen = Vec::new();
    let process = processes(Some(args.pid))?.into_iter().next().ok_or(Failure::Said)?;
    for socket in sockets::list(&process)? {
        if let (Some(slot), Some(generation), true) = (socket.slot, socket.generation, is_chosen(&socket, args)) {
            chosen.push((slot, generation));
        }
    }
    // Duplicates of a descriptor are one connection.
    chosen.sort_unstable();
    chosen.dedup();
    if chosen.is_empty() {
        return emit("no connection on a lane matches\n");
    }
    let client = Client::connect(&socket_path(args.socket.as_deref())).map_err(|e| Failure::Failed(e.to_string()))?;
    for slot in questions(&chosen, args) {
        let question = AskDemote { pid: args.pid, slot };
        client.ask::<_, Done>(&question).map_err(|error| Failure::Failed(error.to_string()))?;
    }
    if args.no_wait {
        return emit(&format!("asked for {} connection(s)\n", chosen.len()));
    }
    let left = wait_until_gone(&process, &chosen);
    emit(&format!("demoted {} connection(s)\n", chosen.len() - left))?;
    match left {
        0 => Ok(()),
        _ => Err(Failure::Failed(format!("{left} connection(s) are still on their lane after {PATIENCE:?}"))),
    }
}

fn is_chosen(socket: &Socket, args: &Args) -> bool {
    args.slot.is_none_or(|slot| socket.slot == Some(slot))
        && args.fd.is_none_or(|fd| socket.fd == fd)
        && args.local.is_none_or(|filter| filter.matches(socket.local))
        && args.remote.is_none_or(|filter| filter.matches(socket.peer))
}

/// One question for all, or one for each.
fn questions(chosen: &[(u32, u32)], args: &Args) -> Vec<u32> {
    let filtered = args.slot.is_some() || args.fd.is_some() || args.local.is_some() || args.remote.is_some();
    if filtered { chosen.iter().map(|&(slot, _)| slot).collect() } else { vec![u32::MAX] }
}

/// Waits until none of the connections is in its slot any more; returns how many are.
fn wait_until_gone(process: &Process, chosen: &[(u32, u32)]) -> usize {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let is_there = |&&(slot, generation): &&(u32, u32)| {
            let record = process.arena.conn(slot).filter(|record| record.generation == generation);
            record.is_some_and(|record| matches!(Phase::from_raw(record.phase), Phase::Live | Phase::Frozen))
        };
        let left = chosen.iter().filter(is_there).count();
        if left == 0 || Instant::now() >= deadline || !is_alive(process.pid) {
            return left;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn is_alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_what_they_say() {
        let end: SocketAddr = "10.0.0.7:6379".parse().unwrap();
        for (text, matches) in [
            ("10.0.0.7", true),
            ("10.0.0.7:6379", true),
            (":6379", true),
            ("10.0.0.8", false),
            ("10.0.0.7:80", false),
            (":80", false),
            ("::1", false),
            ("[::1]:6379", false),
        ] {
            assert_eq!(text.parse::<Filter>().unwrap().matches(Some(end)), matches, "{text}");
            assert!(!text.parse::<Filter>().unwrap().matches(None));
        }
        for bad in ["", ":", "10.0.0", "host:80", ":99999"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }
}
