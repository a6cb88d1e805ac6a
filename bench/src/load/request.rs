//! Requests of a given size, answered with a byte when they are complete; of some the link loses the last segment.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use clap::Args;
use underpass_lab::badlink::marked;

use crate::latency::Latency;
use crate::tcp::set_congestion;
use crate::{Outcome, print_json};

/// Requests before the first that is timed: the sender gets to know the path.
const WARM_UP: u64 = 20;
/// Whole requests between two whose last segment is lost.
const BETWEEN: u64 = 3;

/// Answers, one connection after the other, until ended.
#[derive(Args)]
pub struct Serve {
    /// Where to listen.
    #[arg(long)]
    bind: SocketAddr,
    /// Bytes of a request.
    #[arg(long)]
    size: usize,
}

/// Asks, and prints [`underpass_bench::PingPong`] of the requests whose last segment was to be lost.
#[derive(Args)]
pub struct Run {
    /// Where the server is.
    #[arg(long)]
    connect: SocketAddr,
    /// Congestion control (TCP_CONGESTION, tcp(7)).
    #[arg(long)]
    congestion: Option<String>,
    /// Bytes of a request.
    #[arg(long)]
    size: usize,
    /// Requests to be timed.
    #[arg(long)]
    count: u64,
    /// Number of the first mark: the link loses each number once.
    #[arg(long)]
    first: u64,
}

impl Serve {
    /// Runs until ended.
    pub fn run(&self) -> Outcome {
        let listener = TcpListener::bind(self.bind)?;
        println!("listening {}", listener.local_addr()?);
        let mut request = vec![0; self.size];
        for stream in listener.incoming() {
            let mut stream = stream?;
            stream.set_nodelay(true)?;
            while stream.read_exact(&mut request).is_ok() {
                stream.write_all(b"!")?;
            }
        }
        Ok(())
    }
}

impl Run {
    /// Runs to its end.
    pub fn run(&self) -> Outcome {
        let mut stream = TcpStream::connect(self.connect)?;
        stream.set_nodelay(true)?;
        if let Some(name) = &self.congestion {
            set_congestion(&stream, name)?;
        }
        let (mut lossy, plain) = (Latency::new()?, vec![b'.'; self.size]);
        for _ in 0..WARM_UP {
            ask(&mut stream, &plain)?;
        }
        for number in self.first..self.first + self.count {
            for _ in 0..BETWEEN {
                ask(&mut stream, &plain)?;
            }
            let request = marked(self.size, number);
            let begin = Instant::now();
            ask(&mut stream, &request)?;
            lossy.record(begin.elapsed());
        }
        print_json(&lossy.ping_pong(self.size, None))
    }
}

fn ask(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<()> {
    stream.write_all(request)?;
    stream.read_exact(&mut [0])
}
