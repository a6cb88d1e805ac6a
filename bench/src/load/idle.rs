//! A program that only keeps its CPU out of its sleep states.

use crate::Outcome;

/// Runs until it is ended.
pub fn keep_awake() -> Outcome {
    underpass_lab::run_idle()?;
    println!("awake");
    loop {
        std::hint::spin_loop();
    }
}
