//! `underpass stats`: the counters of preloaded processes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use underpass_stack::lane::Reason;
use underpass_stack::stats::{Counter, refusals_at};

use super::failure::Failure;
use super::output::{Align, Table, emit, emit_json};
use super::ps_target::processes;
use crate::inspect::Process;

/// Show the counters of preloaded processes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Counters that are zero are left out unless --all is given; JSON has all of them.\n\n\
                        Examples:\n  underpass stats -p 1234\n  underpass stats -p 1234 --watch    rates, once a second\n  \
                        underpass stats --json --watch 5  one JSON document every five seconds")]
pub struct Args {
    /// Only this process.
    #[arg(short, long, value_name = "PID")]
    pid: Option<u32>,
    /// Write JSON.
    #[arg(long)]
    json: bool,
    /// Counters that are zero, too.
    #[arg(short, long)]
    all: bool,
    /// Go on, every so many seconds, showing the rate of change as well.
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    watch: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Sheet {
    pid: u32,
    name: String,
    counters: BTreeMap<&'static str, u64>,
    /// Promotions refused, by reason; reasons that never spoke against one are left out.
    refused: BTreeMap<&'static str, u64>,
}

/// Runs the subcommand.
pub fn main(args: &Args) -> Result<(), Failure> {
    let mut before = Vec::new();
    loop {
        let now = processes(args.pid)?.iter().map(sheet).collect::<Result<Vec<_>, _>>()?;
        if args.json {
            emit_json(&now)?;
        } else {
            emit(&render(&now, &before, args))?;
        }
        let Some(seconds) = args.watch else { return Ok(()) };
        before = now;
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

fn sheet(process: &Process) -> Result<Sheet, Failure> {
    let values = process.arena.counters()?;
    let at = |place: usize| values.get(place).copied().unwrap_or(0);
    let counters = Counter::ALL.iter().map(|&counter| (counter.name(), at(counter as usize))).collect();
    let refused = Reason::ALL.iter().map(|&reason| (reason.name(), at(refusals_at(reason)))).filter(|(_, n)| *n > 0);
    Ok(Sheet { pid: process.pid, name: process.name.clone(), counters, refused: refused.collect() })
}

fn render(sheets: &[Sheet], before: &[Sheet], args: &Args) -> String {
    let mut text = String::new();
    for sheet in sheets {
        let old = before.iter().find(|old| old.pid == sheet.pid);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "process {} ({})", sheet.pid, sheet.name);
        text.push_str(&table(sheet, old, args));
        text.push('\n');
    }
    text
}

fn table(sheet: &Sheet, old: Option<&Sheet>, args: &Args) -> String {
    let mut columns = vec![("COUNTER", Align::Left), ("VALUE", Align::Right)];
    columns.extend(args.watch.map(|_| ("PER SECOND", Align::Right)));
    columns.push(("MEANING", Align::Left));
    let mut table = Table::new(&columns);
    for counter in Counter::ALL {
        let value = sheet.counters.get(counter.name()).copied().unwrap_or(0);
        if value == 0 && !args.all {
            continue;
        }
        let mut cells = vec![counter.name().to_owned(), value.to_string()];
        cells.extend(args.watch.map(|seconds| rate(counter, value, old, seconds)));
        cells.push(counter.text().to_owned());
        table.row(cells);
    }
    for reason in Reason::ALL {
        let Some(count) = sheet.refused.get(reason.name()) else { continue };
        let mut cells = vec![format!("refused: {}", reason.name()), count.to_string()];
        cells.extend(args.watch.map(|_| "-".to_owned()));
        cells.push(reason.text().to_owned());
        table.row(cells);
    }
    table.render()
}

fn rate(counter: &Counter, value: u64, old: Option<&Sheet>, seconds: u64) -> String {
    match old.and_then(|sheet| sheet.counters.get(counter.name())) {
        Some(before) => (value.saturating_sub(*before) / seconds).to_string(),
        None => "-".to_owned(),
    }
}
