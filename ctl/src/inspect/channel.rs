//! A channel of the shm lane, read out of the memory of the process that has it mapped (`/proc/PID/mem`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use underpass_stack::arena::ChannelNote;
use underpass_stack::lane::shm::layout::{LINE_WORDS, line, line_at};

/// What the two sides of a channel say. Every number is a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Bytes of each ring.
    pub capacity: u32,
    /// Bytes for the owner to read.
    pub unread: u32,
    /// Bytes that the other side has not read.
    pub untaken: u32,
    /// Bytes that the owner has read from the ring.
    pub bytes_in: u64,
    /// Bytes that the owner has put into the ring.
    pub bytes_out: u64,
}

/// Looks at the channel at address `at` of a process.
pub fn fill(pid: u32, at: u64, note: ChannelNote) -> io::Result<Fill> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let side = |side: usize| {
        let mut bytes = [0; LINE_WORDS * 8];
        memory.read_exact_at(&mut bytes, at.wrapping_add(line_at(side, note.capacity) as u64))?;
        let word = |n: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[n * 8 + i]));
        Ok::<_, io::Error>((word(line::TAIL), word(line::HEAD)))
    };
    let (mine, theirs) = (side(note.side)?, side(1 - note.side)?);
    let queued = |tail: u64, head: u64| tail.wrapping_sub(head).min(note.capacity as u64) as u32;
    Ok(Fill {
        capacity: note.capacity as u32,
        unread: queued(theirs.0, mine.1),
        untaken: queued(mine.0, theirs.1),
        bytes_in: mine.1,
        bytes_out: mine.0,
    })
}
