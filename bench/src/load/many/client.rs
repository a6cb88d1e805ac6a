//! Connects very often, then uses one connection after the other.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use underpass_bench::{Many, median};

use super::epoll::Epoll;
use super::{MESSAGE, descriptors};
use crate::Outcome;

/// Messages under way in the busier part.
const BATCH: usize = 64;
/// Rounds before the clock counts.
const WARMUP: u32 = 2;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints 'ready' before it has made a connection, begins when told, prints its figures after 'figures', and leaves the connections
/// open until ended.
#[derive(Args)]
pub struct Run {
    /// Where the server is.
    #[arg(long)]
    connect: SocketAddr,
    /// Connections.
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// How long each of the two parts is measured, whole rounds, one at least.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// A Unix socket on which whoever listens sends a byte to have us begin; without it we begin at once.
    #[arg(long)]
    control: Option<PathBuf>,
}

/// One connection, and what it has of the message that it waits for.
struct Connection {
    stream: TcpStream,
    message: [u8; MESSAGE],
    answer: [u8; MESSAGE],
    filled: usize,
}

/// All connections.
struct Crowd {
    connections: Vec<Connection>,
    epoll: Epoll,
    /// Messages sent so far, which makes each of them another.
    sent: u64,
    ready: Vec<u64>,
}

impl Run {
    /// Runs until ended.
    pub fn run(&self) -> Outcome {
        descriptors::allow(self.connections as u64)?;
        self.await_start()?;
        let mut crowd = Crowd::connect(self.connect, self.connections)?;
        for _ in 0..WARMUP {
            crowd.round(BATCH)?;
        }
        let before = crowd.sent;
        let single_ns = crowd.measure(1, self.seconds)?;
        let batch_ns = crowd.measure(BATCH, self.seconds)?;
        let exchanges = crowd.sent - before;
        let figures = Many { connections: self.connections, exchanges, single_ns, batch_ns, batch: BATCH };
        println!("figures {}", serde_json::to_string(&figures)?);
        loop {
            std::thread::park();
        }
    }

    fn await_start(&self) -> io::Result<()> {
        let control = self.control.as_ref().map(UnixStream::connect).transpose()?;
        println!("ready");
        control.map_or(Ok(()), |mut control| control.read_exact(&mut [0]))
    }
}

impl Crowd {
    /// Each connection is used once before the next is made: so the server has taken it, and its queue of new ones stays short.
    fn connect(address: SocketAddr, count: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let (connections, epoll) = (Vec::with_capacity(count), Epoll::new()?);
        let mut crowd = Self { connections, epoll, sent: 0, ready: Vec::new() };
        for index in 0..count {
            let stream = TcpStream::connect(address).map_err(|error| format!("connection {index}: {error}"))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            crowd.epoll.add(&stream, index as u64)?;
            let (message, answer) = ([0x5a; MESSAGE], [0; MESSAGE]);
            crowd.connections.push(Connection { stream, message, answer, filled: MESSAGE });
            crowd.exchange(index..index + 1)?;
        }
        Ok(crowd)
    }

    /// Nanoseconds of a message there and back: the median of the rounds' means.
    fn measure(&mut self, batch: usize, seconds: f64) -> Result<f64, Box<dyn std::error::Error>> {
        let (start, mut rounds) = (Instant::now(), Vec::new());
        while rounds.is_empty() || start.elapsed().as_secs_f64() < seconds {
            let begin = Instant::now();
            self.round(batch)?;
            rounds.push(begin.elapsed().as_nanos() as f64 / self.connections.len() as f64);
        }
        Ok(median(rounds).ok_or("no rounds")?)
    }

    /// One message on every connection, so many of them under way at once.
    fn round(&mut self, batch: usize) -> Outcome {
        let count = self.connections.len();
        (0..count).step_by(batch).try_for_each(|first| self.exchange(first..(first + batch).min(count)))
    }

    /// Sends a message on each of these connections, then takes the answers as they come.
    fn exchange(&mut self, which: std::ops::Range<usize>) -> Outcome {
        for connection in &mut self.connections[which.clone()] {
            self.sent += 1;
            connection.send(self.sent)?;
        }
        let mut missing = which.len();
        while missing > 0 {
            self.ready.extend(self.epoll.wait(Some(PATIENCE))?);
            if self.ready.is_empty() {
                return Err(format!("connections {which:?}: {missing} did not answer within {PATIENCE:?}").into());
            }
            for index in self.ready.drain(..) {
                let index = index as usize;
                let answered =
                    self.connections[index].receive().map_err(|error| format!("connection {index}: {error}"))?;
                missing -= usize::from(answered);
            }
        }
        Ok(())
    }
}

impl Connection {
    fn send(&mut self, number: u64) -> io::Result<()> {
        self.message[..8].copy_from_slice(&number.to_le_bytes());
        self.filled = 0;
        self.stream.write_all(&self.message)
    }

    /// Takes what has come; true if that completes the answer.
    fn receive(&mut self) -> io::Result<bool> {
        // An answer that is complete has room for one byte more: a wake-up without cause is no end of the stream.
        let mut unasked = [0; 1];
        let complete = self.filled == MESSAGE;
        let room = if complete { &mut unasked[..] } else { &mut self.answer[self.filled..] };
        match self.stream.read(room) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) if complete => return Err(io::Error::other("bytes came that nobody asked for")),
            Ok(more) => self.filled += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        if self.filled < MESSAGE {
            return Ok(false);
        }
        if self.answer != self.message {
            return Err(io::Error::other("other bytes came back"));
        }
        Ok(true)
    }
}
