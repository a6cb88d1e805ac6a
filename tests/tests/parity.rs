//! Every case of the `parity` program prints the same on plain sockets and preloaded: the kernel is the oracle.
//!
//! `UNDERPASS_TEST_CASE=name` runs one case only, in its group's test.

use std::time::Duration;

use underpass_lab::{Lab, LabError, LabOptions, Preload, Profile, Side};

const PARITY: &str = env!("CARGO_BIN_EXE_parity");
const LIMIT: Duration = Duration::from_secs(20);
/// Of the ends that should have been on the lane, so many at least were, percent: a promotion may be put off.
const LANED_AT_LEAST: usize = 80;

/// Cases that are left out, each with its reason and what would bring it back; printed by the tests.
const LEFT_OUT: &[(&str, &str)] = &[(
    "threads-closed_while_reading",
    "known difference: a read that sleeps on a lane ends with EBADF when another thread closes the descriptor",
)];

/// What one run of a case showed.
struct Run {
    transcript: String,
    /// Preloaded ends.
    covered: usize,
    /// Of these, promoted.
    promoted: usize,
    log: String,
}

/// The names of a group's cases.
fn cases(group: &str) -> Vec<String> {
    let output = std::process::Command::new(PARITY).arg("list").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(' ')).map(str::to_owned);
    match std::env::var("UNDERPASS_TEST_CASE") {
        Ok(wanted) => names.filter(|name| *name == wanted).collect(),
        Err(_) => names.collect(),
    }
}

fn other(side: Side) -> Side {
    if side == Side::Server { Side::Client } else { Side::Server }
}

/// Runs a case; `tested` is the side under test, which accepts if it is the server.
fn run(lab: &Lab, name: &str, tested: Side, preload: Preload) -> Result<Run, LabError> {
    let control = lab.dir().join("control");
    let _ = std::fs::remove_file(&control);
    let address = lab.host(Side::Server).v4.to_string();
    let start = |side: Side, what: &[&str]| {
        let mut command = if preload.covers(side) { lab.preloaded(side, PARITY)? } else { lab.command(side, PARITY)? };
        if preload.covers(side) {
            command.env("UNDERPASS_PROMOTE", "eager").env("UNDERPASS_LOG", "info");
        }
        let role = if side == Side::Server { "accept" } else { "connect" };
        command.args(what).args([role, &address]).arg(&control);
        lab.spawn(if side == tested { "tested" } else { "peer" }, &mut command)
    };
    let mut end = start(tested, &["run", name])?;
    let mut peer = start(other(tested), &["peer"])?;
    let finished = end.finish(LIMIT).and_then(|_| peer.finish(LIMIT));
    let log = format!("tested:\n{}peer:\n{}", end.stderr(), peer.stderr());
    let covered = preload.sides().len();
    let promoted = [&end, &peer].iter().filter(|side| side.stderr().contains(": promoted")).count();
    let transcript = match finished {
        Ok(_) => end.stdout(),
        Err(error) => format!("{}{}", end.stdout(), error.to_string().lines().next().unwrap_or_default()),
    };
    Ok(Run { transcript, covered, promoted, log })
}

/// The lines in which two transcripts differ, from the first on.
fn difference(plain: &str, preloaded: &str) -> String {
    let (plain, preloaded): (Vec<&str>, Vec<&str>) = (plain.lines().collect(), preloaded.lines().collect());
    let same = plain.iter().zip(&preloaded).take_while(|(a, b)| a == b).count();
    let rest = |lines: &[&str]| {
        lines[same.min(lines.len())..].iter().take(4).map(|line| format!("\n      {line}")).collect::<String>()
    };
    format!("    after {same} equal lines\n    plain:{}\n    preloaded:{}", rest(&plain), rest(&preloaded))
}

fn group(name: &str) {
    let lab = Lab::with_daemon(LabOptions { profile: Profile::Release, ..LabOptions::default() }).unwrap();
    let (mut failures, mut covered, mut promoted, mut runs) = (Vec::new(), 0, 0, 0);
    for (number, case) in cases(name).iter().enumerate() {
        if let Some((_, reason)) = LEFT_OUT.iter().find(|(out, _)| out == case) {
            println!("{case} is left out: {reason}");
            continue;
        }
        // Cases take turns in which end is tested: accepted and connected sockets get their share.
        let tested = if number % 2 == 0 { Side::Server } else { Side::Client };
        let plain = run(&lab, case, tested, Preload::Neither).unwrap();
        if !plain.transcript.ends_with("end\n") {
            failures.push(format!("{case} does not even run plain:\n{}\n{}", plain.transcript, plain.log));
            continue;
        }
        for preload in [Preload::Server, Preload::Client, Preload::Both] {
            let seen = run(&lab, case, tested, preload).unwrap();
            (covered, promoted, runs) = (covered + seen.covered, promoted + seen.promoted, runs + 1);
            if seen.transcript != plain.transcript {
                let difference = difference(&plain.transcript, &seen.transcript);
                failures.push(format!("{case}, {tested:?} tested, {preload:?} preloaded:\n{difference}\n{}", seen.log));
            }
        }
    }
    println!("{name}: {runs} runs, {promoted} of {covered} preloaded ends were on the lane");
    assert!(failures.is_empty(), "{} of {runs} runs differ:\n{}", failures.len(), failures.join("\n"));
    assert!(promoted * 100 >= covered * LANED_AT_LEAST, "only {promoted} of {covered} ends were on the lane");
}

macro_rules! groups {
    ($($test:ident $name:literal;)*) => {$(
        #[test]
        fn $test() {
            group($name);
        }
    )*};
}

groups! {
    receiving "recv";
    sending "send";
    poll_and_select "poll";
    epoll "epoll";
    ends "close";
    duplicates_and_processes "fds";
    threads "threads";
    signals "signals";
    options "options";
    odd_calls "odd";
}
