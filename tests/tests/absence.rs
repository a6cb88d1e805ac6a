//! Programs and daemons that stand still for so long that the other side gives them up: whose a connection is stays clear.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use underpass_lab::{Kind, Lab, LabOptions, Preload, Process, Profile, Side, Talk, wait_for};

const TRAFFIC: &str = env!("CARGO_BIN_EXE_traffic");
/// Longer than the grace time of a daemon and the patience of a program together.
const LIMIT: Duration = Duration::from_secs(30);
const EAGER: (&str, &str) = ("UNDERPASS_PROMOTE", "eager");
const SIDES: [Side; 2] = [Side::Server, Side::Client];
const STOP: i32 = 19;
const CONTINUE: i32 = 18;

/// An echo server that becomes a shell when told to by SIGUSR1, by a system call that no library sees, with its connection as stdin and stdout.
/// Until the daemon has given that back, reading it fails.
const BECOMES_ANOTHER: &str = r#"
import ctypes, os, signal, socket, sys
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
listener = socket.create_server((sys.argv[1], 0))
print("port:", listener.getsockname()[1], flush=True)
peer, _ = listener.accept()
while not told:
    peer.sendall(peer.recv(65536))
os.dup2(peer.fileno(), 0)
os.dup2(peer.fileno(), 1)
execve = {"x86_64": 59, "aarch64": 221}[os.uname().machine]
strings = lambda *words: (ctypes.c_char_p * (len(words) + 1))(*words, None)
ctypes.CDLL(None).syscall(execve, b"/bin/sh", strings(b"sh", b"-c", b"until cat; do :; done"), strings(b"PATH=/bin:/usr/bin"))
"#;

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
    plain_client(lab, talk.program(Side::Server), &lab.dir().join("second-progress"))
}

/// A plain program that talks to an echo server and counts its rounds in a file.
fn plain_client(lab: &Lab, server: &mut Process, progress: &Path) -> Process {
    let port = server.expect_line("port:", LIMIT).unwrap().parse().unwrap();
    std::fs::write(progress, [0; 16]).unwrap();
    let to = SocketAddr::new(lab.address(), port).to_string();
    let mut command = lab.command(Side::Client, TRAFFIC).unwrap();
    command.args(["pingpong", &to]).arg(progress).arg("64");
    lab.spawn("plain", &mut command).unwrap()
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

#[test]
fn a_program_that_becomes_another_unseen_leaves_its_connection_in_the_kernel() {
    let mut lab = Lab::with_daemon(LabOptions { profile: Profile::Release, ..LabOptions::default() }).unwrap();
    let mut command = lab.preloaded(Side::Server, "python3").unwrap();
    command.env(EAGER.0, EAGER.1).args(["-c", BECOMES_ANOTHER, &lab.listening().to_string()]);
    let mut server = lab.spawn("server", &mut command).unwrap();
    let progress = lab.dir().join("progress");
    let mut client = plain_client(&lab, &mut server, &progress);
    let on_lane = || lab.sockets(server.pid()).is_ok_and(|all| all.iter().any(|socket| socket.tier == "xdp"));
    wait_for("lane xdp", LIMIT, on_lane).unwrap();
    server.signal(libc::SIGUSR1).unwrap();
    daemon_says(&mut lab, "1 connections to give back");
    let rounds = || u64::from_ne_bytes(std::fs::read(&progress).unwrap()[..8].try_into().unwrap());
    let goal = rounds() + 200;
    wait_for("the conversation to go on with cat", LIMIT, || rounds() >= goal)
        .unwrap_or_else(|error| panic!("{error}\n{}\n{}", client.stderr(), server.stderr()));
    assert!(client.exited().is_none() && server.exited().is_none());
    client.kill();
}
