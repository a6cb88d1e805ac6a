//! What a program costs that is silent, with connections on the lane, with connections that were never promoted, without any.

use std::time::{Duration, Instant};

use underpass_lab::{Lab, LabError, Process, Side, SocketView};

use super::Section;
use crate::cpu_time::cpu_time;
use crate::memory::Memory;
use crate::stand::{Carriers, Labs};
use crate::table::{About, Metric};
use crate::turns::{Mode, Sample};

const METRICS: &[Metric] = &[
    Metric { name: "CPU %", digits: 3 },
    Metric { name: "memory MiB", digits: 2 },
    Metric { name: "library MiB", digits: 2 },
];

/// Open connections; more than threads of a process sleep on the AF_XDP sockets.
const CONNECTIONS: usize = 8;
/// Rounds that prove a connection busy: so many messages of 64 bytes go once round a receive and a send buffer of default size
/// (UNDERPASS_RCVBUF, UNDERPASS_SNDBUF), so that the memory does not depend on the speed.
const BUSY: u64 = 4096;
/// Silence before the measurement.
const SETTLE: Duration = Duration::from_secs(1);
/// The measurement, milliseconds.
const WATCH: u64 = 3000;
const LIMIT: Duration = Duration::from_secs(20);

/// What has happened before the silence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Past {
    /// Every connection was busy; a preloaded program has it on the lane.
    Busy,
    /// One message on every connection: not enough for a promotion.
    Greeted,
    /// No connection was made.
    Unconnected,
}

/// A server and a client, of which one is watched. There are always these two processes of the load program: so the pages that
/// they share count the same everywhere.
#[derive(Clone, Copy)]
struct Scene {
    carriers: Carriers,
    past: Past,
    watched: Side,
}

/// The modes. The servers sleep in read(2), a thread for each connection.
pub fn section(stand: &Labs) -> Section<'_> {
    let (plain, server, client) = (Carriers::KERNEL, Carriers::SERVER, Carriers::CLIENT);
    let scenes = [
        ("kernel", plain, Past::Busy, Side::Server),
        ("underpass server", server, Past::Busy, Side::Server),
        ("kernel client, asleep elsewhere", plain, Past::Busy, Side::Client),
        ("underpass client, asleep elsewhere", client, Past::Busy, Side::Client),
        ("kernel, never busy", plain, Past::Greeted, Side::Server),
        ("underpass, never busy", server, Past::Greeted, Side::Server),
        ("kernel, never connected", plain, Past::Unconnected, Side::Server),
        ("underpass, never connected", server, Past::Unconnected, Side::Server),
    ];
    let mode = |(name, carriers, past, watched)| {
        let scene = Scene { carriers, past, watched };
        Mode::new(name, move || run(stand, scene))
    };
    let about = About {
        name: "idle",
        title: format!(
            "a server (or a client) with {CONNECTIONS} connections, {} s after its last byte: CPU time over {} s; memory, and \
             what the library maps of it (that in full, all else by the proportional set size); never busy: open, not promoted",
            SETTLE.as_secs(),
            window(stand).as_secs_f64()
        ),
        metrics: METRICS,
        lower_is_better: true,
        references: &[],
    };
    Section { about, modes: scenes.into_iter().map(mode).collect() }
}

fn window(stand: &Labs) -> Duration {
    Duration::from_millis(stand.programs.scaled(WATCH))
}

impl Past {
    fn connections(self) -> usize {
        if self == Self::Unconnected { 0 } else { CONNECTIONS }
    }

    fn rounds(self) -> u64 {
        if self == Self::Busy { BUSY } else { 1 }
    }

    /// Is a preloaded program's connection where it should be after this, and if that is the kernel, has it always been there?
    fn explains(self, socket: &SocketView) -> bool {
        let busy = self == Self::Busy;
        socket.tier == if busy { "xdp" } else { "kernel" } && (socket.promoted > 0) == busy
    }
}

fn run(stand: &Labs, scene: Scene) -> Result<Sample, LabError> {
    let Scene { carriers, past, watched } = scene;
    let lab = stand.lab(carriers)?;
    let (mut server, address) = stand.serve(carriers, &["hold-serve"])?;
    let mut command = stand.command(carriers, Side::Client, &stand.programs.load)?;
    command.args(["hold", "--connect", &address]);
    command.args(["--connections", &past.connections().to_string(), "--rounds", &past.rounds().to_string()]);
    let mut client = lab.spawn("client", &mut command)?;
    client.expect_line("silent", LIMIT)?;
    std::thread::sleep(SETTLE);
    let pid = if watched == Side::Server { server.pid() } else { client.pid() };
    let preloaded = carriers.preloaded().any(|side| side == watched);
    let moves = || if preloaded { moves(lab, pid, past) } else { Ok(Vec::new()) };
    let before = moves()?;
    let (cpu_percent, memory) = watch(pid, window(stand))?;
    let after = moves()?;
    if before != after {
        return Err(LabError::new(format!("connections changed tiers in their silence: {before:?}, {after:?}")));
    }
    if (memory.library > 0) != preloaded {
        return Err(LabError::new(format!("preloaded: {preloaded}, but {memory:?} (KiB)")));
    }
    check_alive(&mut server)?;
    check_alive(&mut client)?;
    let mib = |kib: u64| Some(kib as f64 / 1024.0);
    Ok(vec![Some(cpu_percent), mib(memory.all), mib(memory.library)])
}

/// The part of a CPU that a process uses during the window, %, and its memory then. The passing of time is what is
/// measured here, so this does sleep.
fn watch(pid: u32, window: Duration) -> Result<(f64, Memory), LabError> {
    let (before, start) = (cpu_time(pid)?, Instant::now());
    std::thread::sleep(window);
    let (used, elapsed) = (cpu_time(pid)?.saturating_sub(before), start.elapsed());
    Ok((100.0 * used.as_secs_f64() / elapsed.as_secs_f64(), Memory::of(pid)?))
}

/// Descriptor, promotions and demotions of each connection of a preloaded program. An error unless all are there, in the
/// tier that the row is about: a promotion that was refused or undone would be measured as the lane otherwise.
fn moves(lab: &Lab, pid: u32, past: Past) -> Result<Vec<(i64, u64, u64)>, LabError> {
    if past == Past::Unconnected {
        return Ok(Vec::new());
    }
    let mut sockets = lab.sockets(pid)?;
    sockets.retain(|socket| socket.state == "ESTAB");
    let right = sockets.iter().filter(|socket| past.explains(socket)).count();
    if (right, sockets.len()) != (CONNECTIONS, CONNECTIONS) {
        let found = sockets.iter().map(|s| format!("{} {} ({}/{})", s.tier, s.reason, s.promoted, s.demoted));
        let found = found.collect::<Vec<_>>().join(", ");
        return Err(LabError::new(format!("of {CONNECTIONS} connections, {right} are in the right tier: {found}")));
    }
    Ok(sockets.iter().map(|socket| (socket.fd, socket.promoted, socket.demoted)).collect())
}

fn check_alive(process: &mut Process) -> Result<(), LabError> {
    match process.exited() {
        None => Ok(()),
        Some(status) => Err(LabError::new(format!("ended early: {status}: {}{}", process.stdout(), process.stderr()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_and_an_undone_promotion_are_noticed() {
        let socket = |tier: &str, promoted| {
            let (reason, state) = (String::new(), "ESTAB".to_owned());
            SocketView { fd: 3, tier: tier.to_owned(), reason, state, promoted, demoted: 0, cwnd: 0, send_q: 0 }
        };
        let (lane, undone, never) = (socket("xdp", 1), socket("kernel", 1), socket("kernel", 0));
        let explained = |past: Past| [&lane, &undone, &never].map(|socket| past.explains(socket));
        assert_eq!(explained(Past::Busy), [true, false, false]);
        assert_eq!(explained(Past::Greeted), [false, false, true]);
    }
}
