//! Bulk data one way, and the receiver's word for it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use clap::Args;
use underpass_bench::Stream;

use crate::pattern::Pattern;
use crate::tcp::total_retrans;
use crate::{Outcome, print_json};

/// Bytes of one write and of one read, as iperf3 has it.
const CHUNK: usize = 128 << 10;
/// The receiver's last word: bytes received, nanoseconds, each 8 bytes little-endian, then 1 if a byte was wrong.
const VERDICT: usize = 17;

/// Receives, one connection after the other, until ended.
#[derive(Args)]
pub struct Serve {
    /// Where to listen.
    #[arg(long)]
    bind: SocketAddr,
    /// Compare every byte with what must have been sent.
    #[arg(long)]
    verify: bool,
}

/// Sends for a while.
#[derive(Args)]
pub struct Send {
    /// Where the server is.
    #[arg(long)]
    connect: SocketAddr,
    /// How long.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// The server verifies.
    #[arg(long)]
    verify: bool,
}

impl Serve {
    /// Runs until ended.
    pub fn run(&self) -> Outcome {
        let listener = TcpListener::bind(self.bind)?;
        println!("listening {}", listener.local_addr()?);
        let pattern = Pattern::new(CHUNK);
        loop {
            let (stream, peer) = listener.accept()?;
            if let Err(error) = self.receive(stream, &pattern) {
                eprintln!("{peer}: {error}");
            }
        }
    }

    fn receive(&self, mut stream: TcpStream, pattern: &Pattern) -> Outcome {
        let mut buffer = vec![0; CHUNK];
        let (mut position, mut wrong, mut begin) = (0u64, false, None);
        loop {
            let len = stream.read(&mut buffer)?;
            let begin = *begin.get_or_insert_with(Instant::now);
            if len == 0 {
                return Ok(stream.write_all(&verdict(position, begin.elapsed(), wrong))?);
            }
            if self.verify && !wrong && buffer[..len] != *pattern.piece(position, len) {
                wrong = true;
                eprintln!("wrong bytes between positions {position} and {}", position + len as u64);
            }
            position += len as u64;
        }
    }
}

impl Send {
    /// Runs to its end and prints [`Stream`].
    pub fn run(&self) -> Outcome {
        let mut stream = TcpStream::connect(self.connect)?;
        let pattern = Pattern::new(CHUNK);
        let deadline = Instant::now() + Duration::from_secs_f64(self.seconds);
        let mut sent = 0;
        while Instant::now() < deadline {
            stream.write_all(pattern.piece(sent, CHUNK))?;
            sent += CHUNK as u64;
        }
        let retransmits = total_retrans(&stream);
        stream.shutdown(Shutdown::Write)?;
        let mut answer = [0; VERDICT];
        stream.read_exact(&mut answer)?;
        // The last window's were not counted yet; but if the connection has left the lane since, the lane's own no longer are.
        let retransmits = retransmits.max(total_retrans(&stream));
        let word = |at: usize| answer[at..at + 8].iter().rev().fold(0u64, |all, byte| all << 8 | u64::from(*byte));
        let (bytes, seconds) = (word(0), word(8) as f64 / 1e9);
        if bytes != sent || answer[16] != 0 {
            return Err(
                format!("sent {sent} bytes, {bytes} arrived, wrong ones among them: {}", answer[16] != 0).into()
            );
        }
        let gbit_per_s = bytes as f64 * 8.0 / 1e9 / seconds;
        print_json(&Stream { bytes, seconds, gbit_per_s, verified: self.verify, retransmits })
    }
}

fn verdict(bytes: u64, time: Duration, wrong: bool) -> [u8; VERDICT] {
    let mut out = [u8::from(wrong); VERDICT];
    out[..8].copy_from_slice(&bytes.to_le_bytes());
    out[8..16].copy_from_slice(&(time.as_nanos() as u64).to_le_bytes());
    out
}
