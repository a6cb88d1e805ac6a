//! Programs and daemons that die at the worst moment: nothing is lost, and what goes on goes on.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use underpass_lab::{Kind, Lab, LabOptions, Over, Preload, Profile, Side, Talk, wait_for};

const TRAFFIC: &str = env!("CARGO_BIN_EXE_traffic");
const LIMIT: Duration = Duration::from_secs(20);
const EAGER: (&str, &str) = ("UNDERPASS_PROMOTE", "eager");

fn lab() -> Lab {
    lab_over(Over::V4)
}

fn lab_over(over: Over) -> Lab {
    Lab::with_daemon(LabOptions { profile: Profile::Release, over, ..LabOptions::default() }).unwrap()
}

/// A conversation of programs without privilege, whom the daemon admits: privileged ones would start a daemon by themselves as
/// soon as theirs is gone.
fn unprivileged(lab: &Lab) -> Talk {
    admit_everybody(lab);
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    Talk::start_by(lab, &nobody, TRAFFIC, Kind::PingPong(64), Preload::Both, &[EAGER]).unwrap()
}

fn admit_everybody(lab: &Lab) {
    let socket = lab.dir().join("control.sock");
    std::fs::set_permissions(socket, Permissions::from_mode(0o666)).unwrap();
}

/// Kills a program in the midst of its writes. How many bytes its peer got, how many writes had returned, how it ended.
fn kill_the_writer(lab: &Lab, preload: Preload, bytes: u64) -> (u64, u64, String) {
    let mut talk = Talk::start(lab, TRAFFIC, Kind::Flood, preload, &[EAGER]).unwrap();
    if preload.covers(Side::Client) {
        talk.await_lane(lab, Side::Client).unwrap();
    }
    talk.go_on(bytes).unwrap();
    talk.program(Side::Client).kill();
    let written = talk.done().unwrap();
    let said = talk.program(Side::Server).expect_line("done:", LIMIT).unwrap();
    let (received, how) = said.split_once(' ').unwrap();
    (received.parse().unwrap(), written, how.to_owned())
}

#[test]
fn a_killed_writers_bytes_arrive_and_then_the_end() {
    kill_writers(Over::V4);
}

#[test]
fn a_killed_writers_bytes_arrive_over_ipv6_too() {
    kill_writers(Over::V6);
}

fn kill_writers(over: Over) {
    let lab = lab_over(over);
    let (received, written, plainly) = kill_the_writer(&lab, Preload::Neither, 1 << 20);
    assert!(received >= written, "{received} of {written}");
    for round in 1..=5 {
        for preload in [Preload::Client, Preload::Both] {
            let (received, written, how) = kill_the_writer(&lab, preload, round * 300_000);
            assert!(
                received >= written,
                "{preload:?}: {received} arrived of {written} whose write had returned, {how}"
            );
            assert_eq!(how, plainly, "{preload:?}");
        }
    }
}

/// Kills the reader while bytes are on their way to it; what becomes of the writer.
fn kill_the_reader(lab: &Lab, preload: Preload) -> String {
    let mut talk = Talk::start(lab, TRAFFIC, Kind::Flood, preload, &[EAGER]).unwrap();
    for side in preload.sides() {
        talk.await_lane(lab, side).unwrap();
    }
    talk.go_on(1 << 20).unwrap();
    talk.program(Side::Server).kill();
    let client = talk.program(Side::Client);
    assert!(!client.wait(LIMIT).unwrap().success());
    client.stderr().lines().last().and_then(|line| line.rsplit(": ").next()).unwrap_or_default().to_owned()
}

#[test]
fn a_killed_readers_peer_is_told() {
    let lab = lab();
    // Which of the two depends on where the writer was.
    let as_in_the_kernel = ["Connection reset by peer (os error 104)", "Broken pipe (os error 32)"];
    for preload in [Preload::Neither, Preload::Server, Preload::Client, Preload::Both] {
        let told = kill_the_reader(&lab, preload);
        assert!(as_in_the_kernel.contains(&told.as_str()), "{preload:?}: {told}");
    }
}

#[test]
fn lanes_survive_a_killed_daemon_and_come_to_the_next() {
    let mut lab = lab();
    let mut talk = unprivileged(&lab);
    let sides = [Side::Server, Side::Client];
    sides.iter().for_each(|&side| talk.await_lane(&lab, side).unwrap());
    lab.daemon().unwrap().process().kill();
    talk.go_on(2000).unwrap();
    for side in sides {
        assert_eq!(talk.connection(&lab, side).unwrap().tier, "xdp", "{side:?}");
    }
    lab.start_daemon().unwrap();
    admit_everybody(&lab);
    talk.go_on(200).unwrap();
    for side in sides {
        let pid = talk.program(side).pid().to_string();
        wait_for("the new daemon to know the process, and to demote", LIMIT, || {
            let _ = lab.underpass(&["demote", "-p", &pid, "--all"]);
            talk.connection(&lab, side).is_some_and(|socket| socket.demoted >= 1)
        })
        .unwrap();
        talk.go_on(200).unwrap();
        // And the new daemon promotes.
        talk.await_connection(&lab, side, "lane xdp again", |s| s.tier == "xdp" && s.promoted >= 2).unwrap();
    }
    talk.go_on(200).unwrap();
    talk.end().unwrap();
}

/// The conversation goes on, or a program ends because its connection was ended: it never stands still.
fn goes_on_or_ends(talk: &mut Talk, more: u64) -> bool {
    let Err(error) = talk.go_on(more) else { return true };
    let ends = [Side::Server, Side::Client].map(|side| {
        let program = talk.program(side);
        (program.exited(), program.stderr())
    });
    let told = |said: &str| ["os error 103", "os error 104", "os error 32"].iter().any(|code| said.contains(code));
    let noticed = ends.iter().any(|(exited, said)| exited.is_some() && told(said));
    assert!(noticed, "{error}\n{ends:?}");
    false
}

#[test]
fn a_daemon_killed_amid_promotions_and_demotions_leaves_no_connection_in_between() {
    let mut lab = lab();
    let (mut lost, mut rounds) = (0, 0);
    for round in 0..12u64 {
        let mut talk = unprivileged(&lab);
        for side in [Side::Server, Side::Client] {
            talk.await_lane(&lab, side).unwrap();
        }
        let pids = [Side::Server, Side::Client].map(|side| talk.program(side).pid().to_string());
        // Demotions, each followed at once by a promotion, while the daemon dies somewhere among them.
        let mut askers: Vec<_> = (0..3)
            .map(|number| {
                let command = lab.artifacts().unwrap().command;
                let mut asker = lab.command(Side::Server, command).unwrap();
                asker
                    .args(["demote", "--all", "-p", &pids[number % 2]])
                    .env("UNDERPASS_SOCKET", lab.dir().join("control.sock"));
                lab.spawn(&format!("asker{round}-{number}"), &mut asker).unwrap()
            })
            .collect();
        let until = std::time::Instant::now() + Duration::from_micros(700 * round);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        lab.daemon().unwrap().process().kill();
        askers.iter_mut().for_each(|asker| drop(asker.wait(LIMIT)));
        let alone = goes_on_or_ends(&mut talk, 200);
        lab.start_daemon().unwrap();
        admit_everybody(&lab);
        if alone && goes_on_or_ends(&mut talk, 500) {
            talk.end().unwrap();
        } else {
            lost += 1;
        }
        rounds += 1;
    }
    println!("{lost} of {rounds} connections were ended");
}

#[test]
fn a_program_that_dies_while_no_daemon_runs_harms_nobody() {
    let mut lab = lab();
    let mut talk = unprivileged(&lab);
    talk.await_lane(&lab, Side::Server).unwrap();
    lab.daemon().unwrap().process().kill();
    talk.go_on(100).unwrap();
    talk.program(Side::Client).kill();
    lab.start_daemon().unwrap();
    drop(talk);
    let mut next = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Both, &[EAGER]).unwrap();
    next.await_lane(&lab, Side::Server).unwrap();
    next.go_on(100).unwrap();
    next.end().unwrap();
}

/// Interfaces of both hosts that have an XDP program.
fn xdp_programs(lab: &Lab) -> String {
    let shown = |side| lab.host(side).namespace.ip(&["-o", "link", "show"]).unwrap();
    let both = [shown(Side::Server), shown(Side::Client)].concat();
    both.lines().filter(|line| line.contains("xdp")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_daemon_that_is_stopped_leaves_everything_to_the_kernel() {
    let mut lab = lab();
    let mut talk = unprivileged(&lab);
    let sides = [Side::Server, Side::Client];
    sides.iter().for_each(|&side| talk.await_lane(&lab, side).unwrap());
    assert!(xdp_programs(&lab).lines().count() == 2, "{}", xdp_programs(&lab));
    let daemon = lab.daemon().unwrap().process();
    daemon.signal(15).unwrap();
    let status = daemon.wait(LIMIT).unwrap();
    assert!(status.success(), "{status}: {}", daemon.stderr());
    for side in sides {
        talk.await_connection(&lab, side, "the kernel's tier", |socket| socket.tier == "kernel").unwrap();
    }
    assert_eq!(xdp_programs(&lab), "");
    talk.go_on(500).unwrap();
    lab.start_daemon().unwrap();
    admit_everybody(&lab);
    sides.iter().for_each(|&side| talk.await_lane(&lab, side).unwrap());
    talk.go_on(500).unwrap();
    talk.end().unwrap();
}

#[test]
fn a_second_daemon_refuses_the_socket_of_the_first() {
    let mut lab = lab();
    let mut talk = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Server, &[EAGER]).unwrap();
    talk.await_lane(&lab, Side::Server).unwrap();
    let command = lab.artifacts().unwrap().command;
    let socket = lab.daemon().unwrap().socket().to_owned();
    let mut second = Command::new(command);
    second.args(["daemon", "--foreground", "--socket"]).arg(&socket);
    let mut second = lab.spawn("second", &mut second).unwrap();
    let status = second.wait(LIMIT).unwrap();
    assert!(!status.success(), "a second daemon took the socket");
    assert!(second.stderr().contains(&*socket.to_string_lossy()), "it says which: {}", second.stderr());
    talk.go_on(100).unwrap();
    assert_eq!(talk.connection(&lab, Side::Server).unwrap().tier, "xdp");
    talk.end().unwrap();
}

#[test]
fn a_stopped_program_can_be_looked_into() {
    let lab = lab();
    let mut talk = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Server, &[EAGER]).unwrap();
    talk.await_lane(&lab, Side::Server).unwrap();
    talk.program(Side::Server).signal(19).unwrap();
    assert_eq!(talk.connection(&lab, Side::Server).unwrap().tier, "xdp");
    assert!(lab.counter(talk.program(Side::Server).pid(), "promotions").unwrap() >= 1);
    talk.program(Side::Server).signal(18).unwrap();
    talk.go_on(100).unwrap();
    talk.end().unwrap();
}
