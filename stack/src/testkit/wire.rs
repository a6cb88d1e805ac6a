//! A network card made of memory under a whole [`Stack`]: real rings, real frames, no kernel.

use std::io;

use crate::arena::PortEntry;
use crate::mem::Region;
use crate::stack::{PortConfig, Stack};
use crate::xsk::memory::{Opposite, pair};
use crate::xsk::{Desc, RingSizes};

/// Bytes of one frame.
const FRAME: u32 = 2048;

/// The far end of an attachment's only queue.
#[derive(Debug)]
pub struct Wire {
    opposite: Opposite,
    umem: Region,
}

impl Wire {
    /// Attaches a card with `frames` frames and rings of `entries` entries to the stack's port `number`.
    pub fn attach(stack: &mut Stack, number: u32, frames: u32, entries: u32, mtu: u32) -> io::Result<Self> {
        let rings = RingSizes { fill: entries, completion: entries, rx: entries, tx: entries };
        let own = Region::create(c"underpass-umem", (frames * FRAME) as usize)?;
        let fd = own.fd().ok_or(io::ErrorKind::NotFound)?.try_clone_to_owned()?;
        let (queue, opposite) = pair(rings)?;
        let config =
            PortConfig { ifindex: 1, mtu, frame_size: FRAME, frame_count: frames, rings, xsk_base: 0, netns: 0 };
        stack.attach_queues(number, config, Region::open_owner(fd)?, vec![queue], PortEntry::default())?;
        Ok(Self { opposite, umem: own })
    }

    /// Puts a frame into the UMEM; the stack sees it after [`Self::show`]. False if the stack offers no empty frame, or a small one.
    pub fn stage(&mut self, frame: &[u8]) -> bool {
        let Some(addr) = self.opposite.take_empty() else { return false };
        let Some(place) = self.umem.bytes_mut(addr as usize, frame.len().min(FRAME as usize)) else { return false };
        place.copy_from_slice(&frame[..place.len()]);
        self.opposite.put(Desc::new(addr, frame.len() as u32))
    }

    /// Shows the oldest `count` staged frames to the stack; returns how many it took.
    #[inline]
    pub fn show(&mut self, count: usize) -> usize {
        self.opposite.show(count as u32) as usize
    }

    /// Takes every frame that the stack has sent, in order; returns how many there were.
    pub fn collect(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while let Some(packet) = self.opposite.take_sent() {
            each(self.umem.bytes(packet.addr as usize, packet.len as usize).unwrap_or(&[]));
            self.opposite.complete(packet.addr);
            count += 1;
        }
        count
    }
}
