//! The congestion window of a kernel socket, set from outside: `bpf/cwnd.bpf.c`.
//!
//! A socket that was restored begins as every connection does, with ten segments (RFC 6928). On a long path that costs as many round trips as
//! it takes to double them to what the connection had.

use std::time::{Duration, Instant};

use aya::maps::{Array, MapData, MapError};
use aya::programs::{Iter, ProgramError};
use aya::{Btf, Ebpf};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Error;
use super::allowance::Allowance;
use super::looker::Looker;

/// The compiled `bpf/cwnd.bpf.c`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/cwnd.bpf.o"));
/// Function name in `bpf/cwnd.bpf.c`.
const PROGRAM: &str = "underpass_cwnd";
/// What the kernel begins with, segments (TCP_INIT_CWND; RFC 6928).
const INITIAL: u32 = 10;
/// The kernel takes a positive int; more than this no window scale allows.
const MOST: u32 = 1 << 20;
/// A round trip is long if it lasts so many times as long as a look at the sockets.
const ROUND_TRIP: u32 = 8;
/// What one look at a namespace's sockets takes before any has been measured: a hash table of 2^18 empty buckets, about.
const USUAL: Duration = Duration::from_millis(1);
/// A look is not waited for any longer, however long the round trip is said to be.
const LONGEST: Duration = Duration::from_millis(25);

/// `struct wanted` of `bpf/cwnd.bpf.c`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct Wanted {
    cookie: u64,
    segments: u32,
    given: u32,
}

type Cell = [u8; size_of::<Wanted>()];

/// The loaded iterator.
pub struct Cwnd {
    object: Ebpf,
    wanted: Array<MapData, Cell>,
    looker: Looker,
    allowance: Allowance,
}

impl Cwnd {
    /// Loads the iterator.
    ///
    /// # Errors
    /// A kernel without type information (CONFIG_DEBUG_INFO_BTF), or older than 5.15, which has no such iterator.
    pub fn load() -> Result<Self, Error> {
        let mut object = Ebpf::load(OBJECT).map_err(Error::of("loading the iterator's object"))?;
        let types = Btf::from_sys_fs().map_err(Error::of("reading the kernel's types"))?;
        iterator(&mut object)?.load("tcp", &types).map_err(Error::of("verifying the iterator"))?;
        let map = object.take_map("wanted").ok_or_else(missing)?;
        let wanted = Array::try_from(map).map_err(Error::of::<MapError>("map wanted"))?;
        let looker = Looker::start().map_err(Error::of("starting a thread"))?;
        Ok(Self { object, wanted, looker, allowance: Allowance::new(USUAL, Instant::now()) })
    }

    /// Is it worth it for a connection with this window (segments) and round trip? While the sockets are looked through, others wait, and what
    /// the peer sends piles up: that has to be short beside the round trips that a window begun anew would take, and short for all
    /// connections together, of which a program may leave thousands behind.
    pub fn pays(&self, segments: u32, round_trip: Duration) -> bool {
        let now = Instant::now();
        let differs = segments.max(1).ilog2() != INITIAL.ilog2();
        differs && round_trip > ROUND_TRIP * self.allowance.usual(now) && self.allowance.has_time(now)
    }

    /// Gives the socket with this cookie (SO_COOKIE), of the namespace that the calling thread is in, a congestion window.
    /// It must not have sent data since it was connected. Was it there, and willing, and found within an eighth of the round trip?
    ///
    /// # Errors
    /// What bpf(2) or read(2) say.
    pub fn give(&mut self, cookie: u64, segments: u32, round_trip: Duration) -> Result<bool, Error> {
        let begin = Instant::now();
        let given = self.look_for(cookie, segments, LONGEST.min(round_trip / ROUND_TRIP));
        let end = Instant::now();
        self.allowance.spend(end.duration_since(begin), end);
        given
    }

    fn look_for(&mut self, cookie: u64, segments: u32, limit: Duration) -> Result<bool, Error> {
        self.set(Wanted { cookie, segments: segments.clamp(1, MOST), given: 0 })?;
        let program = iterator(&mut self.object)?;
        let link = program.attach().and_then(|id| program.take_link(id)).map_err(Error::of("starting the iterator"))?;
        let sockets = link.into_file().map_err(Error::of("opening the iterator"))?;
        let seen = self.looker.look(sockets, limit).map_err(Error::of("running the iterator"))?;
        if seen.is_none() {
            return Ok(false);
        }
        let cell = self.wanted.get(&0, 0).map_err(Error::of("reading the iterator's answer"))?;
        Ok(Wanted::read_from_bytes(&cell).is_ok_and(|wanted| wanted.given > 0))
    }

    fn set(&mut self, wanted: Wanted) -> Result<(), Error> {
        let mut cell = Cell::default();
        cell.copy_from_slice(wanted.as_bytes());
        self.wanted.set(0, cell, 0).map_err(Error::of("telling the iterator"))
    }
}

fn iterator(object: &mut Ebpf) -> Result<&mut Iter, Error> {
    object.program_mut(PROGRAM).ok_or_else(missing)?.try_into().map_err(Error::of::<ProgramError>(PROGRAM))
}

fn missing() -> Error {
    Error { what: PROGRAM, source: "not in the compiled object".into() }
}
