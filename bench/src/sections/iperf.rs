//! iperf3, unmodified.

use std::time::Duration;

use serde_json::Value;
use underpass_lab::{LabError, Side};

use super::Section;
use crate::octets::lane_share;
use crate::stand::{Carriers, Labs};
use crate::table::{About, Metric};
use crate::turns::{Mode, Sample};

const METRICS: &[Metric] = &[
    Metric { name: "Gbit/s", digits: 2 },
    Metric { name: "retrans", digits: 0 },
    Metric { name: "lane %", digits: 1 },
];

/// The modes.
pub fn section(stand: &Labs) -> Section<'_> {
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

fn run(stand: &Labs, carriers: Carriers) -> Result<Sample, LabError> {
    let lab = stand.lab(carriers)?;
    let address = lab.host(Side::Server).v4.to_string();
    let mut serve = stand.command(carriers, Side::Server, "iperf3")?;
    serve.args(["-s", "-1", "--forceflush", "-B", &address]);
    let mut server = lab.spawn("server", &mut serve)?;
    server.expect_line("Server listening", Duration::from_secs(10))?;
    let mut client = stand.command(carriers, Side::Client, "iperf3")?;
    // iperf3 takes whole seconds.
    client.args(["-J", "-c", &address, "-t", &stand.programs.scaled(3).max(1).to_string()]);
    let (text, kernel) =
        stand.watching_kernel(carriers, || lab.spawn("client", &mut client)?.finish(Duration::from_secs(20)))?;
    drop(server);
    let report = Report::parse(&text)?;
    let lane = kernel.map(|octets| lane_share(octets, report.bytes as u64));
    Ok(vec![Some(report.gbit_per_s), report.retransmits, lane])
}

/// What iperf3 says at its end.
pub struct Report {
    /// Payload bits per second that arrived, in 10^9.
    pub gbit_per_s: f64,
    /// Payload bytes that arrived.
    pub bytes: f64,
    /// Segments that the sender sent again, where that is known.
    pub retransmits: Option<f64>,
}

impl Report {
    /// Reads what `iperf3 -J` prints.
    pub fn parse(text: &str) -> Result<Self, LabError> {
        let report: Value = serde_json::from_str(text).map_err(|error| LabError::new(format!("iperf3: {error}")))?;
        let end = &report["end"];
        let received = &end["sum_received"];
        let (Some(rate), Some(bytes)) = (received["bits_per_second"].as_f64(), received["bytes"].as_f64()) else {
            return Err(LabError::new(format!("iperf3 gave no result: {}", report["error"])));
        };
        Ok(Self { gbit_per_s: rate / 1e9, bytes, retransmits: end["sum_sent"]["retransmits"].as_f64() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_and_its_error_passed_on() {
        let text = r#"{"end": {"sum_sent": {"retransmits": 3}, "sum_received": {"bits_per_second": 2e9, "bytes": 5}}}"#;
        let report = Report::parse(text).unwrap();
        assert_eq!((report.gbit_per_s, report.bytes, report.retransmits), (2.0, 5.0, Some(3.0)));
        let error = Report::parse(r#"{"error": "unable to connect"}"#).err().unwrap().to_string();
        assert!(error.contains("unable to connect"), "{error}");
        assert!(Report::parse("iperf3: bad option").is_err());
    }
}
