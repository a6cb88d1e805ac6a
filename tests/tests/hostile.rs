//! Wire, control socket and arena in the hands of somebody with bad intentions, or bad luck.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use underpass_lab::{Kind, Lab, LabOptions, Preload, Profile, Side, Talk, wait_for};
use underpass_stack::arena::{self, ARENA_LEN, ArenaHeader};
use underpass_stack::control::{
    AdoptConn, AdoptPort, Attach, Demote, DemoteForeign, FrameRef, Hello, Inject, MAX_INJECT, Message, Promote,
    Refused, Restore, Status, Welcome, kind_of,
};
use underpass_stack::mem::Region;

const TRAFFIC: &str = env!("CARGO_BIN_EXE_traffic");
const FRAMES: &str = env!("CARGO_BIN_EXE_frames");
const LIMIT: Duration = Duration::from_secs(20);
const EAGER: (&str, &str) = ("UNDERPASS_PROMOTE", "eager");

fn lab() -> Lab {
    Lab::with_daemon(LabOptions { profile: Profile::Release, ..LabOptions::default() }).unwrap()
}

fn mac(lab: &Lab, side: Side) -> String {
    let host = lab.host(side);
    let text = host.namespace.ip(&["-o", "link", "show", &host.interface]).unwrap();
    text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap().to_owned()
}

/// Local and remote port of the server's connection.
fn ends(lab: &Lab, pid: u32) -> (String, String) {
    let text = lab.underpass(&["ss", "-p", &pid.to_string()]).unwrap();
    let line = text.lines().find(|line| line.contains("ESTAB")).unwrap();
    let mut words = line.split_whitespace().skip(2).map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

#[test]
fn malformed_frames_are_counted_and_harm_nothing() {
    let lab = lab();
    let mut talk = Talk::start(&lab, TRAFFIC, Kind::PingPong(500), Preload::Server, &[EAGER]).unwrap();
    talk.await_lane(&lab, Side::Server).unwrap();
    let pid = talk.program(Side::Server).pid();
    let (local, remote) = ends(&lab, pid);
    let interface = &lab.host(Side::Client).interface;
    let args = [interface.as_str(), &mac(&lab, Side::Client), &mac(&lab, Side::Server), &remote, &local, "200"];
    let send = || {
        let mut command = lab.command(Side::Client, FRAMES).unwrap();
        let mut sender = lab.spawn("frames", command.args(args)).unwrap();
        let sent: u64 = sender.expect_line("sent:", LIMIT).unwrap().parse().unwrap();
        assert!(sent >= 200 * 25, "only {sent} frames went out");
    };
    // These go to the stack and nowhere else; the rest the kernel may have got as well. Segments with broken options are segments.
    let wanted = [("rx_bad_checksum", 400), ("rx_bad_ip_header", 200), ("rx_out_of_window", 200)];
    let counters = || wanted.map(|(counter, _)| lab.counter(pid, counter).unwrap());
    // A program that does not run for some milliseconds misses frames of such a burst: then all come again.
    let mut seen = Vec::new();
    wait_for("all frames of one burst to be counted", LIMIT, || {
        let before = counters();
        let counted = || counters().into_iter().zip(before).map(|(now, before)| now - before).collect::<Vec<_>>();
        let all_counted = || counted().iter().zip(wanted).all(|(&counted, (_, wanted))| counted >= wanted);
        send();
        let whole = wait_for("a burst to be counted", LIMIT / 10, all_counted).is_ok();
        seen.push(counted());
        whole
    })
    .unwrap_or_else(|error| panic!("{error}: {seen:?} of {wanted:?}"));
    talk.go_on(1000).unwrap();
    let socket = talk.connection(&lab, Side::Server).unwrap();
    assert_eq!((socket.tier.as_str(), socket.demoted), ("xdp", 0), "{socket:?}");
    assert_eq!(lab.counter(pid, "panics").unwrap(), 0);
    talk.end().unwrap();
}

/// A session with the daemon, in wrong hands.
struct Intruder(OwnedFd);

impl Intruder {
    fn connect(path: &Path) -> Self {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        connect(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        let limit = TimeVal::seconds(20);
        nix::sys::socket::setsockopt(&fd, nix::sys::socket::sockopt::ReceiveTimeout, &limit).unwrap();
        Self(fd)
    }

    /// Says something; the daemon may have hung up before.
    fn say(&self, bytes: &[u8], fds: &[RawFd]) {
        let parts = [IoSlice::new(bytes)];
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights[..] };
        let _ = sendmsg::<()>(self.0.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None);
    }

    /// The kind of the daemon's answer; `None` if it hung up.
    fn answer(&self) -> Option<u16> {
        let mut buffer = [0; 4096];
        match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(0) | Err(nix::errno::Errno::ECONNRESET | nix::errno::Errno::EPIPE) => None,
            Ok(len) => Some(kind_of(&buffer[..len]).unwrap()),
            Err(error) => panic!("the daemon neither answers nor hangs up: {error}"),
        }
    }

    /// A message that must be refused, in whichever way.
    fn refused(&self, what: &str, bytes: &[u8], fds: &[RawFd]) {
        self.say(bytes, fds);
        let answer = self.answer();
        assert!(answer.is_none_or(|kind| kind == Refused::KIND), "{what} was answered with {answer:?}");
    }

    /// Says hello with an arena of zeros.
    fn hello(&self, arena: &Region) -> Option<u16> {
        self.say(&hello().encode(), &[arena.fd().unwrap().as_raw_fd()]);
        self.answer()
    }
}

fn hello() -> Hello {
    Hello { pid: 1, pad: 0, name: [b'x'; 32] }
}

#[test]
fn nonsense_on_the_control_socket_ends_a_session_and_nothing_else() {
    let mut lab = lab();
    let path = lab.daemon().unwrap().socket().to_owned();
    let mut talk = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Server, &[EAGER]).unwrap();
    talk.await_lane(&lab, Side::Server).unwrap();
    let pipe = nix::unistd::pipe().unwrap();
    let promote = Promote { slot: 0, generation: 0 }.encode();
    let mut wrong_magic = promote.clone();
    wrong_magic[0] ^= 0xff;
    let mut wrong_version = promote.clone();
    wrong_version[4] ^= 0xff;
    let mut unknown = promote.clone();
    unknown[6..8].copy_from_slice(&4321u16.to_ne_bytes());
    let cases: [(&str, Vec<u8>); 9] = [
        ("a short header", promote[..5].to_vec()),
        ("a wrong magic number", wrong_magic),
        ("another version", wrong_version),
        ("an unknown kind", unknown),
        ("a truncated body", promote[..promote.len() - 1].to_vec()),
        ("a body too long", [promote.clone(), vec![0]].concat()),
        ("a promotion before the hello", promote.clone()),
        ("an answer instead of a question", Welcome { daemon_pid: 1, session: 1 }.encode()),
        ("a message of 64 KiB", vec![0x55; 65_536]),
    ];
    for (what, bytes) in cases {
        Intruder::connect(&path).refused(what, &bytes, &[]);
        Intruder::connect(&path).refused(what, &bytes, &[pipe.0.as_raw_fd(), pipe.1.as_raw_fd()]);
        talk.go_on(5).unwrap();
    }
    Intruder::connect(&path).refused("a hello without arena", &hello().encode(), &[]);
    Intruder::connect(&path).refused("a pipe as arena", &hello().encode(), &[pipe.0.as_raw_fd()]);
    let small = Region::create(c"small", 4096).unwrap();
    small.seal().unwrap();
    Intruder::connect(&path).refused("a small arena", &hello().encode(), &[small.fd().unwrap().as_raw_fd()]);
    let unsealed = Region::create(c"unsealed", ARENA_LEN).unwrap();
    Intruder::connect(&path).refused(
        "an arena that can shrink",
        &hello().encode(),
        &[unsealed.fd().unwrap().as_raw_fd()],
    );
    for _ in 0..50 {
        drop(Intruder::connect(&path));
    }
    talk.go_on(100).unwrap();
    let socket = talk.connection(&lab, Side::Server).unwrap();
    assert_eq!((socket.tier.as_str(), socket.demoted), ("xdp", 0));
    talk.end().unwrap();
}

#[test]
fn a_client_cannot_ask_for_what_is_not_its_own() {
    let mut lab = lab();
    let path = lab.daemon().unwrap().socket().to_owned();
    let mut talk = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Server, &[EAGER]).unwrap();
    talk.await_lane(&lab, Side::Server).unwrap();
    let mut arena = Region::create(c"arena", ARENA_LEN).unwrap();
    arena.seal().unwrap();
    let header = arena.get_mut::<ArenaHeader>(0).unwrap();
    (header.magic, header.version, header.len) = (arena::MAGIC, arena::VERSION, ARENA_LEN as u64);
    let session = || {
        let intruder = Intruder::connect(&path);
        assert_eq!(intruder.hello(&arena), Some(Welcome::KIND));
        intruder
    };
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let (udp, listener, file) = (udp.as_fd().as_raw_fd(), listener.as_raw_fd(), file.as_raw_fd());
    for slot in [0, 1, 16_383, 16_384, u32::MAX] {
        let promote = Promote { slot, generation: 1 }.encode();
        for fds in [&[][..], &[udp], &[listener], &[file], &[udp, listener]] {
            session().refused("a promotion", &promote, fds);
        }
        session().refused("a demotion", &Demote { slot, generation: 0 }.encode(), &[]);
        let adopt = AdoptConn { slot, generation: 1, port: slot, restore: Restore::default() };
        session().refused("an adoption", &adopt.encode(), &[listener]);
    }
    for (number, size) in [(0, 2048), (1, 0), (u32::MAX, u32::MAX), (1, 3000)] {
        let attach =
            Attach { ifindex: number, frame_size: size, frame_count: u32::MAX, rx_ring: 7, tx_ring: 0, port: number };
        session().refused("an attachment", &attach.encode(), &[arena.fd().unwrap().as_raw_fd(), udp]);
        session().refused("an attachment", &attach.encode(), &[udp]);
        let adopt = AdoptPort { attach, xsk_base: u32::MAX, queues: u32::MAX };
        session().refused("an adoption", &adopt.encode(), &[udp, listener]);
    }
    for count in [0, 1, MAX_INJECT as u32, u32::MAX] {
        let frames = [FrameRef { addr: u32::MAX - 10, len: u32::MAX }; MAX_INJECT];
        session().refused("an injection", &Inject { port: count, count, frames }.encode(), &[]);
    }
    session().refused("a foreign socket", &DemoteForeign { pad: 0 }.encode(), &[file]);
    // An honest question is still answered, and the living connection has not noticed.
    let curious = Intruder::connect(&path);
    curious.say(&Status { pad: 0 }.encode(), &[]);
    assert!(curious.answer().is_some());
    talk.go_on(200).unwrap();
    let socket = talk.connection(&lab, Side::Server).unwrap();
    assert_eq!((socket.tier.as_str(), socket.demoted), ("xdp", 0));
    talk.end().unwrap();
}

#[test]
fn a_program_that_scribbles_over_its_arena_harms_only_itself() {
    let mut lab = lab();
    // The bystander's lane is on the server's interface, the scribbler's on the client's.
    let mut bystander = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Server, &[EAGER]).unwrap();
    bystander.await_lane(&lab, Side::Server).unwrap();
    let address = lab.host(Side::Server).v4;
    let mut serve = lab.command(Side::Server, TRAFFIC).unwrap();
    let mut echo = lab.spawn("echo", serve.args(["echo", &format!("{address}:0")])).unwrap();
    let port = echo.expect_line("port:", LIMIT).unwrap();
    for _ in 0..3 {
        let mut command = lab.preloaded(Side::Client, TRAFFIC).unwrap();
        command.env(EAGER.0, EAGER.1).args(["scribble", &format!("{address}:{port}")]);
        let mut scribbler = lab.spawn("scribbler", &mut command).unwrap();
        assert_eq!(scribbler.expect_line("scribbled over:", LIMIT).unwrap(), "1", "{}", scribbler.stderr());
        // However it ends; it may have to be ended.
        let _ = scribbler.wait(Duration::from_secs(3));
        scribbler.kill();
        bystander.go_on(500).unwrap();
    }
    assert!(lab.daemon().unwrap().process().exited().is_none(), "the daemon has ended");
    let socket = bystander.connection(&lab, Side::Server).unwrap();
    assert_eq!((socket.tier.as_str(), socket.demoted), ("xdp", 0));
    // The queue of the scribbler is free again.
    let mut next = Talk::start(&lab, TRAFFIC, Kind::PingPong(64), Preload::Client, &[EAGER]).unwrap();
    next.await_lane(&lab, Side::Client).unwrap();
    next.end().unwrap();
    bystander.end().unwrap();
}
