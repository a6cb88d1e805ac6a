//! Demotion: off the lane, back into the kernel socket.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use underpass_stack::arena::{ConnRecord, Phase};
use underpass_stack::control::{Demote, Restore};
use underpass_stack::ip::output::{FromPeer, synthesize};
use underpass_stack::lane::Reason;
use underpass_stack::mem::{Region, ring};
use underpass_stack::tcp::image::{Image, flag};
use underpass_stack::wire::{ipv4, ipv6};

use super::handover::{Congestion, give};
use super::repair::{self, Dump};
use super::reply::{Answer, Refusal, Reply};
use super::restore::{restore, set_window};
use super::session::{Conn, Session};
use super::sockopt;
use super::state::{Daemon, monotonic};
use crate::steer::inject::MAX_FRAME;

/// Room for a made-up segment without data.
const CONTROL_FRAME: usize = 128;
/// Segments made up of out-of-order data at most, more than a window of 8 MiB has: each costs a system call, and others wait. But what is
/// left out was acknowledged (RFC 2018), and the peer finds out that it was dropped by a timeout.
const MAX_AHEAD: usize = 8192;
/// What every path carries (RFC 791: hosts accept 576 bytes).
const MIN_MTU: usize = 576;
/// Bytes of an Ethernet header; of a TCP header with a timestamp.
const ETHERNET: usize = 14;
const TCP_HEADER: usize = 32;

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
            return Ok(Reply::done(1));
        }
        let frozen = phase == Phase::Frozen;
        if !frozen || record.generation != ask.generation || conn.generation != ask.generation {
            return Err(Reason::BadImage.into());
        }
        let dump = read_record(known, conn, &record).ok_or(Reason::BadImage)?;
        let conn = known.conns.remove(&ask.slot).ok_or(Reason::BadImage)?;
        self.give_back(session, conn, &dump)?;
        Ok(Reply::done(1))
    }

    /// Gives a connection back that the stack has not taken over: the kernel's queues, or what was read from them.
    pub fn give_back_untaken(&mut self, session: u32, slot: u32) -> Result<(), Refusal> {
        let mut conn = self.session(session)?.conns.remove(&slot).ok_or(Reason::BadImage)?;
        match conn.kept.take() {
            Some(kept) if kept.hollowed => self.give_back(session, conn, &kept.dump),
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

    /// Makes the kernel socket live again, then lets the flow's packets reach it.
    pub fn give_back(&mut self, session: u32, conn: Conn, dump: &Dump) -> Result<(), Refusal> {
        let queues = (dump.recv.as_slice(), dump.send.as_slice());
        let hand_on = || self.hand_on_window(&conn, &dump.image);
        let restored = restore(conn.fd.as_fd(), &dump.image, queues, &conn.restore, hand_on);
        match &restored {
            Ok(()) => tracing::debug!("session {session}: {:?} is back in the kernel", conn.flow),
            Err(error) => {
                self.totals.lost += 1;
                tracing::error!("{:?}: connection lost: {error}", conn.flow);
                abandon(conn.fd.as_fd());
            }
        }
        let mut frames = control_frames(&conn, &dump.image);
        frames.extend(data_frames(&conn, dump));
        self.let_go(session, conn, &frames);
        restored.map_err(|error| Refusal { reason: Reason::Lost, errno: error.raw_os_error().unwrap_or(0) })
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
    let image = record.tcb.image(conn.flow, monotonic());
    let (rcv, snd) = (record.rcv_ring.range()?, record.snd_ring.range()?);
    if !image.is_sound(record.rcv_ring.len, record.snd_ring.len) {
        return None;
    }
    let fin_acked = u32::from(image.flags & flag::FIN_ACKED != 0);
    let received = |seq: u32, len: u32| copy(arena, rcv, record.tcb.rcv_place(seq), len);
    let piece = |(start, end): (u32, u32)| Some((start, received(start, end.wrapping_sub(start))?));
    let beyond = record.beyond.range().and_then(|(offset, len)| arena.bytes(offset, len)).unwrap_or_default();
    let ahead = || record.tcb.ahead(record.rcv_ring.len, beyond).into_iter().filter_map(piece).collect();
    Some(Dump {
        // A process that died may have been about to write the bytes of the newest piece.
        ahead: if Phase::from_raw(record.phase) == Phase::Frozen { ahead() } else { Vec::new() },
        recv: received(image.rcv_read, image.unread())?,
        send: copy(arena, snd, record.tcb.snd_place(image.snd_una.wrapping_sub(fin_acked)), image.unacknowledged())?,
        image,
    })
}

fn copy(arena: &Region, (offset, size): (usize, usize), place: u32, len: u32) -> Option<Vec<u8>> {
    let mut out = vec![0; len as usize];
    ring::read(arena.bytes(offset, size)?, place, &mut out);
    Some(out)
}

/// What the peer has said that a restored socket has still to hear: its FIN or RST, its acknowledgement of our FIN. Where we owe the
/// peer an acknowledgement, a segment from before the window makes the kernel send one at once.
pub fn control_frames(conn: &Conn, image: &Image) -> Vec<Vec<u8>> {
    let has = |bit: u32| image.flags & bit != 0;
    let frame = |what| from_peer(conn, image, what);
    let fin_received = has(flag::FIN_RECEIVED);
    if has(flag::RESET_RECEIVED) {
        // In the order in which the peer said them: what a reset means depends on the state that it meets.
        let fin = if fin_received { frame(FromPeer::Fin) } else { None };
        return fin.into_iter().chain(frame(FromPeer::Reset)).collect();
    }
    let told = if fin_received {
        frame(FromPeer::Fin)
    } else if has(flag::FIN_ACKED) {
        frame(FromPeer::Ack)
    } else if image.rcv_wup != image.rcv_nxt {
        from_peer(conn, &Image { rcv_nxt: image.rcv_wup.wrapping_sub(1), ..*image }, FromPeer::Ack)
    } else {
        None
    };
    told.into_iter().collect()
}

/// What arrived out of order, as far as it is not too much. The peer was told that we have it (RFC 2018), and would find out only by a
/// timeout that we do not.
fn data_frames(conn: &Conn, dump: &Dump) -> Vec<Vec<u8>> {
    // The path may be a client's word.
    let (least, ip_header) =
        if conn.flow.is_v6() { (ipv6::MTU_MIN as usize, ipv6::HEADER_LEN) } else { (MIN_MTU, ipv4::HEADER_LEN) };
    let mtu = (conn.path.mtu as usize).clamp(least, MAX_FRAME - ETHERNET);
    let room = mtu - ip_header - TCP_HEADER;
    let pieces = dump.ahead.iter().flat_map(|(seq, bytes)| {
        let cut = bytes.chunks(room).enumerate();
        cut.map(move |(n, chunk)| (seq.wrapping_add((n * room) as u32), chunk))
    });
    pieces.take(MAX_AHEAD).filter_map(|(seq, chunk)| from_peer(conn, &dump.image, FromPeer::Data(seq, chunk))).collect()
}

fn from_peer(conn: &Conn, image: &Image, what: FromPeer<'_>) -> Option<Vec<u8>> {
    let mut image = *image;
    // Without a timestamp to echo none is better than a wrong one, which would be taken for an old segment's. And data may come after what
    // the peer has just sent again, next to which its timestamp is old (RFC 7323, section 5).
    if image.flags & flag::TS_RECENT == 0 || matches!(what, FromPeer::Data(..)) {
        image.flags &= !flag::TIMESTAMPS;
    }
    let data = if let FromPeer::Data(_, data) = what { data.len() } else { 0 };
    let mut frame = vec![0; CONTROL_FRAME + data];
    let len = synthesize(&mut frame, &conn.path, &image, what)?;
    frame.truncate(len);
    Some(frame)
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
