//! Echoes.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use clap::Args;

use super::epoll::Epoll;
use super::{MESSAGE, descriptors};
use crate::Outcome;

/// The listener's; no descriptor is as large.
const LISTENER: u64 = u64::MAX;

/// Echoes on all connections at once, until ended.
#[derive(Args)]
pub struct Serve {
    /// Where to listen.
    #[arg(long)]
    bind: SocketAddr,
    /// Connections that must be possible at once.
    #[arg(long, default_value_t = 1000)]
    connections: u64,
}

impl Serve {
    /// Runs until ended.
    pub fn run(&self) -> Outcome {
        descriptors::allow(self.connections)?;
        let listener = TcpListener::bind(self.bind)?;
        listener.set_nonblocking(true)?;
        let mut epoll = Epoll::new()?;
        epoll.add(&listener, LISTENER)?;
        println!("listening {}", listener.local_addr()?);
        let mut connections = HashMap::new();
        let mut ready = Vec::new();
        loop {
            ready.extend(epoll.wait(None)?);
            for token in ready.drain(..) {
                if token == LISTENER {
                    accept(&listener, &epoll, &mut connections)?;
                    continue;
                }
                let Some(stream) = connections.get_mut(&token) else { continue };
                match echo(stream) {
                    Ok(true) => {}
                    Ok(false) => drop(connections.remove(&token)),
                    Err(error) => {
                        eprintln!("connection {token}: {error}");
                        connections.remove(&token);
                    }
                }
            }
        }
    }
}

/// Takes all connections that wait.
fn accept(listener: &TcpListener, epoll: &Epoll, connections: &mut HashMap<u64, TcpStream>) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let token = stream.as_raw_fd() as u64;
        epoll.add(&stream, token)?;
        connections.insert(token, stream);
    }
}

/// Sends back what has come; false if nothing will come any more.
fn echo(stream: &mut TcpStream) -> io::Result<bool> {
    let mut buffer = [0; MESSAGE];
    match stream.read(&mut buffer) {
        Ok(0) => Ok(false),
        // The client waits for its message before it sends the next: there is always room.
        Ok(len) => stream.write_all(&buffer[..len]).map(|()| true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}
