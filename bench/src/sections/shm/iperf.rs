//! iperf3, unmodified.

use std::time::Duration;

use underpass_lab::{LabError, Side};

use super::{CARRIED, TO_KERNEL};
use crate::octets::lane_share;
use crate::sections::Section;
use crate::sections::iperf::Report;
use crate::stand::loopback::{ADDRESS, free_port};
use crate::stand::programs::GRACE;
use crate::stand::{Carriers, Loopback};
use crate::table::{About, Metric};
use crate::turns::{Mode, Sample};

const METRICS: &[Metric] = &[Metric { name: "Gbit/s", digits: 2 }, Metric { name: "lane %", digits: 1 }];

/// The modes.
pub fn section(stand: &Loopback) -> Section<'_> {
    let mode = |(name, carriers)| Mode::new(name, move || run(stand, carriers));
    let about = About {
        name: "shm-iperf",
        title: "iperf3 over loopback, one stream, client to server".into(),
        metrics: METRICS,
        lower_is_better: false,
        references: TO_KERNEL,
    };
    Section { about, modes: CARRIED.into_iter().map(mode).collect() }
}

fn run(stand: &Loopback, carriers: Carriers) -> Result<Sample, LabError> {
    let (address, port) = (ADDRESS.to_string(), free_port()?.to_string());
    let mut serve = stand.command(carriers, Side::Server, "iperf3")?;
    serve.args(["-s", "-1", "--forceflush", "-B", &address, "-p", &port]);
    let mut server = stand.spawn("server", serve)?;
    server.expect_line("Server listening", GRACE)?;
    let mut client = stand.command(carriers, Side::Client, "iperf3")?;
    // iperf3 takes whole seconds.
    let seconds = stand.programs.scaled(3).max(1).to_string();
    client.args(["-J", "-c", &address, "-p", &port, "-t", &seconds]);
    let finish = || stand.spawn("client", client)?.finish(Duration::from_secs(20));
    let (text, kernel) = stand.watching_kernel(carriers, finish)?;
    drop(server);
    let report = Report::parse(&text)?;
    Ok(vec![Some(report.gbit_per_s), kernel.map(|octets| lane_share(octets, report.bytes as u64))])
}
