//! What a segment costs in a TCP engine alone: whole frames in, whole frames out, no kernel and no wire. Underpass's own stack and
//! smoltcp do the same work under the same hands.

mod callgrind;
mod ours;
mod scene;
mod smol;

use std::io;

pub use self::callgrind::instructions;
pub use self::ours::Ours;
pub use self::scene::{Figures, GROUP, SCENES, Scene};
pub use self::smol::Smol;

/// Bytes of data in a full segment.
pub const FULL: usize = 1460;
/// Connections that fewer than this have room for a whole group of segments each.
const ROOMY: usize = 128;

/// A TCP stack with connections that are all established and idle, on a network of memory. Time passes only in
/// [`Engine::receive`] and [`Engine::write`], a microsecond each at most.
pub trait Engine {
    /// Puts the next segment of a connection's peer into the network card, not to be seen before [`Engine::receive`].
    fn stage(&mut self, connection: usize, push: bool, data: &[u8]);
    /// The oldest staged frame arrives: takes it in, sends what is due.
    fn receive(&mut self, frames: usize);
    /// The program takes bytes that have arrived.
    fn read(&mut self, connection: usize, out: &mut [u8]) -> usize;
    /// The program gives bytes, which are sent at once.
    fn write(&mut self, connection: usize, data: &[u8]) -> usize;
    /// The peers take what was sent to them; returns segments and bytes of data. An error if one is not what its peer waits for.
    fn collect(&mut self) -> io::Result<(u64, u64)>;
    /// The peer of a connection acknowledges `bytes` more than it has received so far: what it will have received by then.
    fn foresee(&mut self, connection: usize, bytes: usize);
}

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Underpass's.
    Underpass,
    /// smoltcp's.
    Smoltcp,
}

impl Which {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Underpass, Self::Smoltcp];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Underpass => "underpass",
            Self::Smoltcp => "smoltcp",
        }
    }

    /// Plays `run` on a fresh engine, so many groups of [`GROUP`] times.
    pub fn play(self, run: Run, groups: usize) -> io::Result<Figures> {
        match self {
            Self::Underpass => scene::run(&mut Ours::new(run.connections, run.verify)?, run, groups),
            Self::Smoltcp => scene::run(&mut Smol::new(run.connections, run.verify)?, run, groups),
        }
    }
}

/// What is played.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What happens.
    pub scene: Scene,
    /// So many connections take turns.
    pub connections: usize,
    /// It happens so many times in one pass, except that several connections send one after the other: a divisor of [`GROUP`].
    pub burst: usize,
    /// Received TCP checksums are verified.
    pub verify: bool,
}
