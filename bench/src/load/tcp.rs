//! Socket calls that std has not got. The `unsafe` of the socket programs.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// A connection read either by sleeping or by asking again and again.
pub struct Connection {
    stream: TcpStream,
    spin: bool,
}

impl Connection {
    /// Nagle's algorithm off.
    pub fn new(stream: TcpStream, spin: bool) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, spin })
    }

    /// Reads something; 0 at the end of the stream.
    #[inline]
    pub fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.spin {
            return self.stream.read(buffer);
        }
        loop {
            match recv_dontwait(&self.stream, buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::hint::spin_loop(),
                outcome => return outcome,
            }
        }
    }

    /// Fills the buffer.
    #[inline]
    pub fn read_full(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_some(&mut buffer[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => filled += more,
            }
        }
        Ok(())
    }

    /// Writes all.
    #[inline]
    pub fn write_full(&mut self, data: &[u8]) -> io::Result<()> {
        self.stream.write_all(data)
    }

    /// Segments sent again so far, where that is known.
    pub fn retransmits(&self) -> Option<u32> {
        total_retrans(&self.stream)
    }
}

fn recv_dontwait(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into the buffer.
    let got = unsafe { libc::recv(stream.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(got as usize) }
}

/// Field tcpi_total_retrans of TCP_INFO, tcp(7).
pub fn total_retrans(stream: &TcpStream) -> Option<u32> {
    // SAFETY: tcp_info is integers only.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes of integers into `info`.
    let result = unsafe {
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut len)
    };
    (result == 0).then_some(info.tcpi_total_retrans)
}

/// Which congestion control the kernel is to use for a connection (TCP_CONGESTION, tcp(7)).
pub fn set_congestion(stream: &TcpStream, name: &str) -> io::Result<()> {
    let (fd, option) = (stream.as_raw_fd(), libc::TCP_CONGESTION);
    // SAFETY: the kernel reads the name.
    let result =
        unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, option, name.as_ptr().cast(), name.len() as libc::socklen_t) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
