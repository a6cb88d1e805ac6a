//! What is measured of a program that gains nothing from Underpass, and knows nothing of it.
//!
//! ```text
//! costs reads                                    time read(2) of one byte from a pipe that holds enough
//! costs hold ADDRESS:PORT COUNT poll|park FILE   open COUNT connections to an echo server, use them, then be idle for ever
//! ```
//!
//! `reads` prints `ns: N`, the median of many batches. `hold` exchanges a message on each connection in turn, at least once and until
//! FILE exists, prints `silent`, and idles: in poll(2) on all connections, or in no call on them at all.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Reads timed together; so many bytes fit into a pipe.
const BATCH: usize = 1024;
const BATCHES: usize = 64;
/// Bytes of a message.
const MESSAGE: usize = 64;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["reads"] => reads(),
        ["hold", to, count, idling, file] => hold(to, count, idling, Path::new(file)),
        _ => Err(io::Error::new(ErrorKind::InvalidInput, "see the source for the arguments")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("costs {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

/// The median: a batch during which the CPU did something else says nothing.
fn reads() -> io::Result<()> {
    let (reader, writer) = nix::unistd::pipe()?;
    let (mut reader, mut writer) = (File::from(reader), File::from(writer));
    let batches = (0..BATCHES).map(|_| batch(&mut reader, &mut writer)).collect::<io::Result<Vec<f64>>>();
    let mut nanos = batches?;
    nanos.sort_by(f64::total_cmp);
    println!("ns: {:.2}", nanos[nanos.len() / 2]);
    Ok(())
}

/// Nanoseconds a read.
fn batch(reader: &mut File, writer: &mut File) -> io::Result<f64> {
    writer.write_all(&[1; BATCH])?;
    let mut byte = [0];
    let start = Instant::now();
    for _ in 0..BATCH {
        reader.read_exact(&mut byte)?;
    }
    Ok(start.elapsed().as_nanos() as f64 / BATCH as f64)
}

fn hold(to: &str, count: &str, idling: &str, enough: &Path) -> io::Result<()> {
    let count = count.parse().map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    let idle = match idling {
        "poll" => idle_in_poll,
        "park" => idle_elsewhere,
        _ => return Err(io::Error::new(ErrorKind::InvalidInput, "poll or park")),
    };
    let mut streams = connect(to, count)?;
    loop {
        streams.iter_mut().try_for_each(exchange)?;
        if enough.exists() {
            break;
        }
    }
    println!("silent");
    idle(&streams)
}

fn connect(to: &str, count: usize) -> io::Result<Vec<TcpStream>> {
    let one = |_| {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    (0..count).map(one).collect()
}

fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    let mut message = [0x5a; MESSAGE];
    stream.write_all(&message)?;
    stream.read_exact(&mut message)
}

/// Ends when the peer does, which sends nothing unasked.
fn idle_in_poll(streams: &[TcpStream]) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> = streams.iter().map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN)).collect();
    poll(&mut fds, PollTimeout::NONE)?;
    Ok(())
}

fn idle_elsewhere(_: &[TcpStream]) -> io::Result<()> {
    loop {
        std::thread::park();
    }
}
