//! The TCP sockets of a preloaded process: the board joined with what the kernel says.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use serde::Serialize;
use underpass_stack::arena::{ChannelNote, Phase, SocketEntry};
use underpass_stack::lane::{Reason, Tier};

use super::channel;
use super::kernel_tcp::{self, KernelSocket};
use super::lane::{self, Figures};
use super::process::Process;

/// One TCP socket, as `underpass ss` shows it. What is unknown is `None`.
#[derive(Clone, Debug, Serialize)]
pub struct Socket {
    /// The process.
    pub pid: u32,
    /// The descriptor.
    pub fd: i32,
    /// Our end.
    pub local: Option<SocketAddr>,
    /// The peer's end.
    pub peer: Option<SocketAddr>,
    /// Where the bytes travel: `kernel`, `xdp`, `shm`.
    pub tier: &'static str,
    /// Why, in short.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub reason_text: &'static str,
    /// TCP state, named as ss(8) does.
    pub state: &'static str,
    /// Bytes not read by the program.
    pub recv_q: Option<u32>,
    /// Bytes not acknowledged by the peer.
    pub send_q: Option<u32>,
    /// What only a lane knows.
    #[serde(flatten)]
    pub figures: Option<Figures>,
    /// Times promoted.
    pub promoted: u32,
    /// Times demoted.
    pub demoted: u32,
    /// Connection slot, while on the xdp lane.
    pub slot: Option<u32>,
    /// The slot's generation.
    pub generation: Option<u32>,
}

/// The TCP sockets of a process, by descriptor.
pub fn list(process: &Process) -> io::Result<Vec<Socket>> {
    let board: HashMap<i32, SocketEntry> = process.arena.board(process.header.fd_limit)?.into_iter().collect();
    let kernel = kernel_tcp::sockets(process.pid);
    let rows = process.descriptors.sockets.iter().filter_map(|(&fd, inode)| {
        // An entry of another inode is of a socket that had this number before.
        let entry = board.get(&fd).filter(|entry| entry.inode == *inode);
        row(process, fd, entry, kernel.get(inode))
    });
    Ok(rows.collect())
}

/// `None`: neither the board nor the kernel calls it a TCP socket.
fn row(process: &Process, fd: i32, entry: Option<&SocketEntry>, kernel: Option<&KernelSocket>) -> Option<Socket> {
    if entry.is_none() && kernel.is_none() {
        return None;
    }
    let entry_or_new = entry.copied().unwrap_or_default();
    let tier = Tier::from_raw(entry_or_new.tier);
    let reason = match entry {
        Some(entry) => Reason::from_raw(entry.reason),
        None => unseen(kernel),
    };
    let mut socket = Socket {
        pid: process.pid,
        fd,
        local: kernel.map(|k| k.local),
        peer: kernel.map(|k| k.remote).filter(|peer| peer.port() != 0),
        tier: tier.name(),
        reason: reason.name(),
        reason_text: reason.text(),
        state: kernel.map_or("CLOSED", KernelSocket::state_name),
        recv_q: kernel.map(|k| k.recv_queue),
        send_q: kernel.map(|k| k.send_queue),
        figures: None,
        promoted: entry_or_new.promoted,
        demoted: entry_or_new.demoted,
        slot: None,
        generation: None,
    };
    match tier {
        Tier::Xdp => add_lane(process, &entry_or_new, &mut socket),
        Tier::Shm => add_channel(process, &entry_or_new, &mut socket),
        Tier::Kernel => {}
    }
    Some(socket)
}

/// On the xdp lane the record knows better than the silent kernel socket.
fn add_lane(process: &Process, entry: &SocketEntry, socket: &mut Socket) {
    let record = process.arena.conn(entry.slot).filter(|record| record.inode == entry.inode);
    let Some(record) = record.filter(|r| matches!(Phase::from_raw(r.phase), Phase::Live | Phase::Frozen)) else {
        return;
    };
    let view = lane::view(&record);
    socket.local = socket.local.or(Some(record.flow.local()));
    socket.peer = socket.peer.or(Some(record.flow.remote()));
    socket.state = view.state;
    socket.recv_q = Some(view.recv_q);
    socket.send_q = Some(view.send_q);
    socket.figures = Some(view.figures);
    socket.slot = Some(entry.slot);
    socket.generation = Some(record.generation);
}

/// On the shm lane bytes wait in rings, and some perhaps in the kernel.
fn add_channel(process: &Process, entry: &SocketEntry, socket: &mut Socket) {
    let note = ChannelNote::from_raw(entry.slot);
    let Some(Ok(fill)) = note.map(|note| channel::fill(process.pid, entry.channel_at, note)) else { return };
    socket.recv_q = Some(socket.recv_q.unwrap_or(0).saturating_add(fill.unread));
    socket.send_q = Some(socket.send_q.unwrap_or(0).saturating_add(fill.untaken));
    socket.figures = Some(Figures {
        rtt_us: 0,
        rttvar_us: 0,
        cwnd: 0,
        congestion: "none",
        pacing_rate: 0,
        mss: 0,
        bytes_in: fill.bytes_in,
        bytes_out: fill.bytes_out,
        retransmits: 0,
        recv_ring: fill.capacity,
        send_ring: fill.capacity,
    });
}

/// Why a socket is in the kernel that the library has not met yet.
fn unseen(kernel: Option<&KernelSocket>) -> Reason {
    match kernel.map(|k| k.state) {
        Some(KernelSocket::LISTEN) => Reason::Listening,
        Some(KernelSocket::ESTABLISHED) => Reason::NotYetBusy,
        _ => Reason::NotConnected,
    }
}
