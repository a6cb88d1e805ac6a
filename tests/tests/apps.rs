//! Well-known programs, preloaded as server, as client and both: their connections are seen on the lane while they work, and
//! what comes of it is what comes of it without the library.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use underpass_lab::{Lab, LabOptions, Preload, Process, Profile, Side, SocketView, wait_for};

const LIMIT: Duration = Duration::from_secs(20);
const AUTO: &str = "auto";
const EAGER: &str = "eager";
/// Lines of a library's log that a failure shows.
const LOG_LINES: usize = 40;

fn lab() -> Lab {
    Lab::with_daemon(LabOptions { profile: Profile::Release, ..LabOptions::default() }).unwrap()
}

/// One run of a server and its clients.
struct Run<'a> {
    lab: &'a Lab,
    preload: Preload,
    /// `UNDERPASS_PROMOTE`.
    promote: &'static str,
}

/// However it is preloaded, the outcome is the one without the library.
fn same_outcome<T: Debug + PartialEq>(lab: &Lab, promote: &'static str, outcome: impl Fn(&Run<'_>) -> T) {
    let plain = outcome(&Run { lab, preload: Preload::Neither, promote });
    for preload in [Preload::Server, Preload::Client, Preload::Both] {
        let run = Run { lab, preload, promote };
        let preloaded = outcome(&run);
        assert_eq!(preloaded, plain, "left: {preload:?} preloaded, right: neither\n{}", run.logs());
    }
}

impl Run<'_> {
    fn address(&self) -> String {
        self.lab.host(Side::Server).v4.to_string()
    }

    /// Starts a program, with the library where it belongs.
    fn spawn(&self, side: Side, words: &[&str]) -> Process {
        let program = words[0];
        let made = match self.preload.covers(side) {
            true => self.lab.preloaded(side, program),
            false => self.lab.command(side, program),
        };
        let mut command = made.unwrap();
        command.args(&words[1..]).env("UNDERPASS_PROMOTE", self.promote).env("UNDERPASS_LOG", "info");
        // Beside what the program says on stderr, which is part of its outcome.
        command.env("UNDERPASS_LOG_FILE", self.log(side)).env("no_proxy", "*");
        let name = if side == Side::Server { "server" } else { "client" };
        let started = self.lab.spawn(name, &mut command);
        started.unwrap_or_else(|error| panic!("{error}: install {program} (scripts/setup.sh)"))
    }

    /// Starts a server and waits until something listens on the port.
    fn serve(&self, words: &[&str], port: u16) -> Process {
        let mut server = self.spawn(Side::Server, words);
        let namespace = &self.lab.host(Side::Server).namespace;
        let listens = || !namespace.run("ss", &["-Htln", &format!("sport = {port}")]).unwrap().is_empty();
        let waited = wait_for("it to listen", LIMIT, || server.exited().is_some() || listens());
        let ended = server.exited();
        if waited.is_err() || ended.is_some() {
            self.fail(&format!("{}: {waited:?}, {ended:?}\n{}{}", words[0], server.stdout(), server.stderr()));
        }
        server
    }

    /// Runs a client to its end; its stdout.
    fn ask(&self, words: &[&str]) -> String {
        self.finish(&mut self.spawn(Side::Client, words))
    }

    /// Waits for a client to end well; its stdout.
    fn finish(&self, client: &mut Process) -> String {
        client.finish(LIMIT).unwrap_or_else(|error| self.fail(&error.to_string()))
    }

    /// Sees, while the client is at work, in each preloaded program (the server's process is `server`) sockets as wanted.
    fn watch(&self, server: u32, client: &mut Process, wanted: impl Fn(Side, &[SocketView]) -> bool) {
        let mut unseen = self.preload.sides();
        let mut last = BTreeMap::new();
        let waited = wait_for("connections on the lane", LIMIT, || {
            let at_work = client.exited().is_none();
            unseen.retain(|&side| {
                let sockets = self.lab.sockets(if side == Side::Server { server } else { client.pid() });
                let seen = sockets.as_ref().is_ok_and(|sockets| wanted(side, sockets));
                if at_work {
                    last.insert(format!("{side:?}"), sockets);
                }
                !seen
            });
            unseen.is_empty() || !at_work
        });
        if !unseen.is_empty() {
            let said = format!("client's stdout: {}\nclient's stderr: {}", client.stdout(), client.stderr());
            self.fail(&format!("not seen on the {unseen:?} ({waited:?}); while it worked: {last:#?}\n{said}"));
        }
    }

    fn log(&self, side: Side) -> PathBuf {
        self.lab.dir().join(format!("{:?}-{side:?}.log", self.preload))
    }

    /// What the library has said at last, on both sides. The lab itself shows what the daemon has said.
    fn logs(&self) -> String {
        let last = |side: Side| {
            let text = std::fs::read_to_string(self.log(side)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("{side:?}'s log:\n{}\n", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
        };
        last(Side::Server) + &last(Side::Client)
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{:?} preloaded, {}: {what}\n{}", self.preload, self.promote, self.logs());
    }
}

/// A connection is on the lane now.
fn on_lane(_: Side, sockets: &[SocketView]) -> bool {
    sockets.iter().any(|socket| socket.tier == "xdp" && socket.state == "ESTAB")
}

/// SHA-256 of a file, in hexadecimal.
fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let digest = said.split_whitespace().next().filter(|word| word.len() == 64 && output.status.success());
    digest.unwrap_or_else(|| panic!("sha256sum {}: {output:?}", path.display())).to_owned()
}

/// The only line that contains `mark`.
fn line<'a>(text: &'a str, mark: &str) -> &'a str {
    let found: Vec<&str> = text.lines().filter(|line| line.contains(mark)).collect();
    assert_eq!(found.len(), 1, "lines with '{mark}' in: {text}");
    found[0]
}

/// The number right behind the only `key`.
fn number(text: &str, key: &str) -> u64 {
    let parts: Vec<&str> = text.split(key).collect();
    assert_eq!(parts.len(), 2, "'{key}' is not there once in: {text}");
    let digits = parts[1].split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or_else(|error| panic!("'{key}' in {text}: {error}"))
}

/// How often each command was called and failed, from redis's INFO; how long that took is left out.
fn calls(info: &str) -> Vec<String> {
    let counts = |entry: &str| {
        let (command, figures) = entry.split_once(':').unwrap_or_else(|| panic!("cmdstat_{entry} in {info}"));
        let counts: Vec<&str> = figures.split(',').filter(|figure| figure.contains("calls=")).collect();
        assert!(!counts.is_empty(), "cmdstat_{entry} in {info}");
        format!("{command}: {}", counts.join(" "))
    };
    let mut all: Vec<String> = info.lines().filter_map(|line| line.strip_prefix("cmdstat_")).map(counts).collect();
    assert!(!all.is_empty(), "no command was called: {info}");
    all.sort();
    all
}

#[test]
fn redis_server_and_benchmark() {
    let lab = lab();
    let large: String = (0..20_000).map(|number| format!("{number:05}")).collect();
    same_outcome(&lab, AUTO, |run| {
        let address = run.address();
        let words = ["redis-server", "--bind", &address, "--port", "6379", "--save", "", "--protected-mode", "no"];
        let server = run.serve(&words, 6379);
        let tests = ["-t", "set,get,lrange_100", "-n", "40000", "-c", "20", "-P", "4", "-q"];
        let mut load = run.spawn(Side::Client, &[&["redis-benchmark", "-h", &address], &tests[..]].concat());
        run.watch(server.pid(), &mut load, on_lane);
        run.finish(&mut load);
        let cli = |rest: &[&str]| run.ask(&[&["redis-cli", "-h", &address], rest].concat());
        assert_eq!(cli(&["set", "key", "value"]).trim(), "OK");
        assert_eq!(cli(&["set", "large", &large]).trim(), "OK");
        assert!(cli(&["get", "large"]).trim() == large, "{:?}: the large value is another", run.preload);
        // The benchmark's own keys too, and a counter, which one connection raises many times.
        let questions = ["get key", "get key:__rand_int__", "llen mylist", "lrange mylist 0 4", "-r 300 incr counter"];
        let answers = questions.map(|question| cli(&question.split(' ').collect::<Vec<_>>()));
        (answers, calls(&cli(&["info", "commandstats"])))
    });
}

/// Connections that carry iperf3's streams are on the lane, not only the control connection, which is older than they are.
fn streams_on_lane(sockets: &[SocketView], streams: usize) -> bool {
    let mut established: Vec<&SocketView> = sockets.iter().filter(|socket| socket.state == "ESTAB").collect();
    established.sort_by_key(|socket| std::cmp::Reverse(socket.fd));
    established.len() > streams && established[..streams].iter().all(|socket| socket.tier == "xdp")
}

/// What of an iperf3 report does not depend on speed: what both sides agreed upon, and the streams there were. The rest is
/// to be plausible.
fn agreed(run: &Run<'_>, report: &str) -> (Value, usize) {
    let json: Value = serde_json::from_str(report).unwrap_or_else(|error| run.fail(&format!("{error} in {report}")));
    let bytes = |sum: &str| json["end"][sum]["bytes"].as_u64();
    let (Some(sent), Some(received), None) = (bytes("sum_sent"), bytes("sum_received"), json.get("error")) else {
        run.fail(&format!("an error, or no result: {report}"));
    };
    // What is on its way at the end does not count.
    let plausible = received >= 10_000_000 && received >= sent / 2 && received <= sent;
    assert!(plausible, "{:?}: {received} of {sent} bytes arrived\n{report}", run.preload);
    let streams = json["end"]["streams"].as_array().map_or(0, Vec::len);
    (json["start"]["test_start"].clone(), streams)
}

fn iperf3(streams: usize, options: &[&str]) {
    let lab = lab();
    same_outcome(&lab, EAGER, |run| {
        let address = run.address();
        let mut server = run.serve(&["iperf3", "-s", "-1", "-B", &address], 5201);
        let words = [&["iperf3", "-J", "-t", "2", "-c", &address], options].concat();
        let mut client = run.spawn(Side::Client, &words);
        run.watch(server.pid(), &mut client, |_, sockets| streams_on_lane(sockets, streams));
        let (terms, seen) = agreed(run, &run.finish(&mut client));
        server.finish(LIMIT).unwrap_or_else(|error| run.fail(&error.to_string()));
        assert!(!server.stderr().contains("error"), "{:?}: {}", run.preload, server.stderr());
        assert_eq!((terms["num_streams"].as_u64(), seen), (Some(streams as u64), streams), "{terms}");
        terms
    });
}

#[test]
fn iperf3_sends() {
    iperf3(1, &[]);
}

#[test]
fn iperf3_receives() {
    iperf3(1, &["-R"]);
}

#[test]
fn iperf3_sends_two_streams() {
    iperf3(2, &["-P", "2"]);
}

#[test]
fn sockperf_pingpong() {
    let lab = lab();
    same_outcome(&lab, AUTO, |run| {
        let address = run.address();
        let mut server = run.serve(&["sockperf", "server", "--tcp", "-i", &address, "-p", "11111"], 11111);
        let words = ["sockperf", "ping-pong", "--tcp", "-i", &address, "-p", "11111", "-t", "1", "-m", "64"];
        let mut client = run.spawn(Side::Client, &words);
        run.watch(server.pid(), &mut client, on_lane);
        let said = run.finish(&mut client);
        let counts = |part: &str| ["SentMessages=", "ReceivedMessages="].map(|key| number(line(&said, part), key));
        let ([sent, received], total) = (counts("[Valid Duration]"), counts("[Total Run]"));
        assert!(sent == received && sent > 100, "{:?}: {said}", run.preload);
        // Asked to end, the server says how many messages it has had; the last may have been on its way.
        server.stop();
        let handled = number(line(&server.stdout(), "messages received and handled"), "Total ");
        assert!((total[1]..=total[0]).contains(&handled), "{:?}: {handled} handled\n{said}", run.preload);
        let faults = ["# dropped", "# duplicated", "# out-of-order"];
        let faults = faults.map(|fault| number(line(&said, "# dropped"), &format!("{fault} messages = ")));
        assert_eq!(faults, [0; 3], "{:?}: {said}", run.preload);
        faults
    });
}

/// A document root with files of several sizes.
fn documents(lab: &Lab) -> String {
    let root = lab.dir().join("documents");
    std::fs::create_dir_all(&root).unwrap();
    for (name, len) in [("empty", 0), ("small", 100), ("large", 3_000_000)] {
        let bytes: Vec<u8> = (0..len as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        std::fs::write(root.join(name), bytes).unwrap();
    }
    root.display().to_string()
}

/// Starts nginx; its worker's process id too, since its master only watches over that.
fn nginx(run: &Run<'_>, root: &str, sendfile: &str) -> (Process, u32) {
    let (address, dir) = (run.address(), run.lab.dir().display());
    let config = format!(
        "daemon off; master_process on; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/nginx.err info; user root;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; keepalive_requests 10000; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
         server {{ listen {address}:8080; root {root}; sendfile {sendfile}; }} }}\n"
    );
    let path = format!("{dir}/nginx.conf");
    std::fs::write(&path, config).unwrap();
    let master = run.serve(&["nginx", "-e", "stderr", "-c", &path], 8080);
    let children = format!("/proc/{0}/task/{0}/children", master.pid());
    let mut worker = None;
    let waited = wait_for("nginx's worker", LIMIT, || {
        let pids = std::fs::read_to_string(&children).unwrap_or_default();
        worker = pids.split_whitespace().next().and_then(|pid| pid.parse().ok());
        worker.is_some()
    });
    let worker = worker.unwrap_or_else(|| run.fail(&format!("{waited:?}: {children}, {}", master.stderr())));
    (master, worker)
}

/// How often each status, size and number of new connections was met, and the digest of all that came, in order.
type Fetched = (BTreeMap<String, u32>, String);

/// Has one curl fetch all paths.
fn fetch(run: &Run<'_>, options: &[&str], paths: &[&str], watch: impl Fn(&mut Process)) -> Fetched {
    let told = "%{stderr}%{http_code} %{size_download} %{num_connects}\\n";
    let urls: Vec<String> = paths.iter().map(|path| format!("http://{}:8080/{path}", run.address())).collect();
    let mut words = vec!["curl", "-sS", "--fail", "--fail-early", "-w", told];
    words.extend(options.iter().copied().chain(urls.iter().map(String::as_str)));
    let mut client = run.spawn(Side::Client, &words);
    watch(&mut client);
    run.finish(&mut client);
    let mut met = BTreeMap::new();
    client.stderr().lines().for_each(|line| *met.entry(line.to_owned()).or_insert(0) += 1);
    assert!(met.keys().all(|line| line.starts_with("200 ")), "{:?}: {met:?}", run.preload);
    // curl's stdout.
    (met, sha256(&run.lab.dir().join("client.out")))
}

fn nginx_and_curl(sendfile: &str) {
    let lab = lab();
    let root = documents(&lab);
    // sendfile takes a connection off the lane at each answer: that it was there is all that can be seen.
    let wanted = |side: Side, sockets: &[SocketView]| match side {
        Side::Server if sendfile == "on" => sockets.iter().any(|socket| socket.promoted > 0),
        _ => on_lane(side, sockets),
    };
    same_outcome(&lab, AUTO, |run| {
        let (_master, worker) = nginx(run, &root, sendfile);
        let paths = ["small?[1-5000]", "large?[1-3]", "empty"];
        let fetched = fetch(run, &[], &paths, |client| run.watch(worker, client, wanted));
        let connects: Vec<_> = fetched.0.iter().filter(|(line, _)| !line.ends_with(" 0")).collect();
        assert_eq!(connects, [(&"200 100 1".to_owned(), &1)], "{:?}: more than one connection", run.preload);
        fetched
    });
}

#[test]
fn nginx_and_curl_on_a_kept_connection() {
    nginx_and_curl("off");
}

#[test]
fn nginx_with_sendfile_and_curl_on_a_kept_connection() {
    nginx_and_curl("on");
}

#[test]
fn curl_downloads_slowly() {
    let lab = lab();
    let root = documents(&lab);
    same_outcome(&lab, EAGER, |run| {
        let (_master, worker) = nginx(run, &root, "off");
        fetch(run, &["--limit-rate", "1500K"], &["large"], |client| run.watch(worker, client, on_lane))
    });
}

/// Has a Python client talk to a Python server; what the client prints is the outcome. In the arguments of both `ADDRESS` and
/// `ROOT` stand for the server's address and for its documents.
fn python(promote: &'static str, port: u16, server: &[&'static str], client: &[&'static str]) {
    let lab = lab();
    let root = documents(&lab);
    same_outcome(&lab, promote, |run| {
        let address = run.address();
        let meant = |word| match word {
            "ADDRESS" => address.as_str(),
            "ROOT" => root.as_str(),
            other => other,
        };
        let words = |given: &[&'static str]| -> Vec<&str> {
            ["python3"].into_iter().chain(given.iter().map(|&word| meant(word))).collect()
        };
        let server = run.serve(&words(server), port);
        let mut client = run.spawn(Side::Client, &words(client));
        run.watch(server.pid(), &mut client, on_lane);
        let said = run.finish(&mut client);
        assert!(!said.trim().is_empty(), "{:?}: {}", run.preload, client.stderr());
        said
    });
}

/// A connection for each request, as urllib has it.
const URLLIB: &str = "
import hashlib, sys, urllib.request
digest, sizes = hashlib.sha256(), []
for number in range(40):
    for name in ('small', 'empty', 'large'):
        with urllib.request.urlopen(f'http://{sys.argv[1]}:8081/{name}', timeout=20) as answer:
            assert answer.status == 200, answer.status
            body = answer.read()
        digest.update(body)
        sizes.append(len(body))
print(len(sizes), sum(sizes), digest.hexdigest())
";

#[test]
fn python_http_server_and_urllib() {
    let server = ["-m", "http.server", "8081", "--bind", "ADDRESS", "--directory", "ROOT"];
    python(EAGER, 8081, &server, &["-c", URLLIB, "ADDRESS"]);
}

/// http.server as it is, but for what keeping a connection takes: without the second setting each answer would wait for a
/// delayed acknowledgement.
const KEEP: &str = "
import functools, http.server, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[2])
handler.func.protocol_version = 'HTTP/1.1'
handler.func.disable_nagle_algorithm = True
http.server.ThreadingHTTPServer((sys.argv[1], 8081), handler).serve_forever()
";

const KEPT: &str = "
import hashlib, http.client, sys
digest, sizes = hashlib.sha256(), []
connection = http.client.HTTPConnection(sys.argv[1], 8081, timeout=20)
for name in ['/small'] * 2000 + ['/large', '/empty', '/small']:
    connection.request('GET', name)
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    body = answer.read()
    digest.update(body)
    sizes.append(len(body))
print(len(sizes), sum(sizes), digest.hexdigest())
";

#[test]
fn python_http_server_and_client_on_a_kept_connection() {
    python(AUTO, 8081, &["-c", KEEP, "ADDRESS", "ROOT"], &["-c", KEPT, "ADDRESS"]);
}

const ASYNC: &str = "
import asyncio, hashlib, sys
async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def serve():
    server = await asyncio.start_server(echo, sys.argv[2], 8082)
    async with server:
        await server.serve_forever()
async def talk(number):
    reader, writer = await asyncio.open_connection(sys.argv[2], 8082)
    digest = hashlib.sha256()
    for size in (list(range(1, 100)) + [100000]) * 10:
        data = bytes([number]) * size
        writer.write(data)
        back = await reader.readexactly(size)
        assert back == data
        digest.update(back)
    writer.write_eof()
    assert await reader.read() == b''
    writer.close()
    await writer.wait_closed()
    return digest.hexdigest()
async def ask():
    print(*await asyncio.gather(*[talk(number) for number in range(10)]))
asyncio.run(serve() if sys.argv[1] == 'serve' else ask())
";

#[test]
fn python_asyncio() {
    python(AUTO, 8082, &["-c", ASYNC, "serve", "ADDRESS"], &["-c", ASYNC, "ask", "ADDRESS"]);
}
