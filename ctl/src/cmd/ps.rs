//! `underpass ps`: preloaded processes.

use serde::Serialize;
use underpass_stack::arena::PortEntry;
use underpass_stack::lane::Reason;

use super::failure::Failure;
use super::output::{Align, Table, emit, emit_json};
use crate::inspect::{self, Found, Process, procfs, sockets};

/// Show preloaded processes: their lanes, queues, and how many connections are in each tier.
#[derive(Debug, clap::Args)]
#[command(after_help = "Needs neither the daemon nor the process's cooperation: works on a hung or stopped one.\n\
                        Shows the processes that you may look into; all of them as root.")]
pub struct Args {
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    pid: u32,
    name: String,
    command: String,
    session: bool,
    refusing: Option<&'static str>,
    interfaces: Vec<Interface>,
    xdp: usize,
    shm: usize,
    kernel: usize,
    started: u64,
}

#[derive(Debug, Serialize)]
struct Interface {
    name: String,
    index: u32,
    queues: u32,
    mode: &'static str,
    zero_copy: bool,
}

/// Runs the subcommand.
pub fn main(args: &Args) -> Result<(), Failure> {
    let Found { processes, unreadable } = inspect::find(None)?;
    let rows = processes.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    for (pid, error) in unreadable {
        eprintln!("underpass: process {pid}: {error}");
    }
    if args.json { emit_json(&rows) } else { emit(&render(&rows)) }
}

fn row(process: &Process) -> Result<Row, Failure> {
    let sockets = sockets::list(process)?;
    let count = |tier: &str| sockets.iter().filter(|s| s.tier == tier && s.state != "LISTEN").count();
    let refusing = u16::try_from(process.header.refusing).ok().filter(|&raw| raw != 0);
    Ok(Row {
        pid: process.pid,
        name: process.name.clone(),
        command: process.command.clone(),
        session: process.header.session == 1,
        refusing: refusing.map(|raw| Reason::from_raw(raw).name()),
        interfaces: process.ports().iter().map(interface).collect(),
        xdp: count("xdp"),
        shm: count("shm"),
        kernel: count("kernel"),
        started: process.header.started,
    })
}

fn interface(port: &PortEntry) -> Interface {
    Interface {
        name: procfs::padded_text(&port.name),
        index: port.ifindex,
        queues: port.queues,
        mode: if port.native == 1 { "native" } else { "generic" },
        zero_copy: port.zero_copy == 1,
    }
}

fn render(rows: &[Row]) -> String {
    let mut table = Table::new(&[
        ("PID", Align::Right),
        ("NAME", Align::Left),
        ("XDP", Align::Right),
        ("SHM", Align::Right),
        ("KERNEL", Align::Right),
        ("INTERFACES", Align::Left),
        ("DAEMON", Align::Left),
        ("COMMAND", Align::Left),
    ]);
    for row in rows {
        table.row([
            row.pid.to_string(),
            row.name.clone(),
            row.xdp.to_string(),
            row.shm.to_string(),
            row.kernel.to_string(),
            interfaces_text(&row.interfaces),
            row.refusing.unwrap_or(if row.session { "connected" } else { "-" }).to_owned(),
            row.command.clone(),
        ]);
    }
    table.render()
}

/// `eth0:4q,native,zc`, or `-`.
fn interfaces_text(interfaces: &[Interface]) -> String {
    if interfaces.is_empty() {
        return "-".to_owned();
    }
    let one = |i: &Interface| format!("{}:{}q,{}{}", i.name, i.queues, i.mode, if i.zero_copy { ",zc" } else { "" });
    interfaces.iter().map(one).collect::<Vec<_>>().join(" ")
}
