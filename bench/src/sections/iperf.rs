//! iperf3, unmodified.

use std::time::Duration;

use serde_json::Value;
use underpass_lab::{LabError, Side};

use super::Section;
use crate::octets::lane_share;
use crate::stand::{Carriers, Stand};
use crate::table::{About, Metric};
use crate::turns::{Mode, Sample};

const METRICS: &[Metric] = &[
    Metric { name: "Gbit/s", digits: 2 },
    Metric { name: "retrans", digits: 0 },
    Metric { name: "lane %", digits: 1 },
];

/// The modes.
pub fn section(stand: &Stand) -> Section<'_> {
    let carried = [
        ("kernel", Carriers::KERNEL),
        ("underpass server", Carriers::SERVER),
        ("underpass client", Carriers::CLIENT),
        ("underpass both", Carriers::BOTH),
        ("underpass both, eager", Carriers::BOTH.eagerly()),
    ];
    let modes = carried.into_iter().map(|(name, carriers)| Mode::new(name, move || run(stand, carriers))).collect();
    let about = About {
        name: "iperf",
        title: "iperf3, one stream, client to server".into(),
        metrics: METRICS,
        lower_is_better: false,
        references: &[("x kernel", "kernel")],
    };
    Section { about, modes }
}

fn run(stand: &Stand, carriers: Carriers) -> Result<Sample, LabError> {
    let lab = stand.lab(carriers)?;
    let address = lab.host(Side::Server).v4.to_string();
    let mut serve = stand.command(carriers, Side::Server, "iperf3")?;
    serve.args(["-s", "-1", "--forceflush", "-B", &address]);
    let mut server = lab.spawn("server", &mut serve)?;
    server.expect_line("Server listening", Duration::from_secs(10))?;
    let mut client = stand.command(carriers, Side::Client, "iperf3")?;
    // iperf3 takes whole seconds.
    client.args(["-J", "-c", &address, "-t", &stand.scaled(3).max(1).to_string()]);
    let (text, kernel) =
        stand.watching_kernel(carriers, || lab.spawn("client", &mut client)?.finish(Duration::from_secs(20)))?;
    drop(server);
    let report: Value = serde_json::from_str(&text).map_err(|error| LabError::new(format!("iperf3: {error}")))?;
    let end = &report["end"];
    let (rate, bytes) = (end["sum_received"]["bits_per_second"].as_f64(), end["sum_received"]["bytes"].as_f64());
    let (Some(rate), Some(bytes)) = (rate, bytes) else {
        return Err(LabError::new(format!("iperf3 gave no result: {}", report["error"])));
    };
    let lane = kernel.map(|octets| lane_share(octets, bytes as u64));
    Ok(vec![Some(rate / 1e9), end["sum_sent"]["retransmits"].as_f64(), lane])
}
