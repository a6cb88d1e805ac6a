//! curl, HAProxy, nginx and http.server, one behind the other.

use std::collections::BTreeMap;
use std::fs;

use underpass_lab::Process;

use crate::documents::{DOCUMENTS, documents, sha256};
use crate::programs::python;
use crate::run::{Run, same_outcome};
use crate::watch::Leg;
use crate::{AUTO, EAGER, HERE};

const PROXY: u16 = 8080;
const FILES: u16 = 8081;
const REVERSE: u16 = 8082;
const ORIGIN: u16 = 8083;

/// nginx with two workers, which are somebody else than root.
fn nginx(run: &Run<'_>, port: u16, server: &str) -> Process {
    let dir = run.dir().join("nginx");
    fs::create_dir_all(&dir).unwrap();
    let dir = dir.display();
    let config = format!(
        "daemon off; master_process on; worker_processes 2; pid {dir}/pid; user www-data;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; keepalive_requests 10000; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
         {server} }}\n"
    );
    let path = format!("{dir}/nginx.conf");
    fs::write(&path, config).unwrap();
    run.serve("nginx", &["nginx", "-e", "stderr", "-c", &path], port)
}

/// HAProxy with two threads, which keeps its connections to both sides.
fn haproxy(run: &Run<'_>) -> Process {
    let config = format!(
        "global\n  maxconn 100\n  nbthread 2\n\
         defaults\n  mode http\n  option http-keep-alive\n  http-reuse always\n\
         \x20 timeout connect 10s\n  timeout client 20s\n  timeout server 20s\n\
         frontend front\n  bind {HERE}:{PROXY}\n  default_backend back\n\
         backend back\n  server files {HERE}:{FILES}\n"
    );
    let path = run.dir().join("haproxy.conf");
    fs::write(&path, config).unwrap();
    run.serve("haproxy", &["haproxy", "-db", "-f", &path.display().to_string()], PROXY)
}

/// How often each status, size and number of new connections was met, and the digest of all that came, in order.
type Fetched = (BTreeMap<String, u32>, String);

/// Has one curl fetch small documents many times, and each document once.
fn fetch(run: &Run<'_>, port: u16) -> Fetched {
    let told = "%{stderr}%{http_code} %{size_download} %{num_connects}\\n";
    let url = |path: &str| format!("http://{HERE}:{port}/{path}");
    let urls = [url("page?[1-1000]")].into_iter().chain(DOCUMENTS.map(|(name, _)| url(name)));
    let words: Vec<String> =
        ["curl", "-sS", "--fail", "--fail-early", "-w", told].into_iter().map(str::to_owned).chain(urls).collect();
    let mut client = run.start("curl", &words.iter().map(String::as_str).collect::<Vec<_>>());
    run.finish(&mut client);
    let mut met = BTreeMap::new();
    client.stderr().lines().for_each(|line| *met.entry(line.to_owned()).or_insert(0) += 1);
    let connects: Vec<_> = met.iter().filter(|(line, _)| !line.ends_with(" 0")).collect();
    let (kept, fine) = (connects == [(&"200 4096 1".to_owned(), &1)], met.keys().all(|line| line.starts_with("200 ")));
    assert!(kept && fine, "more than one connection, or a refusal: {met:?}");
    (met, sha256(&run.output("curl")))
}

fn proxied_files(promote: &'static str, sendfile: &str) {
    same_outcome(promote, |run| {
        let root = documents(&run.dir());
        let keep = format!("sendfile {sendfile}; keepalive_timeout 60");
        let _files =
            nginx(run, FILES, &format!("{keep}; server {{ listen {HERE}:{FILES}; root {}; }}", root.display()));
        let _proxy = haproxy(run);
        // sendfile may take a connection off the lane at each answer.
        let behind = if sendfile == "on" { Leg::has_been_on_lane(FILES) } else { Leg::on_lane(FILES) };
        run.until_seen(&[Leg::on_lane(PROXY), behind], || fetch(run, PROXY))
    });
}

#[test]
fn curl_haproxy_and_nginx() {
    proxied_files(AUTO, "off");
}

#[test]
fn curl_haproxy_and_nginx_with_sendfile() {
    proxied_files(AUTO, "on");
}

#[test]
fn curl_haproxy_and_nginx_eagerly() {
    proxied_files(EAGER, "off");
}

#[test]
fn curl_nginx_and_an_origin_server() {
    same_outcome(AUTO, |run| {
        let root = documents(&run.dir()).display().to_string();
        let _origin = python(run, "origin", &["http_documents.py", "serve", HERE, &ORIGIN.to_string(), &root], ORIGIN);
        let _proxy = nginx(
            run,
            REVERSE,
            &format!(
                "upstream origin {{ server {HERE}:{ORIGIN}; keepalive 4; }}\n\
                 server {{ listen {HERE}:{REVERSE}; location / {{ proxy_pass http://origin;\n\
                 proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}"
            ),
        );
        run.until_seen(&[Leg::on_lane(REVERSE), Leg::on_lane(ORIGIN)], || fetch(run, REVERSE))
    });
}
