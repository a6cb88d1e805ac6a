//! The load programs, and how long they run.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use underpass_lab::{LabError, Process};

/// Longest that a program of ours may overrun its own time, or take until it is ready.
pub const GRACE: Duration = Duration::from_secs(10);

/// Where the load program is, and the scale of a run.
#[derive(Clone)]
pub struct Programs {
    /// The load program.
    pub load: PathBuf,
    quick: bool,
}

impl Programs {
    /// The load program beside our own.
    pub fn find(quick: bool) -> Result<Self, LabError> {
        let load = std::env::current_exe()
            .map_err(|error| LabError::new(format!("own path: {error}")))?
            .with_file_name("underpass-load");
        if !load.is_file() {
            return Err(LabError::new(format!(
                "no {}: run 'cargo build --release -p underpass-bench'",
                load.display()
            )));
        }
        Ok(Self { load, quick })
    }

    /// One run's length.
    pub fn seconds(&self) -> f64 {
        if self.quick { 0.4 } else { 1.0 }
    }

    /// A count, or a fraction of it in a quick run.
    pub fn scaled(&self, count: u64) -> u64 {
        if self.quick { count * 2 / 5 } else { count }
    }

    /// Is this a first look, not a result?
    pub fn quick(&self) -> bool {
        self.quick
    }
}

/// The address at which one of our servers says that it listens.
pub fn address(server: &mut Process) -> Result<String, LabError> {
    server.expect_line("listening ", GRACE)
}

/// The figures that one of our clients, which runs for `seconds`, prints at its end.
pub fn figures<T: DeserializeOwned>(mut client: Process, seconds: f64) -> Result<T, LabError> {
    let text = client.finish(GRACE + Duration::from_secs_f64(seconds))?;
    parse(&text)
}

/// Figures as our programs print them.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, LabError> {
    serde_json::from_str(text.trim()).map_err(|error| LabError::new(format!("client printed '{text}': {error}")))
}
