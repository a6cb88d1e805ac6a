//! `underpass ss`: sockets of preloaded processes.

use underpass_stack::lane::Reason;

use super::failure::Failure;
use super::output::{Align, Table, bytes, emit, emit_json, or_dash};
use super::ps_target::processes;
use crate::inspect::sockets::{self, Socket};

/// Show the TCP sockets of preloaded processes: where their bytes travel, and why.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Columns: TIER is where the bytes travel now (kernel, xdp, shm) and REASON says why; RTT is the smoothed round trip\n\
                        in microseconds, CWND the congestion window in segments, CC the congestion control, RETR segments sent again, P/D how often the\n\
                        connection was promoted and demoted. A dash is a figure that only a lane keeps.\n\n\
                        Examples:\n  underpass ss -p 1234\n  underpass ss --json | jq '.[] | select(.tier == \"kernel\") | .reason'\n  \
                        underpass ss --reasons   what every reason means"
)]
pub struct Args {
    /// Only this process.
    #[arg(short, long, value_name = "PID")]
    pid: Option<u32>,
    /// Write JSON.
    #[arg(long)]
    json: bool,
    /// Explain every reason instead.
    #[arg(long, conflicts_with_all = ["pid", "json"])]
    reasons: bool,
}

/// Runs the subcommand.
pub fn main(args: &Args) -> Result<(), Failure> {
    if args.reasons {
        return emit(&render_reasons());
    }
    let mut rows = Vec::new();
    for process in processes(args.pid)? {
        rows.extend(sockets::list(&process)?);
    }
    if args.json { emit_json(&rows) } else { emit(&render(&rows)) }
}

fn render(rows: &[Socket]) -> String {
    let mut table = Table::new(&[
        ("PID", Align::Right),
        ("FD", Align::Right),
        ("LOCAL", Align::Left),
        ("PEER", Align::Left),
        ("TIER", Align::Left),
        ("REASON", Align::Left),
        ("STATE", Align::Left),
        ("RECV-Q", Align::Right),
        ("SEND-Q", Align::Right),
        ("RTT", Align::Right),
        ("CWND", Align::Right),
        ("CC", Align::Left),
        ("IN", Align::Right),
        ("OUT", Align::Right),
        ("RETR", Align::Right),
        ("P/D", Align::Right),
    ]);
    for socket in rows {
        table.row(cells(socket));
    }
    table.render()
}

fn cells(socket: &Socket) -> [String; 16] {
    let figures = socket.figures.as_ref();
    [
        socket.pid.to_string(),
        socket.fd.to_string(),
        or_dash(socket.local),
        or_dash(socket.peer),
        socket.tier.to_owned(),
        socket.reason.to_owned(),
        socket.state.to_owned(),
        or_dash(socket.recv_q),
        or_dash(socket.send_q),
        or_dash(figures.map(|f| f.rtt_us)),
        or_dash(figures.map(|f| f.cwnd)),
        or_dash(figures.map(|f| f.congestion)),
        or_dash(figures.map(|f| bytes(f.bytes_in))),
        or_dash(figures.map(|f| bytes(f.bytes_out))),
        or_dash(figures.map(|f| f.retransmits)),
        format!("{}/{}", socket.promoted, socket.demoted),
    ]
}

fn render_reasons() -> String {
    let mut table = Table::new(&[("REASON", Align::Left), ("MEANING", Align::Left)]);
    for reason in Reason::ALL {
        table.row([reason.name().to_owned(), reason.text().to_owned()]);
    }
    table.render()
}
