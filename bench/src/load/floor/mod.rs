//! The floor: what AF_XDP alone can do on the same wire, with no protocol on top.

mod bpf;
mod port;

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use underpass_bench::Stream;

use self::port::Port;
use crate::latency::Latency;
use crate::{Outcome, print_json};

/// Headers of an IPv4 TCP segment with timestamps: Ethernet 14, IP 20, TCP 32 bytes. Floor frames are as long as the segments they stand for.
const HEADERS: usize = 14 + 20 + 32;
/// Frames sent before the kernel is asked to look.
const BATCH: usize = 64;

/// Which hook runs the XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hook {
    /// In the driver.
    Native,
    /// In the network core.
    Generic,
}

/// Where.
#[derive(Args)]
struct At {
    /// Interface.
    #[arg(long)]
    interface: String,
    /// XDP hook.
    #[arg(long)]
    hook: Hook,
}

/// Sends frames back until ended.
#[derive(Args)]
pub struct Echo {
    #[command(flatten)]
    at: At,
}

/// Times round trips.
#[derive(Args)]
pub struct Ping {
    #[command(flatten)]
    at: At,
    /// Payload bytes of the TCP segment that the frame stands for.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Round trips before the clock counts.
    #[arg(long, default_value_t = 2000)]
    warmup: u64,
    /// Seconds at most.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

/// Counts what arrives.
#[derive(Args)]
pub struct Sink {
    #[command(flatten)]
    at: At,
    /// Ends so long after the first frame.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Gives up if there is no frame for so long.
    #[arg(long, default_value_t = 10.0)]
    patience: f64,
}

/// Sends until ended.
#[derive(Args)]
pub struct Flood {
    #[command(flatten)]
    at: At,
    /// Payload bytes of the TCP segment that each frame stands for.
    #[arg(long, default_value_t = 1448)]
    size: usize,
}

impl Echo {
    /// Runs until ended.
    pub fn run(&self) -> Outcome {
        let mut port = Port::open(&self.at.interface, self.at.hook)?;
        println!("ready");
        loop {
            match port.receive() {
                Some(packet) => port.send_back(packet)?,
                None => std::hint::spin_loop(),
            }
        }
    }
}

impl Ping {
    /// Runs to its end and prints [`underpass_bench::PingPong`].
    pub fn run(&self) -> Outcome {
        let mut port = Port::open(&self.at.interface, self.at.hook)?;
        let deadline = Instant::now() + Duration::from_secs_f64(self.seconds);
        for number in 0..self.warmup {
            self.round_trip(&mut port, number, deadline)?;
        }
        let mut latency = Latency::new()?;
        let mut begin = Instant::now();
        while begin < deadline {
            self.round_trip(&mut port, latency.count(), deadline)?;
            let end = Instant::now();
            latency.record(end - begin);
            begin = end;
        }
        print_json(&latency.ping_pong(self.size, None))
    }

    fn round_trip(&self, port: &mut Port, number: u64, deadline: Instant) -> Outcome {
        port.send(HEADERS + self.size, number)?;
        port.flush()?;
        for turn in 1u64.. {
            if let Some(packet) = port.receive() {
                let back = port.number(packet);
                port.recycle(packet);
                if back == Some(number) {
                    return Ok(());
                }
            }
            if turn % 1024 == 0 && Instant::now() > deadline + Duration::from_secs(1) {
                break;
            }
        }
        Err(format!("frame {number} did not come back").into())
    }
}

impl Sink {
    /// Runs to its end and prints [`Stream`], counting payload as the segments would carry it.
    pub fn run(&self) -> Outcome {
        let mut port = Port::open(&self.at.interface, self.at.hook)?;
        println!("ready");
        let patience = Instant::now() + Duration::from_secs_f64(self.patience);
        let (mut begin, mut bytes) = (None, 0);
        loop {
            let arrived = port.discard(BATCH);
            bytes += arrived.bytes.saturating_sub(arrived.frames * HEADERS) as u64;
            let now = Instant::now();
            match begin {
                None if arrived.frames > 0 => begin = Some(now),
                None if now > patience => return Err("no frame arrived".into()),
                Some(begin) if (now - begin).as_secs_f64() > self.seconds => {
                    let seconds = (now - begin).as_secs_f64();
                    let gbit_per_s = bytes as f64 * 8.0 / 1e9 / seconds;
                    return print_json(&Stream { bytes, seconds, gbit_per_s, verified: false, retransmits: None });
                }
                _ => {}
            }
        }
    }
}

impl Flood {
    /// Runs until ended.
    pub fn run(&self) -> Outcome {
        let mut port = Port::open(&self.at.interface, self.at.hook)?;
        println!("ready");
        for number in 0.. {
            port.send(HEADERS + self.size, number)?;
            if number % BATCH as u64 == 0 {
                port.flush()?;
            }
        }
        Ok(())
    }
}
