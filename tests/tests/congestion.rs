//! What a connection has agreed on about congestion, and how it controls it, goes with it.

use underpass_lab::{Kind, Lab, LabOptions, Preload, Side, SocketView, Talk};
use underpass_stack::testkit::LinkSpec;

const TRAFFIC: &str = env!("CARGO_BIN_EXE_traffic");
const EAGER: (&str, &str) = ("UNDERPASS_PROMOTE", "eager");
/// Rounds of a ping-pong.
const BREATH: u64 = 200;

/// A lab in which both hosts have this setting, and a server on the lane in it.
fn server_on_the_lane(setting: &str) -> (Lab, Talk) {
    let lab = Lab::with_daemon(LabOptions::default()).unwrap();
    for side in [Side::Server, Side::Client] {
        lab.host(side).namespace.run("sysctl", &["-qw", setting]).unwrap();
    }
    let mut talk = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Server, &[EAGER]).unwrap();
    talk.await_connection(&lab, Side::Server, "lane xdp", |socket| socket.tier == "xdp")
        .unwrap_or_else(|error| panic!("{error}"));
    (lab, talk)
}

/// What the kernel of a host says of its connections, ss(8).
fn kernel_says(lab: &Lab, side: Side) -> String {
    lab.host(side).namespace.run("ss", &["-Htion", "state", "established"]).unwrap()
}

/// The number behind `name:` in ss(8)'s output.
fn figure(text: &str, name: &str) -> u64 {
    let words = text.split_whitespace().filter_map(|word| word.strip_prefix(name)?.strip_prefix(':'));
    words.filter_map(|number| number.parse::<u64>().ok()).max().unwrap_or(0)
}

fn demote(lab: &Lab, talk: &mut Talk) {
    let pid = talk.program(Side::Server).pid().to_string();
    lab.underpass(&["demote", "-p", &pid, "--all"]).unwrap();
    talk.await_connection(lab, Side::Server, "a demotion", |socket| socket.demoted >= 1)
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_connection_with_ecn_answers_marks_on_the_lane_and_after_it() {
    let (lab, mut talk) = server_on_the_lane("net.ipv4.tcp_ecn=1");
    let client = &lab.host(Side::Client).namespace;
    let nft = |rule: &str| client.run("nft", &rule.split(' ').collect::<Vec<_>>()).unwrap();
    talk.go_on(BREATH).unwrap();
    assert_eq!(figure(&kernel_says(&lab, Side::Client), "delivered_ce"), 0, "nothing was marked yet");

    nft("add table ip marks");
    nft("add chain ip marks out { type filter hook output priority 0 ; }");
    nft("add rule ip marks out ip ecn ect0 ip ecn set ce");
    talk.go_on(BREATH).unwrap();
    let on_lane = figure(&kernel_says(&lab, Side::Client), "delivered_ce");
    assert!(on_lane > 0, "marks were not echoed: {}", kernel_says(&lab, Side::Client));

    // The kernel takes every packet of ours for one that may be marked.
    let seen = client.run("nstat", &["-asz", "IpExtInECT0Pkts"]).unwrap();
    let seen = seen
        .lines()
        .find_map(|line| line.strip_prefix("IpExtInECT0Pkts")?.split_whitespace().next()?.parse::<u64>().ok());
    assert!(seen.is_some_and(|count| count >= BREATH), "{seen:?}");

    demote(&lab, &mut talk);
    let server = kernel_says(&lab, Side::Server);
    assert!(server.contains(" ecn "), "the agreement is kept: {server}");
    talk.go_on(BREATH).unwrap();
    let after = figure(&kernel_says(&lab, Side::Client), "delivered_ce");
    assert!(after > on_lane, "{after} {on_lane}");
    talk.end().unwrap();
}

#[test]
fn the_sockets_own_congestion_control_goes_to_the_lane() {
    for name in ["bbr", "reno"] {
        let (lab, mut talk) = server_on_the_lane(&format!("net.ipv4.tcp_congestion_control={name}"));
        let said = lab.underpass(&["ss", "--json"]).unwrap();
        assert!(said.replace(' ', "").contains(&format!("\"congestion\":\"{name}\"")), "{name}: {said}");
        talk.go_on(BREATH).unwrap();
        talk.end().unwrap();
    }
}

/// 100 ms there and back, 330 segments in flight.
const LONG: LinkSpec = LinkSpec { delay: 50_000_000, rate: 40_000_000, queue: 1 << 20, ..LinkSpec::CLEAN };

#[test]
fn a_window_goes_to_the_kernel_and_back_with_its_connection() {
    let lab = Lab::with_daemon(LabOptions { link: Some(LONG), ..LabOptions::default() }).unwrap();
    let mut talk = Talk::start(&lab, TRAFFIC, Kind::Flood, Preload::Client, &[EAGER]).unwrap();
    let pid = talk.program(Side::Client).pid().to_string();
    let mut await_window = |what: &str, wanted: &dyn Fn(&SocketView) -> bool| {
        let mut cwnd = 0;
        let seen = |socket: &SocketView| {
            cwnd = socket.cwnd;
            wanted(socket)
        };
        talk.await_connection(&lab, Side::Client, what, seen).unwrap_or_else(|error| panic!("{error}"));
        cwnd
    };
    let grown = await_window("a large window on the lane", &|socket| socket.cwnd >= 250);
    lab.underpass(&["demote", "-p", &pid, "--all"]).unwrap();
    // Beginning anew, it would have ten segments, and twice as many after each 100 ms.
    let then = await_window("the lane again", &|socket| socket.tier == "xdp" && socket.promoted >= 2);
    assert!(then >= grown / 2, "{grown} segments at first, then {then}");
    talk.end().unwrap();
}
