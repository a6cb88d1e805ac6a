//! The load programs that need no lab, and the benchmark itself on loopback: no root, no daemon, no library.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use underpass_bench::{Many, PingPong};
use underpass_lab::Process;

const LOAD: &str = env!("CARGO_BIN_EXE_underpass-load");
const BENCH: &str = env!("CARGO_BIN_EXE_underpass-bench");
const LIMIT: Duration = Duration::from_secs(20);

/// A directory that goes away with its guard.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("underpass-bench-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn start(&self, args: &[&str]) -> Process {
        Process::spawn(args[0], Command::new(LOAD).args(args), &self.0).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the benchmark; where it looks for the library, there is none.
fn bench(dir: &Dir, args: &[&str]) -> Output {
    let nowhere = dir.0.join("nowhere");
    Command::new(BENCH).args(args).env("UNDERPASS_TARGET_DIR", nowhere).env("TMPDIR", &dir.0).output().unwrap()
}

#[test]
fn messages_pass_through_a_shared_page() {
    let dir = Dir::new("page");
    let mut echo = dir.start(&["shm-floor-echo"]);
    let page = echo.expect_line("page ", LIMIT).unwrap();
    let args = ["shm-floor-ping", "--page", &page, "--seconds", "0.2", "--warmup", "10"];
    let result: PingPong = serde_json::from_str(dir.start(&args).finish(LIMIT).unwrap().trim()).unwrap();
    assert!(result.count > 0 && result.min_ns > 0 && result.size == 64, "{result:?}");
}

#[test]
fn many_connections_begin_when_told_and_stay_open() {
    let dir = Dir::new("many");
    let path = dir.0.join("control.sock");
    let control = UnixListener::bind(&path).unwrap();
    let mut server = dir.start(&["many-server", "--bind", "127.0.0.1:0", "--connections", "100"]);
    let address = server.expect_line("listening ", LIMIT).unwrap();
    let args = ["many-client", "--connect", &address, "--connections", "100", "--seconds", "0.1"];
    let mut client = dir.start(&[&args[..], &["--control", path.to_str().unwrap()]].concat());
    client.expect_line("ready", LIMIT).unwrap();
    let before = sockets(&server);
    control.accept().unwrap().0.write_all(b"!").unwrap();
    let figures: Many = serde_json::from_str(&client.expect_line("figures ", LIMIT).unwrap()).unwrap();
    assert!(figures.exchanges >= 200 && figures.single_ns > 0.0 && figures.batch_ns > 0.0, "{figures:?}");
    assert_eq!((before, sockets(&server)), (1, 1 + 100), "the listener, then the connections too");
}

#[test]
fn too_many_connections_are_refused_in_words() {
    let dir = Dir::new("limit");
    let args = ["many-server", "--bind", "127.0.0.1:0", "--connections", "4000000000"];
    let error = dir.start(&args).finish(LIMIT).unwrap_err().to_string();
    assert!(error.contains("hard limit (RLIMIT_NOFILE"), "{error}");
}

#[test]
fn a_mode_that_fails_is_shown_and_fails_the_run() {
    let dir = Dir::new("status");
    let json = dir.0.join("samples.json");
    let args = ["--quick", "--rounds", "1", "shm-connect", "--json", json.to_str().unwrap()];
    let output = bench(&dir, &args);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    assert!(err.contains("failed") && err.contains("underpass both (shm-connect)"), "{err}");
    assert!(out.contains("! underpass both (1x): no libunderpass.so"), "{out}");
    let samples: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let modes = &samples["sections"][0]["modes"];
    assert!(modes[0]["median"]["conn/s"].as_f64().unwrap() > 0.0, "the kernel was measured all the same: {modes}");
    assert_eq!(modes[1]["samples"].as_array().map(Vec::len), Some(0), "{modes}");

    let kernel = bench(&dir, &["--quick", "--rounds", "1", "--only", "kernel", "shm-connect"]);
    assert!(kernel.status.success(), "{kernel:?}");
    assert!(left_behind(&dir.0).is_empty(), "{:?}", left_behind(&dir.0));
}

/// Sockets that a process has open.
fn sockets(process: &Process) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap().flatten();
    entries
        .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().contains("socket:")))
        .count()
}

/// Directories that the benchmark should have removed.
fn left_behind(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
