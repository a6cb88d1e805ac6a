//! The subcommands, one file each.

mod client;
mod completions;
mod daemon;
mod demote;
mod doctor;
mod failure;
mod man;
mod output;
mod profile;
mod ps;
mod ps_target;
mod run;
mod ss;
mod stats;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const AFTER_HELP: &str = "\
Examples:
  underpass doctor                         will it work here?
  underpass run -- redis-server            run a program on the fast path
  underpass run --profile latency -- ./app the same, spinning instead of sleeping
  underpass ss                             which connections are accelerated, and why not
  underpass demote -p 1234                 give a program's connections back to the kernel

Exit status: 0 success, 1 failure, 2 wrong usage.";

/// Faster sockets for unmodified programs: busy TCP connections move live from the kernel into an in-process stack, and back.
#[derive(Debug, Parser)]
#[command(name = "underpass", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Ps(ps::Args),
    Ss(ss::Args),
    Stats(stats::Args),
    Demote(demote::Args),
    Daemon(daemon::Args),
    Doctor(doctor::Args),
    #[command(hide = true)]
    Man,
    #[command(hide = true)]
    Completions(completions::Args),
}

/// Parses the command line and runs the subcommand.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(args) => run::main(args),
        Command::Ps(args) => ps::main(&args),
        Command::Ss(args) => ss::main(&args),
        Command::Stats(args) => stats::main(&args),
        Command::Demote(args) => demote::main(&args),
        Command::Daemon(args) => daemon::main(args),
        Command::Doctor(args) => doctor::main(&args),
        Command::Man => man::main(),
        Command::Completions(args) => completions::main(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
