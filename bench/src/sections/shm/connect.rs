//! Short connections: what Underpass must not slow down.

use underpass_bench::Connect;
use underpass_lab::{LabError, Side};

use super::{CARRIED, TO_KERNEL};
use crate::sections::Section;
use crate::sections::connect::{METRICS, sample};
use crate::stand::{Carriers, Loopback};
use crate::table::About;
use crate::turns::{Mode, Sample};

/// The modes.
pub fn section(stand: &Loopback) -> Section<'_> {
    let mode = |(name, carriers)| Mode::new(name, move || run(stand, carriers));
    let about = About {
        name: "shm-connect",
        title: "connect over loopback, 64-byte request, 64-byte answer, close".into(),
        metrics: METRICS,
        lower_is_better: false,
        references: TO_KERNEL,
    };
    Section { about, modes: CARRIED.into_iter().map(mode).collect() }
}

fn run(stand: &Loopback, carriers: Carriers) -> Result<Sample, LabError> {
    let (server, address) = stand.serve(carriers, &["connect-serve"])?;
    let seconds = stand.programs.seconds();
    let mut client = stand.command(carriers, Side::Client, &stand.programs.load)?;
    client.args(["connect", "--connect", &address, "--seconds", &seconds.to_string()]);
    let figures = stand.run::<Connect>(client, seconds)?;
    drop(server);
    Ok(sample(&figures))
}
