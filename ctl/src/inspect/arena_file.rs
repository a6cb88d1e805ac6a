//! An arena, read from outside.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use underpass_stack::arena::{self, ArenaHeader, ConnRecord, SocketEntry};
use underpass_stack::mem::Plain;
use underpass_stack::stats;

/// Entries of the board read at once.
const BOARD_CHUNK: usize = 512;

/// Somebody's arena, open for reading.
#[derive(Debug)]
pub struct ArenaFile {
    file: File,
}

/// Why a file is not an arena that this program can read.
#[derive(Debug)]
pub enum Unreadable {
    /// The file could not be opened or read.
    Io(io::Error),
    /// It is not an arena.
    NotArena,
    /// An arena of another layout version.
    Version(u32),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::NotArena => write!(f, "its arena is damaged or not an arena"),
            Self::Version(version) => {
                write!(f, "its library has arena version {version}, this command knows version {}", arena::VERSION)
            }
        }
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl ArenaFile {
    /// Opens an arena by a `/proc/PID/fd/N` path. Anything but a regular file is refused before it is opened, as
    /// opening a stranger's FIFO or device could block or act.
    pub fn open(path: &Path) -> Result<Self, Unreadable> {
        if !std::fs::metadata(path)?.is_file() {
            return Err(Unreadable::NotArena);
        }
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Self { file })
    }

    /// The header, if it is one of ours.
    pub fn header(&self) -> Result<ArenaHeader, Unreadable> {
        let header: ArenaHeader = self.read(0)?;
        if header.magic != arena::MAGIC {
            return Err(Unreadable::NotArena);
        }
        if header.version != arena::VERSION {
            return Err(Unreadable::Version(header.version));
        }
        Ok(header)
    }

    /// The counter page, every counter at its place: [`Counter`]s and refusals ([`stats::refusals_at`]).
    ///
    /// [`Counter`]: stats::Counter
    pub fn counters(&self) -> io::Result<Vec<u64>> {
        let mut bytes = vec![0; stats::WORDS * size_of::<u64>()];
        self.file.read_exact_at(&mut bytes, arena::STATS_AT as u64)?;
        Ok(bytes.chunks_exact(8).filter_map(|cell| Some(u64::from_ne_bytes(cell.try_into().ok()?))).collect())
    }

    /// The board's entries of TCP sockets, by descriptor. `limit` is a claim.
    pub fn board(&self, limit: u32) -> io::Result<Vec<(i32, SocketEntry)>> {
        let limit = (limit as usize).min(arena::MAX_FDS);
        let mut entries = Vec::new();
        for first in (0..limit).step_by(BOARD_CHUNK) {
            let count = BOARD_CHUNK.min(limit - first);
            let mut bytes = vec![0; count * size_of::<SocketEntry>()];
            let at = arena::BOARD_AT + first * size_of::<SocketEntry>();
            self.file.read_exact_at(&mut bytes, at as u64)?;
            for (i, chunk) in bytes.chunks_exact(size_of::<SocketEntry>()).enumerate() {
                let entry = record(chunk).filter(|entry: &SocketEntry| entry.kind == 1);
                entries.extend(entry.map(|entry| ((first + i) as i32, entry)));
            }
        }
        Ok(entries)
    }

    /// The record of a connection slot; `None` if there is no such slot.
    pub fn conn(&self, slot: u32) -> Option<ConnRecord> {
        self.read(arena::conn_offset(slot)?).ok()
    }

    fn read<T: Plain>(&self, offset: usize) -> io::Result<T> {
        let mut bytes = vec![0; size_of::<T>()];
        self.file.read_exact_at(&mut bytes, offset as u64)?;
        record(&bytes).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }
}

fn record<T: Plain>(bytes: &[u8]) -> Option<T> {
    T::read_from_bytes(bytes).ok()
}
