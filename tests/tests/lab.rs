//! The lab itself: hosts reach each other, processes end with their guards, nothing stays behind.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use underpass_lab::{Lab, LabOptions, Side};

const LIMIT: Duration = Duration::from_secs(5);

fn exchange(lab: &Lab, address: IpAddr) {
    let listener = lab.host(Side::Server).namespace.inside(|| TcpListener::bind((address, 0))).unwrap().unwrap();
    let at: SocketAddr = listener.local_addr().unwrap();
    let client = lab.host(Side::Client).namespace.inside(|| TcpStream::connect_timeout(&at, LIMIT)).unwrap();
    let mut client = client.unwrap();
    client.write_all(b"over the wire").unwrap();
    drop(client);
    let mut text = String::new();
    listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "over the wire");
}

#[test]
fn the_hosts_talk_over_both_ip_versions() {
    let lab = Lab::with(LabOptions { queues: 2, mtu: 9000, ..LabOptions::default() }).unwrap();
    exchange(&lab, lab.host(Side::Server).v4.into());
    exchange(&lab, lab.host(Side::Server).v6.into());
    let host = lab.host(Side::Client);
    let link = host.namespace.ip(&["-d", "link", "show", &host.interface]).unwrap();
    assert!(link.contains("mtu 9000") && link.contains("numrxqueues 2"), "{link}");
}

#[test]
fn a_dropped_lab_leaves_neither_namespaces_nor_processes() {
    let lab = Lab::new().unwrap();
    let name = lab.host(Side::Server).namespace.name().to_owned();
    let dir = lab.dir().to_owned();
    let sleeper = lab.spawn("sleeper", lab.command(Side::Server, "sleep").unwrap().arg("1000")).unwrap();
    let pid = sleeper.pid();
    let stray = lab.command(Side::Client, "sleep").unwrap().arg("1000").spawn().unwrap();
    let (mut stray, proc) = (stray, format!("/proc/{pid}"));
    assert!(std::path::Path::new(&proc).exists());
    drop(sleeper);
    assert!(!std::path::Path::new(&proc).exists());
    drop(lab);
    assert!(!stray.wait().unwrap().success(), "a process without guard ends with its namespace");
    let left = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&left.stdout).contains(&name));
    assert!(!dir.exists());
}

#[test]
fn what_a_process_does_is_seen() {
    let lab = Lab::new().unwrap();
    let script = "echo ready: 42; echo bad >&2; exit 3";
    let mut shell = lab.spawn("shell", lab.command(Side::Server, "sh").unwrap().args(["-c", script])).unwrap();
    assert_eq!(shell.expect_line("ready:", LIMIT).unwrap(), "42");
    let error = shell.finish(LIMIT).unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains("bad"), "{error}");
    let mut silent = lab.spawn("silent", &mut Command::new("true")).unwrap();
    assert!(silent.expect_line("ready:", LIMIT).unwrap_err().to_string().contains("ended early"));
    let mut slow = lab.spawn("slow", Command::new("sleep").arg("1000")).unwrap();
    assert!(slow.wait(Duration::from_millis(20)).is_err());
    assert!(slow.exited().is_none());
}
