//! Every case of the `parity` program prints the same on plain sockets and preloaded: the kernel is the oracle.
//!
//! `UNDERPASS_TEST_CASE=name` runs one case only, in its group's test; `UNDERPASS_TEST_SEEDS=FROM..TO` other drawn cases than usual.

use std::time::Duration;

use underpass_lab::{Lab, LabError, LabOptions, Over, Preload, Profile, Side, Standstills};

const PARITY: &str = env!("CARGO_BIN_EXE_parity");
const LIMIT: Duration = Duration::from_secs(20);
/// Of the ends that should have been on the lane, so many at least were, percent: a promotion may be put off.
const LANED_AT_LEAST: usize = 80;

/// Cases that are left out, each with its reason and what would bring it back; printed by the tests.
const LEFT_OUT: &[(&str, &str)] = &[(
    "threads-closed_while_reading",
    "known difference: a read that sleeps on a lane ends with EBADF when another thread closes the descriptor",
)];

/// The same for the shm lane.
const LEFT_OUT_ON_SHM: &[(&str, &str)] = &[
    LEFT_OUT[0],
    (
        "options-ip_level",
        "IP_MTU: after IP_TOS the kernel looks for a route when it next sends; the bytes of the case do not go through it",
    ),
    (
        "options-maximum_segment",
        "TCP_MAXSEG: the kernel's estimate follows the segments that it carries; the bytes of the case do not go through it",
    ),
    (
        "options-information",
        "TCP_INFO: segments are counted where there are segments; the bytes of the case do not go through the kernel",
    ),
    (
        "options-totals",
        "TCP_INFO: what went through rings is in none of the kernel's counts once the connection has left them",
    ),
    (
        "options-little_unsent_at_once",
        "SO_SNDBUF: what may wait is what the ring holds; larger rings for those who ask for larger buffers would bring it back",
    ),
    (
        "epoll-with_pipe",
        "a wait that finds channels ready looks at the kernel's part of the set every 32 us: the pipe may be told by a later wait",
    ),
    (
        "epoll-registered_first_edge",
        "the connection may go over at any moment, and what it has then is told again: an edge too many, which epoll(7) allows",
    ),
];

/// One case of the `parity` program.
struct Case {
    name: String,
    /// Traffic comes first, so that the ends may be on a lane.
    warm: bool,
}

/// Where the two ends are.
struct Place {
    /// Both are here; `None`: one on each host.
    host: Option<Side>,
    /// Where the accepting end listens.
    listening: String,
    /// Where the other reaches it.
    address: String,
    /// What the preloaded ends are told beside.
    env: &'static [(&'static str, &'static str)],
    /// What the log of an end says that came to its lane; `None` where none is to come to one.
    laned: Option<&'static str>,
}

impl Place {
    fn on_the_wire(lab: &Lab) -> Self {
        let (listening, address) = (lab.listening().to_string(), lab.address().to_string());
        Self { host: None, listening, address, env: &[], laned: Some(": promoted") }
    }

    fn on_one_host(address: &str) -> Self {
        let env = &[("UNDERPASS_LANES", "shm")];
        let (listening, address) = (address.to_owned(), address.to_owned());
        Self { host: Some(Side::Server), listening, address, env, laned: Some(": joined its peer") }
    }

    /// As on one host, but without a lane that could carry the connection, and with the default policy, which watches it at first.
    fn left_alone(address: &str) -> Self {
        let env = &[("UNDERPASS_LANES", "xdp"), ("UNDERPASS_PROMOTE", "auto")];
        Self { env, laned: None, ..Self::on_one_host(address) }
    }
}

/// Several cases need the other end to be asleep, or awake, by a certain time. If the machine was away for so long, what they show is no
/// verdict, and they run again; as often at most.
const AWAY: Duration = Duration::from_millis(15);
const ATTEMPTS: usize = 5;

/// The group of cases that are drawn by chance, and the seeds that are always tried.
const DRAWN: &str = "drawn";
const SEEDS: &str = "0..24";

/// What one run of a case showed.
struct Run {
    transcript: String,
    /// Preloaded ends.
    covered: usize,
    /// Of these, on their lane.
    promoted: usize,
    log: String,
    /// How long the machine was away at once meanwhile.
    away: Duration,
}

/// A group's cases.
fn cases(group: &str) -> Vec<Case> {
    let mut command = std::process::Command::new(PARITY);
    command.arg("list");
    if group == DRAWN {
        let seeds = std::env::var("UNDERPASS_TEST_SEEDS").unwrap_or_else(|_| SEEDS.to_owned());
        command.args(seeds.split(".."));
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let wanted = std::env::var("UNDERPASS_TEST_CASE").ok();
    let mine = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(' '));
    mine.map(|line| match line.strip_suffix(" warm") {
        Some(name) => Case { name: name.to_owned(), warm: true },
        None => Case { name: line.to_owned(), warm: false },
    })
    .filter(|case| wanted.as_ref().is_none_or(|wanted| case.name == *wanted))
    .collect()
}

fn other(side: Side) -> Side {
    if side == Side::Server { Side::Client } else { Side::Server }
}

/// Runs a case; `tested` is the side under test, which accepts if it is the server.
fn run(lab: &Lab, place: &Place, case: &Case, tested: Side, preload: Preload) -> Result<Run, LabError> {
    let control = lab.dir().join("control");
    let _ = std::fs::remove_file(&control);
    let start = |side: Side, what: &[&str]| {
        let host = place.host.unwrap_or(side);
        let mut command = if preload.covers(side) { lab.preloaded(host, PARITY)? } else { lab.command(host, PARITY)? };
        if preload.covers(side) {
            command.env("UNDERPASS_PROMOTE", "eager").env("UNDERPASS_LOG", "info").envs(place.env.iter().copied());
        }
        let role = if side == Side::Server { ["accept", &place.listening] } else { ["connect", &place.address] };
        command.args(what).args(role).arg(&control);
        lab.spawn(if side == tested { "tested" } else { "peer" }, &mut command)
    };
    let watch = Standstills::watch()?;
    let mut end = start(tested, &["run", &case.name])?;
    let mut peer = start(other(tested), &["peer"])?;
    let finished = end.finish(LIMIT).and_then(|_| peer.finish(LIMIT));
    let log = format!("tested:\n{}peer:\n{}", end.stderr(), peer.stderr());
    let covered = preload.sides().len();
    let is_laned = |text: &str| place.laned.is_some_and(|laned| text.contains(laned));
    let promoted = [&end, &peer].iter().filter(|side| is_laned(&side.stderr())).count();
    let transcript = match finished {
        Ok(_) => end.stdout(),
        Err(error) => format!("{}{}", end.stdout(), error.to_string().lines().next().unwrap_or_default()),
    };
    Ok(Run { transcript, covered, promoted, log, away: watch.longest() })
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

/// Runs a group's cases at `place`, plain and with each of `preloads`.
fn compare(lab: &Lab, place: &Place, group: &str, preloads: &[Preload], left_out: &[(&str, &str)]) {
    let (mut failures, mut covered, mut promoted, mut runs) = (Vec::new(), 0, 0, 0);
    for (number, case) in cases(group).iter().enumerate() {
        let name = &case.name;
        if let Some((_, reason)) = left_out.iter().find(|(out, _)| out == name) {
            println!("{name} is left out: {reason}");
            continue;
        }
        // Cases take turns in which end is tested: accepted and connected sockets get their share.
        let tested = if number % 2 == 0 { Side::Server } else { Side::Client };
        let again = |preload| run(lab, place, case, tested, preload).unwrap();
        let mut plain = again(Preload::Neither);
        for &preload in preloads {
            let mut seen = again(preload);
            for _ in 1..ATTEMPTS {
                if seen.transcript == plain.transcript || plain.away.max(seen.away) < AWAY {
                    break;
                }
                println!("{name}: no verdict, the machine stood still for {:?} and {:?}", plain.away, seen.away);
                (plain, seen) = (again(Preload::Neither), again(preload));
            }
            if !plain.transcript.ends_with("end\n") {
                failures.push(format!("{name} does not even run plain:\n{}\n{}", plain.transcript, plain.log));
                continue;
            }
            // On the shm lane the ends meet while the program goes on: a case without traffic before may be over by then.
            if place.laned.is_some() && (case.warm || place.host.is_none()) {
                (covered, promoted) = (covered + seen.covered, promoted + seen.promoted);
            }
            runs += 1;
            if seen.transcript != plain.transcript {
                let difference = difference(&plain.transcript, &seen.transcript);
                failures.push(format!("{name}, {tested:?} tested, {preload:?} preloaded:\n{difference}\n{}", seen.log));
            }
        }
    }
    println!("{group}: {runs} runs, {promoted} of {covered} preloaded ends were on the lane");
    assert!(failures.is_empty(), "{} of {runs} runs differ:\n{}", failures.len(), failures.join("\n"));
    assert!(promoted * 100 >= covered * LANED_AT_LEAST, "only {promoted} of {covered} ends were on the lane");
}

fn group(name: &str) {
    group_over(Over::V4, name, &[Preload::Server, Preload::Client, Preload::Both]);
}

fn group_over(over: Over, name: &str, preloads: &[Preload]) {
    let lab = Lab::with_daemon(LabOptions { profile: Profile::Release, over, ..LabOptions::default() }).unwrap();
    compare(&lab, &Place::on_the_wire(&lab), name, preloads, LEFT_OUT);
}

/// Both ends in one namespace, without a daemon: the connection is carried on the shm lane.
fn group_on_one_host(name: &str, address: &str) {
    let lab = Lab::with(LabOptions { profile: Profile::Release, ..LabOptions::default() }).unwrap();
    compare(&lab, &Place::on_one_host(address), name, &[Preload::Both], LEFT_OUT_ON_SHM);
}

/// Both ends in one namespace and preloaded, the connection in the kernel.
fn group_left_alone(name: &str) {
    let lab = Lab::with(LabOptions { profile: Profile::Release, ..LabOptions::default() }).unwrap();
    compare(&lab, &Place::left_alone("127.0.0.1"), name, &[Preload::Both], LEFT_OUT);
}

macro_rules! groups {
    ($run:expr; $($test:ident $name:literal;)*) => {$(
        #[test]
        fn $test() {
            $run($name);
        }
    )*};
}

groups! {
    group;
    receiving "recv";
    sending "send";
    poll_and_select "poll";
    epoll "epoll";
    ends "close";
    duplicates_and_processes "fds";
    threads "threads";
    signals "signals";
    options "options";
    options_of_ipv6 "options6";
    odd_calls "odd";
    ancillary_data_and_reports "told";
    drawn_by_chance "drawn";
}

mod over_ipv6 {
    use super::{Over, Preload, group_over};

    groups! {
        |name| group_over(Over::V6, name, &[Preload::Both]);
        receiving "recv";
        sending "send";
        epoll "epoll";
        ends "close";
        duplicates_and_processes "fds";
        options "options";
        options_of_ipv6 "options6";
        odd_calls "odd";
        ancillary_data_and_reports "told";
        drawn_by_chance "drawn";
    }
}

/// The accepting end's socket is IPv6, what goes over the wire is IPv4.
mod over_mapped_addresses {
    use super::{Over, Preload, group_over};

    groups! {
        |name| group_over(Over::Mapped, name, &[Preload::Server, Preload::Both]);
        receiving "recv";
        sending "send";
        epoll "epoll";
        ends "close";
        options "options";
        options_of_ipv6 "options6";
    }
}

mod on_one_host {
    use super::group_on_one_host;

    groups! {
        |name| group_on_one_host(name, "127.0.0.1");
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
        ancillary_data_and_reports "told";
        drawn_by_chance "drawn";
    }
}

mod on_one_host_v6 {
    use super::group_on_one_host;

    groups! {
        |name| group_on_one_host(name, "::1");
        receiving "recv";
        ends "close";
        duplicates_and_processes "fds";
    }
}

mod left_in_the_kernel {
    use super::group_left_alone;

    groups! {
        group_left_alone;
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
        ancillary_data_and_reports "told";
        drawn_by_chance "drawn";
    }
}
