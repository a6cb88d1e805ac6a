//! A real server under its own benchmark.

use underpass_lab::{LabError, Process, Side};

use super::{CARRIED, TO_KERNEL};
use crate::octets::{lane_share, of_exchanges};
use crate::sections::Section;
use crate::sections::redis_programs::{LIMIT, METRICS, await_server, figures, server_args};
use crate::stand::loopback::{ADDRESS, free_port, is_served};
use crate::stand::{Carriers, Loopback};
use crate::table::About;
use crate::turns::{Mode, Sample};

/// A load that redis-benchmark makes.
#[derive(Clone, Copy)]
pub struct Load {
    /// GET or SET.
    pub test: &'static str,
    /// Connections.
    pub clients: u64,
    /// Requests sent without waiting for the answer before.
    pub pipeline: u64,
    /// Requests in all, in a full run.
    pub requests: u64,
}

impl Load {
    /// What the table calls it.
    pub fn name(self) -> String {
        let Self { test, clients, pipeline, .. } = self;
        let clients = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
        if pipeline == 1 { format!("{test}, {clients}") } else { format!("{test}, {clients}, -P {pipeline}") }
    }
}

/// The modes.
pub fn section(stand: &Loopback) -> Section<'_> {
    let mut modes = Vec::new();
    for (clients, pipeline, requests) in [(1, 1, 20_000), (50, 1, 100_000), (50, 16, 1_000_000)] {
        for test in ["GET", "SET"] {
            let load = Load { test, clients, pipeline, requests };
            for (name, carriers) in CARRIED {
                modes.push(Mode::new(name, move || run(stand, carriers, load)).of_kind(load.name()));
            }
        }
    }
    let about = About {
        name: "shm-redis",
        title: "redis-benchmark against redis-server over loopback; -P: requests in a pipeline; ratios to the kernel under the same load"
            .into(),
        metrics: METRICS,
        lower_is_better: false,
        references: TO_KERNEL,
    };
    Section { about, modes }
}

/// Measures one load.
pub fn run(stand: &Loopback, carriers: Carriers, load: Load) -> Result<Sample, LabError> {
    let port = free_port()?;
    let server = serve(stand, carriers, port)?;
    let requests = stand.programs.scaled(load.requests);
    let mut client = stand.command(carriers, Side::Client, "redis-benchmark")?;
    client.args(["-h", &ADDRESS.to_string(), "-p", &port.to_string(), "-t", &load.test.to_lowercase(), "--csv"]);
    client.args(["-c", &load.clients.to_string(), "-P", &load.pipeline.to_string(), "-n", &requests.to_string()]);
    let (text, kernel) = stand.watching_kernel(carriers, || stand.spawn("client", client)?.finish(LIMIT))?;
    drop(server);
    let lane = kernel.map(|octets| lane_share(octets, of_exchanges(requests / load.pipeline)));
    Ok([figures(&text, load.test)?.to_vec(), vec![lane]].concat())
}

fn serve(stand: &Loopback, carriers: Carriers, port: u16) -> Result<Process, LabError> {
    let mut command = stand.command(carriers, Side::Server, "redis-server")?;
    command.args(server_args(ADDRESS, port)).arg("--dir").arg(stand.dir());
    let mut process = stand.spawn("server", command)?;
    await_server(&mut process, || is_served(port))?;
    Ok(process)
}
