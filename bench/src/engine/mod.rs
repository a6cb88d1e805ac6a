//! What a segment costs in a TCP engine alone: whole frames in, whole frames out, no kernel and no wire. Underpass's own stack and
//! smoltcp do the same work under the same hands.

mod callgrind;
mod ours;
mod scene;
mod smol;

use std::io;

pub use self::callgrind::instructions;
pub use self::ours::Ours;
pub use self::scene::{Figures, SCENES, Scene, run};
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
    fn receive(&mut self);
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

    /// Runs a scene on a fresh engine with so many connections. `verify`: received TCP checksums are verified.
    pub fn run(self, scene: Scene, connections: usize, verify: bool, groups: usize) -> io::Result<Figures> {
        match self {
            Self::Underpass => run(&mut Ours::new(connections, verify)?, scene, connections, groups),
            Self::Smoltcp => run(&mut Smol::new(connections, verify)?, scene, connections, groups),
        }
    }
}
