//! The messages between library and daemon.
//!
//! One SEQPACKET datagram is one message: a [`Header`], then the fixed body that its kind names; descriptors travel
//! beside it as SCM_RIGHTS. The library asks and waits for the one answer. What the daemon says unasked comes over a
//! second socket, handed over with [`Welcome`]. Both sides check length, magic and version and drop the session on a
//! mismatch.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ip::flow::FlowKey;
use crate::ip::path::Path;
use crate::mem::Plain;
use crate::tcp::image::Image;

/// First word of every message: "UPAS".
pub const MAGIC: u32 = u32::from_be_bytes(*b"UPAS");
/// Raised whenever a message or the arena's layout changes.
pub const VERSION: u16 = 6;
/// Descriptors in one message at most (AF_XDP queues of one interface).
pub const MAX_FDS: usize = 64;
/// Frames in one [`Inject`] at most.
pub const MAX_INJECT: usize = 448;
/// Bytes of a message at most.
pub const MAX_MESSAGE: usize = 4096;

/// Starts every message.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`VERSION`].
    pub version: u16,
    /// Kind of the body.
    pub kind: u16,
}

/// A body with its kind number.
pub trait Message: Plain {
    /// The number in [`Header::kind`].
    const KIND: u16;

    /// The whole datagram.
    fn encode(&self) -> Vec<u8> {
        let header = Header { magic: MAGIC, version: VERSION, kind: Self::KIND };
        [header.as_bytes(), self.as_bytes()].concat()
    }
}

/// Why a datagram is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than a header.
    Short,
    /// Not our magic number.
    Magic,
    /// Another version's message.
    Version(u16),
    /// A body of another kind, or of the wrong length for its kind.
    Body(u16),
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short => write!(f, "message shorter than its header"),
            Self::Magic => write!(f, "not an underpass message"),
            Self::Version(v) => write!(f, "message of protocol version {v}, this is version {VERSION}"),
            Self::Body(kind) => write!(f, "unexpected or truncated message of kind {kind}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// The kind of a datagram.
pub fn kind_of(datagram: &[u8]) -> Result<u16, DecodeError> {
    let (header, _) = Header::read_from_prefix(datagram).map_err(|_| DecodeError::Short)?;
    if header.magic != MAGIC {
        return Err(DecodeError::Magic);
    }
    if header.version != VERSION {
        return Err(DecodeError::Version(header.version));
    }
    Ok(header.kind)
}

/// The body of a datagram that is expected to be an `M`.
pub fn decode<M: Message>(datagram: &[u8]) -> Result<M, DecodeError> {
    let kind = kind_of(datagram)?;
    if kind != M::KIND {
        return Err(DecodeError::Body(kind));
    }
    M::read_from_bytes(&datagram[size_of::<Header>()..]).map_err(|_| DecodeError::Body(kind))
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident = $kind:literal { $($(#[$fdoc:meta])* $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }
        impl Message for $name { const KIND: u16 = $kind; }
    )*};
}

messages! {
    /// Library → daemon, first message of a session. Descriptor: the arena's memfd, sealed.
    /// Answer: [`Welcome`] or [`Refused`].
    Hello = 1 {
        /// The client's pid in its own view; information only (the daemon goes by SO_PEERCRED).
        pid: u32,
        /// Always zero.
        pad: u32,
        /// Name shown by `underpass ps`, NUL-padded.
        name: [u8; 32],
    }
    /// Library → daemon: move a connection to the lane. Descriptor: a dup of the socket.
    /// Answer: [`Promoted`], [`NeedPort`] or [`Refused`]. The record in the arena is reserved before asking.
    Promote = 2 {
        /// Connection slot that the library has reserved.
        slot: u32,
        /// The slot's generation.
        generation: u32,
    }
    /// Library → daemon: make AF_XDP sockets on the queues of an interface. Descriptors: the UMEM's memfd (sealed) and a
    /// socket of the wanted network namespace. Answer: [`Attached`] or [`Refused`].
    Attach = 3 {
        /// Interface index in the socket's namespace.
        ifindex: u32,
        /// Bytes of one frame (2048 or 4096).
        frame_size: u32,
        /// Frames of the UMEM.
        frame_count: u32,
        /// Entries of each fill and RX ring.
        rx_ring: u32,
        /// Entries of each TX and completion ring.
        tx_ring: u32,
        /// The library's number for this attachment, below [`crate::arena::MAX_PORTS`].
        port: u32,
    }
    /// Library → daemon: give a frozen connection back to its kernel socket. Answer: [`Demoted`] or [`Refused`].
    /// The daemon reads the frozen record from the arena.
    Demote = 4 {
        /// Connection slot.
        slot: u32,
        /// The slot's generation.
        generation: u32,
    }
    /// Library → daemon: put frames into the kernel's receive path of a port's interface. Each must belong to a flow that this
    /// session has or had. Answer: [`Done`] (with `count`) or [`Refused`].
    Inject = 5 {
        /// Attachment number.
        port: u32,
        /// Frames used below.
        count: u32,
        /// Their places in the UMEM.
        frames: [FrameRef; MAX_INJECT],
    }
    /// Library → daemon: the socket passed here is in another process's stack; have it demoted. Descriptor: the socket.
    /// Answer: [`Done`] once the kernel socket is live again, or [`Refused`].
    DemoteForeign = 6 {
        /// Always zero.
        pad: u32,
    }
    /// Library → a restarted daemon: an attachment made by its predecessor. Descriptors: UMEM memfd, then the AF_XDP sockets
    /// in queue order. Answer: [`Done`] or [`Refused`].
    AdoptPort = 7 {
        /// As in the [`Attach`] of then.
        attach: Attach,
        /// First slot of the XSKMAP, as in [`Attached`].
        xsk_base: u32,
        /// AF_XDP sockets handed over.
        queues: u32,
    }
    /// Library → a restarted daemon: a connection promoted by its predecessor. Descriptor: a dup of the socket, in repair mode.
    /// Answer: [`Done`] (with `count` 0 if no packets reach its lane any more: it is to be demoted) or [`Refused`].
    AdoptConn = 8 {
        /// Connection slot.
        slot: u32,
        /// The slot's generation.
        generation: u32,
        /// Attachment number.
        port: u32,
        /// What [`Promoted::restore`] said.
        restore: Restore,
    }
    /// Command → daemon: ask a process to give connections back (`underpass demote`). Root, or the process's own user.
    /// Answer: [`Done`] (with `count` of sessions asked) or [`Refused`].
    AskDemote = 9 {
        /// The process, as the daemon's pid namespace numbers it; 0 for every process that the caller may ask.
        pid: u32,
        /// Only this slot, or `u32::MAX` for all.
        slot: u32,
    }
    /// Command → daemon: state of the daemon (`underpass doctor`, `ps`). Answer: [`StatusReply`].
    Status = 10 {
        /// Always zero.
        pad: u32,
    }
    /// Library → daemon: an attachment that did not come about on this side, after [`Attached`]. Answer: [`Done`] or [`Refused`].
    Detach = 11 {
        /// Attachment number.
        port: u32,
    }

    /// Answer to [`Hello`]. Descriptor: the events socket.
    Welcome = 101 {
        /// The daemon's pid.
        daemon_pid: u32,
        /// The session's number.
        session: u32,
    }
    /// Answer to [`Promote`]: the kernel socket is silent, the flow points at the port. Descriptor, if `recv_len + send_len > 0`: a
    /// memfd with the unread bytes, the unacknowledged and unsent bytes, and the scoreboard ([`crate::tcp::scoreboard::Piece`]).
    Promoted = 102 {
        /// The connection's numbers.
        image: Image,
        /// Attachment that the flow's frames arrive on.
        port: u32,
        /// Unread bytes in the memfd.
        recv_len: u32,
        /// Send-queue bytes in the memfd.
        send_len: u32,
        /// Pieces of the scoreboard in the memfd.
        pieces: u32,
        /// [`crate::tcp::Scoreboard::phase`].
        phase: u32,
        /// [`crate::tcp::Scoreboard::recover`].
        recover: u32,
        /// How packets reach the peer.
        path: Path,
        /// What the daemon must put back at demotion; handed to the next daemon in [`AdoptConn`].
        restore: Restore,
    }
    /// Answer to [`Promote`]: first [`Attach`] to this interface, then ask again.
    NeedPort = 103 {
        /// Interface index in the socket's namespace.
        ifindex: u32,
        /// RX queues of the interface.
        queues: u32,
        /// Its MTU in bytes.
        mtu: u32,
        /// Low half of the namespace's cookie (SO_NETNS_COOKIE).
        netns_low: u32,
        /// High half.
        netns_high: u32,
        /// Its name, NUL-padded.
        name: [u8; 16],
    }
    /// Answer to [`Attach`]. Descriptors: AF_XDP sockets in queue order.
    Attached = 104 {
        /// The attachment's number, as asked.
        port: u32,
        /// AF_XDP sockets that follow.
        queues: u32,
        /// First slot of the XSKMAP.
        xsk_base: u32,
        /// 1: native XDP, 0: generic.
        native: u32,
        /// 1: zero-copy, 0: copy mode.
        zero_copy: u32,
    }
    /// Positive answer.
    Done = 105 {
        /// What was counted.
        count: u32,
    }
    /// Negative answer.
    Refused = 106 {
        /// A [`crate::lane::Reason`].
        reason: u16,
        /// Always zero.
        pad: u16,
        /// The errno behind it, or 0.
        errno: u32,
    }
    /// Answer to [`Demote`]: the kernel socket is live.
    Demoted = 108 {
        /// Bytes that the lane's peer had acknowledged and that the kernel counts as acknowledged once more, as a segment of their own.
        acked_again: u32,
    }
    /// Answer to [`Status`].
    StatusReply = 107 {
        /// The daemon's pid.
        pid: u32,
        /// Client sessions.
        sessions: u32,
        /// Connections on lanes.
        connections: u32,
        /// Interfaces with our XDP program.
        interfaces: u32,
        /// Promotions since start.
        promoted: u64,
        /// Demotions since start, those of dead owners included.
        demoted: u64,
        /// Promotions refused since start.
        refused: u64,
        /// Frames injected since start.
        injected: u64,
        /// Connections given back for owners that died.
        reaped: u64,
    }

    /// Daemon → library, over the events socket: demote this connection (or all).
    DemoteAsk = 201 {
        /// Slot, or `u32::MAX` for all.
        slot: u32,
        /// A [`crate::lane::Reason`].
        reason: u16,
        /// Always zero.
        pad: u16,
    }
    /// Daemon → library: packets of this connection take another path from now on.
    PathChanged = 202 {
        /// Connection slot.
        slot: u32,
        /// The slot's generation.
        generation: u32,
        /// The new path.
        path: Path,
    }
    /// Daemon → library: a router dropped a packet of this connection because it was too large for its next link.
    TooBig = 203 {
        /// Connection slot.
        slot: u32,
        /// The slot's generation.
        generation: u32,
        /// Sequence number of the segment that was dropped, as the router quotes it: a claim.
        seq: u32,
        /// Largest packet that fits, bytes; 0 if the router does not say.
        mtu: u32,
    }
}

/// A frame in a UMEM: what an AF_XDP descriptor says of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct FrameRef {
    /// Offset of the first byte (the Ethernet header) in the UMEM.
    pub addr: u32,
    /// Bytes.
    pub len: u32,
}

/// Socket state that promotion changes and demotion must put back.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Restore {
    /// SO_REUSEADDR as the program had it (leaving repair mode clears it).
    pub reuse_addr: u32,
    /// SO_KEEPALIVE as the program had it (off while promoted).
    pub keepalive: u32,
    /// SO_BUF_LOCK bits as the program had them.
    pub buf_lock: u32,
    /// Always zero.
    pub pad: u32,
}

/// A [`FlowKey`] names a flow in the XDP map; its value has this layout (`struct flow_value` in `ctl/bpf/steer.bpf.c`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct FlowValue {
    /// First XSKMAP slot of the stack; the RX queue's number is added.
    pub xsk_base: u32,
    /// 0: count and pass to the kernel (promotion watches), 1: redirect to the stack.
    pub mode: u32,
    /// Segments that were passed while `mode` was 0.
    pub passed: u64,
    /// One past the newest sequence number passed while `mode` was 0.
    pub passed_end: u32,
    /// Always zero.
    pub pad: u32,
}

/// Keeps the layout shared with the BPF program honest.
const _: () = assert!(size_of::<FlowKey>() == 40 && size_of::<FlowValue>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_messages_of_the_right_kind_decode() {
        let message = Promote { slot: 3, generation: 9 };
        let bytes = message.encode();
        assert_eq!(decode::<Promote>(&bytes).unwrap().generation, 9);
        assert_eq!(decode::<Demote>(&bytes).unwrap_err(), DecodeError::Body(2));
        for cut in 0..bytes.len() {
            assert!(decode::<Promote>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut long = bytes.clone();
        long.push(0);
        assert_eq!(decode::<Promote>(&long).unwrap_err(), DecodeError::Body(2));
        let mut forged = bytes;
        forged[0] ^= 1;
        assert_eq!(kind_of(&forged).unwrap_err(), DecodeError::Magic);
    }
}
