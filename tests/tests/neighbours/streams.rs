//! iperf3 and sockperf.

use serde_json::Value;

use crate::run::{LIMIT, Run, same_outcome};
use crate::watch::Leg;
use crate::{AUTO, EAGER, HERE};

const IPERF: u16 = 5201;
const SOCKPERF: u16 = 11111;
/// Not as fast as it goes: sockperf gives up where a round trip takes less than 1.7 us (more than 600,000 messages in a second).
const PINGPONG: [&str; 7] = ["-t", "1", "-m", "64", "--mps", "100000", "--data-integrity"];

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
    assert!(plausible, "{received} of {sent} bytes arrived\n{report}");
    let streams = json["end"]["streams"].as_array().map_or(0, Vec::len);
    (json["start"]["test_start"].clone(), streams)
}

fn iperf3(streams: usize, options: &[&str]) {
    // Not only the control connection, which is older than they are.
    let leg = [Leg::newest_on_lane(IPERF, streams)];
    same_outcome(EAGER, |run| {
        run.until_seen(&leg, || {
            let mut server = run.serve("server", &["iperf3", "-s", "-1", "-B", HERE], IPERF);
            let words = [&["iperf3", "-J", "-t", "2", "-c", HERE], options].concat();
            let (terms, seen) = agreed(run, &run.ask("client", &words));
            run.finish(&mut server);
            assert!(!server.stderr().contains("error"), "{}", server.stderr());
            assert_eq!((terms["num_streams"].as_u64(), seen), (Some(streams as u64), streams), "{terms}");
            terms
        })
    });
}

#[test]
fn iperf3_with_one_stream() {
    iperf3(1, &[]);
}

#[test]
fn iperf3_with_two_streams_the_other_way() {
    iperf3(2, &["-R", "-P", "2"]);
}

/// The number right behind the only `key`.
fn number(text: &str, key: &str) -> u64 {
    let parts: Vec<&str> = text.split(key).collect();
    assert_eq!(parts.len(), 2, "'{key}' is not there once in: {text}");
    let digits = parts[1].split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or_else(|error| panic!("'{key}' in {text}: {error}"))
}

/// The only line that contains `mark`.
fn line<'a>(text: &'a str, mark: &str) -> &'a str {
    let found: Vec<&str> = text.lines().filter(|line| line.contains(mark)).collect();
    assert_eq!(found.len(), 1, "lines with '{mark}' in: {text}");
    found[0]
}

#[test]
fn sockperf_pingpong() {
    same_outcome(AUTO, |run| {
        let at = ["--tcp", "-i", HERE, "-p", "11111"];
        let mut server = run.serve("server", &[&["sockperf", "server"], &at[..]].concat(), SOCKPERF);
        let faults = run.until_seen(&[Leg::on_lane(SOCKPERF)], || {
            let said = run.ask("client", &[&["sockperf", "ping-pong"], &at[..], &PINGPONG].concat());
            let counts = ["SentMessages=", "ReceivedMessages="];
            let [sent, received] = counts.map(|key| number(line(&said, "[Valid Duration]"), key));
            assert!(sent == received && sent > 100, "{said}");
            let faults = ["# dropped", "# duplicated", "# out-of-order"];
            faults.map(|fault| number(line(&said, "# dropped"), &format!("{fault} messages = ")))
        });
        assert_eq!(faults, [0; 3]);
        // It ends well when it is told to.
        server.signal(2).unwrap();
        server.wait(LIMIT).unwrap_or_else(|error| run.fail(&error.to_string())).code()
    });
}
