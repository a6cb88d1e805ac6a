//! Well-known programs, preloaded as server, as client and both: they work as without, and their connections were on the lane.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use underpass_lab::{Lab, LabError, LabOptions, Preload, Process, Profile, Side, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const ALL: [Preload; 4] = [Preload::Neither, Preload::Server, Preload::Client, Preload::Both];

fn lab() -> Lab {
    Lab::with_daemon(LabOptions { profile: Profile::Release, ..LabOptions::default() }).unwrap()
}

/// A command of one side, with the library where it belongs.
fn command(lab: &Lab, preload: Preload, side: Side, words: &[&str]) -> Command {
    let program = words[0];
    let missing = |error: LabError| panic!("{error}: install {program} (scripts/setup.sh)");
    let mut command = match preload.covers(side) {
        true => lab.preloaded(side, program).unwrap_or_else(missing),
        false => lab.command(side, program).unwrap_or_else(missing),
    };
    command.args(&words[1..]).env("UNDERPASS_LOG", "info");
    // Where it says so, whatever the program does with its stderr.
    command.env("UNDERPASS_LOG_FILE", lab.dir().join(format!("{side:?}.log")));
    command
}

/// Was a connection of this side's program promoted? The log outlives the program.
fn was_promoted(lab: &Lab, side: Side) -> bool {
    let log = std::fs::read_to_string(lab.dir().join(format!("{side:?}.log"))).unwrap_or_default();
    log.contains(": promoted")
}

/// Every preloaded side was on the lane, and no other.
fn check_lanes(lab: &Lab, preload: Preload) {
    for side in [Side::Server, Side::Client] {
        assert_eq!(was_promoted(lab, side), preload.covers(side), "{preload:?}: promotions of the {side:?}");
        let _ = std::fs::remove_file(lab.dir().join(format!("{side:?}.log")));
    }
}

/// Starts a server and waits until something listens on the port.
fn serve(lab: &Lab, preload: Preload, words: &[&str], port: u16) -> Process {
    let mut server = lab.spawn("server", &mut command(lab, preload, Side::Server, words)).unwrap();
    let namespace = &lab.host(Side::Server).namespace;
    let listens = || {
        let out = namespace.run("ss", &["-Htln", &format!("sport = {port}")]).unwrap();
        !out.is_empty()
    };
    let waited = wait_for(&format!("{} to listen", words[0]), LIMIT, || server.exited().is_some() || listens());
    waited.unwrap_or_else(|error| panic!("{error}: {}", server.stderr()));
    assert!(server.exited().is_none(), "{}: {}{}", words[0], server.stdout(), server.stderr());
    server
}

fn ask(lab: &Lab, preload: Preload, words: &[&str]) -> String {
    let mut client = lab.spawn("client", &mut command(lab, preload, Side::Client, words)).unwrap();
    client.finish(LIMIT).unwrap()
}

#[test]
fn redis() {
    let lab = lab();
    let address = lab.host(Side::Server).v4.to_string();
    for preload in ALL {
        let words = ["redis-server", "--bind", &address, "--port", "6379", "--save", "", "--protected-mode", "no"];
        let server = serve(&lab, preload, &words, 6379);
        let cli = |rest: &[&str]| ask(&lab, Preload::Neither, &[&["redis-cli", "-h", &address], rest].concat());
        assert_eq!(cli(&["set", "key", "value"]).trim(), "OK");
        let load =
            ["redis-benchmark", "-h", &address, "-t", "set,get,lrange_100", "-n", "5000", "-c", "20", "-P", "4", "-q"];
        let said = ask(&lab, preload, &load);
        assert!(said.contains("GET") && said.contains("LRANGE_100"), "{said}");
        let large = "x".repeat(300_000);
        assert_eq!(cli(&["set", "large", &large[..100_000]]).trim(), "OK");
        assert_eq!(cli(&["get", "large"]).trim().len(), 100_000);
        assert_eq!(cli(&["get", "key"]).trim(), "value");
        drop(server);
        check_lanes(&lab, preload);
    }
}

#[test]
fn iperf3() {
    let lab = lab();
    let address = lab.host(Side::Server).v4.to_string();
    for preload in ALL {
        for direction in [&[][..], &["-R"], &["-P", "2"]] {
            let mut server = serve(&lab, preload, &["iperf3", "-s", "-1", "-B", &address], 5201);
            let words = [&["iperf3", "-c", &address, "-n", "100M", "--json"], direction].concat();
            let said = ask(&lab, preload, &words);
            assert!(server.wait(LIMIT).unwrap().success(), "{}", server.stderr());
            // With several streams iperf3 stops when the sum has been sent; what is on its way does not count.
            let total = number(&said, "sum_received", "bytes");
            assert!((80e6..110e6).contains(&total), "{preload:?} {direction:?}: {total} bytes arrived\n{said}");
            for side in [Side::Server, Side::Client] {
                // A bulk transfer may stay in the kernel; the control connection is too quiet.
                let _ = std::fs::remove_file(lab.dir().join(format!("{side:?}.log")));
            }
        }
    }
}

/// The number behind `key` in the object behind `object`, at its last place.
fn number(json: &str, object: &str, key: &str) -> f64 {
    let at = json.rfind(&format!("\"{object}\"")).unwrap_or_else(|| panic!("no {object} in {json}"));
    let rest = &json[at..];
    let value = rest.split_once(&format!("\"{key}\":")).map(|(_, value)| value.trim_start());
    let end = value.and_then(|value| value.find([',', '\n', '}']));
    value.zip(end).and_then(|(value, end)| value[..end].trim().parse().ok()).unwrap_or_else(|| panic!("{json}"))
}

#[test]
fn sockperf() {
    let lab = lab();
    let address = lab.host(Side::Server).v4.to_string();
    for preload in ALL {
        let server = serve(&lab, preload, &["sockperf", "server", "--tcp", "-i", &address, "-p", "11111"], 11111);
        let words = ["sockperf", "ping-pong", "--tcp", "-i", &address, "-p", "11111", "-t", "2", "-m", "64"];
        let said = ask(&lab, preload, &words);
        assert!(
            said.contains("# dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0"),
            "{said}"
        );
        drop(server);
        check_lanes(&lab, preload);
    }
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

fn same_file(one: &Path, other: &Path) -> bool {
    std::fs::read(one).unwrap() == std::fs::read(other).unwrap()
}

#[test]
fn nginx_and_curl() {
    let lab = lab();
    let (address, root) = (lab.host(Side::Server).v4.to_string(), documents(&lab));
    let dir = lab.dir().display().to_string();
    let config = format!(
        "daemon off; master_process on; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/nginx.err info; user root;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; keepalive_requests 10000; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
         server {{ listen {address}:8080; root {root}; sendfile SENDFILE; }} }}\n"
    );
    for (preload, sendfile) in ALL.into_iter().flat_map(|preload| ["on", "off"].map(|sendfile| (preload, sendfile))) {
        let path = format!("{dir}/nginx.conf");
        std::fs::write(&path, config.replace("SENDFILE", sendfile)).unwrap();
        let server = serve(&lab, preload, &["nginx", "-e", "stderr", "-c", &path], 8080);
        let url = |name: &str| format!("http://{address}:8080/{name}");
        let (got, small) = (format!("{dir}/got"), url("small"));
        let mut words = vec!["curl", "-sS", "--fail", "-o", &got];
        // Over one connection, which so proves busy.
        words.extend(std::iter::repeat_n(["-o", "/dev/null", small.as_str()], 100).flatten());
        let large = url("large");
        words.push(&large);
        ask(&lab, preload, &words);
        // curl gives the first -o to the first URL: the large file comes alone.
        ask(&lab, preload, &["curl", "-sS", "--fail", "-o", &got, &large]);
        assert!(same_file(Path::new(&got), Path::new(&format!("{root}/large"))), "{preload:?}, sendfile {sendfile}");
        let empty = ask(&lab, preload, &["curl", "-sS", "--fail", &url("empty")]);
        assert_eq!(empty, "");
        drop(server);
        check_lanes(&lab, preload);
    }
}

const FETCH: &str = "
import http.client, hashlib, sys
connection = http.client.HTTPConnection(sys.argv[1], 8081, timeout=20)
for number in range(30):
    connection.request('GET', '/small')
    assert len(connection.getresponse().read()) == 100
connection.request('GET', '/large')
print(hashlib.md5(connection.getresponse().read()).hexdigest())
";

const SERVE: &str = "
import functools, http.server, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[2])
handler.func.protocol_version = 'HTTP/1.1'
http.server.ThreadingHTTPServer((sys.argv[1], 8081), handler).serve_forever()
";

#[test]
fn python() {
    let lab = lab();
    let (address, root) = (lab.host(Side::Server).v4.to_string(), documents(&lab));
    let mut plainly = None;
    for preload in ALL {
        let server = serve(&lab, preload, &["python3", "-c", SERVE, &address, &root], 8081);
        let said = ask(&lab, preload, &["python3", "-c", FETCH, &address]);
        assert_eq!(plainly.get_or_insert(said.clone()), &said, "{preload:?}");
        drop(server);
        check_lanes(&lab, preload);
    }
}

const ASYNC: &str = "
import asyncio, sys
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
    for size in list(range(1, 100)) + [100000]:
        data = bytes([number]) * size
        writer.write(data)
        assert await reader.readexactly(size) == data
    writer.write_eof()
    assert await reader.read() == b''
    writer.close()
    await writer.wait_closed()
async def ask():
    await asyncio.gather(*[talk(number) for number in range(10)])
    print('all came back')
asyncio.run(serve() if sys.argv[1] == 'serve' else ask())
";

#[test]
fn python_asyncio() {
    let lab = lab();
    let address = lab.host(Side::Server).v4.to_string();
    for preload in ALL {
        let server = serve(&lab, preload, &["python3", "-c", ASYNC, "serve", &address], 8082);
        let said = ask(&lab, preload, &["python3", "-c", ASYNC, "ask", &address]);
        assert_eq!(said.trim(), "all came back", "{preload:?}");
        drop(server);
        check_lanes(&lab, preload);
    }
}
