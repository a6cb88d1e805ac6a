//! Demotion: off the lane, back into the kernel socket.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use underpass_stack::arena::{ConnRecord, Phase};
use underpass_stack::control::{Demote, Demoted, Restore};
use underpass_stack::lane::Reason;
use underpass_stack::mem::{Region, ring};
use underpass_stack::tcp::image::{Image, flag};
use underpass_stack::tcp::scoreboard::{Piece, fate};

use super::handover::{Congestion, give};
use super::repair::{self, Dump, Transmissions};
use super::reply::{Answer, Refusal, Reply};
use super::restore::{Bytes, restore, set_window};
use super::round_trip;
use super::session::{Conn, Session};
use super::sockopt;
use super::state::{Daemon, monotonic};
use super::unheard::frames;

impl Daemon {
    /// Answers [`Demote`].
    pub fn demote(&mut self, session: u32, ask: &Demote) -> Answer {
        let known = self.session(session)?;
        let conn = known.conns.get(&ask.slot).ok_or(Reason::BadImage)?;
        let record = known.record(ask.slot).ok_or(Reason::BadImage)?;
        let phase = Phase::from_raw(record.phase);
        if phase == Phase::Reserved && record.generation == ask.generation && conn.generation == ask.generation {
            // The stack did not take it: the kernel goes on where it was.
            self.give_back_untaken(session, ask.slot)?;
            return Ok(Reply::of(&Demoted { acked_again: 0 }));
        }
        let frozen = phase == Phase::Frozen;
        if !frozen || record.generation != ask.generation || conn.generation != ask.generation {
            return Err(Reason::BadImage.into());
        }
        let dump = read_record(known, conn, &record).ok_or(Reason::BadImage)?;
        let conn = known.conns.remove(&ask.slot).ok_or(Reason::BadImage)?;
        let acked_again = self.give_back(session, conn, &dump)?;
        Ok(Reply::of(&Demoted { acked_again }))
    }

    /// Gives a connection back that the stack has not taken over: the kernel's queues, or what was read from them.
    pub fn give_back_untaken(&mut self, session: u32, slot: u32) -> Result<(), Refusal> {
        let mut conn = self.session(session)?.conns.remove(&slot).ok_or(Reason::BadImage)?;
        match conn.kept.take() {
            Some(kept) if kept.hollowed => self.give_back(session, conn, &kept.dump).map(|_| ()),
            Some(kept) => {
                let fd = conn.fd.as_fd();
                let opened = set_window(fd, &kept.dump.image);
                let thawed = opened.and(repair::thaw(fd, &conn.restore));
                self.let_go(session, conn, &[]);
                Ok(thawed?)
            }
            None => {
                self.totals.lost += 1;
                tracing::error!("{:?}: connection lost: there is no sound record of it", conn.flow);
                abandon(conn.fd.as_fd());
                self.let_go(session, conn, &[]);
                Err(Reason::Lost.into())
            }
        }
    }

    /// Makes the kernel socket live again, then lets the flow's packets reach it. Returns how many bytes the kernel counts as acknowledged that
    /// were so before.
    pub fn give_back(&mut self, session: u32, conn: Conn, dump: &Dump) -> Result<u32, Refusal> {
        let before = round_trip::bytes_before(&dump.image);
        let bytes = Bytes { recv: &dump.recv, before, send: &dump.send };
        let hand_on = || self.hand_on_window(&conn, &dump.image);
        let restored = restore(conn.fd.as_fd(), &dump.image_at(monotonic()), bytes, &conn.restore, hand_on);
        match &restored {
            Ok(()) => tracing::debug!("session {session}: {:?} is back in the kernel", conn.flow),
            Err(error) => {
                self.totals.lost += 1;
                tracing::error!("{:?}: connection lost: {error}", conn.flow);
                abandon(conn.fd.as_fd());
            }
        }
        let frames = frames(&conn, &dump.image_at(monotonic()), dump);
        self.let_go(session, conn, &frames);
        let lost = |error: std::io::Error| Refusal { reason: Reason::Lost, errno: error.raw_os_error().unwrap_or(0) };
        restored.map(|()| before.len() as u32).map_err(lost)
    }

    /// Gives the socket, which was restored but has sent nothing yet, what the connection had found out about its path.
    fn hand_on_window(&self, conn: &Conn, image: &Image) {
        let Some(algorithm) = &self.algorithm else { return };
        let wanted = Congestion::of(image);
        match give(algorithm, conn.fd.as_fd(), conn.cookie, wanted) {
            Ok(true) => tracing::debug!("{:?}: goes on with {wanted:?}", conn.flow),
            Ok(false) => tracing::debug!("{:?}: the kernel did not take {wanted:?}", conn.flow),
            Err(error) => tracing::warn!("{:?}: {wanted:?} is lost: {error}", conn.flow),
        }
    }

    /// The connection is the kernel's from now on. `frames` are what its peer has said and the socket cannot know otherwise: it should hear
    /// them before anything else. An acknowledgement of what closes a gap that does not cover what was acknowledged selectively beyond it
    /// looks like reneging, and has everything sent again. Only where frames that are injected meet XDP again they have to wait.
    fn let_go(&mut self, session: u32, conn: Conn, frames: &[Vec<u8>]) {
        let (netns, ifindex) = (conn.netns, conn.path.ifindex);
        let first = self.interface(netns, ifindex).is_some_and(|interface| interface.native);
        if first {
            self.inject_all(netns, ifindex, frames);
        }
        if let Some(interface) = self.interface(netns, ifindex) {
            interface.steer.release(&conn.flow);
        }
        if !first {
            self.inject_all(netns, ifindex, frames);
        }
        self.totals.demoted += 1;
        if let Some(session) = self.sessions.get_mut(&session) {
            session.recent.add(conn.netns, conn.flow, Instant::now());
        }
        self.answer_waiting(conn.cookie);
    }
}

/// The state and the bytes of a connection's record, if they are consistent.
pub fn read_record(session: &Session, conn: &Conn, record: &ConnRecord) -> Option<Dump> {
    let arena = session.arena.as_ref()?;
    if record.flow != conn.flow {
        return None;
    }
    let at = monotonic();
    // The kernel takes over no model, only a window.
    let image = Image { cwnd: record.tcb.plain_window(), ..record.tcb.image(conn.flow, at) };
    let (rcv, snd) = (record.rcv_ring.range()?, record.snd_ring.range()?);
    if !image.is_sound(record.rcv_ring.len, record.snd_ring.len) {
        return None;
    }
    let fin_acked = u32::from(image.flags & flag::FIN_ACKED != 0);
    let received = |seq: u32, len: u32| copy(arena, rcv, record.tcb.rcv_place(seq), len);
    let piece = |(start, end): (u32, u32)| Some((start, received(start, end.wrapping_sub(start))?));
    let beyond = record.beyond.range().and_then(|(offset, len)| arena.bytes(offset, len)).unwrap_or_default();
    let ahead = || record.tcb.ahead(record.rcv_ring.len, beyond).into_iter().filter_map(piece).collect();
    let frozen = Phase::from_raw(record.phase) == Phase::Frozen;
    let sacked = record.beyond.sacked_range().filter(|_| frozen).and_then(|(offset, len)| arena.bytes(offset, len));
    Some(Dump {
        // A process that died may have been about to write the bytes of the newest piece.
        ahead: if frozen { ahead() } else { Vec::new() },
        sent: Transmissions { pieces: sacked.map(sacked_pieces).unwrap_or_default(), ..Transmissions::default() },
        recv: received(image.rcv_read, image.unread())?,
        send: copy(arena, snd, record.tcb.snd_place(image.snd_una.wrapping_sub(fin_acked)), image.unacknowledged())?,
        image,
        at,
    })
}

/// Pairs of words in memory as pieces.
fn sacked_pieces(pairs: &[u8]) -> Vec<Piece> {
    let word = |bytes: &[u8]| bytes.try_into().map(u32::from_ne_bytes).unwrap_or_default();
    pairs.chunks_exact(8).map(|p| Piece { start: word(&p[..4]), end: word(&p[4..]), fate: fate::SACKED }).collect()
}

fn copy(arena: &Region, (offset, size): (usize, usize), place: u32, len: u32) -> Option<Vec<u8>> {
    let mut out = vec![0; len as usize];
    ring::read(arena.bytes(offset, size)?, place, &mut out);
    Some(out)
}

/// Ends a connection that cannot be restored: the peer is told by a reset as far as the socket still knows it.
fn abandon(fd: BorrowedFd<'_>) {
    // Each step for itself: one that fails must not keep the others from being made.
    let undone = [
        sockopt::detach_filter(fd),
        sockopt::set_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, repair::REPAIR_OFF_NO_WP),
        sockopt::disconnect(fd),
    ];
    for error in undone.into_iter().filter_map(Result::err) {
        tracing::debug!("abandoning a socket: {error}");
    }
}

/// What a connection's socket had before its promotion, for a client that hands it over to this daemon.
pub fn claimed(restore: Restore) -> Restore {
    Restore {
        reuse_addr: u32::from(restore.reuse_addr != 0),
        keepalive: u32::from(restore.keepalive != 0),
        buf_lock: restore.buf_lock & 3,
        pad: 0,
    }
}
