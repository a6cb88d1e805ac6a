//! What the library costs a program that it cannot help.

use std::process::Command;
use std::time::Instant;

use underpass_bench::Calls;
use underpass_lab::{LabError, Side};

use super::Section;
use crate::stand::{Carriers, Stand};
use crate::table::{About, Metric};
use crate::turns::{Mode, Sample};

const METRICS: &[Metric] = &[Metric { name: "read ns", digits: 1 }, Metric { name: "start ms", digits: 3 }];

/// Starts of /bin/true in one sample.
const STARTS: u64 = 100;

/// The modes.
pub fn section(stand: &Stand) -> Section<'_> {
    let carried = [("plain", Carriers::KERNEL), ("preloaded", Carriers::CLIENT)];
    let modes = carried.into_iter().map(|(name, carriers)| Mode::new(name, move || run(stand, carriers))).collect();
    let about = About {
        name: "overhead",
        title: "read(2) of one byte from a pipe, mean; start to end of /bin/true, median".into(),
        metrics: METRICS,
        lower_is_better: true,
        references: &[("x plain", "plain")],
    };
    Section { about, modes }
}

fn run(stand: &Stand, carriers: Carriers) -> Result<Sample, LabError> {
    let mut reader = stand.command(carriers, Side::Client, stand.load())?;
    reader.args(["pipe-read", "--count", &stand.scaled(1 << 20).to_string()]);
    let calls: Calls = stand.run(stand.lab(carriers)?, reader, 5.0)?;
    let mut starts = (0..stand.scaled(STARTS))
        .map(|_| start(&mut stand.command(carriers, Side::Client, "/bin/true")?))
        .collect::<Result<Vec<f64>, LabError>>()?;
    starts.sort_by(f64::total_cmp);
    Ok(vec![Some(calls.ns_per_call), Some(starts[starts.len() / 2])])
}

/// Milliseconds from start to end.
fn start(command: &mut Command) -> Result<f64, LabError> {
    let begin = Instant::now();
    let status = command.status().map_err(|error| LabError::new(format!("/bin/true: {error}")))?;
    if !status.success() {
        return Err(LabError::new(format!("/bin/true: {status}")));
    }
    Ok(begin.elapsed().as_secs_f64() * 1000.0)
}
