//! Traffic whose every byte is checked, from a program that knows nothing of Underpass.
//!
//! ```text
//! traffic echo ADDRESS                    serve: send back what comes, connection by connection
//! traffic pingpong ADDRESS:PORT FILE SIZE ask an echo server, until told to stop
//! traffic answer ADDRESS                  serve one duplex connection
//! traffic duplex ADDRESS:PORT FILE        both directions at full speed, until told to stop
//! traffic flood ADDRESS:PORT FILE         write for ever; the file tells how many bytes write(2) has taken
//! traffic scribble ADDRESS:PORT           ping-pong for a while, then write garbage over every mapped stack of its own
//! traffic drain ADDRESS                   serve one flood: count and check its bytes, and say how it ended
//! ```
//!
//! FILE holds two 64-bit numbers: what has been done so far (rounds or bytes; written here), and whether to stop (written by
//! the test). A server prints `port: N` when it listens; everybody prints `done: …` at the end.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["echo", address] => echo(address),
        ["pingpong", to, file, size] => pingpong(to, file, size.parse().unwrap_or(64)),
        ["answer", address] => answer(address),
        ["duplex", to, file] => duplex(to, file),
        ["flood", to, file] => flood(to, file),
        ["drain", address] => drain(address),
        ["scribble", to] => scribble(to),
        _ => Err(io::Error::new(ErrorKind::InvalidInput, "see the source for the arguments")),
    };
    match outcome {
        Ok(text) => {
            println!("done: {text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("traffic {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn listen(address: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    println!("port: {}", listener.local_addr()?.port());
    Ok(listener)
}

fn echo(address: &str) -> io::Result<String> {
    for stream in listen(address)?.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        std::thread::spawn(move || -> io::Result<()> {
            let mut buffer = vec![0; 64 << 10];
            loop {
                let n = stream.read(&mut buffer)?;
                if n == 0 {
                    return stream.shutdown(Shutdown::Write);
                }
                stream.write_all(&buffer[..n])?;
            }
        });
    }
    Ok(String::new())
}

fn pingpong(to: &str, file: &str, size: usize) -> io::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let progress = Progress::open(file)?;
    let (mut ask, mut answer) = (vec![0; size], vec![0; size]);
    let mut rounds = 0;
    while !progress.is_over()? {
        Pattern::new(1).fill(rounds * size as u64, &mut ask);
        stream.write_all(&ask)?;
        stream.read_exact(&mut answer)?;
        if ask != answer {
            return Err(io::Error::other(format!("round {rounds}: other bytes came back")));
        }
        rounds += 1;
        progress.set(rounds)?;
    }
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut answer)? {
        0 => Ok(format!("{rounds}")),
        n => Err(io::Error::other(format!("{n} bytes too many came back"))),
    }
}

fn answer(address: &str) -> io::Result<String> {
    let (stream, _) = listen(address)?.accept()?;
    let reader = stream.try_clone()?;
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing =
            scope.spawn(|| send(&stream, Pattern::new(2), |_| Ok(over.load(std::sync::atomic::Ordering::Relaxed))));
        let received = receive(&reader, Pattern::new(1));
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        let sent = join(writing)?;
        Ok(format!("sent {sent} received {}", received?))
    })
}

fn duplex(to: &str, file: &str) -> io::Result<String> {
    let stream = TcpStream::connect(to)?;
    let reader = stream.try_clone()?;
    let progress = Progress::open(file)?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            send(&stream, Pattern::new(1), |sent| {
                progress.set(sent)?;
                progress.is_over()
            })
        });
        let received = receive(&reader, Pattern::new(2))?;
        Ok(format!("sent {} received {received}", join(writing)?))
    })
}

fn join(thread: std::thread::ScopedJoinHandle<'_, io::Result<u64>>) -> io::Result<u64> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
}

fn flood(to: &str, file: &str) -> io::Result<String> {
    let stream = TcpStream::connect(to)?;
    let progress = Progress::open(file)?;
    let sent = send(&stream, Pattern::new(1), |sent| {
        progress.set(sent)?;
        progress.is_over()
    })?;
    Ok(format!("{sent}"))
}

fn drain(address: &str) -> io::Result<String> {
    let (stream, _) = listen(address)?.accept()?;
    let pattern = Pattern::new(1);
    let (mut buffer, mut expected) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut received = 0;
    loop {
        match (&stream).read(&mut buffer) {
            Ok(0) => return Ok(format!("{received} then EOF")),
            Ok(n) => received = check(&pattern, received, &buffer[..n], &mut expected)?,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(format!("{received} then reset")),
            Err(error) => return Err(error),
        }
    }
}

/// What a program with a wild pointer does to the memory that it shares with the daemon.
fn scribble(to: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(std::time::Duration::from_millis(100)))?;
    let mut buffer = [7; 64];
    for _ in 0..200 {
        stream.write_all(&buffer)?;
        stream.read_exact(&mut buffer)?;
    }
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let memory = File::options().write(true).open("/proc/self/mem")?;
    let mut areas = 0;
    for line in maps.lines().filter(|line| line.contains("underpass-arena") && line.contains("rw")) {
        let bounds = line.split_whitespace().next().and_then(|range| range.split_once('-'));
        let Some((Ok(start), Ok(end))) = bounds.map(|(a, b)| (u64::from_str_radix(a, 16), u64::from_str_radix(b, 16)))
        else {
            continue;
        };
        areas += 1;
        let mut garbage = vec![0; 64 << 10];
        // Header, counters, board and the first records; then the rings.
        for (number, at) in (start..end).step_by(garbage.len()).take(200).enumerate() {
            Pattern::new(number as u64).fill(0, &mut garbage);
            let len = garbage.len().min((end - at) as usize);
            memory.write_all_at(&garbage[..len], at)?;
        }
    }
    println!("scribbled over: {areas}");
    // It goes on as if nothing had happened; what becomes of itself does not matter.
    for _ in 0..20 {
        if stream.write(&buffer).is_err() || stream.read(&mut buffer).is_err() {
            break;
        }
    }
    Ok(String::new())
}

/// Sends the pattern in pieces of all sizes until `over`, which is told the bytes sent; then closes this direction.
fn send(mut stream: &TcpStream, pattern: Pattern, over: impl Fn(u64) -> io::Result<bool>) -> io::Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let mut sent = 0;
    while !over(sent)? {
        let len = 1 + pattern.word(sent) as usize % buffer.len();
        pattern.fill(sent, &mut buffer[..len]);
        sent += stream.write(&buffer[..len])? as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(sent)
}

/// Receives to the end; every byte must be the next of the pattern.
fn receive(mut stream: &TcpStream, pattern: Pattern) -> io::Result<u64> {
    let (mut buffer, mut expected) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut received = 0;
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(received);
        }
        received = check(&pattern, received, &buffer[..n], &mut expected)?;
    }
}

fn check(pattern: &Pattern, at: u64, got: &[u8], expected: &mut [u8]) -> io::Result<u64> {
    let expected = &mut expected[..got.len()];
    pattern.fill(at, expected);
    match got.iter().zip(expected.iter()).position(|(a, b)| a != b) {
        None => Ok(at + got.len() as u64),
        Some(wrong) => Err(io::Error::other(format!("byte {} of the stream is wrong", at + wrong as u64))),
    }
}

/// A stream of bytes in which no piece resembles another.
struct Pattern {
    seed: u64,
}

impl Pattern {
    fn new(seed: u64) -> Self {
        Self { seed: seed.wrapping_mul(0xd6e8_feb8_6659_fd93) }
    }

    /// The 8 bytes in which offset `at` lies (SplitMix64).
    fn word(&self, at: u64) -> u64 {
        let mut x = self.seed.wrapping_add((at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// The bytes from offset `at` on.
    fn fill(&self, at: u64, buffer: &mut [u8]) {
        let skipped = (at % 8) as usize;
        let mut filled = 0;
        while filled < buffer.len() {
            let word = self.word(at + filled as u64).to_le_bytes();
            let from = if filled == 0 { skipped } else { 0 };
            let n = (8 - from).min(buffer.len() - filled);
            buffer[filled..filled + n].copy_from_slice(&word[from..from + n]);
            filled += n;
        }
    }
}

/// The file shared with the test.
struct Progress(File);

impl Progress {
    fn open(path: &str) -> io::Result<Self> {
        File::options().read(true).write(true).open(path).map(Self)
    }

    fn set(&self, done: u64) -> io::Result<()> {
        self.0.write_all_at(&done.to_ne_bytes(), 0)
    }

    fn is_over(&self) -> io::Result<bool> {
        let mut stop = [0; 8];
        self.0.read_exact_at(&mut stop, 8)?;
        Ok(stop != [0; 8])
    }
}
