//! Latency: 64 bytes there and back.

use std::process::Command;

use underpass_bench::PingPong;
use underpass_lab::{CommandExt, LabError, Process, Side};

use super::Section;
use crate::octets::{lane_share, of_exchanges};
use crate::stand::{Carriers, Labs, cpu_of};
use crate::table::{About, Metric};
use crate::turns::{Mode, Sample};

const METRICS: &[Metric] = &[
    Metric { name: "median us", digits: 2 },
    Metric { name: "p99 us", digits: 2 },
    Metric { name: "p99.9 us", digits: 2 },
    Metric { name: "min us", digits: 2 },
    Metric { name: "retrans", digits: 0 },
    Metric { name: "lane %", digits: 1 },
];

/// How the two programs behave.
#[derive(Clone, Copy)]
struct Manner {
    carriers: Carriers,
    server_spins: bool,
    client_spins: bool,
    /// CPU of the client.
    client_cpu: usize,
    /// Other programs keep both CPUs from sleeping.
    awake: bool,
}

const DEFAULT: Manner =
    Manner { carriers: Carriers::KERNEL, server_spins: false, client_spins: false, client_cpu: 1, awake: false };

/// The modes.
pub fn section(stand: &Labs) -> Section<'_> {
    let spinning = Manner { server_spins: true, client_spins: true, ..DEFAULT };
    let spinning_client = Manner { client_spins: true, ..DEFAULT };
    let spinning_server = Manner { server_spins: true, ..DEFAULT };
    let manners = [
        ("kernel", DEFAULT),
        ("kernel, both spin", spinning),
        ("kernel, one core", Manner { client_cpu: 0, ..DEFAULT }),
        ("kernel, cores kept awake", Manner { awake: true, ..DEFAULT }),
        ("kernel, client spins", spinning_client),
        ("underpass server", Manner { carriers: Carriers::SERVER, ..DEFAULT }),
        ("underpass server, client spins", Manner { carriers: Carriers::SERVER, ..spinning_client }),
        ("underpass client", Manner { carriers: Carriers::CLIENT, ..DEFAULT }),
        ("underpass client, server spins", Manner { carriers: Carriers::CLIENT, ..spinning_server }),
        ("underpass both", Manner { carriers: Carriers::BOTH, ..DEFAULT }),
        ("IPv6, kernel", Manner { carriers: Carriers::KERNEL.over_v6(), ..DEFAULT }),
        ("IPv6, underpass both", Manner { carriers: Carriers::BOTH.over_v6(), ..DEFAULT }),
    ];
    let mut modes: Vec<Mode<'_>> =
        manners.into_iter().map(|(name, manner)| Mode::new(name, move || over_tcp(stand, manner))).collect();
    for hook in ["native", "generic"] {
        modes.push(Mode::new(format!("floor, {hook} XDP"), move || over_af_xdp(stand, hook)));
    }
    let about = About {
        name: "pingpong",
        title:
            "64 bytes there and back over TCP; retrans: by the client; the floor is raw AF_XDP with frames of the same \
                length"
                .into(),
        metrics: METRICS,
        lower_is_better: true,
        references: &[("x kernel", "kernel"), ("x floor", "floor, native XDP")],
    };
    Section { about, modes }
}

fn over_tcp(stand: &Labs, manner: Manner) -> Result<Sample, LabError> {
    let lab = stand.lab(manner.carriers)?;
    let _awake = if manner.awake { keep_awake(stand)? } else { Vec::new() };
    let mut server_args = vec!["pingpong-serve"];
    server_args.extend(manner.server_spins.then_some("--spin"));
    let (server, address) = stand.serve(manner.carriers, &server_args)?;
    let mut client = stand.command(manner.carriers, Side::Client, &stand.programs.load)?;
    let seconds = stand.programs.seconds().to_string();
    client.pin(manner.client_cpu).args(["pingpong", "--connect", &address, "--seconds", &seconds]);
    client.args(manner.client_spins.then_some("--spin"));
    let (figures, kernel) =
        stand.watching_kernel(manner.carriers, || stand.run::<PingPong>(lab, client, stand.programs.seconds()))?;
    drop(server);
    let lane = kernel.map(|octets| lane_share(octets, of_exchanges(figures.count)));
    Ok(sample(&figures, lane))
}

fn over_af_xdp(stand: &Labs, hook: &str) -> Result<Sample, LabError> {
    let lab = stand.floor();
    let program = |side: Side, name: &str| -> Result<Command, LabError> {
        let mut command = lab.command(side, &stand.programs.load)?;
        command.pin(cpu_of(side)).args([name, "--interface", &lab.host(side).interface, "--hook", hook]);
        Ok(command)
    };
    let mut echo = lab.spawn("echo", &mut program(Side::Server, "floor-echo")?)?;
    echo.expect_line("ready", std::time::Duration::from_secs(10))?;
    let mut ping = program(Side::Client, "floor-ping")?;
    ping.args(["--seconds", &stand.programs.seconds().to_string()]);
    let figures = stand.run::<PingPong>(lab, ping, stand.programs.seconds())?;
    Ok(sample(&figures, None))
}

/// One idle-priority spinner on each CPU.
fn keep_awake(stand: &Labs) -> Result<Vec<Process>, LabError> {
    let lab = stand.lab(Carriers::KERNEL)?;
    let start = |side: Side| {
        let cpu = cpu_of(side);
        let mut process =
            lab.spawn(&format!("awake{cpu}"), Command::new(&stand.programs.load).arg("awake").pin(cpu))?;
        process.expect_line("awake", std::time::Duration::from_secs(10))?;
        Ok(process)
    };
    [Side::Server, Side::Client].into_iter().map(start).collect()
}

fn sample(figures: &PingPong, lane: Option<f64>) -> Sample {
    let micros = |nanos: u64| Some(nanos as f64 / 1000.0);
    vec![
        micros(figures.median_ns),
        micros(figures.p99_ns),
        micros(figures.p999_ns),
        micros(figures.min_ns),
        figures.retransmits.map(f64::from),
        lane,
    ]
}
