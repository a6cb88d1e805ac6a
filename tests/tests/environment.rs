//! Where Underpass cannot do its work, programs do theirs: wrong settings, no privilege, no daemon, no queue, no link.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use underpass_lab::{Kind, Lab, LabOptions, Preload, Profile, Side, Talk, wait_for};

const TRAFFIC: &str = env!("CARGO_BIN_EXE_traffic");
const LIMIT: Duration = Duration::from_secs(20);
const EAGER: (&str, &str) = ("UNDERPASS_PROMOTE", "eager");
/// Starts a program as nobody.
const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

fn lab() -> Lab {
    Lab::with_daemon(options()).unwrap()
}

fn options() -> LabOptions {
    LabOptions { profile: Profile::Release, ..LabOptions::default() }
}

#[test]
fn a_wrong_value_is_reported_with_what_is_accepted() {
    let lab = lab();
    for (name, value, accepted) in [
        ("UNDERPASS_PROMOTE", "sometimes", "eager"),
        ("UNDERPASS_LANES", "tunnel", "xdp"),
        ("UNDERPASS_SPIN_USEC", "fast", "auto"),
        ("UNDERPASS_RING", "7", "64"),
        ("UNDERPASS_SOCKET", "relative/path", "absolute"),
    ] {
        let mut talk = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Client, &[(name, value)]).unwrap();
        talk.go_on(20).unwrap();
        let said = talk.program(Side::Client).stderr();
        let complaint = said.lines().find(|line| line.contains(name));
        assert!(
            complaint.is_some_and(|line| line.contains(value) && line.contains(accepted)),
            "{name}={value}: {said}"
        );
        talk.end().unwrap();
    }
}

#[test]
fn without_daemon_and_privilege_it_is_the_kernel() {
    let lab = Lab::with(options()).unwrap();
    let both = Preload::Both;
    let mut talk = Talk::start_by(&lab, &NOBODY, TRAFFIC, Kind::PingPong(64), both, &[EAGER]).unwrap();
    talk.go_on(500).unwrap();
    for side in both.sides() {
        let socket = talk.connection(&lab, side).unwrap();
        assert_eq!((socket.tier.as_str(), socket.reason.as_str()), ("kernel", "no-daemon"), "{side:?}");
    }
    talk.end().unwrap();
}

#[test]
fn somebody_not_admitted_stays_in_the_kernel() {
    let lab = lab();
    let mut talk = Talk::start_by(&lab, &NOBODY, TRAFFIC, Kind::PingPong(64), Preload::Client, &[EAGER]).unwrap();
    talk.go_on(500).unwrap();
    let socket = talk.connection(&lab, Side::Client).unwrap();
    assert_eq!((socket.tier.as_str(), socket.reason.as_str()), ("kernel", "access-denied"));
    talk.end().unwrap();
}

/// Processes that name this lab's socket in their arguments: its daemons.
fn daemons(lab: &Lab) -> Vec<u32> {
    let socket = lab.dir().join("control.sock").display().to_string();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    let is_ours = |pid: &u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|&byte| byte == 0).collect();
        words.contains(&&b"daemon"[..]) && words.contains(&socket.as_bytes())
    };
    pids.filter(is_ours).collect()
}

#[test]
fn a_privileged_program_starts_a_daemon_that_ends_with_its_last_client() {
    let lab = Lab::with(options()).unwrap();
    assert!(daemons(&lab).is_empty());
    let mut talk = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Both, &[EAGER]).unwrap();
    for side in [Side::Server, Side::Client] {
        talk.await_lane(&lab, side).unwrap();
    }
    assert_eq!(daemons(&lab).len(), 1, "{:?}", daemons(&lab));
    talk.go_on(500).unwrap();
    talk.end().unwrap();
    wait_for("the daemon to end", LIMIT, || daemons(&lab).is_empty()).unwrap();
}

/// The program's own thread waits for the daemon that it starts, so not in vain, and not again and again.
#[test]
fn a_daemon_that_cannot_listen_holds_the_program_up_no_longer_than_it_lives() {
    let lab = Lab::with(options()).unwrap();
    std::fs::create_dir(lab.dir().join("control.sock")).unwrap();
    let mut talk = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Client, &[EAGER]).unwrap();
    let begin = Instant::now();
    let mut rounds = Vec::new();
    while begin.elapsed() < Duration::from_secs(4) {
        let round = Instant::now();
        talk.go_on(1).unwrap();
        rounds.push(round.elapsed());
    }
    let longest = rounds.iter().max().unwrap();
    assert!(*longest < Duration::from_secs(2), "{} rounds, one took {longest:?}", rounds.len());
    let said = talk.program(Side::Client).stderr();
    assert_eq!(said.matches("does not listen").count(), 1, "{said}");
    assert_eq!(talk.connection(&lab, Side::Client).unwrap().reason, "no-daemon");
    talk.end().unwrap();
}

#[test]
fn an_interface_without_a_free_queue_says_so() {
    let lab = lab();
    let mut first = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Server, &[EAGER]).unwrap();
    first.await_lane(&lab, Side::Server).unwrap();
    let mut second = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Server, &[EAGER]).unwrap();
    let reason = |socket: &underpass_lab::SocketView| socket.reason == "no-free-queue" && socket.tier == "kernel";
    second.await_connection(&lab, Side::Server, "the reason no-free-queue", reason).unwrap();
    second.go_on(200).unwrap();
    second.end().unwrap();
    first.go_on(200).unwrap();
    assert_eq!(first.connection(&lab, Side::Server).unwrap().tier, "xdp");
    first.end().unwrap();
}

#[test]
fn a_queue_that_becomes_free_is_used() {
    let lab = lab();
    let mut first = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Server, &[EAGER]).unwrap();
    first.await_lane(&lab, Side::Server).unwrap();
    let mut second = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Server, &[EAGER]).unwrap();
    second.go_on(200).unwrap();
    drop(first);
    second.await_lane(&lab, Side::Server).unwrap();
    second.go_on(200).unwrap();
    second.end().unwrap();
}

#[test]
fn a_link_that_goes_down_and_comes_back_costs_nothing_but_time() {
    let lab = lab();
    let mut talk = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Server, &[EAGER]).unwrap();
    talk.await_lane(&lab, Side::Server).unwrap();
    let client = lab.host(Side::Client);
    client.namespace.ip(&["link", "set", &client.interface, "down"]).unwrap();
    let left = |socket: &underpass_lab::SocketView| socket.tier == "kernel";
    talk.await_connection(&lab, Side::Server, "the kernel's tier", left).unwrap();
    client.namespace.ip(&["link", "set", &client.interface, "up"]).unwrap();
    talk.go_on(200).unwrap();
    talk.await_lane(&lab, Side::Server).unwrap();
    talk.go_on(200).unwrap();
    talk.end().unwrap();
}

/// Does the server's interface carry an XDP program?
fn carries_program(lab: &Lab) -> bool {
    let server = lab.host(Side::Server);
    server.namespace.ip(&["link", "show", &server.interface]).unwrap().contains("prog/xdp")
}

#[test]
fn the_program_leaves_a_veth_that_steers_nothing_and_comes_back() {
    const SIGCONT: i32 = 18;
    const SIGSTOP: i32 = 19;
    let lab = lab();
    let mut talk = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Server, &[EAGER]).unwrap();
    let pid = talk.program(Side::Server).pid().to_string();
    for round in 1..=2 {
        talk.await_connection(&lab, Side::Server, "the lane", |s| s.tier == "xdp" && s.promoted == round).unwrap();
        assert!(carries_program(&lab));
        talk.go_on(200).unwrap();
        // Without traffic nothing is promoted.
        talk.program(Side::Client).signal(SIGSTOP).unwrap();
        lab.underpass(&["demote", "-p", &pid, "--all"]).unwrap();
        wait_for("the XDP program to leave", LIMIT, || !carries_program(&lab)).unwrap();
        talk.program(Side::Client).signal(SIGCONT).unwrap();
        talk.go_on(200).unwrap();
    }
    talk.await_lane(&lab, Side::Server).unwrap();
    talk.go_on(200).unwrap();
    talk.end().unwrap();
}

/// Loads a table into the server's packet filter.
fn filter(lab: &Lab, chains: &[&str]) {
    let rules = format!("table ip underpass_lab {{\n{}\n}}\n", chains.join("\n"));
    let path = lab.dir().join("rules");
    std::fs::write(&path, rules).unwrap();
    lab.host(Side::Server).namespace.run("nft", &["-f", &path.display().to_string()]).unwrap();
}

#[test]
fn a_stateful_firewall_lets_a_connection_on_after_its_demotion() {
    let lab = lab();
    filter(&lab, &["chain in {\ntype filter hook input priority 0\nct state invalid drop\nct state new accept\n}"]);
    let mut talk = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Server, &[EAGER]).unwrap();
    let pid = talk.program(Side::Server).pid().to_string();
    for _ in 0..5 {
        talk.await_lane(&lab, Side::Server).unwrap();
        talk.go_on(2000).unwrap();
        lab.underpass(&["demote", "-p", &pid, "--all"]).unwrap();
        talk.go_on(200).unwrap();
    }
    talk.end().unwrap();
}

#[test]
fn a_translated_flow_stays_in_the_kernel() {
    let lab = lab();
    let client = lab.host(Side::Client).v4;
    let rule = format!("ip saddr {client} tcp dport != 0 snat to {client}:50000-50100");
    let chain = format!("chain in {{\ntype nat hook input priority 100\n{rule}\n}}");
    filter(&lab, &[&chain]);
    let mut talk = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Server, &[EAGER]).unwrap();
    let reason = |socket: &underpass_lab::SocketView| socket.reason == "nat" && socket.tier == "kernel";
    talk.await_connection(&lab, Side::Server, "the reason nat", reason).unwrap();
    talk.go_on(500).unwrap();
    talk.end().unwrap();
}

/// Echoes for one client after another, with fewer descriptors to spare for the first ones than a lane needs.
const SHORT_OF_DESCRIPTORS: &str = r#"
import os, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
listener = socket.create_server((sys.argv[1], 0))
print("port:", listener.getsockname()[1], flush=True)
for spare in [0, 1, 2, 3, 4, 5, 6, 40]:
    peer, _ = listener.accept()
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for fd in taken[:spare]:
        os.close(fd)
    while data := peer.recv(65536):
        peer.sendall(data)
    peer.close()
    for fd in taken[spare:]:
        os.close(fd)
"#;

#[test]
fn who_has_descriptors_again_has_lanes() {
    let lab = Lab::with_daemon(LabOptions { queues: 4, ..options() }).unwrap();
    let mut command = lab.preloaded(Side::Server, "python3").unwrap();
    command.env(EAGER.0, EAGER.1).env("UNDERPASS_LANES", "xdp").env("UNDERPASS_LOG", "info");
    command.args(["-c", SHORT_OF_DESCRIPTORS, &lab.listening().to_string()]);
    let mut server = lab.spawn("server", &mut command).unwrap();
    let port: u16 = server.expect_line("port:", LIMIT).unwrap().parse().unwrap();
    let to = SocketAddr::new(lab.address(), port);
    let connect = || lab.host(Side::Client).namespace.inside(|| TcpStream::connect(to).unwrap()).unwrap();
    let round = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
    };
    for _ in 0..7 {
        let mut stream = connect();
        // The library looks for a daemon once a second.
        let until = Instant::now() + Duration::from_millis(1200);
        while Instant::now() < until {
            round(&mut stream);
        }
    }
    let said = server.stderr();
    assert!(said.contains(" of 4 came"), "the sockets never were too many: {said}");
    let mut last = connect();
    let on_lane = || lab.sockets(server.pid()).is_ok_and(|all| all.iter().any(|socket| socket.tier == "xdp"));
    wait_for("lane xdp", LIMIT, || {
        round(&mut last);
        on_lane()
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", server.stderr()));
}
