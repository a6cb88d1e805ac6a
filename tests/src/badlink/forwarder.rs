//! The thread through which all frames go.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use underpass_stack::tcp::Instant;
use underpass_stack::testkit::{Link, LinkSpec};

use super::Board;
use super::marks::Marks;
use super::packet::{PacketSocket, sleep_on};
use crate::priority::{Urgent, be_punctual};

/// Frames taken from one side before the other is looked at.
const BATCH: usize = 64;
/// Rounds between two looks at what the kernel could not hand over.
const DROPS_EVERY: u64 = 256;

/// Its sockets and what is under way.
pub(super) struct Forwarder {
    sockets: [PacketSocket; 2],
    bell: UnixStream,
    board: Arc<Mutex<Board>>,
    /// By the sending side.
    links: [Link; 2],
    marks: Option<Marks>,
    begin: std::time::Instant,
    rounds: u64,
}

impl Forwarder {
    pub fn new(sockets: [PacketSocket; 2], bell: UnixStream, board: Arc<Mutex<Board>>) -> Self {
        let links = [1, 2].map(|seed| Link::new(LinkSpec::default(), seed));
        Self { sockets, bell, board, links, marks: None, begin: std::time::Instant::now(), rounds: 0 }
    }

    /// Runs until the bell is gone.
    pub fn run(mut self) -> io::Result<()> {
        be_punctual(Urgent::Wire)?;
        while self.listen()? {
            self.take_in()?;
            self.deliver()?;
            let next = self.links.iter().filter_map(Link::next_arrival).min();
            let limit = next.map(|at| Duration::from_nanos(at.0.saturating_sub(self.now().0)));
            let fds = [self.sockets[0].as_raw_fd(), self.sockets[1].as_raw_fd(), self.bell.as_raw_fd()];
            sleep_on(fds, limit)?;
        }
        Ok(())
    }

    fn now(&self) -> Instant {
        Instant(self.begin.elapsed().as_nanos() as u64)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        // Nothing is left half done under this lock.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the board if somebody rang. False if nobody can any more.
    fn listen(&mut self) -> io::Result<bool> {
        let mut rung = [0; 64];
        match self.bell.read(&mut rung) {
            Ok(0) => return Ok(false),
            Ok(_) => (),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
        let (next, lose_marked) = {
            let mut board = self.board();
            let next = board.next.take();
            if next.is_some() {
                board.report = Default::default();
            }
            (next, board.lose_marked)
        };
        if let Some(links) = next {
            self.links = links;
        }
        if self.marks.is_some() != lose_marked {
            self.marks = lose_marked.then(Marks::default);
        }
        Ok(true)
    }

    /// Frames that have come out of the cables.
    fn take_in(&mut self) -> io::Result<()> {
        for side in [0, 1] {
            for _ in 0..BATCH {
                let Some(frame) = self.sockets[side].receive()? else { break };
                if !self.marks.as_mut().is_some_and(|marks| marks.is_first(&frame)) {
                    self.links[side].send(self.now(), frame);
                }
            }
        }
        Ok(())
    }

    /// Frames whose time has come.
    fn deliver(&mut self) -> io::Result<()> {
        let board = self.board.clone();
        let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
        for side in [0, 1] {
            while let Some(due) = self.links[side].next_arrival() {
                let now = self.now();
                let Some(frame) = self.links[side].receive(now) else { break };
                board.report.lateness.record(now.nanos_since(due));
                if !self.sockets[1 - side].send(&frame)? {
                    board.report.dropped += 1;
                }
            }
            board.report.offered[side] = self.links[side].offered();
            board.report.overflowed[side] = self.links[side].overflowed();
            if self.rounds % DROPS_EVERY == 0 {
                board.report.dropped += self.sockets[side].take_drops()?;
            }
        }
        self.rounds += 1;
        Ok(())
    }
}
