//! Throughput: bulk data one way.

use std::time::Duration;

use underpass_bench::Stream;
use underpass_lab::{CommandExt, LabError, Side};

use super::Section;
use crate::octets::lane_share;
use crate::stand::{Carriers, Labs, cpu_of};
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
        ("kernel", Carriers::KERNEL, false),
        ("kernel, verified", Carriers::KERNEL, true),
        ("underpass server", Carriers::SERVER, false),
        ("underpass client", Carriers::CLIENT, false),
        ("underpass both", Carriers::BOTH, false),
        ("underpass both, verified", Carriers::BOTH, true),
        ("underpass server, eager", Carriers::SERVER.eagerly(), false),
        ("underpass client, eager", Carriers::CLIENT.eagerly(), false),
        ("underpass both, eager", Carriers::BOTH.eagerly(), false),
        ("underpass both, eager, verified", Carriers::BOTH.eagerly(), true),
    ];
    let mut modes: Vec<Mode<'_>> = carried
        .into_iter()
        .map(|(name, carriers, verify)| Mode::new(name, move || over_tcp(stand, carriers, verify)))
        .collect();
    for hook in ["native", "generic"] {
        modes.push(Mode::new(format!("floor, {hook} XDP"), move || over_af_xdp(stand, hook)));
    }
    let about = About {
        name: "stream",
        title: "bulk TCP data, client to server, payload; verified: the server compares every byte; the floor is a flood of \
                1514-byte frames, payload of those that arrive"
            .into(),
        metrics: METRICS,
        lower_is_better: false,
        references: &[("x kernel", "kernel"), ("x floor", "floor, native XDP")],
    };
    Section { about, modes }
}

fn over_tcp(stand: &Labs, carriers: Carriers, verify: bool) -> Result<Sample, LabError> {
    let lab = stand.lab(carriers)?;
    let verify = verify.then_some("--verify");
    let mut server_args = vec!["stream-serve"];
    server_args.extend(verify);
    let (server, address) = stand.serve(carriers, &server_args)?;
    let mut client = stand.command(carriers, Side::Client, &stand.programs.load)?;
    client.args(["stream", "--connect", &address, "--seconds", &stand.programs.seconds().to_string()]).args(verify);
    let (figures, kernel) =
        stand.watching_kernel(carriers, || stand.run::<Stream>(lab, client, stand.programs.seconds()))?;
    drop(server);
    let lane = kernel.map(|octets| lane_share(octets, figures.bytes));
    Ok(vec![Some(figures.gbit_per_s), figures.retransmits.map(f64::from), lane])
}

fn over_af_xdp(stand: &Labs, hook: &str) -> Result<Sample, LabError> {
    let lab = stand.floor();
    let start = |side: Side, name: &str, more: &[&str]| {
        let mut command = lab.command(side, &stand.programs.load)?;
        command.pin(cpu_of(side)).args([name, "--interface", &lab.host(side).interface, "--hook", hook]).args(more);
        let mut process = lab.spawn(name, &mut command)?;
        process.expect_line("ready", Duration::from_secs(10))?;
        Ok::<_, LabError>(process)
    };
    let mut sink = start(Side::Server, "floor-sink", &["--seconds", &stand.programs.seconds().to_string()])?;
    let _flood = start(Side::Client, "floor-flood", &[])?;
    let text = sink.finish(Duration::from_secs(15))?;
    let figures = text.lines().last().and_then(|line| serde_json::from_str::<Stream>(line).ok());
    let figures = figures.ok_or_else(|| LabError::new(format!("sink printed '{text}'")))?;
    Ok(vec![Some(figures.gbit_per_s), None, None])
}
