//! The benchmark: kernel, underpass and the raw floor on one wire, in turns.
//!
//! Machines drift (neighbours, temperature, frequency), so the modes of a section are not measured one after the other but in
//! rounds, each mode once a round; the table shows the median of the rounds.

mod cpu_time;
mod memory;
mod octets;
mod sections;
mod stand;
mod table;
mod turns;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use underpass_lab::LabError;

use crate::sections::{Section, SectionName};
use crate::stand::Stand;

#[derive(Parser)]
#[command(name = "underpass-bench", about = "Kernel, Underpass and the raw AF_XDP floor in one run (as root)")]
struct Cli {
    /// What to measure; everything if nothing is named.
    sections: Vec<SectionName>,
    /// Fewer rounds, shorter runs: a first look, not a result.
    #[arg(long)]
    quick: bool,
    /// Rounds, instead of 5 (quick: 3).
    #[arg(long)]
    rounds: Option<usize>,
    /// Only modes whose name contains one of these words.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Also write all samples to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("underpass-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), LabError> {
    let stand = Stand::new(cli.quick)?;
    println!("{}", stand.describe());
    let rounds = cli.rounds.unwrap_or(if cli.quick { 3 } else { 5 }).max(1);
    let names = if cli.sections.is_empty() { SectionName::ALL.to_vec() } else { cli.sections.clone() };
    let (mut documents, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        let Section { about, mut modes } = name.build(&stand);
        modes.retain(|mode| cli.only.is_empty() || cli.only.iter().any(|word| mode.title().contains(word.as_str())));
        let results = turns::take(rounds, &mut modes);
        println!("\n{}", table::render(&about, &results));
        documents.push(table::document(&about, &results));
        let failed = results.iter().filter(|measured| !measured.errors.is_empty());
        failures.extend(failed.map(|measured| format!("{} ({})", measured.title(), about.name)));
    }
    if let Some(path) = &cli.json {
        let whole = json!({ "machine": stand.describe(), "quick": cli.quick, "rounds": rounds, "sections": documents });
        std::fs::write(path, format!("{whole:#}\n"))
            .map_err(|error| LabError::new(format!("write {}: {error}", path.display())))?;
    }
    // All has been shown, but nobody should take it for a good run.
    if !failures.is_empty() {
        return Err(LabError::new(format!("failed, see the lines with '!' above: {}", failures.join("; "))));
    }
    Ok(())
}
