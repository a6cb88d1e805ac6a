//! What a program costs that waits on a silent connection.

use std::time::Duration;

use underpass_lab::{LabError, Process, Side};

use super::Section;
use crate::stand::{Carriers, Stand};
use crate::table::{About, Metric};
use crate::turns::{Mode, Sample};

const METRICS: &[Metric] = &[Metric { name: "CPU %", digits: 3 }, Metric { name: "memory MiB", digits: 2 }];

/// Silence before the measurement.
const SETTLE: Duration = Duration::from_secs(1);
/// The measurement.
const WATCH: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(10);

/// The modes.
pub fn section(stand: &Stand) -> Section<'_> {
    let modes = vec![
        Mode::new("kernel", move || after_ping_pong(stand, Carriers::KERNEL)),
        Mode::new("underpass server", move || after_ping_pong(stand, Carriers::SERVER)),
        Mode::new("kernel, never connected", move || never_connected(stand, Carriers::KERNEL)),
        Mode::new("underpass, never connected", move || never_connected(stand, Carriers::SERVER)),
    ];
    let about = About {
        name: "idle",
        title: "a server one second after its last byte: CPU time over two seconds, proportional set size".into(),
        metrics: METRICS,
        lower_is_better: true,
        references: &[],
    };
    Section { about, modes }
}

fn after_ping_pong(stand: &Stand, carriers: Carriers) -> Result<Sample, LabError> {
    let lab = stand.lab(carriers)?;
    let (server, address) = stand.serve(carriers, &["pingpong-serve"])?;
    let mut command = stand.command(carriers, Side::Client, stand.load())?;
    command.args(["pingpong", "--connect", &address, "--seconds", &stand.seconds().to_string(), "--hold", "30"]);
    let mut client = lab.spawn("client", &mut command)?;
    client.expect_line("{", LIMIT)?;
    watch(&server)
}

fn never_connected(stand: &Stand, carriers: Carriers) -> Result<Sample, LabError> {
    let (server, _) = stand.serve(carriers, &["pingpong-serve"])?;
    watch(&server)
}

/// The passing of time is what is measured here, so this does sleep.
fn watch(process: &Process) -> Result<Sample, LabError> {
    std::thread::sleep(SETTLE);
    let before = process.cpu_time()?;
    std::thread::sleep(WATCH);
    let used = process.cpu_time()?.saturating_sub(before);
    Ok(vec![Some(100.0 * used.as_secs_f64() / WATCH.as_secs_f64()), proportional_set_mib(process)])
}

/// `Pss` of /proc/PID/smaps_rollup.
fn proportional_set_mib(process: &Process) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid())).ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?;
    Some(kib.parse::<f64>().ok()? / 1024.0)
}
