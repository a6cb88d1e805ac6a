//! The benchmark: kernel, underpass and the raw floor in one place, in turns.
//!
//! Machines drift (neighbours, temperature, frequency), so the modes of a section are not measured one after the other but in
//! rounds, each mode once a round; the table shows the median of the rounds.

mod cpu_time;
mod memory;
mod octets;
mod sections;
mod stand;
mod summary;
mod table;
mod turns;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use underpass_lab::{LabError, is_root};

use crate::sections::{Choice, Section, SectionName};
use crate::stand::Stand;

#[derive(Parser)]
#[command(name = "underpass-bench", about = "Kernel, Underpass and the raw floors in one run")]
struct Cli {
    /// What to measure; everything if nothing is named, without root everything that needs none.
    sections: Vec<SectionName>,
    /// Fewer rounds, shorter runs: a first look, not a result.
    #[arg(long)]
    quick: bool,
    /// Rounds, instead of 5 (quick: 3), or 3 (quick: 1) of the long ones.
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
    let choice = Choice::of(&cli.sections, is_root())?;
    let stand = Stand::new(cli.quick)?;
    let machine = stand.describe(&choice.places());
    println!("{machine}");
    if let Some(notice) = choice.notice() {
        println!("{notice}");
    }
    let (mut documents, mut failures) = (Vec::new(), Vec::new());
    for name in choice.measured {
        let rounds = cli.rounds.unwrap_or(name.rounds(cli.quick)).max(1);
        let Section { about, mut modes } = match name.build(&stand) {
            Ok(section) => section,
            Err(error) => {
                println!("\n{name}\n  ! {error}");
                failures.push(name.to_string());
                continue;
            }
        };
        modes.retain(|mode| cli.only.is_empty() || cli.only.iter().any(|word| mode.title().contains(word.as_str())));
        let results = turns::take(rounds, &mut modes);
        println!("\n{}", table::render(&about, &results));
        if let Some(text) = summary::of(&about, &results) {
            println!("{text}");
        }
        documents.push(table::document(&about, &results));
        let failed = results.iter().filter(|measured| !measured.errors.is_empty());
        failures.extend(failed.map(|measured| format!("{} ({name})", measured.title())));
    }
    if let Some(path) = &cli.json {
        let whole = json!({ "machine": machine, "quick": cli.quick, "sections": documents });
        std::fs::write(path, format!("{whole:#}\n"))
            .map_err(|error| LabError::new(format!("write {}: {error}", path.display())))?;
    }
    // All has been shown, but nobody should take it for a good run.
    if !failures.is_empty() {
        return Err(LabError::new(format!("failed, see the lines with '!' above: {}", failures.join("; "))));
    }
    Ok(())
}
