//! Peers that fall silent while their connection is on the lane: noticed when the program wants it, kept if they come back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use underpass_lab::{Lab, LabOptions, Process, Profile, Side, wait_for};

const TRAFFIC: &str = env!("CARGO_BIN_EXE_traffic");
const LIMIT: Duration = Duration::from_secs(40);

/// An echo server. The first SIGUSR1 lets it owe the answer to a request, the second go on in a way of its own:
/// - `talks MS`: small messages at short intervals, until that fails; TCP_USER_TIMEOUT is so long.
/// - `listens`: until that fails; keepalive probes ask from 2 s of silence on, three times a second apart.
/// - `waits MS`: as an echo server, with the answer that it owes; it shows TCP_USER_TIMEOUT as the program sees it and as the kernel has it.
///
/// At SIGUSR2 it has no free descriptor any more, or some again; with a last word `passes`, it sends the socket to itself over a socket pair.
const SERVER: &str = r#"
import ctypes, errno, fcntl, os, resource, signal, socket, struct, sys, termios, time
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
how, patience = sys.argv[2], int(sys.argv[3])
there, here = socket.socketpair()
def limit(*_):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if soft == 3 else 3, hard))
    print("descriptors:" if soft == 3 else "no descriptors:", flush=True)
def passes(*_):
    socket.send_fds(there, [b"x"], [peer.fileno()])
    print("passed:", flush=True)
signal.signal(signal.SIGUSR2, passes if "passes" in sys.argv else limit)
listener = socket.create_server((sys.argv[1], 0))
print("port:", listener.getsockname()[1], flush=True)
peer, _ = listener.accept()
TCP, USER = socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT
if how == "listens":
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (socket.TCP_KEEPIDLE, 2), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3):
        peer.setsockopt(TCP, name, value)
else:
    peer.setsockopt(TCP, USER, patience)
while True:
    request = peer.recv(65536)
    if told:
        break
    peer.sendall(request)
while struct.unpack("i", fcntl.ioctl(peer, termios.TIOCOUTQ, bytes(4)))[0]:
    time.sleep(0.01)
print("quiet:", flush=True)
while len(told) < 2:
    time.sleep(0.01)

libc, last = ctypes.CDLL(None), []
def kernel_has():
    value, size = ctypes.c_int(), ctypes.c_uint(4)
    number = {"x86_64": 55, "aarch64": 209}[os.uname().machine]
    assert libc.syscall(number, peer.fileno(), TCP, USER, ctypes.byref(value), ctypes.byref(size)) == 0
    return value.value
def show():
    now = "values: %d %d" % (peer.getsockopt(TCP, USER), kernel_has())
    if last != [now]:
        last[:] = [now]
        print(now, flush=True)

since = time.monotonic()
try:
    if how == "listens":
        peer.recv(65536)
    while how == "talks":
        peer.sendall(b"x" * 100)
        time.sleep(0.1)
    peer.settimeout(0.05)
    while request:
        peer.sendall(request)
        request = None
        while request is None:
            show()
            try:
                request = peer.recv(65536)
            except TimeoutError as error:
                if error.errno:
                    raise
except OSError as error:
    print("ended: %s %.3f" % (errno.errorcode[error.errno], time.monotonic() - since), flush=True)
"#;

/// A server that is preloaded or not, with a plain client.
struct Pair {
    server: Process,
    client: Process,
    progress: PathBuf,
}

impl Pair {
    /// Until the client waits for an answer, and nothing is in flight.
    fn start(lab: &Lab, name: &str, how: &[&str], preloaded: bool) -> Self {
        let mut command = match preloaded {
            true => lab.preloaded(Side::Server, "python3").unwrap(),
            false => lab.command(Side::Server, "python3").unwrap(),
        };
        command.env("UNDERPASS_PROMOTE", "eager").args(["-c", SERVER, &lab.listening().to_string()]).args(how);
        let mut server = lab.spawn(&format!("{name}-server"), &mut command).unwrap();
        let port = server.expect_line("port:", LIMIT).unwrap().parse().unwrap();
        let progress = lab.dir().join(format!("{name}-progress"));
        let client = plain_client(lab, name, SocketAddr::new(lab.address(), port), &progress);
        let mut pair = Self { server, client, progress };
        pair.go_on();
        if preloaded {
            wait_for("lane xdp", LIMIT, || pair.is_on_lane(lab, 1)).unwrap();
        }
        pair.server.signal(libc::SIGUSR1).unwrap();
        pair.server.expect_line("quiet:", LIMIT).unwrap();
        pair
    }

    fn is_on_lane(&self, lab: &Lab, times: u64) -> bool {
        let sockets = lab.sockets(self.server.pid()).unwrap_or_default();
        sockets.iter().any(|socket| socket.tier == "xdp" && socket.promoted >= times)
    }

    fn go_on(&mut self) {
        let rounds = || u64::from_ne_bytes(std::fs::read(&self.progress).unwrap()[..8].try_into().unwrap());
        let goal = rounds() + 200;
        wait_for("the conversation to go on", LIMIT, || rounds() >= goal)
            .unwrap_or_else(|error| panic!("{error}\n{}\n{}", self.client.stderr(), self.server.stderr()));
    }

    /// With which error, and after how many seconds.
    fn ended(&mut self) -> (String, f64) {
        let line = self.server.expect_line("ended:", LIMIT).unwrap();
        let (error, seconds) = line.split_once(' ').unwrap();
        (error.to_owned(), seconds.parse().unwrap())
    }

    fn shows(&self, what: &str) -> usize {
        self.server.stdout().lines().filter(|line| line.strip_prefix("values: ") == Some(what)).count()
    }
}

fn plain_client(lab: &Lab, name: &str, to: SocketAddr, progress: &Path) -> Process {
    std::fs::write(progress, [0; 16]).unwrap();
    let mut command = lab.command(Side::Client, TRAFFIC).unwrap();
    command.args(["pingpong", &to.to_string()]).arg(progress).arg("64");
    lab.spawn(&format!("{name}-client"), &mut command).unwrap()
}

fn lab() -> Lab {
    Lab::with_daemon(LabOptions { profile: Profile::Release, ..LabOptions::default() }).unwrap()
}

/// The client's host neither hears nor says anything any more.
fn cut(lab: &Lab) {
    let nft = |rule: &str| lab.host(Side::Client).namespace.run("nft", &rule.split(' ').collect::<Vec<_>>()).unwrap();
    nft("add table inet cut");
    nft("add chain inet cut in { type filter hook input priority 0 ; policy drop ; }");
    nft("add chain inet cut out { type filter hook output priority 0 ; policy drop ; }");
}

fn mend(lab: &Lab) {
    lab.host(Side::Client).namespace.run("nft", &["delete", "table", "inet", "cut"]).unwrap();
}

/// A server in the kernel and one on the lane lose their peers at the same moment.
fn is_noticed_hardly_later_than_by_the_kernel(how: &[&str]) {
    let lab = lab();
    let mut pairs = ["kernel", "lane"].map(|on| Pair::start(&lab, on, how, on == "lane"));
    cut(&lab);
    pairs.iter().for_each(|pair| pair.server.signal(libc::SIGUSR1).unwrap());
    let [kernel, lane] = pairs.each_mut().map(Pair::ended);
    let found = format!("kernel: {kernel:?}, lane: {lane:?}");
    println!("{how:?}: {found}");
    assert_eq!((kernel.0.as_str(), lane.0.as_str()), ("ETIMEDOUT", "ETIMEDOUT"), "{found}");
    // A connection that has come back waits for a timeout of the kernel's (which knows no round trip: a probe after 1 s, then 3 s), or for the
    // answer to one more keepalive probe.
    assert!(lane.1 > kernel.1 - 1.0 && lane.1 < kernel.1 + 5.0, "{found}");
}

#[test]
fn a_dead_peer_is_noticed_in_time_on_the_lane() {
    is_noticed_hardly_later_than_by_the_kernel(&["talks", "4000"]);
}

#[test]
fn a_dead_peer_is_noticed_in_time_after_the_lane() {
    is_noticed_hardly_later_than_by_the_kernel(&["talks", "9000"]);
}

#[test]
fn a_dead_peer_is_noticed_in_time_by_keepalive_probes() {
    is_noticed_hardly_later_than_by_the_kernel(&["listens", "0"]);
}

/// A server on the lane whose peer is silent: the kernel's socket has what is left of the program's timeout.
struct Lent {
    lab: Lab,
    pair: Pair,
}

impl Lent {
    fn begin(how: &[&str]) -> Self {
        let lab = lab();
        let pair = Pair::start(&lab, "lane", how, true);
        cut(&lab);
        pair.server.signal(libc::SIGUSR1).unwrap();
        let is_lent = || {
            pair.server.stdout().lines().any(|line| {
                let values = line.strip_prefix("values: 60000 ").and_then(|kernel| kernel.parse::<u64>().ok());
                values.is_some_and(|kernel| (40_000..59_000).contains(&kernel))
            })
        };
        wait_for("the kernel to have less time than the program gave", LIMIT, is_lent)
            .unwrap_or_else(|error| panic!("{error}\n{}{}", pair.server.stdout(), lab.report()));
        assert!(!pair.is_on_lane(&lab, 1));
        Self { lab, pair }
    }

    /// The peer is reached again, and `then` something is done: the kernel has the program's timeout back.
    fn is_given_back_after(&mut self, then: impl FnOnce(&mut Self)) {
        let (before, moved) = (self.pair.shows("60000 60000"), self.pair.server.stdout());
        then(self);
        let Self { lab, pair } = self;
        wait_for("the kernel to have the program's time", LIMIT, || pair.shows("60000 60000") > before)
            .unwrap_or_else(|error| panic!("{error}\n{moved}{}{}", pair.server.stdout(), lab.report()));
    }

    fn comes_back_to_the_lane(mut self) {
        let Self { lab, pair } = &mut self;
        pair.go_on();
        wait_for("lane xdp again", LIMIT, || pair.is_on_lane(lab, 2)).unwrap();
        pair.go_on();
        assert!(pair.client.exited().is_none() && pair.server.exited().is_none());
    }
}

#[test]
fn a_peer_that_is_heard_of_again_keeps_its_connection_and_comes_back_to_the_lane() {
    let mut lent = Lent::begin(&["waits", "60000"]);
    lent.is_given_back_after(|lent| mend(&lent.lab));
    lent.comes_back_to_the_lane();
}

#[test]
fn a_program_without_a_free_descriptor_has_its_timeout_back_when_there_is_one() {
    let mut lent = Lent::begin(&["waits", "60000"]);
    lent.pair.server.signal(libc::SIGUSR2).unwrap();
    lent.pair.server.expect_line("no descriptors:", LIMIT).unwrap();
    mend(&lent.lab);
    lent.pair.go_on();
    lent.is_given_back_after(|lent| {
        lent.pair.server.signal(libc::SIGUSR2).unwrap();
        lent.pair.server.expect_line("descriptors:", LIMIT).unwrap();
    });
    lent.comes_back_to_the_lane();
}

/// Whoever gets the socket gets it with the program's timeout, although the peer is still silent.
#[test]
fn a_socket_is_passed_on_with_its_own_timeout() {
    let mut lent = Lent::begin(&["waits", "60000", "passes"]);
    lent.is_given_back_after(|lent| {
        lent.pair.server.signal(libc::SIGUSR2).unwrap();
        lent.pair.server.expect_line("passed:", LIMIT).unwrap();
    });
}
