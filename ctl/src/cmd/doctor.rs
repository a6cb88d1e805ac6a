//! `underpass doctor`: will it work here, in which mode, and if not why and what to do.

mod features;
mod host;
mod interface;

use std::path::PathBuf;

use serde::Serialize;

use super::client::socket_path;
use super::failure::Failure;
use super::output::{Align, Table, emit, emit_json};

/// Say whether Underpass works here, in which mode, and if not why and what to do.
#[derive(Debug, clap::Args)]
#[command(after_help = "Changes nothing. Exit status 1 if something stands in the way.\n\n\
                        Examples:\n  underpass doctor          this host and all its interfaces\n  \
                        underpass doctor eth0     this host and one interface")]
pub struct Args {
    /// Only this interface.
    #[arg(value_name = "IFACE")]
    interface: Option<String>,
    /// Write JSON.
    #[arg(long)]
    json: bool,
    /// The daemon's socket.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be.
    Ok,
    /// It works, but not at its best, or not yet.
    Warn,
    /// It stands in the way.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    found: String,
    /// What to do about it.
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), advice: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, status: Status::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    fn fail(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, status: Status::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    /// Nothing of the host stands in the way, and at least one of the interfaces can be accelerated.
    works: bool,
    host: Vec<Check>,
    interfaces: Vec<interface::Interface>,
}

/// Runs the subcommand.
pub fn main(args: &Args) -> Result<(), Failure> {
    let host = host::checks(&socket_path(args.socket.as_deref()));
    let interfaces = interface::examine(args.interface.as_deref())?;
    let host_works = host.iter().all(|check| check.status != Status::Fail);
    let works = host_works && interfaces.iter().any(interface::Interface::works);
    let report = Report { works, host, interfaces };
    if args.json {
        emit_json(&report)?
    } else {
        emit(&render(&report))?
    }
    if works { Ok(()) } else { Err(Failure::Said) }
}

fn render(report: &Report) -> String {
    let mut text = section("Host", &report.host);
    for interface in &report.interfaces {
        text.push('\n');
        text.push_str(&section(&format!("Interface {}", interface.name), &interface.checks));
    }
    text.push_str(match report.works {
        true => "\nUnderpass works here.\n",
        false => {
            "\nUnderpass's xdp lane does not work here; programs run in the kernel as always. See what failed above.\n"
        }
    });
    text
}

fn section(title: &str, checks: &[Check]) -> String {
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left), ("", Align::Left)]);
    for check in checks {
        let mark = match check.status {
            Status::Ok => "ok",
            Status::Warn => "note",
            Status::Fail => "FAIL",
        };
        table.row([format!("  {mark}"), check.name.to_owned(), check.found.clone()]);
        if let Some(advice) = &check.advice {
            table.row([String::new(), String::new(), format!("-> {advice}")]);
        }
    }
    // The heading of the columns is empty: the title stands in its place.
    format!("{title}\n{}", table.render().trim_start_matches('\n'))
}
