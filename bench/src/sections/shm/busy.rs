//! The same server and benchmark while other work wants every CPU all the time.

use std::time::Duration;

use underpass_lab::{LabError, Process, Side};

use super::redis::{self, Load};
use super::{CARRIED, TO_KERNEL};
use crate::sections::Section;
use crate::sections::redis_programs::METRICS;
use crate::stand::{Carriers, Loopback};
use crate::table::About;
use crate::turns::{Mode, Sample};

/// The modes.
pub fn section(stand: &Loopback) -> Section<'_> {
    let mut modes = Vec::new();
    for (clients, requests) in [(1, 50_000), (50, 100_000)] {
        let load = Load { test: "GET", clients, pipeline: 1, requests };
        for (name, carriers) in CARRIED {
            modes.push(Mode::new(name, move || run(stand, carriers, load)).of_kind(load.name()));
        }
    }
    let about = About {
        name: "shm-busy",
        title: "redis-benchmark against redis-server over loopback, beside one busy loop on each of their CPUs".into(),
        metrics: METRICS,
        lower_is_better: false,
        references: TO_KERNEL,
    };
    Section { about, modes }
}

fn run(stand: &Loopback, carriers: Carriers, load: Load) -> Result<Sample, LabError> {
    let _others =
        [Side::Server, Side::Client].map(|side| keep_busy(stand, side)).into_iter().collect::<Result<Vec<_>, _>>()?;
    redis::run(stand, carriers, load)
}

/// Somebody else's work beside one side.
fn keep_busy(stand: &Loopback, side: Side) -> Result<Process, LabError> {
    let mut command = stand.command(Carriers::KERNEL, side, &stand.programs.load)?;
    command.arg("busy");
    let mut process = stand.spawn(if side == Side::Server { "busy-server" } else { "busy-client" }, command)?;
    process.expect_line("busy", Duration::from_secs(10))?;
    Ok(process)
}
