//! Malformed frames for a living connection, as a hostile neighbour would send them (packet(7)).
//!
//! ```text
//! frames INTERFACE OWN-MAC PEER-MAC OWN-IP:PORT PEER-IP:PORT ROUNDS
//! ```
//!
//! The addresses are those of the connection as this side of it would use them. Prints `sent: N` at the end.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

const ETHERNET: usize = 14;
const IP: usize = 20;
const ACK: u8 = 0x10;
/// For how long the wire may be full.
const FULL: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(sent) => {
            println!("sent: {sent}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("frames: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> io::Result<usize> {
    let [interface, own, peer, from, to, rounds] = words else { return Err(bad("see the source for the arguments")) };
    let flow = Flow {
        own: mac(own)?,
        peer: mac(peer)?,
        from: from.parse().map_err(|_| bad(from))?,
        to: to.parse().map_err(|_| bad(to))?,
    };
    let socket = open(interface)?;
    let mut sent = 0;
    for round in 0..rounds.parse().map_err(|_| bad(rounds))? {
        for frame in malformed(&flow, round) {
            sent += usize::from(send(&socket, &frame)?);
        }
    }
    Ok(sent)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.to_owned())
}

fn mac(text: &str) -> io::Result<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| bad(text))
}

fn open(interface: &str) -> io::Result<OwnedFd> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: system calls on memory of ours; the descriptor is checked before it is owned.
    unsafe {
        let raw = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(raw);
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        match libc::bind(raw, (&raw const address).cast(), len) {
            0 => Ok(socket),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Whether the frame went out. One longer than the interface's MTU is refused here already: then the wire is safe from it.
fn send(socket: &OwnedFd, frame: &[u8]) -> io::Result<bool> {
    let deadline = Instant::now() + FULL;
    loop {
        // SAFETY: a slice and its length.
        if unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) } >= 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EMSGSIZE) => return Ok(false),
            // The other side of the wire takes nothing while its processor does something else.
            Some(libc::ENOBUFS) if Instant::now() < deadline => thread::sleep(Duration::from_micros(100)),
            _ => return Err(error),
        }
    }
}

struct Flow {
    own: [u8; 6],
    peer: [u8; 6],
    from: SocketAddrV4,
    to: SocketAddrV4,
}

/// A segment before anything is made wrong.
struct Segment {
    seq: u32,
    ack: u32,
    flags: u8,
    options: Vec<u8>,
    payload: usize,
}

impl Flow {
    /// A frame with right lengths and checksums.
    fn frame(&self, segment: &Segment) -> Vec<u8> {
        let header = 20 + segment.options.len().next_multiple_of(4);
        let mut frame = vec![0u8; ETHERNET + IP + header + segment.payload];
        frame[..6].copy_from_slice(&self.peer);
        frame[6..12].copy_from_slice(&self.own);
        frame[12..14].copy_from_slice(&[8, 0]);
        let total = (frame.len() - ETHERNET) as u16;
        let ip = &mut frame[ETHERNET..];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        (ip[8], ip[9]) = (64, 6);
        ip[12..16].copy_from_slice(&self.from.ip().octets());
        ip[16..20].copy_from_slice(&self.to.ip().octets());
        let tcp = &mut ip[IP..];
        tcp[..2].copy_from_slice(&self.from.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&self.to.port().to_be_bytes());
        tcp[4..8].copy_from_slice(&segment.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&segment.ack.to_be_bytes());
        tcp[12] = (header as u8 / 4) << 4;
        tcp[13] = segment.flags;
        tcp[14..16].copy_from_slice(&1000u16.to_be_bytes());
        tcp[20..20 + segment.options.len()].copy_from_slice(&segment.options);
        seal(&mut frame);
        frame
    }
}

/// Puts both checksums right.
fn seal(frame: &mut [u8]) {
    let ip = &mut frame[ETHERNET..];
    ip[10..12].fill(0);
    let sum = checksum(0, &ip[..IP]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    seal_tcp(frame);
}

fn seal_tcp(frame: &mut [u8]) {
    let ip = &mut frame[ETHERNET..];
    let pseudo: u32 = ip[12..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let len = (ip.len() - IP) as u32;
    ip[IP + 16..IP + 18].fill(0);
    let sum = checksum(pseudo + 6 + len, &ip[IP..]);
    ip[IP + 16..IP + 18].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum (RFC 1071).
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = words.fold(start, |sum, word| sum + word);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

/// One of each kind. Sequence numbers are wild: a guess that is right by chance would be an attack on TCP itself.
fn malformed(flow: &Flow, round: u32) -> Vec<Vec<u8>> {
    let wild = round.wrapping_mul(2_654_435_761);
    let plain = |flags, payload| Segment { seq: wild, ack: !wild, flags, options: Vec::new(), payload };
    let sound = flow.frame(&plain(ACK, 100));
    let change = |at: usize, value: u8| {
        let mut frame = sound.clone();
        frame[at] = value;
        frame
    };
    let sealed = |at: usize, value: u8| {
        let mut frame = change(at, value);
        seal(&mut frame);
        frame
    };
    let tcp = ETHERNET + IP;
    let mut frames = vec![
        sound[..ETHERNET + IP + 4].to_vec(),
        sound[..ETHERNET + IP + 19].to_vec(),
        sound[..ETHERNET + 10].to_vec(),
        // Lengths: IP total too long, too short; IP header of 24 and of 16 bytes; TCP header of 16 and 60 bytes.
        sealed(ETHERNET + 2, 0xff),
        sealed(ETHERNET + 3, 30),
        sealed(ETHERNET, 0x46),
        sealed(ETHERNET, 0x44),
        sealed(tcp + 12, 0x40),
        sealed(tcp + 12, 0xf0),
        // Checksums: IP, TCP.
        change(ETHERNET + 10, sound[ETHERNET + 10] ^ 0x55),
        change(tcp + 16, sound[tcp + 16] ^ 0x55),
        change(tcp + 30, 0xaa),
        // Fragments: the first, a later one.
        sealed(ETHERNET + 6, 0x20),
        sealed(ETHERNET + 7, 5),
        // Out of any window, and with all kinds of flags.
        sound.clone(),
        flow.frame(&plain(0, 10)),
        flow.frame(&plain(0xff, 10)),
        flow.frame(&plain(0x04, 0)),
        flow.frame(&plain(0x14, 0)),
        flow.frame(&plain(0x02, 0)),
        flow.frame(&plain(0x12, 0)),
        flow.frame(&plain(0x11, 0)),
        flow.frame(&plain(0x38, 10)),
        // Oversize.
        flow.frame(&plain(ACK, 1461)),
        flow.frame(&plain(ACK, 1480)),
        flow.frame(&plain(ACK, 8000)),
    ];
    // Options: no length, length nought, length past the header, timestamps too short, SACK with half a block.
    for options in
        [&[2u8][..], &[2, 0, 0, 0], &[8, 30, 0, 0], &[8, 4, 1, 1], &[5, 6, 1, 2, 3, 4, 1, 1], &[253, 1, 1, 1]]
    {
        frames.push(flow.frame(&Segment { options: options.to_vec(), ..plain(ACK, 5) }));
    }
    frames
}
