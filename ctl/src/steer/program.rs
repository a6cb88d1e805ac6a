//! The XDP program of one interface with its maps.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{ProgramFd, Xdp, loaded_programs};
use underpass_stack::control::FlowValue;
use underpass_stack::ip::flow::FlowKey;
use zerocopy::{FromBytes, IntoBytes};

use super::OBJECT;
use super::counters::Steered;
use crate::bpf::Error;

/// Function name in `bpf/steer.bpf.c`, and so the program's name in the kernel (15 bytes at most).
const PROGRAM: &str = "underpass_steer";
/// Entries of the XSKMAP (`MAX_XSKS` in `bpf/steer.bpf.c`).
pub const MAX_XSKS: u32 = 4096;
/// [`FlowValue::mode`]: redirect to the stack.
const REDIRECT: u32 = 1;

type Key = [u8; size_of::<FlowKey>()];
type Value = [u8; size_of::<FlowValue>()];

/// A loaded program. It stays attached when this is dropped: the interface holds a reference of its own.
pub struct Steer {
    program: ProgramFd,
    flows: HashMap<MapData, Key, Value>,
    watches: HashMap<MapData, Key, Value>,
    xsks: XskMap<MapData>,
    counters: PerCpuArray<MapData, u64>,
}

impl Steer {
    /// Loads a fresh program with empty maps.
    pub fn load() -> Result<Self, Error> {
        let mut object = aya::Ebpf::load(OBJECT).map_err(Error::of("loading the XDP object"))?;
        let program = load_program(&mut object, PROGRAM)?;
        let mut take = |name: &'static str| object.take_map(name).ok_or_else(|| missing(name));
        Self::assemble(program, take("flows")?, take("watches")?, take("xsks")?, take("counters")?)
    }

    /// Takes over the program with this id and its maps, left behind by an earlier daemon. `None` if the program is
    /// somebody else's.
    pub fn adopt(program_id: u32) -> Result<Option<Self>, Error> {
        let Some(info) = loaded_programs().flatten().find(|info| info.id() == program_id) else { return Ok(None) };
        if info.name_as_str() != Some(PROGRAM) {
            return Ok(None);
        }
        let program = info.fd().map_err(Error::of("opening the attached program"))?;
        let ids = info.map_ids().map_err(Error::of("reading the attached program's maps"))?.unwrap_or_default();
        let (mut flows, mut watches, mut xsks, mut counters) = (None, None, None, None);
        for id in ids {
            let data = MapData::from_id(id).map_err(Error::of("opening a map of the attached program"))?;
            let info = data.info().map_err(Error::of("reading a map of the attached program"))?;
            match info.name_as_str() {
                Some("flows") => flows = Some(Map::HashMap(data)),
                Some("watches") => watches = Some(Map::HashMap(data)),
                Some("xsks") => xsks = Some(Map::XskMap(data)),
                Some("counters") => counters = Some(Map::PerCpuArray(data)),
                _ => {}
            }
        }
        let (Some(flows), Some(watches), Some(xsks), Some(counters)) = (flows, watches, xsks, counters) else {
            return Ok(None);
        };
        Self::assemble(program, flows, watches, xsks, counters).map(Some)
    }

    fn assemble(program: ProgramFd, flows: Map, watches: Map, xsks: Map, counters: Map) -> Result<Self, Error> {
        Ok(Self {
            program,
            flows: flows.try_into().map_err(Error::of::<MapError>("map flows"))?,
            watches: watches.try_into().map_err(Error::of::<MapError>("map watches"))?,
            xsks: xsks.try_into().map_err(Error::of::<MapError>("map xsks"))?,
            counters: counters.try_into().map_err(Error::of::<MapError>("map counters"))?,
        })
    }

    /// The program, for attaching.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Starts recording what of this flow passes to the kernel.
    pub fn watch(&mut self, flow: &FlowKey) -> Result<(), Error> {
        let value = FlowValue::default();
        self.watches.insert(key(flow), bytes(&value), 0).map_err(Error::of("watching a flow"))
    }

    /// What was recorded since [`Steer::watch`].
    pub fn watched(&self, flow: &FlowKey) -> Result<FlowValue, Error> {
        let value = self.watches.get(&key(flow), 0).map_err(Error::of("reading a watch"))?;
        FlowValue::read_from_bytes(&value).map_err(|_| missing("watch"))
    }

    /// Ends the recording.
    pub fn unwatch(&mut self, flow: &FlowKey) {
        // Not there is as good as removed.
        let _ = self.watches.remove(&key(flow));
    }

    /// From now on the flow's segments go to the XSKMAP slots from `xsk_base` on.
    pub fn redirect(&mut self, flow: &FlowKey, xsk_base: u32) -> Result<(), Error> {
        let value = FlowValue { xsk_base, mode: REDIRECT, ..FlowValue::default() };
        self.flows.insert(key(flow), bytes(&value), 0).map_err(Error::of("redirecting a flow"))
    }

    /// From now on the flow's segments go to the kernel. Was it redirected?
    pub fn release(&mut self, flow: &FlowKey) -> bool {
        self.flows.remove(&key(flow)).is_ok()
    }

    /// Does the program redirect this flow?
    pub fn holds(&self, flow: &FlowKey) -> bool {
        self.flows.get(&key(flow), 0).is_ok()
    }

    /// Every redirected flow.
    pub fn flows(&self) -> Vec<FlowKey> {
        self.flows.keys().flatten().filter_map(|key| FlowKey::read_from_bytes(&key).ok()).collect()
    }

    /// Puts an AF_XDP socket into a slot. The kernel empties the slot when the socket is closed for the last time.
    pub fn set_xsk(&mut self, slot: u32, xsk: BorrowedFd<'_>) -> Result<(), Error> {
        self.xsks.set(slot, xsk.as_raw_fd(), 0).map_err(Error::of("entering an AF_XDP socket into the map"))
    }

    /// What the program has counted.
    pub fn steered(&self) -> Result<Steered, Error> {
        let mut cells = [0u64; Steered::CELLS];
        for (index, cell) in (0u32..).zip(cells.iter_mut()) {
            let per_cpu = self.counters.get(&index, 0).map_err(Error::of("reading the counters"))?;
            *cell = per_cpu.iter().sum();
        }
        Ok(Steered::from_cells(cells))
    }
}

/// Loads one program of the object and returns a descriptor of its own.
pub(super) fn load_program(object: &mut aya::Ebpf, name: &'static str) -> Result<ProgramFd, Error> {
    let program = object.program_mut(name).ok_or_else(|| missing(name))?;
    let program: &mut Xdp = program.try_into().map_err(Error::of::<aya::programs::ProgramError>(name))?;
    program.load().map_err(Error::of("verifying the XDP program"))?;
    let fd = program.fd().map_err(Error::of(name))?;
    fd.try_clone().map_err(Error::of(name))
}

/// The compiled object lacks what it was compiled from.
pub(super) fn missing(name: &'static str) -> Error {
    Error { what: name, source: "not in the compiled object".into() }
}

fn key(flow: &FlowKey) -> Key {
    bytes(flow)
}

fn bytes<T: IntoBytes + zerocopy::Immutable, const N: usize>(value: &T) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(value.as_bytes());
    out
}
