//! redis and memcached.

use std::fs;
use std::path::Path;

use underpass_lab::{Process, wait_for};

use crate::documents::{noise, sha256};
use crate::programs::program;
use crate::run::{LIMIT, Run, same_outcome};
use crate::watch::Leg;
use crate::{AUTO, EAGER, HERE};

const REDIS: u16 = 6379;
const MEMCACHED: u16 = 11211;

fn redis(run: &Run<'_>, address: &str) -> Process {
    let words = ["redis-server", "--bind", address, "--port", "6379", "--save", "", "--protected-mode", "no"];
    run.serve("redis", &words, REDIS)
}

fn cli(run: &Run<'_>, address: &str, rest: &[&str]) -> String {
    run.ask("cli", &[&["redis-cli", "-h", address], rest].concat())
}

/// redis-cli with a file as its stdin.
fn fed(run: &Run<'_>, rest: &str, file: &Path) -> String {
    let script = format!("exec redis-cli -h {HERE} {rest} <\"$0\"");
    run.ask("cli", &["sh", "-c", &script, &file.display().to_string()])
}

/// How often each command was called and failed, from redis's INFO; how long that took is left out.
fn calls(info: &str) -> Vec<String> {
    let counts = |entry: &str| {
        let (command, figures) = entry.split_once(':').unwrap_or_else(|| panic!("cmdstat_{entry} in {info}"));
        let counts: Vec<&str> = figures.split(',').filter(|figure| figure.contains("calls=")).collect();
        assert!(!counts.is_empty(), "cmdstat_{entry} in {info}");
        format!("{command}: {}", counts.join(" "))
    };
    let mut all: Vec<String> = info.lines().filter_map(|line| line.strip_prefix("cmdstat_")).map(counts).collect();
    all.sort();
    all
}

/// The tests that redis-benchmark has made, what the server has counted of them, and the keys that are there.
fn benchmark(run: &Run<'_>, address: &str, load: &str) -> (Vec<String>, Vec<String>, String) {
    cli(run, address, &["config", "resetstat"]);
    let words = ["redis-benchmark", "-h", address, "-t", "set,get", "--csv"];
    let mut client = run.start("benchmark", &[&words[..], &load.split(' ').collect::<Vec<_>>()].concat());
    let said = run.finish(&mut client);
    if !client.stderr().is_empty() {
        run.fail(&format!("redis-benchmark says: {}", client.stderr()));
    }
    let tests = said.lines().skip(1).filter_map(|line| line.split(',').next().map(str::to_owned)).collect();
    (tests, calls(&cli(run, address, &["info", "commandstats"])), cli(run, address, &["keys", "*"]))
}

fn redis_and_benchmark(promote: &'static str, address: &str) {
    same_outcome(promote, |run| {
        let _server = redis(run, address);
        ["-n 20000 -c 1", "-n 40000 -c 50", "-n 80000 -c 50 -P 16"]
            .map(|load| run.until_seen(&[Leg::on_lane(REDIS)], || benchmark(run, address, load)))
    });
}

#[test]
fn redis_and_its_benchmark() {
    redis_and_benchmark(AUTO, HERE);
}

#[test]
fn redis_and_its_benchmark_eagerly() {
    redis_and_benchmark(EAGER, HERE);
}

#[test]
fn redis_and_its_benchmark_over_ipv6() {
    redis_and_benchmark(AUTO, "::1");
}

/// One command a line, as people type them.
const SESSION: &str = "
flushall
set greeting hello
get greeting
append greeting \" world\"
getrange greeting 3 7
incr counter
incrby counter 41
incr greeting
rpush list one two three
lpush list zero
lrange list 0 -1
lpop nothing
hset hash field value other thing
hgetall hash
multi
incr counter
lrange list 0 1
exec
multi
set greeting again
discard
get greeting
eval \"return {KEYS[1], ARGV[1], redis.call('get', 'counter')}\" 1 key argument
nonsense
";

/// In redis's own protocol, for `redis-cli --pipe`: thousands of transactions in one piece.
fn transactions() -> Vec<u8> {
    let command = |words: &[&str]| {
        let parts = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
        format!("*{}\r\n{}", words.len(), parts.collect::<String>())
    };
    let one = |number: usize| {
        let value = "v".repeat(number % 500);
        let key = format!("key{}", number % 100);
        [&["multi"][..], &["incr", "transactions"], &["set", &key, &value], &["exec"]].map(command).concat()
    };
    (0..5000).map(one).collect::<String>().into_bytes()
}

fn functional(run: &Run<'_>) -> (String, String, Vec<String>, String) {
    let file = run.dir().join("session");
    fs::write(&file, SESSION).unwrap();
    let session = fed(run, "", &file);
    fs::write(&file, transactions()).unwrap();
    let piped = fed(run, "--pipe", &file);
    let left = ["get transactions", "strlen key99", "get key7", "-r 5000 incr often"]
        .map(|question| cli(run, HERE, &question.split(' ').collect::<Vec<_>>()));
    fs::write(&file, noise(5, 5_000_000)).unwrap();
    fed(run, "-x set big", &file);
    let length = cli(run, HERE, &["strlen", "big"]);
    run.ask("big", &["redis-cli", "-h", HERE, "get", "big"]);
    (session, piped, [&left[..], &[length]].concat(), sha256(&run.output("big")))
}

/// What a subscriber has received of what a publisher has sent, and what the publisher was told.
fn published(run: &Run<'_>) -> (String, String) {
    let mut subscriber = run.start("subscriber", &["redis-cli", "-h", HERE, "subscribe", "news", "weather"]);
    let received = |what: &str| {
        let waited = wait_for(&format!("the subscriber to get '{what}'"), LIMIT, || subscriber.stdout().contains(what));
        waited.unwrap_or_else(|error| run.fail(&error.to_string()));
    };
    received("weather\n2\n");
    let file = run.dir().join("session");
    let lines: String = (0..1000).map(|number| format!("publish news item{number}\n")).collect();
    fs::write(&file, lines + "publish weather sun\n").unwrap();
    let told = fed(run, "", &file);
    received("weather\nsun\n");
    let all = subscriber.stdout();
    subscriber.stop();
    (all, told)
}

fn redis_and_cli(promote: &'static str) {
    same_outcome(promote, |run| {
        let mut server = redis(run, HERE);
        let done = run.until_seen(&[Leg::on_lane(REDIS)], || functional(run));
        let news = run.until_seen(&[Leg::on_lane(REDIS)], || published(run));
        let farewell = cli(run, HERE, &["shutdown", "nosave"]);
        let status = server.wait(LIMIT).unwrap_or_else(|error| run.fail(&error.to_string()));
        (done, news, farewell, status.code())
    });
}

#[test]
fn redis_and_its_command_line() {
    redis_and_cli(AUTO);
}

#[test]
fn redis_and_its_command_line_eagerly() {
    redis_and_cli(EAGER);
}

fn memcached(run: &Run<'_>, threads: &str) -> Process {
    let limits = ["-m", "256", "-I", "4m", "-t", threads];
    run.serve("memcached", &[&["memcached", "-u", "nobody", "-l", HERE], &limits[..]].concat(), MEMCACHED)
}

/// What the server has counted of a load since it was told to forget.
fn memcslap(run: &Run<'_>, test: &str) -> Vec<String> {
    let at = format!("--servers={HERE}:{MEMCACHED}");
    let load = ["--concurrency=4", "--execute-number=8000", "--initial-load=1000", "--flush"];
    let before = memcstat(run, &at);
    run.ask("memcslap", &[&["memcslap", &at, &format!("--test={test}")], &load[..]].concat());
    let counted = |(name, value): &(String, u64)| {
        let then = before.iter().find(|(other, _)| other == name).map_or(0, |(_, value)| *value);
        format!("{name} {}", value - then)
    };
    memcstat(run, &at).iter().map(counted).collect()
}

fn memcstat(run: &Run<'_>, at: &str) -> Vec<(String, u64)> {
    let wanted = ["cmd_get", "cmd_set", "get_hits", "get_misses", "cmd_flush"];
    let said = run.ask("memcstat", &["memcstat", at]);
    let entry = |line: &str| {
        let (name, value) = line.trim().split_once(": ")?;
        wanted.contains(&name).then(|| value.parse().ok()).flatten().map(|value| (name.to_owned(), value))
    };
    let found: Vec<_> = said.lines().filter_map(entry).collect();
    assert_eq!(found.len(), wanted.len(), "{said}");
    found
}

fn memcached_and_clients(threads: &str) {
    let client = program("memcached_client.py");
    same_outcome(AUTO, |run| {
        let _server = memcached(run, threads);
        let leg = [Leg::on_lane(MEMCACHED)];
        let loads = ["set", "get", "mget"].map(|test| run.until_seen(&leg, || memcslap(run, test)));
        let answers = run.until_seen(&leg, || run.ask("client", &["python3", &client, HERE, "11211"]));
        (loads, answers)
    });
}

#[test]
fn memcached_with_one_thread() {
    memcached_and_clients("1");
}

#[test]
fn memcached_with_four_threads() {
    memcached_and_clients("4");
}
