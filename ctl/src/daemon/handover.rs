//! Congestion window and slow start threshold for a kernel socket that has sent nothing yet, by way of an algorithm of ours.

use std::io;
use std::os::fd::BorrowedFd;

use underpass_stack::tcp::image::Image;

use super::repair::{TCP_INFINITE_SSTHRESH, TcpInfo};
use super::sockopt;
use crate::bpf::Algorithm;

/// TCP_CA_NAME_MAX of linux/tcp.h: the longest name with its end.
const NAME_MAX: usize = 16;
/// The kernel takes a positive int; more segments than this no window scale allows.
const MOST: u32 = 1 << 20;
/// Taken where the socket's own algorithm is gone. The last is built into every kernel.
const FALLBACKS: [&str; 2] = ["cubic", "reno"];

/// What a connection has found out about its path, as the kernel counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Congestion {
    /// Congestion window, segments.
    pub cwnd: u32,
    /// Slow start threshold, segments.
    pub ssthresh: u32,
}

impl Congestion {
    /// A connection's. What it cannot have used, for its peer never offered as much, is no part of its window.
    pub fn of(image: &Image) -> Self {
        let offered = image.max_window / u32::from(image.mss_clamp.max(1));
        let cwnd = image.cwnd.min(offered).clamp(1, MOST);
        // "None" is u32::MAX there. Below two segments no algorithm goes (RFC 5681, section 3.1).
        Self { cwnd, ssthresh: image.ssthresh.clamp(2, TCP_INFINITE_SSTHRESH) }
    }
}

/// Gives `wanted` to the socket with this cookie (SO_COOKIE), unless it has it already. The socket keeps its congestion control; an
/// algorithm may have its own idea of the threshold (BBR, which has none). Has it taken it? If not, it goes on with the window that it had.
///
/// # Errors
/// A system call's; then, too.
pub fn give(algorithm: &Algorithm, fd: BorrowedFd<'_>, cookie: u64, wanted: Congestion) -> io::Result<bool> {
    let mut name = congestion_control(fd)?;
    if Algorithm::is_kin(&name) {
        // A daemon was killed between two calls.
        switch_to_first(fd, &FALLBACKS)?;
        name = congestion_control(fd)?;
    }
    if has(fd)? == wanted {
        return Ok(true);
    }
    // Does the socket take its own one's name? Not if the route has chosen it for good, or if the kernel has put another in its place
    // (DCTCP without ECN). Then nothing is touched.
    if let Err(error) = choose(fd, &name) {
        tracing::debug!("a socket does not take its own congestion control {name}: {error}");
        return Ok(false);
    }
    algorithm.expect(cookie, wanted.cwnd, wanted.ssthresh)?;
    choose(fd, algorithm.name())?;
    switch_to_first(fd, &[&name, FALLBACKS[0], FALLBACKS[1]])?;
    Ok(has(fd)?.cwnd == wanted.cwnd)
}

/// To the first of these algorithms that exists.
fn switch_to_first(fd: BorrowedFd<'_>, names: &[&str]) -> io::Result<()> {
    let mut failed = None;
    for name in names {
        match choose(fd, name) {
            Ok(()) => return Ok(()),
            Err(error) => {
                tracing::warn!("a socket does not get its congestion control {name} back: {error}");
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

fn has(fd: BorrowedFd<'_>) -> io::Result<Congestion> {
    TcpInfo::of(fd).map(|info| Congestion { cwnd: info.snd_cwnd, ssthresh: info.snd_ssthresh })
}

/// The name of a socket's congestion control.
fn congestion_control(fd: BorrowedFd<'_>) -> io::Result<String> {
    let (name, _) = sockopt::get::<[u8; NAME_MAX]>(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION)?;
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

fn choose(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    sockopt::set(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name.as_bytes())
}
