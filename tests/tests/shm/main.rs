//! The shm lane at its edges: programs that die, stop, fork, hand connections on, or lie. Both ends are on one host; the scenes are in
//! `scenes.py`, and what they print is compared with a plain run wherever the kernel can say what is right.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use underpass_lab::{Neighbourhood, Process, Profile, wait_for};
use underpass_stack::lane::Reason;

const TRAFFIC: &str = env!("CARGO_BIN_EXE_traffic");
const SCENES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shm/scenes.py");
const SIGKILL: i32 = 9;
const LIMIT: Duration = Duration::from_secs(20);
/// For scenes that move much.
const LONG: Duration = Duration::from_secs(150);

fn host() -> Neighbourhood {
    Neighbourhood::new(Profile::Release).unwrap()
}

fn command(host: &Neighbourhood, preloaded: bool, program: &str) -> Command {
    if !preloaded {
        return host.command(program).unwrap();
    }
    let mut command = host.preloaded(program).unwrap();
    command.env("UNDERPASS_PROMOTE", "eager").env("UNDERPASS_LOG", "info");
    command
}

/// One run of a scene: what the two programs printed.
fn play(host: &Neighbourhood, scene: &str, preloaded: bool, env: &[(&str, &str)], limit: Duration) -> String {
    let dir = fresh_dir(host, scene);
    let start = |role: &str| {
        // Somebody who calls at the meeting place finds one end there if the other one does not come.
        let alone = env.iter().any(|(_, value)| value.starts_with("calls"));
        let mut command = command(host, preloaded && !(alone && role == "ask"), "python3");
        command.arg(SCENES).args([scene, role]).arg(&dir).envs(env.iter().copied()).env("PYTHONDONTWRITEBYTECODE", "1");
        Process::spawn(&format!("{scene}-{role}"), &mut command, host.dir()).unwrap()
    };
    let (mut serve, mut ask) = (start("serve"), start("ask"));
    let ended = ask.wait(limit).and_then(|_| serve.wait(limit));
    let text = format!("serve:\n{}ask:\n{}", serve.stdout(), ask.stdout());
    let status = ended.as_ref().is_ok_and(|_| {
        [&mut ask, &mut serve].into_iter().all(|one| one.exited().is_some_and(|s| ended_well(scene, s)))
    });
    assert!(
        status,
        "{scene}, preloaded: {preloaded}: {ended:?}\n{text}serve: {}\nask: {}",
        tail(&serve.stderr()),
        tail(&ask.stderr())
    );
    text
}

/// Some scenes have a program kill itself.
fn ended_well(scene: &str, status: ExitStatus) -> bool {
    status.success() || scene.starts_with("left_killed") && status.signal() == Some(SIGKILL)
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

fn fresh_dir(host: &Neighbourhood, name: &str) -> PathBuf {
    let dir = host.dir().join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir(&dir).unwrap();
    dir
}

/// The scene prints the same on plain sockets and on the lane.
fn same(scenes: &[&str]) {
    let host = host();
    let differences: Vec<String> = scenes
        .iter()
        .filter_map(|scene| {
            let plain = play(&host, scene, false, &[], LIMIT * 2);
            let laned = play(&host, scene, true, &[], LIMIT * 2);
            (plain != laned).then(|| format!("{scene}:\nplain:\n{plain}preloaded:\n{laned}"))
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// A flood from one program to another, both on the lane.
struct Flood {
    drain: Process,
    flood: Process,
    progress: File,
}

impl Flood {
    fn start(host: &Neighbourhood) -> Self {
        let mut drain =
            Process::spawn("drain", command(host, true, TRAFFIC).args(["drain", "127.0.0.1:0"]), host.dir()).unwrap();
        let port = drain.expect_line("port:", LIMIT).unwrap();
        let path = host.dir().join("progress");
        std::fs::write(&path, [0; 16]).unwrap();
        let to = format!("127.0.0.1:{port}");
        let mut flood = command(host, true, TRAFFIC);
        let flood = Process::spawn("flood", flood.args(["flood", &to]).arg(&path), host.dir()).unwrap();
        let progress = File::open(&path).unwrap();
        let mut this = Self { drain, flood, progress };
        let pids = [this.drain.pid(), this.flood.pid()];
        wait_for("both ends on the lane", LIMIT, || {
            let connections = host.connections().unwrap_or_default();
            pids.iter().all(|pid| connections.iter().any(|one| one.pid == *pid && one.socket.tier == "shm"))
        })
        .unwrap_or_else(|error| panic!("{error}: {:?} {}", host.connections(), this.flood.stderr()));
        this.go_on(1);
        this
    }

    fn written(&self) -> u64 {
        let mut bytes = [0; 8];
        self.progress.read_exact_at(&mut bytes, 0).unwrap();
        u64::from_ne_bytes(bytes)
    }

    fn go_on(&mut self, more: u64) {
        let goal = self.written() + more;
        wait_for("the flood to go on", LIMIT, || self.written() >= goal)
            .unwrap_or_else(|error| panic!("{error}: {}{}", tail(&self.drain.stderr()), tail(&self.flood.stderr())));
    }
}

#[test]
fn a_killed_writers_bytes_arrive_in_order_and_then_the_end() {
    let host = host();
    for round in 0..30u64 {
        let mut flood = Flood::start(&host);
        flood.go_on(round * 997_331 % 3_000_000);
        flood.flood.kill();
        let written = flood.written();
        let said = flood.drain.expect_line("done:", LIMIT).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let (received, how) = said.split_once(' ').unwrap();
        let received: u64 = received.parse().unwrap();
        assert!(received >= written, "round {round}: {received} of {written} bytes arrived, {how}");
    }
}

#[test]
fn a_killed_readers_peer_hears_of_it() {
    let host = host();
    for round in 0..30u64 {
        let mut flood = Flood::start(&host);
        flood.go_on(round * 997_331 % 3_000_000);
        flood.drain.kill();
        let status = flood.flood.wait(LIMIT).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let complaint = flood.flood.stderr();
        let told = complaint.contains("Broken pipe") || complaint.contains("Connection reset");
        assert!(!status.success() && told, "round {round}: {status} {complaint}");
    }
}

#[test]
fn a_stopped_program_holds_up_its_peer_as_a_full_socket_does() {
    // What the kernel's buffers take is the kernel's secret; the rest is not.
    let text = play(&host(), "stopped", true, &[], LIMIT * 2);
    let round = "poll []\nin time True\nselect ([], [], [])\na blocking write waits True\nthen it goes on True\n";
    assert!(text.contains(&format!("ask:\n{round}{round}over and out")), "{text}");
    let received: Vec<&str> = text.lines().filter(|line| line.starts_with("received 25165824 ")).collect();
    assert!(received.len() == 2 && received[0] == received[1], "{text}");
    assert!(text.contains("nothing comes EAGAIN\nreceived 1000 "), "{text}");
}

#[test]
fn bulk_in_both_directions_arrives_whole_while_both_ends_leave_and_come_back() {
    let host = host();
    let text = play(&host, "leaving", true, &[], LONG);
    assert_eq!(text.matches("over True []").count(), 2, "{text}");
    for role in ["serve", "ask"] {
        let log = std::fs::read_to_string(host.dir().join(format!("leaving-{role}.err"))).unwrap();
        let left = log.matches(": parted:").count();
        println!("{role}: left the lane {left} times");
        assert!(left >= 2, "{role}: {}", tail(&log));
    }
}

#[test]
fn calls_that_force_a_connection_off_the_lane_cost_no_byte() {
    same(&["options", "urgent_unread"]);
}

#[test]
fn other_processes_get_what_was_waiting() {
    same(&["exec_waiting", "pass_waiting", "lent", "duplicates"]);
}

/// What is read, by whom, and what the sender hears of it.
#[test]
fn what_an_ended_sender_has_left_can_be_handed_on() {
    let senders = ["shuts", "closes", "exits", "killed", "stops"];
    let scenes = senders.iter().flat_map(|how| ["spawn", "passed"].map(|on| format!("left_{how}_{on}")));
    let others = [
        "left_shuts_child",
        "left_closes_execute",
        "left_finishes_passed",
        "left_becomes_passed",
        "left_narrow_passed",
    ];
    let scenes: Vec<String> = scenes.chain(others.map(str::to_owned)).collect();
    same(&scenes.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_small_send_buffer_is_made_larger_for_what_is_left() {
    let text = play(&host(), "left_tight_passed", true, &[], LIMIT * 2);
    assert!(text.contains("\npassed 70000 "), "{text}");
    let sizes: Vec<&str> = text.lines().filter(|line| line.starts_with("buffer ")).collect();
    assert!(sizes.len() == 2 && sizes[0] == sizes[1], "{text}");
}

#[test]
fn the_kernel_can_do_its_calls_with_what_an_ended_sender_has_left() {
    same(&["left_shuts_bound", "left_shuts_both_bound", "left_exits_bound", "left_closes_spliced"]);
}

#[test]
fn what_is_in_the_ring_and_in_the_kernel_is_read_once() {
    let scenes = ["shuts", "shuts_both", "closes", "exits", "finishes", "becomes", "killed", "narrow"];
    same(&scenes.map(|how| format!("left_{how}_read")).iter().map(String::as_str).collect::<Vec<_>>());
    same(&["left_all_read", "left_all_read_at_exit", "left_for_one_side"]);
}

#[test]
fn what_a_killed_sender_has_left_can_be_read() {
    let host = host();
    let text = play(&host, "left_killed_unshut_bound", true, &[], LIMIT * 2);
    assert!(text.contains("bind EAGAIN\nread 70000 "), "{text}");
    // Another process finds the end, and does not wait for more.
    let text = play(&host, "left_killed_unshut_spawn", true, &[], LIMIT * 2);
    let nothing = "spawned 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  -\n";
    assert!(text.contains(nothing) && text.contains("in time True\nread 70000 "), "{text}");
}

#[test]
fn ends_are_the_kernels() {
    same(&["exits_after_writing", "exits_without_reading", "halves", "unread", "linger_zero", "shut_both"]);
}

#[test]
fn a_peer_that_scribbles_over_shared_memory_harms_only_its_own_connection() {
    let host = host();
    let asked = std::env::var("UNDERPASS_TEST_SEED").ok();
    let first: u64 = asked.map_or(1, |text| text.parse().expect("UNDERPASS_TEST_SEED is a number"));
    for seed in first..first + 12 {
        println!("seed {seed}");
        let text = play(&host, "hostile", true, &[("SCENE_SEED", &seed.to_string())], LIMIT);
        assert!(text.contains("still here True True True"), "seed {seed}: {text}");
    }
}

#[test]
fn a_program_that_exits_delivers_what_its_peer_had_taken_back() {
    // On plain sockets the kernel's small buffers would hold up the writer before.
    let text = play(&host(), "exits_in_debt", true, &[], LIMIT * 2);
    assert!(text.contains("register None\nwhole True end\n"), "{text}");
}

#[test]
fn another_users_program_cannot_take_wake_ups_away() {
    // Threads sleep at once: each message needs a ring.
    let text = play(&host(), "thief", true, &[("UNDERPASS_SPIN_USEC", "0")], LONG);
    for line in ["the thief is on the lane True", "slow rounds 0", "ended True"] {
        assert!(text.contains(line), "{text}");
    }
}

/// Somebody else at the meeting place: the connection stays in the kernel, says why, and goes on. Where it may pass, it passes.
#[test]
fn a_stranger_at_the_meeting_place_only_keeps_a_connection_in_the_kernel() {
    let host = host();
    let cases = [
        ("deaf", Reason::PeerSilent),
        ("crowded", Reason::PeerSilent),
        ("mute", Reason::PeerSilent),
        ("hangup", Reason::PeerSilent),
        ("garbage", Reason::ProtocolError),
        ("wrong", Reason::NotThePeer),
        ("many", Reason::NotThePeer),
        ("user", Reason::AnotherUser),
        ("calls-nothing", Reason::PeerSilent),
        ("calls-garbage", Reason::ProtocolError),
        ("calls-short", Reason::ProtocolError),
        ("calls-wrong", Reason::NotThePeer),
        ("calls-other", Reason::NotThePeer),
        ("calls-many", Reason::ProtocolError),
        ("calls-none", Reason::ProtocolError),
    ];
    for (mode, reason) in cases {
        let text = play(&host, "strangers", true, &[("SCENE_MODE", mode)], LIMIT * 4);
        assert!(text.contains("in the kernel True\nthe stranger 0 []\n"), "{mode}: {text}");
        let log = std::fs::read_to_string(host.dir().join("strangers-serve.err")).unwrap();
        assert!(log.contains(&format!("not joined: {}", reason.text())), "{mode}: {}", tail(&log));
        if !mode.starts_with("calls") {
            let later = if reason.is_passing() { "then laned True" } else { "then laned False" };
            assert!(text.contains(later), "{mode}: {text}");
        }
    }
}

#[test]
fn two_thousand_connections_leave_nothing_behind() {
    let host = host();
    let text = play(&host, "many", true, &[], LONG);
    let log = |role: &str| tail(&std::fs::read_to_string(host.dir().join(format!("many-{role}.err"))).unwrap());
    for line in ["of them laned True", "descriptors True", "memory True"] {
        assert_eq!(text.matches(line).count(), 2, "{text}serve: {}\nask: {}", log("serve"), log("ask"));
    }
}

#[test]
fn one_process_may_hold_both_ends() {
    let host = host();
    let said = |preloaded| {
        let mut command = command(&host, preloaded, "python3");
        command.arg(SCENES).args(["both_ends", "both"]).arg(host.dir()).env("PYTHONDONTWRITEBYTECODE", "1");
        Process::spawn("both", &mut command, host.dir()).unwrap().finish(LONG).unwrap()
    };
    assert_eq!(said(false), said(true));
}
