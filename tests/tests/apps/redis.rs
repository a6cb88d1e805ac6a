//! redis-server, redis-benchmark and redis-cli.

use crate::{AUTO, lab, lab_over, on_lane, same_outcome};
use underpass_lab::{Lab, Over, Side};

/// How often each command was called and failed, from redis's INFO; how long that took is left out.
fn calls(info: &str) -> Vec<String> {
    let counts = |entry: &str| {
        let (command, figures) = entry.split_once(':').unwrap_or_else(|| panic!("cmdstat_{entry} in {info}"));
        let counts: Vec<&str> = figures.split(',').filter(|figure| figure.contains("calls=")).collect();
        assert!(!counts.is_empty(), "cmdstat_{entry} in {info}");
        format!("{command}: {}", counts.join(" "))
    };
    let mut all: Vec<String> = info.lines().filter_map(|line| line.strip_prefix("cmdstat_")).map(counts).collect();
    assert!(!all.is_empty(), "no command was called: {info}");
    all.sort();
    all
}

#[test]
fn redis_server_and_benchmark() {
    server_and_benchmark(&lab());
}

#[test]
fn redis_over_ipv6() {
    server_and_benchmark(&lab_over(Over::V6));
}

fn server_and_benchmark(lab: &Lab) {
    let large: String = (0..20_000).map(|number| format!("{number:05}")).collect();
    same_outcome(lab, AUTO, |run| {
        let (address, listening) = (run.address(), run.listening());
        let words = ["redis-server", "--bind", &listening, "--port", "6379", "--save", "", "--protected-mode", "no"];
        let server = run.serve(&words, 6379);
        let tests = ["-t", "set,get,lrange_100", "-n", "40000", "-c", "20", "-P", "4", "-q"];
        let mut load = run.spawn(Side::Client, &[&["redis-benchmark", "-h", &address], &tests[..]].concat());
        run.watch(server.pid(), &mut load, on_lane);
        run.finish(&mut load);
        let cli = |rest: &[&str]| run.ask(&[&["redis-cli", "-h", &address], rest].concat());
        assert_eq!(cli(&["set", "key", "value"]).trim(), "OK");
        assert_eq!(cli(&["set", "large", &large]).trim(), "OK");
        assert!(cli(&["get", "large"]).trim() == large, "{:?}: the large value is another", run.preload);
        // The benchmark's own keys too, and a counter, which one connection raises many times.
        let questions = ["get key", "get key:__rand_int__", "llen mylist", "lrange mylist 0 4", "-r 300 incr counter"];
        let answers = questions.map(|question| cli(&question.split(' ').collect::<Vec<_>>()));
        (answers, calls(&cli(&["info", "commandstats"])))
    });
}
