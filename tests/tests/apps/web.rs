//! nginx and curl.

use std::collections::BTreeMap;

use underpass_lab::{Lab, Over, Process, Side, SocketView, wait_for};

use crate::documents::{documents, sha256};
use crate::{AUTO, EAGER, LIMIT, Run, lab, lab_over, on_lane, same_outcome};

/// Starts nginx; its worker's process id too, since its master only watches over that.
fn nginx(run: &Run<'_>, root: &str, sendfile: &str) -> (Process, u32) {
    let (address, dir) = (run.at(&run.listening(), 8080), run.lab.dir().display());
    // nginx listens for IPv6 alone unless it is told otherwise.
    let both = if run.listening() == "::" { " ipv6only=off" } else { "" };
    let config = format!(
        "daemon off; master_process on; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/nginx.err info; user root;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; keepalive_requests 10000; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
         server {{ listen {address}{both}; root {root}; sendfile {sendfile}; }} }}\n"
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
    let urls: Vec<String> =
        paths.iter().map(|path| format!("http://{}/{path}", run.at(&run.address(), 8080))).collect();
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

fn nginx_and_curl(lab: &Lab, sendfile: &str) {
    let root = documents(lab);
    // sendfile takes a connection off the lane at each answer: that it was there is all that can be seen.
    let wanted = |side: Side, sockets: &[SocketView]| match side {
        Side::Server if sendfile == "on" => sockets.iter().any(|socket| socket.promoted > 0),
        _ => on_lane(side, sockets),
    };
    same_outcome(lab, AUTO, |run| {
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
    nginx_and_curl(&lab(), "off");
}

#[test]
fn nginx_and_curl_over_ipv6() {
    nginx_and_curl(&lab_over(Over::V6), "off");
}

/// nginx listens on `::`, curl comes over IPv4.
#[test]
fn nginx_and_curl_with_mapped_addresses() {
    nginx_and_curl(&lab_over(Over::Mapped), "off");
}

#[test]
fn nginx_with_sendfile_and_curl_on_a_kept_connection() {
    nginx_and_curl(&lab(), "on");
}

#[test]
fn curl_downloads_slowly() {
    let lab = lab();
    let root = documents(&lab);
    // Before curl pauses it reads on as long as it finds something, up to 10 MB: less than half of this document.
    let carried = |_, sockets: &[SocketView]| sockets.iter().any(|socket| socket.promoted > 0);
    same_outcome(&lab, EAGER, |run| {
        let (_master, worker) = nginx(run, &root, "off");
        fetch(run, &["--limit-rate", "12M"], &["huge"], |client| run.watch(worker, client, carried))
    });
}
