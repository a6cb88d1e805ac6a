//! The load programs measure what they say: over the kernel, and over the floor.

use std::time::Duration;

use underpass_bench::{Calls, Connect, PingPong, Stream};
use underpass_lab::{Lab, Process, Side};

const LOAD: &str = env!("CARGO_BIN_EXE_underpass-load");
const LIMIT: Duration = Duration::from_secs(20);

fn start(lab: &Lab, side: Side, args: &[&str]) -> Process {
    lab.spawn(args[0], lab.command(side, LOAD).unwrap().args(args)).unwrap()
}

fn serve(lab: &Lab, args: &[&str]) -> (Process, String) {
    let bind = format!("{}:0", lab.host(Side::Server).v4);
    let mut server = start(lab, Side::Server, &[args, &["--bind", &bind]].concat());
    let address = server.expect_line("listening ", LIMIT).unwrap();
    (server, address)
}

fn figures<T: serde::de::DeserializeOwned>(mut client: Process) -> T {
    serde_json::from_str(client.finish(LIMIT).unwrap().trim()).unwrap()
}

#[test]
fn round_trips_are_counted() {
    let lab = Lab::new().unwrap();
    for spin in [&[][..], &["--spin"][..]] {
        let (_server, address) = serve(&lab, &[&["pingpong-serve"], spin].concat());
        let args = ["pingpong", "--connect", &address, "--warmup", "10", "--count", "200", "--seconds", "10"];
        let result: PingPong = figures(start(&lab, Side::Client, &[&args, spin].concat()));
        assert_eq!((result.count, result.size), (200, 64));
        assert!(0 < result.min_ns && result.min_ns <= result.median_ns && result.median_ns <= result.p99_ns);
        assert_eq!(result.retransmits, Some(0));
    }
}

#[test]
fn every_byte_of_a_stream_is_checked() {
    let lab = Lab::new().unwrap();
    let (_server, address) = serve(&lab, &["stream-serve", "--verify"]);
    let args = ["stream", "--verify", "--connect", &address, "--seconds", "0.2"];
    let result: Stream = figures(start(&lab, Side::Client, &args));
    assert!(result.verified && result.bytes > 0 && result.gbit_per_s > 0.0);
}

#[test]
fn short_connections_are_counted() {
    let lab = Lab::new().unwrap();
    let (_server, address) = serve(&lab, &["connect-serve"]);
    let result: Connect = figures(start(&lab, Side::Client, &["connect", "--connect", &address, "--seconds", "0.2"]));
    assert!(result.count > 1 && result.median_ns > 0);
}

#[test]
fn held_connections_stay_open() {
    let lab = Lab::new().unwrap();
    let (server, address) = serve(&lab, &["hold-serve"]);
    let args = ["hold", "--connect", &address, "--connections", "3", "--rounds", "5"];
    let mut client = start(&lab, Side::Client, &args);
    client.expect_line("silent", LIMIT).unwrap();
    let threads = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().count();
    assert_eq!(threads, 1 + 3, "one listens, one serves each connection");
    assert_eq!(client.exited(), None);
}

#[test]
fn reads_are_counted_in_batches() {
    let lab = Lab::new().unwrap();
    let result: Calls = figures(start(&lab, Side::Client, &["pipe-read", "--count", "5000"]));
    assert_eq!(result.count, 2 * 4096);
    assert!(result.ns_per_call > 0.0);
}

#[test]
fn the_floor_carries_frames_on_both_hooks() {
    let lab = Lab::new().unwrap();
    let at = |side: Side| lab.host(side).interface.as_str();
    for hook in ["native", "generic"] {
        let mut echo = start(&lab, Side::Server, &["floor-echo", "--interface", at(Side::Server), "--hook", hook]);
        echo.expect_line("ready", LIMIT).unwrap();
        let args =
            ["floor-ping", "--interface", at(Side::Client), "--hook", hook, "--seconds", "0.2", "--warmup", "10"];
        let result: PingPong = figures(start(&lab, Side::Client, &args));
        assert!(result.count > 0 && result.min_ns > 0, "{hook}");
        drop(echo);

        let args = ["floor-sink", "--interface", at(Side::Server), "--hook", hook, "--seconds", "0.2"];
        let mut sink = start(&lab, Side::Server, &args);
        sink.expect_line("ready", LIMIT).unwrap();
        let _flood = start(&lab, Side::Client, &["floor-flood", "--interface", at(Side::Client), "--hook", hook]);
        let text = sink.finish(LIMIT).unwrap();
        let result: Stream = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert!(result.bytes > 0, "{hook}");
    }
}
