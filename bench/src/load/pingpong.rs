//! One message goes, the same message comes back.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use clap::Args;

use crate::latency::Latency;
use crate::tcp::Connection;
use crate::{Outcome, print_json};

/// Echoes, one connection after the other, until ended.
#[derive(Args)]
pub struct Serve {
    /// Where to listen.
    #[arg(long)]
    bind: SocketAddr,
    /// Ask for data again and again instead of sleeping.
    #[arg(long)]
    spin: bool,
}

/// Times round trips.
#[derive(Args)]
pub struct Ping {
    /// Where the server is.
    #[arg(long)]
    connect: SocketAddr,
    /// Ask for data again and again instead of sleeping.
    #[arg(long)]
    spin: bool,
    /// Bytes each way, at least 8.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Round trips before the clock counts, in a third of the time at most.
    #[arg(long, default_value_t = 2000)]
    warmup: u64,
    /// Round trips at most.
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// Seconds at most, warm-up included.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

impl Serve {
    /// Runs until ended.
    pub fn run(&self) -> Outcome {
        let listener = TcpListener::bind(self.bind)?;
        println!("listening {}", listener.local_addr()?);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let (stream, peer) = listener.accept()?;
            let mut connection = Connection::new(stream, self.spin)?;
            if let Err(error) = echo(&mut connection, &mut buffer) {
                eprintln!("{peer}: {error}");
            }
        }
    }
}

/// Sends everything back until the peer has no more.
pub fn echo(connection: &mut Connection, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match connection.read_some(buffer)? {
            0 => return Ok(()),
            len => connection.write_full(&buffer[..len])?,
        }
    }
}

impl Ping {
    /// Runs to its end and prints [`underpass_bench::PingPong`].
    pub fn run(&self) -> Outcome {
        let start = Instant::now();
        let deadline = start + Duration::from_secs_f64(self.seconds);
        let warm = start + Duration::from_secs_f64(self.seconds / 3.0);
        let mut connection = Connection::new(TcpStream::connect(self.connect)?, self.spin)?;
        let mut buffers = (vec![0x5a; self.size.max(8)], vec![0; self.size.max(8)]);
        for number in 0..self.warmup {
            round_trip(&mut connection, &mut buffers, number)?;
            if Instant::now() > warm {
                break;
            }
        }
        let mut latency = Latency::new()?;
        let mut begin = Instant::now();
        for number in 0..self.count {
            round_trip(&mut connection, &mut buffers, number)?;
            let end = Instant::now();
            latency.record(end - begin);
            if end > deadline {
                break;
            }
            begin = end;
        }
        print_json(&latency.ping_pong(self.size, connection.retransmits()))
    }
}

/// Sends one message, which carries `number`, and reads it back into the second buffer; an error if other bytes come.
pub fn round_trip(connection: &mut Connection, (out, back): &mut (Vec<u8>, Vec<u8>), number: u64) -> Outcome {
    out[..8].copy_from_slice(&number.to_le_bytes());
    connection.write_full(out)?;
    connection.read_full(back)?;
    if out != back {
        return Err(format!("round trip {number} brought back other bytes").into());
    }
    Ok(())
}
