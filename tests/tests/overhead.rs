//! What the library costs a program that it cannot help, or not now: CPU time while the program is idle, memory before its first
//! promotion, a read(2) that is none of ours, the start of a program.
//!
//! Each limit is the one that the project promises. Machines are shared: a figure is a median of interleaved runs where runs
//! are short, and a measurement that exceeds its limit is made again, up to three times in all; a test fails if all three exceed it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use underpass_lab::{CommandExt, Lab, LabOptions, Preload, Process, Profile, Side, wait_for};

const TRAFFIC: &str = env!("CARGO_BIN_EXE_traffic");
const COSTS: &str = env!("CARGO_BIN_EXE_costs");
const LIMIT: Duration = Duration::from_secs(10);

/// CPU time of an idle program, % of one CPU.
const MOST_CPU: f64 = 1.0;
/// Memory that a program has more before its first promotion, MiB.
const MOST_MEMORY: f64 = 2.0;
/// Time that a read(2) from a pipe takes longer, ns.
const MOST_READ: f64 = 30.0;
/// Time that /bin/true takes longer, ms.
const MOST_START: f64 = 2.0;

/// Measurements at most.
const ATTEMPTS: usize = 3;
/// Connections of an idle program; more than threads of a process sleep on the AF_XDP sockets.
const CONNECTIONS: usize = 8;
/// Silence before CPU time is counted.
const SETTLE: Duration = Duration::from_secs(1);
/// How long it is counted.
const WATCH: Duration = Duration::from_secs(3);
/// Unit of the times in /proc/PID/stat: USER_HZ, 100 on all machines that we run on. 1 % of 3 s are 3 ticks.
const TICKS_PER_SECOND: f64 = 100.0;
/// Runs of each form that one measurement compares.
const MEMORY_RUNS: usize = 5;
const READ_RUNS: usize = 15;
const START_RUNS: usize = 60;

fn lab() -> Lab {
    Lab::with_daemon(LabOptions { profile: Profile::Release, ..LabOptions::default() }).unwrap()
}

fn command(lab: &Lab, preload: Preload, side: Side, program: &str) -> Command {
    let made = if preload.covers(side) { lab.preloaded(side, program) } else { lab.command(side, program) };
    made.unwrap()
}

/// A cost that may not exceed a limit, and the figures that it comes from.
struct Cost {
    value: f64,
    figures: String,
}

/// Measures, three times at most, until the cost is within its limit.
fn assert_within(limit: f64, what: &str, mut measure: impl FnMut() -> Cost) {
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        let Cost { value, figures } = measure();
        println!("{what}: {value:.3}, at most {limit}; {figures}");
        if value <= limit {
            return;
        }
        seen.push(format!("{value:.3}; {figures}"));
    }
    panic!("{what}: more than {limit}, {ATTEMPTS} times:\n{}", seen.join("\n"));
}

/// Runs the plain and the preloaded form in turns: the difference of the medians.
fn difference(runs: usize, mut run: impl FnMut(Preload) -> f64) -> Cost {
    let (plain, preloaded): (Vec<f64>, Vec<f64>) =
        (0..runs).map(|_| (run(Preload::Neither), run(Preload::Both))).unzip();
    let figures = format!("{runs} runs each: plain {}, preloaded {}", spread(&plain), spread(&preloaded));
    Cost { value: median(&preloaded) - median(&plain), figures }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

fn median(values: &[f64]) -> f64 {
    let values = sorted(values);
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}

fn spread(values: &[f64]) -> String {
    let values = sorted(values);
    format!("{:.3} ({:.3} to {:.3})", median(&values), values[0], values[values.len() - 1])
}

/// A server (`traffic echo`, a thread a connection, each in a blocking read) and a client (`costs hold`) with open connections.
struct Pair {
    server: Process,
    client: Process,
}

impl Pair {
    /// Starts both. The client exchanges messages until the file `enough` exists, then idles as told.
    fn start(lab: &Lab, preload: Preload, idling: &str, enough: &Path) -> Self {
        let address = lab.host(Side::Server).v4;
        let mut serving = command(lab, preload, Side::Server, TRAFFIC);
        let mut server =
            lab.spawn(&format!("server-{preload:?}"), serving.args(["echo", &format!("{address}:0")])).unwrap();
        let port = server.expect_line("port:", LIMIT).unwrap();
        let mut holding = command(lab, preload, Side::Client, COSTS);
        holding.args(["hold", &format!("{address}:{port}"), &CONNECTIONS.to_string(), idling]).arg(enough);
        let client = lab.spawn(&format!("client-{preload:?}"), &mut holding).unwrap();
        Self { server, client }
    }

    /// A pair that has exchanged one message on each connection, too few for a promotion, and is silent.
    fn greeted(lab: &Lab, preload: Preload, idling: &str) -> Self {
        let enough = lab.dir().join("one-is-enough");
        std::fs::write(&enough, "").unwrap();
        let mut pair = Self::start(lab, preload, idling, &enough);
        pair.client.expect_line("silent", LIMIT).unwrap();
        pair
    }

    /// A preloaded pair, promoted by the default policy on both sides for its traffic, and then silent.
    fn on_the_lane(lab: &Lab, idling: &str) -> Self {
        let enough = lab.dir().join("enough");
        let mut pair = Self::start(lab, Preload::Both, idling, &enough);
        let mut last = Ok(());
        let waited = wait_for("all connections on the lane", LIMIT, || {
            last = pair.check_tier(lab, "xdp");
            last.is_ok()
        });
        waited.unwrap_or_else(|error| panic!("{error}; last: {last:?}"));
        std::fs::write(&enough, "").unwrap();
        pair.client.expect_line("silent", LIMIT).unwrap();
        pair
    }

    fn program(&self, side: Side) -> &Process {
        if side == Side::Server { &self.server } else { &self.client }
    }

    /// Are all connections of both programs in this tier, and if it is the kernel's, have they always been there?
    fn check_tier(&self, lab: &Lab, tier: &str) -> Result<(), String> {
        for side in [Side::Server, Side::Client] {
            let mut sockets = lab.sockets(self.program(side).pid()).map_err(|error| format!("{side:?}: {error}"))?;
            sockets.retain(|socket| socket.state == "ESTAB");
            let right = sockets.iter().filter(|s| s.tier == tier && (s.promoted > 0) == (tier == "xdp")).count();
            if (right, sockets.len()) != (CONNECTIONS, CONNECTIONS) {
                return Err(format!("{side:?}: not {CONNECTIONS} connections, all in tier {tier}: {sockets:#?}"));
            }
        }
        Ok(())
    }
}

/// CPU time that a process has used, user and system: of all its threads, those that have ended included (utime and stime of
/// /proc/PID/stat, proc(5)).
fn ticks(process: &Process) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    // The name, in parentheses, may hold anything; the state follows as field 3, the times are fields 14 and 15.
    let fields = text.rsplit_once(") ").unwrap().1.split_whitespace();
    fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

/// Watches idle programs for a while: the larger part of a CPU that one of the preloaded ones used. The plain ones are watched at the
/// same time, to show what the machine adds. The passing of time is what is measured, so this does sleep.
fn watch(preloaded: &Pair, plain: &Pair) -> Cost {
    let programs = [&preloaded.server, &preloaded.client, &plain.server, &plain.client];
    let before = programs.map(|program| (ticks(program), program.cpu_time().unwrap()));
    let start = Instant::now();
    std::thread::sleep(WATCH);
    let seconds = start.elapsed().as_secs_f64();
    let used: Vec<(f64, f64)> = programs
        .iter()
        .zip(before)
        .map(|(program, (ticks_before, time_before))| {
            let in_ticks = ticks(program).saturating_sub(ticks_before) as f64 / TICKS_PER_SECOND;
            let precisely = program.cpu_time().unwrap().saturating_sub(time_before).as_secs_f64();
            (100.0 * in_ticks / seconds, 100.0 * precisely / seconds)
        })
        .collect();
    let names = ["preloaded server", "preloaded client", "plain server", "plain client"];
    let named = names.iter().zip(&used).map(|(name, (_, precisely))| format!("{name} {precisely:.4}"));
    let figures = format!("by the scheduler's own count: {}", named.collect::<Vec<_>>().join(", "));
    Cost { value: used[0].0.max(used[1].0), figures }
}

/// After a second of silence, neither a preloaded server nor a preloaded client uses more of a CPU than promised, and the
/// connections are still in the tier in which this was to be seen.
fn assert_idle(what: &str, tier: &str, idling: &str) {
    let lab = lab();
    let preloaded = match tier {
        "xdp" => Pair::on_the_lane(&lab, idling),
        _ => Pair::greeted(&lab, Preload::Both, idling),
    };
    let plain = Pair::greeted(&lab, Preload::Neither, idling);
    std::thread::sleep(SETTLE);
    assert_within(MOST_CPU, &format!("{what}, % of a CPU"), || watch(&preloaded, &plain));
    preloaded.check_tier(&lab, tier).unwrap_or_else(|error| panic!("{what}: {error}"));
}

/// The library has a stack with nothing on it, and no thread of its own.
#[test]
fn an_idle_program_that_promoted_nothing_uses_no_cpu() {
    assert_idle("idle, never promoted", "kernel", "poll");
}

/// The program's own threads sleep on the AF_XDP sockets, the server's in read(2), the client's in poll(2); the helper looks in.
#[test]
fn an_idle_program_that_waits_on_the_lane_uses_no_cpu() {
    assert_idle("idle, waiting on the lane", "xdp", "poll");
}

/// The client is in no call on its connections: its helper thread looks after the lane alone.
#[test]
fn an_idle_program_with_a_lane_that_it_leaves_alone_uses_no_cpu() {
    assert_idle("idle, the client asleep elsewhere", "xdp", "park");
}

/// Memory that is resident for the sake of one process, and the part of it that the library maps.
struct Memory {
    mib: f64,
    library_mib: f64,
}

/// Adds up /proc/PID/smaps. Which measure is fair: private pages count in full, shared ones (libc, the program's own file) by the
/// proportional share (Pss), since they are there without us. VmRSS would count every page of libc that the library happens to
/// touch as if it were there twice. What the library itself maps, its file and the arena, counts in full all the same, although it
/// may be shared with other preloaded programs or the daemon: it is there because of us. Unlike VmRSS, which the kernel adds up in
/// batches, smaps is exact.
fn memory(process: &Process) -> Memory {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps", process.pid())).unwrap();
    let (mut kib, mut library_kib, mut ours) = (0, 0, false);
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let value = || rest.split_whitespace().next().unwrap().parse::<u64>().unwrap();
        match word {
            "Rss:" if ours => library_kib += value(),
            "Pss:" if !ours => kib += value(),
            _ if word.ends_with(':') => {}
            _ => ours = rest.contains("/libunderpass.so") || rest.contains("/memfd:underpass"),
        }
    }
    let mib = |kib: u64| kib as f64 / 1024.0;
    Memory { mib: mib(kib + library_kib), library_mib: mib(library_kib) }
}

/// Memory of one of two idle programs whose connections are open and, if preloaded, were never promoted.
fn memory_before_promotion(lab: &Lab, preload: Preload, side: Side) -> f64 {
    let pair = Pair::greeted(lab, preload, "poll");
    let Memory { mib, library_mib } = memory(pair.program(side));
    assert_eq!(library_mib > 0.0, preload.covers(side), "{preload:?}: {library_mib} MiB mapped by the library");
    if preload.covers(side) {
        pair.check_tier(lab, "kernel").unwrap_or_else(|error| panic!("{error}"));
    }
    mib
}

fn assert_small(side: Side) {
    let lab = lab();
    assert_within(MOST_MEMORY, &format!("{side:?}, more memory before the first promotion, MiB"), || {
        difference(MEMORY_RUNS, |preload| memory_before_promotion(&lab, preload, side))
    });
}

/// With default settings, accepted connections, and a thread for each.
#[test]
fn a_server_that_promoted_nothing_has_hardly_more_memory() {
    assert_small(Side::Server);
}

/// The same for a client of one thread, which made the connections itself.
#[test]
fn a_client_that_promoted_nothing_has_hardly_more_memory() {
    assert_small(Side::Client);
}

/// The loader goes on without a library that it cannot load: that would be two plain runs.
fn assert_preloads(lab: &Lab) {
    let output = command(lab, Preload::Both, Side::Client, "cat").arg("/proc/self/maps").output().unwrap();
    let maps = String::from_utf8_lossy(&output.stdout);
    assert!(maps.contains("/libunderpass.so"), "not preloaded: {maps}{}", String::from_utf8_lossy(&output.stderr));
}

/// Nanoseconds of a read, as the program itself measures it; always on the same CPU.
fn read_ns(lab: &Lab, preload: Preload) -> f64 {
    let mut reading = command(lab, preload, Side::Client, COSTS);
    let mut process = lab.spawn("reads", reading.arg("reads").pin(0)).unwrap();
    let said = process.finish(LIMIT).unwrap();
    let figure = said.strip_prefix("ns: ").and_then(|text| text.trim().parse().ok());
    figure.unwrap_or_else(|| panic!("not a figure: {said}"))
}

/// The library looks the descriptor up and makes the real call: a byte read from a pipe takes hardly longer.
#[test]
fn a_read_on_a_pipe_costs_a_look() {
    let lab = lab();
    assert_preloads(&lab);
    assert_within(MOST_READ, "read(2) of a byte from a pipe, ns more", || {
        difference(READ_RUNS, |preload| read_ns(&lab, preload))
    });
}

/// Milliseconds from the start of /bin/true to its end.
fn start_ms(lab: &Lab, preload: Preload) -> f64 {
    let mut starting = command(lab, preload, Side::Client, "/bin/true");
    let start = Instant::now();
    let status = starting.status().unwrap();
    let elapsed = start.elapsed();
    assert!(status.success(), "/bin/true: {status}");
    elapsed.as_secs_f64() * 1e3
}

/// The library is loaded, linked and set up, and taken down again, in next to no time.
#[test]
fn a_program_starts_hardly_later() {
    let lab = lab();
    assert_preloads(&lab);
    assert_within(MOST_START, "/bin/true, ms more", || difference(START_RUNS, |preload| start_ms(&lab, preload)));
}
