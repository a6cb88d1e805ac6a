//! Short connections: what Underpass must not slow down.

use underpass_bench::Connect;
use underpass_lab::{LabError, Side};

use super::Section;
use crate::stand::{Carriers, Labs};
use crate::table::{About, Metric};
use crate::turns::{Mode, Sample};

/// Columns.
pub const METRICS: &[Metric] = &[
    Metric { name: "conn/s", digits: 0 },
    Metric { name: "median us", digits: 1 },
    Metric { name: "p99 us", digits: 1 },
];

/// The modes.
pub fn section(stand: &Labs) -> Section<'_> {
    let carried = [
        ("kernel", Carriers::KERNEL),
        ("underpass server", Carriers::SERVER),
        ("underpass client", Carriers::CLIENT),
        ("underpass both", Carriers::BOTH),
    ];
    let modes = carried.into_iter().map(|(name, carriers)| Mode::new(name, move || run(stand, carriers))).collect();
    let about = About {
        name: "connect",
        title: "connect, 64-byte request, 64-byte answer, close".into(),
        metrics: METRICS,
        lower_is_better: false,
        references: &[("x kernel", "kernel")],
    };
    Section { about, modes }
}

fn run(stand: &Labs, carriers: Carriers) -> Result<Sample, LabError> {
    let (server, address) = stand.serve(carriers, &["connect-serve"])?;
    let mut client = stand.command(carriers, Side::Client, &stand.programs.load)?;
    client.args(["connect", "--connect", &address, "--seconds", &stand.programs.seconds().to_string()]);
    let figures = stand.run::<Connect>(stand.lab(carriers)?, client, stand.programs.seconds())?;
    drop(server);
    Ok(sample(&figures))
}

/// A row.
pub fn sample(figures: &Connect) -> Sample {
    vec![Some(figures.per_second), Some(figures.median_ns as f64 / 1e3), Some(figures.p99_ns as f64 / 1e3)]
}
