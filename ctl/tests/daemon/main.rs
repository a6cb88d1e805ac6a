//! The daemon from outside, over veth between two namespaces. These tests need root.

/// Makes two tests of each function, which is given a bed.
macro_rules! over_both_ip_versions {
    ($($test:ident)*) => {
        mod v4 {
            $(#[test]
            fn $test() {
                super::$test(crate::Bed::new());
            })*
        }
        mod v6 {
            $(#[test]
            fn $test() {
                super::$test(crate::Bed { v6: true, ..crate::Bed::new() });
            })*
        }
    };
}

mod client;
mod handover;
mod hostile;
mod lifecycle;
mod network;
mod transfer;

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use underpass_lab::{Lab, LabOptions, Process, Side, wait_for};
use underpass_stack::control::{Status, StatusReply};

const LIMIT: Duration = Duration::from_secs(10);

/// Two hosts; the daemon and the test's connections live on the server side.
struct Bed {
    lab: Lab,
    daemon: Process,
    socket: PathBuf,
    /// Connections are over IPv6.
    v6: bool,
}

impl Bed {
    fn new() -> Self {
        Self::with(LabOptions::default(), &[])
    }

    fn with(options: LabOptions, extra: &[&str]) -> Self {
        let lab = Lab::with(options).expect("a lab");
        let socket = lab.dir().join("test.sock");
        let daemon = start(&lab, &socket, extra);
        Self { lab, daemon, socket, v6: false }
    }

    fn restart(&mut self) {
        self.daemon = start(&self.lab, &self.socket, &[]);
    }

    fn status(&self) -> StatusReply {
        let session = client::open_session(&self.socket).expect("a session");
        client::ask(session.as_fd(), &Status { pad: 0 }, &[]).as_message().expect("a status")
    }

    /// Waits until no connection is on a lane.
    fn wait_idle(&self) {
        wait_for("the connections to be given back", LIMIT, || self.status().connections == 0).unwrap();
    }

    /// A connection from the server's host to an echo on the client's host.
    fn echo(&self) -> (TcpStream, JoinHandle<()>) {
        let (stream, peer) = self.pair();
        let thread = std::thread::spawn(move || echo(peer));
        (stream, thread)
    }

    /// Both ends of a connection: ours on the server's host, the peer's on the client's.
    fn pair(&self) -> (TcpStream, TcpStream) {
        let far = self.lab.host(Side::Client);
        let address: IpAddr = if self.v6 { far.v6.into() } else { far.v4.into() };
        let listener = far.namespace.inside(|| TcpListener::bind((address, 0)).unwrap()).unwrap();
        let to = listener.local_addr().unwrap();
        let near = &self.lab.host(Side::Server).namespace;
        let ours = near.inside(|| TcpStream::connect(to).unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        for end in [&ours, &peer] {
            end.set_nodelay(true).unwrap();
            end.set_read_timeout(Some(LIMIT)).unwrap();
        }
        (ours, peer)
    }

    fn has_xdp(&self) -> bool {
        let host = self.lab.host(Side::Server);
        host.namespace.ip(&["link", "show", "dev", &host.interface]).unwrap().contains("prog/xdp")
    }
}

fn start(lab: &Lab, socket: &PathBuf, extra: &[&str]) -> Process {
    let mut command = lab.command(Side::Server, env!("CARGO_BIN_EXE_underpass")).unwrap();
    command.args(["daemon", "--foreground", "--socket"]).arg(socket).args(extra);
    command.env("UNDERPASS_LOG", "debug");
    let daemon = lab.spawn("daemon", &mut command).expect("the daemon starts");
    wait_for("the daemon to listen", LIMIT, || client::open_session(socket).is_ok())
        .unwrap_or_else(|error| panic!("{error}: {}", daemon.stderr()));
    daemon
}

fn echo(mut peer: TcpStream) {
    let mut buffer = [0; 65536];
    while let Ok(n) = peer.read(&mut buffer) {
        if n == 0 || peer.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}

/// Bytes that tell their place in the stream.
fn pattern(start: usize, len: usize) -> Vec<u8> {
    (start..start + len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}
