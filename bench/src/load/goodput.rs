//! How much arrives in a given time, over a link that may be so bad that what was sent before would take minutes to arrive.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use clap::Args;
use underpass_bench::Stream;

use crate::Outcome;
use crate::pattern::Pattern;
use crate::tcp::set_congestion;

/// Bytes of one write and of one read at most.
const CHUNK: usize = 64 << 10;
/// How often a receiver that hears nothing looks at the clock.
const LOOK: Duration = Duration::from_millis(20);

/// Receives one connection's bytes for a while, compares each with what must have been sent, prints [`Stream`] and waits to be ended.
#[derive(Args)]
pub struct Serve {
    /// Where to listen.
    #[arg(long)]
    bind: SocketAddr,
    /// How long, from the first byte on.
    #[arg(long)]
    seconds: f64,
    /// Of these, how long nothing is counted.
    #[arg(long, default_value_t = 0.0)]
    skip: f64,
}

/// Sends until the receiver has had enough.
#[derive(Args)]
pub struct Send {
    /// Where the receiver is.
    #[arg(long)]
    connect: SocketAddr,
    /// Congestion control (TCP_CONGESTION, tcp(7)).
    #[arg(long)]
    congestion: Option<String>,
}

impl Serve {
    /// Runs to its end.
    pub fn run(&self) -> Outcome {
        let listener = TcpListener::bind(self.bind)?;
        println!("listening {}", listener.local_addr()?);
        let mut stream = listener.accept()?.0;
        stream.set_read_timeout(Some(LOOK))?;
        let (pattern, mut buffer) = (Pattern::new(CHUNK), vec![0; CHUNK]);
        while stream.peek(&mut buffer[..1]).or_else(not_yet)? == 0 {}
        let mut bytes = 0;
        let (begin, time) = (Instant::now(), Duration::from_secs_f64(self.seconds));
        let mut skipped = (self.skip == 0.0).then_some((0, Duration::ZERO));
        while begin.elapsed() < time {
            let len = match stream.read(&mut buffer) {
                Ok(0) => return Err("the sender has ended too early".into()),
                outcome => outcome.or_else(not_yet)?,
            };
            if buffer[..len] != *pattern.piece(bytes, len) {
                return Err(format!("wrong bytes between positions {bytes} and {}", bytes + len as u64).into());
            }
            bytes += len as u64;
            if skipped.is_none() && begin.elapsed().as_secs_f64() >= self.skip {
                skipped = Some((bytes, begin.elapsed()));
            }
        }
        let (before, until) = skipped.unwrap_or_default();
        let (bytes, seconds) = (bytes - before, (begin.elapsed() - until).as_secs_f64());
        let gbit_per_s = bytes as f64 * 8.0 / 1e9 / seconds;
        let figures = Stream { bytes, seconds, gbit_per_s, verified: true, retransmits: None };
        println!("figures {}", serde_json::to_string(&figures)?);
        // Connection and sender are looked at before they end.
        loop {
            std::thread::park();
        }
    }
}

/// Nothing has come for a moment.
fn not_yet(error: io::Error) -> io::Result<usize> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(0),
        _ => Err(error),
    }
}

impl Send {
    /// Runs until the connection ends.
    pub fn run(&self) -> Outcome {
        let mut stream = TcpStream::connect(self.connect)?;
        if let Some(name) = &self.congestion {
            set_congestion(&stream, name)?;
        }
        let pattern = Pattern::new(CHUNK);
        let mut sent = 0;
        loop {
            match stream.write(pattern.piece(sent, CHUNK)) {
                Ok(len) => sent += len as u64,
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
