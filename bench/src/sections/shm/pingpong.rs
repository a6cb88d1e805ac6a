//! Latency: 64 bytes there and back.

use underpass_bench::PingPong;
use underpass_lab::{LabError, Side};

use crate::octets::{lane_share, of_exchanges};
use crate::sections::Section;
use crate::stand::programs::GRACE;
use crate::stand::{Carriers, Loopback};
use crate::table::{About, Metric};
use crate::turns::{Mode, Sample};

const METRICS: &[Metric] = &[
    Metric { name: "median us", digits: 2 },
    Metric { name: "p99 us", digits: 2 },
    Metric { name: "min us", digits: 2 },
    Metric { name: "lane %", digits: 1 },
];

/// How the two programs behave.
#[derive(Clone, Copy)]
struct Manner {
    carriers: Carriers,
    /// Both ask for data again and again instead of sleeping.
    spin: bool,
    /// Both are on the server's CPU.
    one_core: bool,
}

/// The modes.
pub fn section(stand: &Loopback) -> Section<'_> {
    let kernel = Manner { carriers: Carriers::KERNEL, spin: false, one_core: false };
    let both = Manner { carriers: Carriers::BOTH, ..kernel };
    let manners = [
        ("kernel", kernel),
        ("kernel, both spin", Manner { spin: true, ..kernel }),
        ("kernel, one core", Manner { one_core: true, ..kernel }),
        ("underpass both", both),
        ("underpass both, one core", Manner { one_core: true, ..both }),
        ("underpass server", Manner { carriers: Carriers::SERVER, ..kernel }),
        ("underpass client", Manner { carriers: Carriers::CLIENT, ..kernel }),
    ];
    let mut modes: Vec<Mode<'_>> =
        manners.into_iter().map(|(name, manner)| Mode::new(name, move || over_tcp(stand, manner))).collect();
    modes.push(Mode::new("floor", move || over_page(stand)));
    let about = About {
        name: "shm-pingpong",
        title: "64 bytes there and back over loopback TCP, blocking programs unless they spin; the floor is 64 bytes copied through \
                a shared page, both sides spinning"
            .into(),
        metrics: METRICS,
        lower_is_better: true,
        references: &[("x kernel", "kernel"), ("x spinning", "kernel, both spin"), ("x floor", "floor")],
    };
    Section { about, modes }
}

fn over_tcp(stand: &Loopback, manner: Manner) -> Result<Sample, LabError> {
    let Manner { carriers, spin, one_core } = manner;
    let spin = spin.then_some("--spin");
    let mut server_args = vec!["pingpong-serve"];
    server_args.extend(spin);
    let (server, address) = stand.serve(carriers, &server_args)?;
    let seconds = stand.programs.seconds();
    let mut client = stand.command(carriers, Side::Client, &stand.programs.load)?;
    client.args(["pingpong", "--connect", &address, "--seconds", &seconds.to_string()]).args(spin);
    if one_core {
        stand.pin(&mut client, Side::Server);
    }
    let (figures, kernel) = stand.watching_kernel(carriers, || stand.run::<PingPong>(client, seconds))?;
    drop(server);
    Ok(sample(&figures, kernel.map(|octets| lane_share(octets, of_exchanges(figures.count)))))
}

fn over_page(stand: &Loopback) -> Result<Sample, LabError> {
    let mut command = stand.command(Carriers::KERNEL, Side::Server, &stand.programs.load)?;
    command.arg("shm-floor-echo");
    let mut echo = stand.spawn("echo", command)?;
    let page = echo.expect_line("page ", GRACE)?;
    let seconds = stand.programs.seconds();
    let mut ping = stand.command(Carriers::KERNEL, Side::Client, &stand.programs.load)?;
    ping.args(["shm-floor-ping", "--page", &page, "--seconds", &seconds.to_string()]);
    Ok(sample(&stand.run::<PingPong>(ping, seconds)?, None))
}

fn sample(figures: &PingPong, lane: Option<f64>) -> Sample {
    let micros = |nanos: u64| Some(nanos as f64 / 1000.0);
    vec![micros(figures.median_ns), micros(figures.p99_ns), micros(figures.min_ns), lane]
}
