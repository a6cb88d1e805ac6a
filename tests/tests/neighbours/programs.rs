//! Our own programs, in `programs/`.

use underpass_lab::Process;

use crate::run::Run;

/// The path of one.
pub fn program(name: &str) -> String {
    format!("{}/tests/neighbours/programs/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Starts a server written in Python: its file and its arguments.
pub fn python(run: &Run<'_>, name: &str, words: &[&str], port: u16) -> Process {
    run.serve(name, &[&["python3", &program(words[0])], &words[1..]].concat(), port)
}
