//! Programs and daemons that stand still for so long that the other side gives them up: whose a connection is stays clear.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use underpass_lab::{Kind, Lab, LabOptions, Preload, Process, Profile, Side, Talk, wait_for};

const TRAFFIC: &str = env!("CARGO_BIN_EXE_traffic");
/// Longer than the grace time of a daemon and the patience of a program together.
const LIMIT: Duration = Duration::from_secs(30);
const EAGER: (&str, &str) = ("UNDERPASS_PROMOTE", "eager");
const SIDES: [Side; 2] = [Side::Server, Side::Client];
const STOP: i32 = 19;
const CONTINUE: i32 = 18;

fn admit_everybody(lab: &Lab) {
    std::fs::set_permissions(lab.dir().join("control.sock"), Permissions::from_mode(0o666)).unwrap();
}

/// A conversation on lanes, of programs without privilege: others would start a daemon of their own.
fn on_lanes(preload: Preload) -> (Lab, Talk) {
    let lab = Lab::with_daemon(LabOptions { profile: Profile::Release, ..LabOptions::default() }).unwrap();
    admit_everybody(&lab);
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut talk = Talk::start_by(&lab, &nobody, TRAFFIC, Kind::PingPong(64), preload, &[EAGER]).unwrap();
    preload.sides().iter().for_each(|&side| talk.await_lane(&lab, side).unwrap());
    (lab, talk)
}

/// Waits until the daemon's log says something.
fn daemon_says(lab: &mut Lab, what: &str) {
    let waited = wait_for(what, LIMIT, || lab.daemon().unwrap().process().stderr().contains(what));
    waited.unwrap_or_else(|error| panic!("{error}\n{}", lab.daemon().unwrap().report()));
}

/// A second conversation with the same server, by a plain program.
fn second_client(lab: &Lab, talk: &mut Talk) -> Process {
    let port = talk.program(Side::Server).expect_line("port:", LIMIT).unwrap().parse().unwrap();
    let progress = lab.dir().join("second-progress");
    std::fs::write(&progress, [0; 16]).unwrap();
    let to = SocketAddr::new(lab.address(), port).to_string();
    let mut command = lab.command(Side::Client, TRAFFIC).unwrap();
    command.args(["pingpong", &to]).arg(&progress).arg("64");
    lab.spawn("second", &mut command).unwrap()
}

/// The daemon and the program agree on whose each connection is: it goes to the kernel and back to the lane.
fn moves_freely(lab: &Lab, talk: &mut Talk, side: Side) {
    let pid = talk.program(side).pid().to_string();
    let before = talk.connection(lab, side).unwrap();
    wait_for("a demotion by this daemon", LIMIT, || {
        let _ = lab.underpass(&["demote", "-p", &pid, "--all"]);
        talk.connection(lab, side).is_some_and(|socket| socket.demoted > before.demoted)
    })
    .unwrap();
    talk.go_on(200).unwrap();
    talk.await_connection(lab, side, "lane xdp again", |socket| {
        socket.tier == "xdp" && socket.promoted > before.promoted
    })
    .unwrap();
    talk.go_on(200).unwrap();
}

#[test]
fn a_program_that_comes_back_after_the_grace_time_has_its_connection() {
    let (mut lab, mut talk) = on_lanes(Preload::Both);
    talk.program(Side::Server).signal(STOP).unwrap();
    lab.daemon().unwrap().process().kill();
    lab.start_daemon().unwrap();
    admit_everybody(&lab);
    daemon_says(&mut lab, "its owner did not come back");
    talk.program(Side::Server).signal(CONTINUE).unwrap();
    talk.go_on(200).unwrap();
    SIDES.iter().for_each(|&side| moves_freely(&lab, &mut talk, side));
    talk.end().unwrap();
}

#[test]
fn a_daemon_that_stands_still_takes_nothing_from_the_living() {
    let (mut lab, mut talk) = on_lanes(Preload::Both);
    lab.daemon().unwrap().process().signal(STOP).unwrap();
    let mut second = second_client(&lab, &mut talk);
    // The second connection is to go to the lane, too; nobody answers that.
    wait_for("the server to give the daemon up", LIMIT, || {
        talk.program(Side::Server).stderr().contains("the daemon does not answer")
    })
    .unwrap();
    talk.go_on(200).unwrap();
    lab.daemon().unwrap().process().signal(CONTINUE).unwrap();
    daemon_says(&mut lab, "has hung up");
    talk.go_on(1000).unwrap();
    SIDES.iter().for_each(|&side| moves_freely(&lab, &mut talk, side));
    assert!(second.exited().is_none(), "{}", second.stderr());
    second.kill();
    talk.end().unwrap();
    let lost = lab.daemon().unwrap().report();
    assert!(!lost.contains("connection lost"), "{lost}");
}

#[test]
fn a_next_hop_that_moves_while_no_daemon_runs_is_found_by_the_next() {
    const MOVED: &str = "02:00:00:00:be:ef";
    let (mut lab, mut talk) = on_lanes(Preload::Server);
    lab.daemon().unwrap().process().kill();
    let (server, client) = (lab.host(Side::Server), lab.host(Side::Client));
    client.namespace.ip(&["link", "set", &client.interface, "address", MOVED]).unwrap();
    let peer = client.v4.to_string();
    server.namespace.ip(&["neigh", "replace", &peer, "lladdr", MOVED, "dev", &server.interface]).unwrap();
    lab.start_daemon().unwrap();
    admit_everybody(&lab);
    daemon_says(&mut lab, "taken over");
    talk.go_on(200).unwrap();
    // Without that it would have been left to the kernel after some retransmission timeouts.
    let socket = talk.connection(&lab, Side::Server).unwrap();
    assert_eq!((socket.tier.as_str(), socket.demoted), ("xdp", 0));
    talk.end().unwrap();
}
