//! A real server under its own benchmark.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use underpass_lab::{LabError, Process, Side, wait_for};

use super::Section;
use crate::octets::{lane_share, of_exchanges};
use crate::stand::{Carriers, Stand};
use crate::table::{About, Metric};
use crate::turns::{Mode, Sample};

const METRICS: &[Metric] = &[
    Metric { name: "requests/s", digits: 0 },
    Metric { name: "p50 ms", digits: 3 },
    Metric { name: "p99 ms", digits: 3 },
    Metric { name: "lane %", digits: 1 },
];

const PORT: u16 = 6379;
const LIMIT: Duration = Duration::from_secs(60);

/// The modes.
pub fn section(stand: &Stand) -> Section<'_> {
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
            modes.push(Mode::new(name, move || run(stand, carriers, clients, stand.scaled(requests))).of_kind(kind));
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

fn run(stand: &Stand, carriers: Carriers, clients: u32, requests: u64) -> Result<Sample, LabError> {
    let lab = stand.lab(carriers)?;
    let server = serve(stand, carriers)?;
    let mut client = stand.command(carriers, Side::Client, "redis-benchmark")?;
    let address = lab.host(Side::Server).v4.to_string();
    client.args(["-h", &address, "-p", &PORT.to_string(), "-t", "get", "--csv"]);
    client.args(["-c", &clients.to_string(), "-n", &requests.to_string()]);
    let (text, kernel) = stand.watching_kernel(carriers, || lab.spawn("client", &mut client)?.finish(LIMIT))?;
    drop(server);
    let figure = |column: &str| {
        figure(&text, column)
            .ok_or_else(|| LabError::new(format!("no {column} in what redis-benchmark printed: {text}")))
    };
    let lane = kernel.map(|octets| lane_share(octets, of_exchanges(requests)));
    Ok(vec![Some(figure("rps")?), Some(figure("p50_latency_ms")?), Some(figure("p99_latency_ms")?), lane])
}

fn serve(stand: &Stand, carriers: Carriers) -> Result<Process, LabError> {
    let lab = stand.lab(carriers)?;
    let host = lab.host(Side::Server);
    let mut command = stand.command(carriers, Side::Server, "redis-server")?;
    command.args(["--port", &PORT.to_string(), "--bind", &host.v4.to_string(), "--protected-mode", "no"]);
    command.args(["--save", "", "--appendonly", "no"]).arg("--dir").arg(lab.dir());
    let mut process = lab.spawn("server", &mut command)?;
    let address = SocketAddr::from((host.v4, PORT));
    let mut ended = None;
    wait_for("redis-server to accept connections", Duration::from_secs(10), || {
        ended = process.exited();
        let connected = host.namespace.inside(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok());
        ended.is_some() || connected.unwrap_or(false)
    })?;
    match ended {
        None => Ok(process),
        Some(status) => Err(LabError::new(format!("redis-server: {status}: {}{}", process.stdout(), process.stderr()))),
    }
}

/// The value under a heading of redis-benchmark's CSV.
fn figure(text: &str, column: &str) -> Option<f64> {
    let mut rows = text.lines().map(|line| line.split(',').map(|cell| cell.trim_matches('"')).collect::<Vec<_>>());
    let headings = rows.find(|row| row.first() == Some(&"test"))?;
    let at = headings.iter().position(|heading| *heading == column)?;
    rows.find(|row| row.first() == Some(&"GET"))?.get(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_heading() {
        let text = "\"test\",\"rps\",\"p50_latency_ms\"\n\"GET\",\"20000.00\",\"0.031\"\n";
        assert_eq!((figure(text, "rps"), figure(text, "p50_latency_ms")), (Some(20_000.0), Some(0.031)));
        assert_eq!(figure(text, "p99_latency_ms"), None);
    }
}
