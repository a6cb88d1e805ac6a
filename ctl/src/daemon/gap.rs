//! Does the kernel hold bytes beyond a gap in a stream? Its out-of-order queue can be neither read nor asked for. A connection that left with
//! something in it would have forgotten what it has acknowledged selectively (RFC 2018, section 8: reneging), and its peer
//! would find out by a timeout only.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;

use super::repair;
use super::sockopt::{get, ioctl_int};

/// Where `struct tcp_info` (linux/tcp.h) has `tcpi_rcv_ooopack`: segments that ever came out of order.
const PIECES_AT: usize = 224;
/// Words of SO_MEMINFO up to SK_MEMINFO_RMEM_ALLOC (linux/sock_diag.h): memory of everything received, in order or not.
const MEMINFO_WORDS: usize = 1;
/// The kernel takes a merged segment whose end lies so far beyond its window.
const MERGED: u32 = 65_536;
/// Sockets remembered at most. Who is forgotten waits for a window's worth of data once more.
const REMEMBERED: usize = 4096;

/// A socket that may hold something beyond a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspect {
    /// So many segments had come out of order.
    pieces: u32,
    /// Nothing that had come by then ends beyond this sequence number.
    edge: u32,
}

/// Suspects by socket cookie.
#[derive(Debug, Default)]
pub struct Suspects(HashMap<u64, Suspect>);

impl Suspects {
    /// A look at one socket, which knows of the looks before.
    pub fn look(&self, cookie: u64) -> Look {
        Look { suspect: self.0.get(&cookie).copied() }
    }

    /// Keeps what a look has found, if it matters later on.
    pub fn keep(&mut self, cookie: u64, look: Look, promoted: bool) {
        match look.suspect.filter(|_| !promoted) {
            None => drop(self.0.remove(&cookie)),
            Some(suspect) => {
                if self.0.len() >= REMEMBERED {
                    self.0.clear();
                }
                self.0.insert(cookie, suspect);
            }
        }
    }
}

/// Looks at one socket in repair mode, perhaps several times.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    suspect: Option<Suspect>,
}

impl Look {
    /// Is it certain that nothing lies beyond a gap? It is when nothing ever came out of order; when nothing is unread and no memory
    /// taken; or when the stream has gone past everything that could have come before the last piece out of order was counted.
    pub fn is_whole(&mut self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        let pieces = pieces(fd)?;
        if pieces == 0 || holds_nothing(fd)? {
            return Ok(true);
        }
        let rcv_nxt = repair::rcv_nxt(fd)?;
        self.has_passed(pieces, rcv_nxt, || repair::window_end(fd))
    }

    fn has_passed(
        &mut self,
        pieces: u32,
        rcv_nxt: u32,
        window_end: impl FnOnce() -> io::Result<u32>,
    ) -> io::Result<bool> {
        match self.suspect {
            Some(known) if known.pieces == pieces => Ok(rcv_nxt.wrapping_sub(known.edge) as i32 >= 0),
            _ => {
                self.suspect = Some(Suspect { pieces, edge: window_end()?.wrapping_add(MERGED) });
                Ok(false)
            }
        }
    }
}

/// Segments that came out of order since the socket was connected. Before Linux 5.4 nobody counts them.
fn pieces(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let (info, _) = get::<[u32; PIECES_AT / 4 + 1]>(fd, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    Ok(info[PIECES_AT / 4])
}

fn holds_nothing(fd: BorrowedFd<'_>) -> io::Result<bool> {
    if ioctl_int(fd, libc::FIONREAD)? != 0 {
        return Ok(false);
    }
    let (memory, len) = get::<[u32; MEMINFO_WORDS]>(fd, libc::SOL_SOCKET, libc::SO_MEMINFO)?;
    Ok(len == size_of_val(&memory) && memory == [0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(look: &mut Look, pieces: u32, rcv_nxt: u32, window_end: u32) -> bool {
        look.has_passed(pieces, rcv_nxt, || Ok(window_end)).unwrap()
    }

    #[test]
    fn a_gap_is_over_when_the_stream_has_gone_past_the_window_of_then() {
        let mut look = Suspects::default().look(1);
        assert!(!passed(&mut look, 3, 1000, 5000));
        assert!(!passed(&mut look, 3, 5000, 9000));
        assert!(!passed(&mut look, 3, 5000 + MERGED - 1, 90_000));
        assert!(passed(&mut look, 3, 5000 + MERGED, 90_000));
    }

    #[test]
    fn another_piece_begins_the_wait_anew() {
        let mut look = Suspects::default().look(1);
        assert!(!passed(&mut look, 3, 1000, 5000));
        assert!(!passed(&mut look, 4, 100_000, 105_000));
        assert!(!passed(&mut look, 4, 105_000, 110_000));
        assert!(passed(&mut look, 4, 105_000 + MERGED, 200_000));
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut look = Suspects::default().look(1);
        assert!(!passed(&mut look, 1, u32::MAX - 10, u32::MAX));
        assert!(!passed(&mut look, 1, MERGED - 2, 0));
        assert!(passed(&mut look, 1, MERGED - 1, 0));
    }

    #[test]
    fn looks_are_remembered_until_the_socket_is_promoted_and_never_too_many() {
        let mut all = Suspects::default();
        let mut look = all.look(7);
        assert!(!passed(&mut look, 1, 0, 10));
        all.keep(7, look, false);
        assert!(passed(&mut all.look(7), 1, 10 + MERGED, 0));
        all.keep(7, look, true);
        assert!(!passed(&mut all.look(7), 1, 10 + MERGED, 0));
        for cookie in 0..2 * REMEMBERED as u64 {
            all.keep(cookie, look, false);
        }
        assert!(all.0.len() <= REMEMBERED);
    }
}
