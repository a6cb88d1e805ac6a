//! What has become of the segments that a kernel socket has sent: `bpf/scoreboard.bpf.c`.
//!
//! A connection that leaves the kernel in the middle of a recovery would otherwise have forgotten what its peer has acknowledged
//! selectively, and send all of it again.

use aya::maps::{Array, MapData, MapError};
use aya::programs::{BtfTracePoint, ProgramError};
use aya::{Btf, Ebpf};
use underpass_stack::tcp::scoreboard::{Piece, fate};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Error;

/// The compiled `bpf/scoreboard.bpf.c`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/scoreboard.bpf.o"));
/// Function name in `bpf/scoreboard.bpf.c`.
const PROGRAM: &str = "underpass_scoreboard";
/// Passed whenever a socket changes its state.
const TRACEPOINT: &str = "inet_sock_set_state";
/// PIECES of `bpf/scoreboard.bpf.c`.
const PIECES: usize = 1024;

/// Bits of `tcp_skb_cb.sacked`, net/tcp.h: TCPCB_SACKED_ACKED, TCPCB_LOST, and those that say that it was sent again.
const SACKED: u32 = 0x01;
const LOST: u32 = 0x04;
const RESENT: u32 = 0x02;
const EVER_RESENT: u32 = 0x80;

/// `struct found` of `bpf/scoreboard.bpf.c`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
struct Found {
    cookie: u64,
    high_seq: u32,
    count: u32,
    /// With the kernel's marks in place of a fate.
    pieces: [Piece; PIECES],
}

type Cell = [u8; size_of::<Found>()];

/// What was in the send queue of a socket when it was closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Sequence number whose acknowledgement ends the recovery.
    pub high_seq: u32,
    /// In the order of the stream; what has no fate is left out.
    pub pieces: Vec<Piece>,
}

/// The loaded program.
pub struct Scoreboard {
    // Keeps the program attached.
    _object: Ebpf,
    found: Array<MapData, Cell>,
}

impl Scoreboard {
    /// Loads the program and attaches it.
    ///
    /// # Errors
    /// A kernel without type information (CONFIG_DEBUG_INFO_BTF), or older than 5.17, which has no bpf_loop().
    pub fn load() -> Result<Self, Error> {
        let mut object = Ebpf::load(OBJECT).map_err(Error::of("loading the tracing program's object"))?;
        let types = Btf::from_sys_fs().map_err(Error::of("reading the kernel's types"))?;
        let program = object.program_mut(PROGRAM).ok_or_else(missing)?;
        let program: &mut BtfTracePoint = program.try_into().map_err(Error::of::<ProgramError>(PROGRAM))?;
        program.load(TRACEPOINT, &types).map_err(Error::of("verifying the tracing program"))?;
        program.attach().map_err(Error::of("attaching the tracing program"))?;
        let map = object.take_map("found").ok_or_else(missing)?;
        let found = Array::try_from(map).map_err(Error::of::<MapError>("map found"))?;
        Ok(Self { _object: object, found })
    }

    /// Has the socket with this cookie (SO_COOKIE) looked at when it is closed next.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn watch(&mut self, cookie: u64) -> Result<(), Error> {
        let mut cell: Cell = [0; size_of::<Found>()];
        cell[..size_of::<u64>()].copy_from_slice(&cookie.to_ne_bytes());
        self.found.set(0, cell, 0).map_err(Error::of("telling the tracing program"))
    }

    /// What was found since [`Self::watch`]; `None`: the socket was not closed. Nothing is watched any more.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn take(&mut self) -> Result<Option<Sent>, Error> {
        let cell = self.found.get(&0, 0).map_err(Error::of("reading the tracing program's answer"))?;
        let Ok(found) = Found::read_from_bytes(&cell) else { return Ok(None) };
        if found.cookie != 0 {
            self.watch(0)?;
            return Ok(None);
        }
        let pieces = found.pieces.iter().take(found.count as usize).filter_map(named).collect();
        Ok(Some(Sent { high_seq: found.high_seq, pieces }))
    }
}

/// The piece with its fate in place of the kernel's marks.
fn named(piece: &Piece) -> Option<Piece> {
    let has = |bits: u32| piece.fate & bits != 0;
    let fate = if has(SACKED) {
        fate::SACKED
    } else if has(LOST) && !has(RESENT) {
        fate::LOST
    } else if has(RESENT | EVER_RESENT) {
        fate::RESENT
    } else {
        return None;
    };
    Some(Piece { fate, ..*piece })
}

fn missing() -> Error {
    Error { what: PROGRAM, source: "not in the compiled object".into() }
}
