//! A connection for every request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use clap::Args;
use underpass_bench::Connect;

use crate::latency::Latency;
use crate::{Outcome, print_json};

const MESSAGE: usize = 64;

/// Answers one request a connection, until ended.
#[derive(Args)]
pub struct Serve {
    /// Where to listen.
    #[arg(long)]
    bind: SocketAddr,
}

/// Connects again and again.
#[derive(Args)]
pub struct Run {
    /// Where the server is.
    #[arg(long)]
    connect: SocketAddr,
    /// How long.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

impl Serve {
    /// Runs until ended. The server closes first: the waiting state after a close (TIME_WAIT) is its own, so the client does not run out of
    /// ports.
    pub fn run(&self) -> Outcome {
        let listener = TcpListener::bind(self.bind)?;
        println!("listening {}", listener.local_addr()?);
        let mut buffer = [0; MESSAGE];
        loop {
            let (mut stream, peer) = listener.accept()?;
            if let Err(error) = stream.read_exact(&mut buffer).and_then(|()| stream.write_all(&buffer)) {
                eprintln!("{peer}: {error}");
            }
        }
    }
}

impl Run {
    /// Runs to its end and prints [`Connect`].
    pub fn run(&self) -> Outcome {
        let mut latency = Latency::new()?;
        let mut answer = Vec::with_capacity(MESSAGE);
        let begin = Instant::now();
        let deadline = begin + Duration::from_secs_f64(self.seconds);
        let mut now = begin;
        while now < deadline {
            let mut stream = TcpStream::connect(self.connect)?;
            stream.write_all(&[0x5a; MESSAGE])?;
            answer.clear();
            stream.read_to_end(&mut answer)?;
            if answer != [0x5a; MESSAGE] {
                return Err(format!("an answer of {} bytes", answer.len()).into());
            }
            drop(stream);
            let end = Instant::now();
            latency.record(end - now);
            now = end;
        }
        print_json(&Connect {
            count: latency.count(),
            per_second: latency.count() as f64 / (now - begin).as_secs_f64(),
            median_ns: latency.quantile_ns(0.5),
            p99_ns: latency.quantile_ns(0.99),
        })
    }
}
