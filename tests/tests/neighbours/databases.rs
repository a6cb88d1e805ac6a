//! PostgreSQL with its own clients.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use underpass_lab::{Process, wait_for};

use crate::programs::program;
use crate::run::{LIMIT, Run, same_outcome};
use crate::watch::Leg;
use crate::{AUTO, HERE};

const PORT: u16 = 5432;
const INTERRUPT: i32 = 2;

/// Where Debian's packages have the programs of each version: the newest.
fn programs() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = installed.map(|entry| entry.path()).max_by_key(version);
    let programs = newest.expect("no PostgreSQL: scripts/setup.sh installs it").join("bin");
    assert!(programs.join("pgbench").is_file(), "no pgbench in {}", programs.display());
    programs
}

/// A cluster of databases and its server, which is the user postgres: it refuses to be root.
struct Cluster<'a> {
    run: &'a Run<'a>,
    programs: PathBuf,
    server: Process,
}

impl<'a> Cluster<'a> {
    /// Makes it and starts the server.
    fn start(run: &'a Run<'a>) -> Self {
        let programs = programs();
        let data = data_directory(&run.dir());
        let initdb = programs.join("initdb").display().to_string();
        let made = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D", &data];
        run.ask("initdb", &as_postgres(&initdb, &made));
        let postgres = programs.join("postgres").display().to_string();
        let listen = format!("listen_addresses={HERE}");
        let options = [&listen, "unix_socket_directories=", "fsync=off", "shared_buffers=32MB", "max_connections=20"];
        let options: Vec<&str> = options.into_iter().flat_map(|option| ["-c", option]).collect();
        let server = run.serve("postgres", &as_postgres(&postgres, &[&["-D", &data], &options[..]].concat()), PORT);
        let cluster = Self { run, programs, server };
        cluster.await_ready();
        cluster
    }

    /// It listens before it can serve.
    fn await_ready(&self) {
        let ready =
            || self.client("pg_isready", &["-q"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        wait_for("the server to be ready", LIMIT, ready).unwrap_or_else(|error| self.run.fail(&error.to_string()));
    }

    /// One of the clients' programs; it knows where the server is.
    fn client(&self, name: &str, words: &[&str]) -> Command {
        let path = self.programs.join(name).display().to_string();
        let mut command = self.run.command(&[&[path.as_str()], words].concat());
        command.env("PGHOST", HERE).env("PGPORT", PORT.to_string()).env("PGUSER", "postgres").env("PGTZ", "UTC");
        command.env("PGDATABASE", "postgres").env("PSQL", self.programs.join("psql"));
        command
    }

    /// Runs it to its good end; stdout and stderr.
    fn ask(&self, name: &str, words: &[&str]) -> (String, String) {
        let mut client = self.run.spawn(name, self.client(name, words));
        let said = self.run.finish(&mut client);
        (said, client.stderr())
    }

    /// The answer to one question, without a frame.
    fn answer(&self, question: &str) -> String {
        self.ask("psql", &["-X", "-A", "-t", "-c", question]).0
    }

    /// Ends the server without waiting for its clients; how it ended.
    fn end(mut self) -> Option<i32> {
        self.server.signal(INTERRUPT).unwrap();
        self.server.wait(LIMIT).unwrap_or_else(|error| self.run.fail(&error.to_string())).code()
    }
}

fn as_postgres<'a>(program: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    let before = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--", program];
    [&before, words].concat()
}

/// A directory of that user.
fn data_directory(dir: &Path) -> String {
    let data = dir.join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    let id = |option| {
        let output = Command::new("id").args([option, "postgres"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("no user postgres")
    };
    chown(&data, Some(id("-u")), Some(id("-g"))).unwrap();
    data.display().to_string()
}

/// A second process id appears where a notification says whom it is from.
fn without_pids(text: &str) -> String {
    let mark = "with PID ";
    let mut parts = text.split(mark);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + mark + "N" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

fn session(cluster: &Cluster<'_>) -> (String, String) {
    let (said, complained) = cluster.ask("psql", &["-X", "-q", "-f", &program("session.sql")]);
    assert!(complained.contains("division by zero") && said.contains("from another session"), "{said}{complained}");
    (without_pids(&said), complained)
}

#[test]
fn postgresql_and_psql() {
    same_outcome(AUTO, |run| {
        let cluster = Cluster::start(run);
        let outcome = run.until_seen(&[Leg::on_lane(PORT)], || session(&cluster));
        (outcome, cluster.end())
    });
}

/// The number of transactions that pgbench has made; none of them failed.
fn transactions(report: &str) -> u64 {
    let figure = |key: &str| {
        let line = report.lines().find_map(|line| line.strip_prefix(key));
        let digits = line.and_then(|rest| rest.trim().split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok());
        digits.unwrap_or_else(|| panic!("'{key}' in {report}"))
    };
    assert_eq!(figure("number of failed transactions:"), 0, "{report}");
    figure("number of transactions actually processed:")
}

/// Are the sums of all that pgbench keeps account of the same, and is every transaction in its history?
fn check_books(cluster: &Cluster<'_>, made: u64) {
    let sums =
        "select (select count(*) from pgbench_history), (select sum(delta) from pgbench_history) = sum(abalance),
        sum(abalance) = (select sum(tbalance) from pgbench_tellers),
        sum(abalance) = (select sum(bbalance) from pgbench_branches) from pgbench_accounts";
    assert_eq!(cluster.answer(sums).trim(), format!("{made}|t|t|t"));
}

#[test]
fn postgresql_and_pgbench() {
    same_outcome(AUTO, |run| {
        let cluster = Cluster::start(run);
        run.until_seen(&[Leg::on_lane(PORT)], || {
            cluster.ask("pgbench", &["-q", "-i", "-s", "1"]);
            let (report, complained) = cluster.ask("pgbench", &["-c", "4", "-j", "2", "-T", "3", "-M", "prepared"]);
            let made = transactions(&report);
            assert!(made > 50, "{report}");
            check_books(&cluster, made);
            complained
        });
        cluster.end()
    });
}
