//! Very many connections at once: what a message takes, and what a connection takes in memory.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use underpass_bench::Many;
use underpass_lab::{LabError, Process, Side};

use super::TO_KERNEL;
use crate::memory::proportional_kib;
use crate::sections::Section;
use crate::stand::programs::{self, GRACE};
use crate::stand::{Carriers, Loopback};
use crate::table::{About, Metric};
use crate::turns::{Mode, Sample};

const METRICS: &[Metric] = &[
    Metric { name: "us/message", digits: 2 },
    Metric { name: "us/message, 64 under way", digits: 2 },
    Metric { name: "KiB/connection", digits: 2 },
    Metric { name: "on the lane", digits: 0 },
];

/// Longest time until all connections are made and measured.
const LIMIT: Duration = Duration::from_secs(120);

/// The modes.
pub fn section(stand: &Loopback) -> Section<'_> {
    let connections = if stand.programs.quick() { 1_000 } else { 10_000 };
    // Else only those would be on the lane that have proved busy, which is a matter of seconds with so many.
    let carried = [("kernel", Carriers::KERNEL), ("underpass both, eager", Carriers::BOTH.eagerly())];
    let mode = |(name, carriers)| Mode::new(name, move || run(stand, carriers, connections));
    let about = About {
        name: "shm-many",
        title: format!(
            "{connections} connections over loopback, 64 bytes there and back on one after the other, by epoll on both sides; memory: \
             what both processes have grown by (proportional set size, without the kernel's socket buffers)"
        ),
        metrics: METRICS,
        lower_is_better: true,
        references: TO_KERNEL,
    };
    Section { about, modes: carried.into_iter().map(mode).collect() }
}

fn run(stand: &Loopback, carriers: Carriers, connections: usize) -> Result<Sample, LabError> {
    let count = connections.to_string();
    let (server, address) = stand.serve(carriers, &["many-server", "--connections", &count])?;
    let control = Control::listen(stand)?;
    let mut command = stand.command(carriers, Side::Client, &stand.programs.load)?;
    command.args(["many-client", "--connect", &address, "--connections", &count]);
    command.args(["--seconds", &stand.programs.seconds().to_string()]).arg("--control").arg(&control.path);
    let mut client = stand.spawn("client", command)?;
    client.expect_line("ready", GRACE)?;
    let before = memory(&server, &client)?;
    control.release()?;
    let figures: Many = programs::parse(&client.expect_line("figures ", LIMIT)?)?;
    let grown = memory(&server, &client)?.saturating_sub(before) as f64 / connections as f64;
    let micros = |nanos: f64| Some(nanos / 1e3);
    Ok(vec![micros(figures.single_ns), micros(figures.batch_ns), Some(grown), laned(stand, carriers, &client)?])
}

/// What both have, KiB.
fn memory(server: &Process, client: &Process) -> Result<u64, LabError> {
    Ok(proportional_kib(server.pid())? + proportional_kib(client.pid())?)
}

/// How many connections of a preloaded client are on the lane.
fn laned(stand: &Loopback, carriers: Carriers, client: &Process) -> Result<Option<f64>, LabError> {
    if carriers.preloaded().next().is_none() {
        return Ok(None);
    }
    let sockets = stand.sockets(client.pid())?;
    Ok(Some(sockets.iter().filter(|socket| socket.tier == "shm").count() as f64))
}

/// The socket on which the client waits for its start.
struct Control {
    path: std::path::PathBuf,
    listener: UnixListener,
}

impl Control {
    fn listen(stand: &Loopback) -> Result<Self, LabError> {
        let path = stand.dir().join("many.sock");
        // Of the run before.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)
            .map_err(|error| LabError::new(format!("listen at {}: {error}", path.display())))?;
        Ok(Self { path, listener })
    }

    /// Lets a client that has said 'ready', and so has connected, begin.
    fn release(&self) -> Result<(), LabError> {
        let start = self.listener.set_nonblocking(true).and_then(|()| self.listener.accept()?.0.write_all(b"!"));
        start.map_err(|error| LabError::new(format!("{}: {error}", self.path.display())))
    }
}
