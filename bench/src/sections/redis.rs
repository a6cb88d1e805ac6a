//! A real server under its own benchmark.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use underpass_lab::{LabError, Process, Side};

use super::Section;
use super::redis_programs::{LIMIT, METRICS, await_server, figures, server_args};
use crate::octets::{lane_share, of_exchanges};
use crate::stand::{Carriers, Labs};
use crate::table::About;
use crate::turns::{Mode, Sample};

const PORT: u16 = 6379;

/// The modes.
pub fn section(stand: &Labs) -> Section<'_> {
    let carried = [
        ("kernel", Carriers::KERNEL),
        ("underpass server", Carriers::SERVER),
        ("underpass client", Carriers::CLIENT),
        ("underpass both", Carriers::BOTH),
    ];
    let mut modes = Vec::new();
    for (clients, requests) in [(1, 20_000), (50, 100_000)] {
        for (name, carriers) in carried {
            let kind = if clients == 1 { String::new() } else { format!("{clients} clients") };
            modes.push(
                Mode::new(name, move || run(stand, carriers, clients, stand.programs.scaled(requests))).of_kind(kind),
            );
        }
    }
    let about = About {
        name: "redis",
        title: "redis-benchmark -t get, one client unless said otherwise; ratios to the kernel with as many clients"
            .into(),
        metrics: METRICS,
        lower_is_better: false,
        references: &[("x kernel", "kernel")],
    };
    Section { about, modes }
}

fn run(stand: &Labs, carriers: Carriers, clients: u32, requests: u64) -> Result<Sample, LabError> {
    let lab = stand.lab(carriers)?;
    let server = serve(stand, carriers)?;
    let mut client = stand.command(carriers, Side::Client, "redis-benchmark")?;
    let address = lab.host(Side::Server).v4.to_string();
    client.args(["-h", &address, "-p", &PORT.to_string(), "-t", "get", "--csv"]);
    client.args(["-c", &clients.to_string(), "-n", &requests.to_string()]);
    let (text, kernel) = stand.watching_kernel(carriers, || lab.spawn("client", &mut client)?.finish(LIMIT))?;
    drop(server);
    let lane = kernel.map(|octets| lane_share(octets, of_exchanges(requests)));
    Ok([figures(&text, "GET")?.to_vec(), vec![lane]].concat())
}

fn serve(stand: &Labs, carriers: Carriers) -> Result<Process, LabError> {
    let lab = stand.lab(carriers)?;
    let host = lab.host(Side::Server);
    let mut command = stand.command(carriers, Side::Server, "redis-server")?;
    command.args(server_args(host.v4, PORT)).args(["--protected-mode", "no"]).arg("--dir").arg(lab.dir());
    let mut process = lab.spawn("server", &mut command)?;
    let address = SocketAddr::from((host.v4, PORT));
    await_server(&mut process, || {
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
        host.namespace.inside(connect).unwrap_or(false)
    })?;
    Ok(process)
}
