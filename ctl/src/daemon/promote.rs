//! Promotion: out of the kernel, onto the lane.

use std::hash::BuildHasher;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::sys::memfd::{MFdFlags, memfd_create};
use underpass_stack::arena::MAX_CONNS;
use underpass_stack::control::{NeedPort, Promote, Promoted, Restore};
use underpass_stack::ip::flow::FlowKey;
use underpass_stack::lane::Reason;
use zerocopy::IntoBytes;

use super::eligible::{self, Endpoints};
use super::gap::Look;
use super::path::{self, Way};
use super::repair::{self, Dump, DumpError, Transmissions};
use super::reply::{Answer, Refusal, Reply};
use super::restore::{Bytes, hollow, restore};
use super::session::{Conn, Kept};
use super::settle::switch_over;
use super::sockopt;
use super::state::Daemon;
use crate::bpf::Scoreboard;
use crate::net::sys::rx_channels;
use crate::steer::Steer;

impl Daemon {
    /// Answers [`Promote`].
    pub fn promote(&mut self, session: u32, ask: &Promote, fds: Vec<OwnedFd>) -> Answer {
        let answer = self.try_promote(session, ask, fds);
        match &answer {
            Err(refusal) => {
                self.totals.refused += 1;
                tracing::debug!("session {session}: not promoted: {refusal}");
            }
            Ok(reply) if underpass_stack::control::decode::<Promoted>(&reply.bytes).is_ok() => {
                self.totals.promoted += 1
            }
            Ok(_) => {}
        }
        answer
    }

    fn try_promote(&mut self, session: u32, ask: &Promote, fds: Vec<OwnedFd>) -> Answer {
        let [fd] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| Refusal::from(Reason::ProtocolError))?;
        if self.ending {
            return Err(Reason::DaemonGone.into());
        }
        let known = self.session(session)?;
        if known.arena.is_none() || ask.slot as usize >= MAX_CONNS || known.conns.contains_key(&ask.slot) {
            return Err(Reason::ProtocolError.into());
        }
        let ends = eligible::check(fd.as_fd())?;
        let netns = self.namespace_of(fd.as_fd())?;
        let way = self.way(netns, &ends)?;
        let Some((number, port)) = self.session(session)?.port_on(netns, way.path.ifindex) else {
            return Ok(need_port(&way, netns, &fd));
        };
        if !path::fits(way.link.mtu, port.frame_size) {
            return Err(Reason::Mtu.into());
        }
        let xsk_base = port.xsk_base;
        let namespace = self.namespaces.get_mut(&netns).ok_or(Reason::LinkDown)?;
        let steer = &mut namespace.awake(way.path.ifindex)?.steer;
        let flow = FlowKey::tcp(ends.local, ends.remote);
        let cookie = sockopt::get::<u64>(fd.as_fd(), libc::SOL_SOCKET, libc::SO_COOKIE)?.0;
        let mut gap = self.suspects.look(cookie);
        let board = self.scoreboard.as_mut().map(|board| (board, cookie));
        let taken = take_over(steer, &flow, xsk_base, &fd, &mut gap, board);
        self.suspects.keep(cookie, gap, taken.is_ok());
        if taken.is_err() {
            // Some of its frames may have gone the other way in between: the client may have them injected.
            self.session(session)?.recent.add(netns, flow, Instant::now());
        }
        let (saved, kept) = taken?;
        let conn = Conn {
            generation: ask.generation,
            fd,
            cookie,
            flow,
            netns,
            port: number,
            path: way.path,
            next_hop: way.next_hop,
            restore: saved,
            kept: Some(kept),
        };
        self.hand_over(session, ask.slot, conn)
    }

    /// Where the connection's packets go, once everything that would forbid a lane has been looked at.
    pub(super) fn way(&mut self, netns: u64, ends: &Endpoints) -> Result<Way, Refusal> {
        let Self { namespaces, settings, home, label_key, .. } = self;
        let namespace = namespaces.get_mut(&netns).ok_or(Reason::Failed)?;
        let label = match ends.remote {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(_) => {
                let hash = label_key.hash_one(FlowKey::tcp(ends.local, ends.remote));
                namespace.label_policy(home)?.choose(ends.label, hash)
            }
        };
        let way = path::find(namespace, settings, ends, label)?;
        if namespace.has_ipsec(home)? {
            return Err(Reason::Ipsec.into());
        }
        if ends.ecn && namespace.may_have_accurate_ecn(home)? {
            return Err(Reason::SocketOption.into());
        }
        path::square_conntrack(namespace, ends.local, ends.remote)?;
        Ok(way)
    }

    fn hand_over(&mut self, session: u32, slot: u32, conn: Conn) -> Answer {
        let (dump, port, path, saved) = match &conn.kept {
            Some(kept) => (kept.dump.clone(), conn.port, conn.path, conn.restore),
            None => return Err(Reason::Failed.into()),
        };
        self.session(session)?.conns.insert(slot, conn);
        match memfd_of(&dump) {
            Ok(fds) => Ok(Reply::with(&promoted(&dump, port, path, saved), fds)),
            Err(refusal) => {
                self.give_back_untaken(session, slot)?;
                Err(refusal)
            }
        }
    }
}

/// Switches the flow over and reads the connection. On failure everything is as it was.
fn take_over(
    steer: &mut Steer,
    flow: &FlowKey,
    xsk_base: u32,
    fd: &OwnedFd,
    gap: &mut Look,
    board: Option<(&mut Scoreboard, u64)>,
) -> Result<(Restore, Kept), Refusal> {
    if steer.holds(flow) {
        return Err(Reason::Unsettled.into());
    }
    let fd = fd.as_fd();
    let saved = repair::remember(fd)?;
    repair::open(fd)?;
    let taken = switch_over(steer, flow, xsk_base, fd, gap).and_then(|()| read_out(*flow, fd, &saved, board));
    if taken.is_err() {
        // First the socket, then the flow: what arrives in between waits in the RX ring and is injected as a leftover.
        if let Err(error) = repair::thaw(fd, &saved) {
            tracing::warn!("{flow:?}: socket left in repair mode: {error}");
        }
        steer.release(flow);
    }
    Ok((saved, taken?))
}

fn read_out(
    flow: FlowKey,
    fd: BorrowedFd<'_>,
    saved: &Restore,
    board: Option<(&mut Scoreboard, u64)>,
) -> Result<Kept, Refusal> {
    repair::silence(fd)?;
    let mut dump = repair::dump(fd, flow, saved).map_err(|error| match error {
        DumpError::Io(error) => error.into(),
        DumpError::Moving => Reason::Unsettled.into(),
        DumpError::Urgent => Reason::Urgent.into(),
        DumpError::Closed => Reason::HalfClosed.into(),
        DumpError::QueueTooLarge => Refusal::from(Reason::QueueTooLarge),
    })?;
    // Bytes in the kernel's send queue would be retransmitted by its timer while the lane carries the connection.
    let hollowed = !dump.send.is_empty();
    if hollowed && let Err(error) = hollow_out(fd, &mut dump, board) {
        let bytes = Bytes { recv: &dump.recv, before: &[], send: &dump.send };
        restore(fd, &dump.image, bytes, saved, || ())?;
        return Err(error.into());
    }
    Ok(Kept { dump, hollowed })
}

/// Empties the kernel's queues; what it knows of its transmissions is learnt at the last moment.
fn hollow_out(fd: BorrowedFd<'_>, dump: &mut Dump, board: Option<(&mut Scoreboard, u64)>) -> io::Result<()> {
    let Some((board, cookie)) = board else { return hollow(fd, &dump.image) };
    let watched = board.watch(cookie);
    hollow(fd, &dump.image)?;
    match watched.and_then(|()| board.take()) {
        Ok(Some(sent)) => (dump.sent.recover, dump.sent.pieces) = (sent.high_seq, sent.pieces),
        Ok(None) => tracing::debug!("{:?}: nothing was learnt of what is in flight", dump.image.flow),
        Err(error) => tracing::warn!("{:?}: what is in flight may be sent again: {error}", dump.image.flow),
    }
    Ok(())
}

fn need_port(way: &Way, netns: u64, fd: &OwnedFd) -> Reply {
    let mut name = [0; 16];
    let len = way.link.name.len().min(name.len() - 1);
    name[..len].copy_from_slice(&way.link.name.as_bytes()[..len]);
    let queues = rx_channels(fd.as_fd(), &way.link.name).unwrap_or(way.link.rx_queues);
    Reply::of(&NeedPort {
        ifindex: way.path.ifindex,
        queues,
        mtu: way.link.mtu,
        netns_low: netns as u32,
        netns_high: (netns >> 32) as u32,
        name,
    })
}

fn promoted(dump: &Dump, port: u32, path: underpass_stack::ip::path::Path, saved: Restore) -> Promoted {
    let (recv_len, send_len) = (dump.recv.len() as u32, dump.send.len() as u32);
    let Transmissions { phase, recover, pieces } = &dump.sent;
    let (pieces, phase, recover) = (pieces.len() as u32, *phase, *recover);
    Promoted { image: dump.image, port, recv_len, send_len, pieces, phase, recover, path, restore: saved }
}

fn memfd_of(dump: &Dump) -> Result<Vec<OwnedFd>, Refusal> {
    if dump.recv.is_empty() && dump.send.is_empty() {
        return Ok(Vec::new());
    }
    let fd = memfd_create(c"underpass-queues", MFdFlags::MFD_CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(&dump.recv)?;
    file.write_all(&dump.send)?;
    file.write_all(dump.sent.pieces.as_bytes())?;
    Ok(vec![file.into()])
}
