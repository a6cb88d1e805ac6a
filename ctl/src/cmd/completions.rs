//! `underpass completions`: shell completions, for packagers.

use clap::CommandFactory;

use super::failure::Failure;
use super::output::emit;

/// Print the completion script of a shell.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Runs the subcommand.
pub fn main(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "underpass", &mut script);
    emit(&String::from_utf8_lossy(&script))
}
