//! Programs that do nothing but run: what a CPU does beside those that are measured.

use crate::Outcome;

/// Keeps its CPU out of its sleep states, until it is ended.
pub fn keep_awake() -> Outcome {
    underpass_lab::run_idle()?;
    run("awake")
}

/// Wants its CPU all the time, until it is ended.
pub fn keep_busy() -> Outcome {
    run("busy")
}

fn run(state: &str) -> Outcome {
    println!("{state}");
    loop {
        std::hint::spin_loop();
    }
}
