//! iperf3 and sockperf.

use serde_json::Value;
use underpass_lab::{Side, SocketView};

use crate::{AUTO, EAGER, LIMIT, Run, lab, on_lane, same_outcome};

/// The only line that contains `mark`.
fn line<'a>(text: &'a str, mark: &str) -> &'a str {
    let found: Vec<&str> = text.lines().filter(|line| line.contains(mark)).collect();
    assert_eq!(found.len(), 1, "lines with '{mark}' in: {text}");
    found[0]
}

/// The number right behind the only `key`.
fn number(text: &str, key: &str) -> u64 {
    let parts: Vec<&str> = text.split(key).collect();
    assert_eq!(parts.len(), 2, "'{key}' is not there once in: {text}");
    let digits = parts[1].split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or_else(|error| panic!("'{key}' in {text}: {error}"))
}

/// Connections that carry iperf3's streams are on the lane, not only the control connection, which is older than they are.
fn streams_on_lane(sockets: &[SocketView], streams: usize) -> bool {
    let mut established: Vec<&SocketView> = sockets.iter().filter(|socket| socket.state == "ESTAB").collect();
    established.sort_by_key(|socket| std::cmp::Reverse(socket.fd));
    established.len() > streams && established[..streams].iter().all(|socket| socket.tier == "xdp")
}

/// What of an iperf3 report does not depend on speed: what both sides agreed upon, and the streams there were. The rest is
/// to be plausible.
fn agreed(run: &Run<'_>, report: &str) -> (Value, usize) {
    let json: Value = serde_json::from_str(report).unwrap_or_else(|error| run.fail(&format!("{error} in {report}")));
    let bytes = |sum: &str| json["end"][sum]["bytes"].as_u64();
    let (Some(sent), Some(received), None) = (bytes("sum_sent"), bytes("sum_received"), json.get("error")) else {
        run.fail(&format!("an error, or no result: {report}"));
    };
    // What is on its way at the end does not count.
    let plausible = received >= 10_000_000 && received >= sent / 2 && received <= sent;
    assert!(plausible, "{:?}: {received} of {sent} bytes arrived\n{report}", run.preload);
    let streams = json["end"]["streams"].as_array().map_or(0, Vec::len);
    (json["start"]["test_start"].clone(), streams)
}

fn iperf3(streams: usize, options: &[&str]) {
    let lab = lab();
    same_outcome(&lab, EAGER, |run| {
        let address = run.address();
        let mut server = run.serve(&["iperf3", "-s", "-1", "-B", &address], 5201);
        let words = [&["iperf3", "-J", "-t", "2", "-c", &address], options].concat();
        let mut client = run.spawn(Side::Client, &words);
        run.watch(server.pid(), &mut client, |_, sockets| streams_on_lane(sockets, streams));
        let (terms, seen) = agreed(run, &run.finish(&mut client));
        server.finish(LIMIT).unwrap_or_else(|error| run.fail(&error.to_string()));
        assert!(!server.stderr().contains("error"), "{:?}: {}", run.preload, server.stderr());
        assert_eq!((terms["num_streams"].as_u64(), seen), (Some(streams as u64), streams), "{terms}");
        terms
    });
}

#[test]
fn iperf3_sends() {
    iperf3(1, &[]);
}

#[test]
fn iperf3_receives() {
    iperf3(1, &["-R"]);
}

#[test]
fn iperf3_sends_two_streams() {
    iperf3(2, &["-P", "2"]);
}

#[test]
fn sockperf_pingpong() {
    let lab = lab();
    same_outcome(&lab, AUTO, |run| {
        let address = run.address();
        let server = run.serve(&["sockperf", "server", "--tcp", "-i", &address, "-p", "11111"], 11111);
        let words = ["sockperf", "ping-pong", "--tcp", "-i", &address, "-p", "11111", "-t", "1", "-m", "64"];
        let mut client = run.spawn(Side::Client, &words);
        run.watch(server.pid(), &mut client, on_lane);
        let said = run.finish(&mut client);
        let counts = ["SentMessages=", "ReceivedMessages="];
        let [sent, received] = counts.map(|key| number(line(&said, "[Valid Duration]"), key));
        assert!(sent == received && sent > 100, "{:?}: {said}", run.preload);
        let faults = ["# dropped", "# duplicated", "# out-of-order"];
        let faults = faults.map(|fault| number(line(&said, "# dropped"), &format!("{fault} messages = ")));
        assert_eq!(faults, [0; 3], "{:?}: {said}", run.preload);
        faults
    });
}
