//! Packet scripts: one connection, told line by line what arrives and what has to go out (see `tests/scripts/README.md`).

mod machine;
mod measure;
mod play;
mod segment;
mod setup;
mod syntax;
mod value;

pub use syntax::Script;

/// Why a script does not hold, and in which line.
#[derive(Debug)]
pub struct Failure {
    /// Line of the script, from 1.
    pub line: usize,
    /// What was expected and what was there.
    pub what: String,
}

/// Reads a script and plays it to its end or its first failure.
pub fn run(text: &str) -> Result<(), Failure> {
    play::play(&Script::parse(text)?)
}
