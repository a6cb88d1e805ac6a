//! A network card made of memory under a whole [`Stack`]: real rings, real frames, no kernel.

use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter};
use std::io;

use crate::arena::PortEntry;
use crate::mem::Region;
use crate::stack::{Keeper, PortConfig, Stack};
use crate::xsk::memory::{Opposite, Which, pair};
use crate::xsk::{Desc, RingSizes};

/// Bytes of one frame.
pub const FRAME: u32 = 2048;

/// Where a frame is.
#[derive(Clone, Copy)]
enum Place {
    Free,
    In(Which),
    Kept(Keeper),
    /// With the card: to be received into, or on its way out.
    Card,
    Elsewhere,
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("free"),
            Self::In(which) => write!(f, "in the ring {which:?}"),
            Self::Kept(keeper) => write!(f, "kept for {keeper:?}"),
            Self::Card => f.write_str("with the card"),
            Self::Elsewhere => f.write_str("elsewhere"),
        }
    }
}

/// The far end of one queue of an attachment.
#[derive(Debug)]
pub struct Wire {
    opposite: Opposite,
    umem: Region,
    /// The stack's port.
    port: u32,
    /// An empty frame for which the RX ring had no room.
    spare: Option<u64>,
    /// Frames of packets that are on their way out.
    leaving: VecDeque<u64>,
}

impl Wire {
    /// Attaches a card of one queue with `frames` frames and rings of `entries` entries to the stack's port `number`.
    pub fn attach(stack: &mut Stack, number: u32, frames: u32, entries: u32, mtu: u32) -> io::Result<Self> {
        Self::attach_queues(stack, number, frames, entries, mtu, 1)?.pop().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The same with `count` queues, which share the frames.
    pub fn attach_queues(
        stack: &mut Stack,
        number: u32,
        frames: u32,
        entries: u32,
        mtu: u32,
        count: usize,
    ) -> io::Result<Vec<Self>> {
        let rings = RingSizes { fill: entries, completion: entries, rx: entries, tx: entries };
        let own = Region::create(c"underpass-umem", (frames * FRAME) as usize)?;
        let open = || Region::open_owner(own.fd().ok_or(io::ErrorKind::NotFound)?.try_clone_to_owned()?);
        let (mut queues, mut wires) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for _ in 0..count {
            let (queue, opposite) = pair(rings)?;
            queues.push(queue);
            wires.push(Self { opposite, umem: open()?, port: number, spare: None, leaving: VecDeque::new() });
        }
        let config =
            PortConfig { ifindex: 1, mtu, frame_size: FRAME, frame_count: frames, rings, xsk_base: 0, netns: 0 };
        stack.attach_queues(number, config, open()?, queues, PortEntry::default())?;
        Ok(wires)
    }

    /// Puts a frame into the UMEM; the stack sees it after [`Self::show`]. False if the stack offers no empty frame, or a small one.
    pub fn stage(&mut self, frame: &[u8]) -> bool {
        let Some(addr) = self.take_empty() else { return false };
        let Some(place) = self.umem.bytes_mut(addr as usize, frame.len().min(FRAME as usize)) else { return false };
        place.copy_from_slice(&frame[..place.len()]);
        self.put(Desc::new(addr, frame.len() as u32))
    }

    /// An empty frame to receive into.
    pub fn take_empty(&mut self) -> Option<u64> {
        self.spare.take().or_else(|| self.opposite.take_empty())
    }

    /// Says that a packet was received, which the stack hears after [`Self::show`]. False if the RX ring is full.
    pub fn put(&mut self, packet: Desc) -> bool {
        let put = self.opposite.put(packet);
        if !put {
            self.spare = Some(packet.addr - packet.addr % u64::from(FRAME));
        }
        put
    }

    /// Shows the oldest `count` staged frames to the stack; returns how many it took.
    #[inline]
    pub fn show(&mut self, count: usize) -> usize {
        self.opposite.show(count as u32) as usize
    }

    /// Takes every frame that the stack has sent, in order; returns how many there were.
    pub fn collect(&mut self, each: impl FnMut(&[u8])) -> usize {
        let count = self.take_sent(usize::MAX, each);
        self.complete(count);
        count
    }

    /// Takes up to `most` frames that the stack has sent, in order, and returns how many; they are the card's until [`Self::complete`].
    pub fn take_sent(&mut self, most: usize, mut each: impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while count < most
            && let Some(packet) = self.opposite.take_sent()
        {
            each(self.umem.bytes(packet.addr as usize, packet.len as usize).unwrap_or(&[]));
            self.leaving.push_back(packet.addr);
            count += 1;
        }
        count
    }

    /// Gives back the oldest `count` frames that have left, as far as the ring has room.
    pub fn complete(&mut self, count: usize) {
        for _ in 0..count {
            let Some(&addr) = self.leaving.front() else { break };
            if !self.opposite.complete(addr) {
                break;
            }
            self.leaving.pop_front();
        }
    }

    /// The kernel's end of the rings, for a kernel that lies.
    pub fn opposite(&mut self) -> &mut Opposite {
        &mut self.opposite
    }

    /// [`assert_accounted`] where this is the only queue.
    pub fn assert_accounted(&self, stack: &Stack, elsewhere: impl IntoIterator<Item = u64>) {
        assert_accounted(&[self], stack, elsewhere);
    }
}

/// Panics unless every frame of the UMEM is in exactly one place. `wires`: all queues of one attachment; `elsewhere`: frames that somebody has taken
/// from the stack, as [`Stack::take_leftovers`] does.
pub fn assert_accounted(wires: &[&Wire], stack: &Stack, elsewhere: impl IntoIterator<Item = u64>) {
    let port = wires[0].port;
    let free = stack.free_frames(port);
    let mut places: Vec<Option<Place>> = free.iter().map(|free| free.then_some(Place::Free)).collect();
    let mut lies = |addr: u64, place: Place| {
        let frame = (addr / u64::from(FRAME)) as usize;
        // A lie: there is no such frame.
        let Some(known) = places.get_mut(frame) else { return };
        if let Some(before) = known.replace(place) {
            panic!("frame {frame} is {before} and {place}");
        }
    };
    for wire in wires {
        for which in [Which::Fill, Which::Rx, Which::Tx, Which::Completion] {
            wire.opposite.lying(which).into_iter().for_each(|addr| lies(addr, Place::In(which)));
        }
        wire.leaving.iter().chain(&wire.spare).for_each(|&addr| lies(addr, Place::Card));
    }
    elsewhere.into_iter().for_each(|addr| lies(addr, Place::Elsewhere));
    for (keeper, kept) in stack.kept_frames() {
        if kept.port == port {
            lies(kept.frame.addr.into(), Place::Kept(keeper));
        }
    }
    let lost: Vec<usize> = (0..places.len()).filter(|&frame| places[frame].is_none()).collect();
    assert!(lost.is_empty(), "frames {lost:?} are nowhere");
}
