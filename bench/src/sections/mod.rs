//! What can be measured, one file a section.

mod connect;
mod idle;
mod iperf;
mod overhead;
mod pingpong;
mod redis;
mod stream;

use clap::ValueEnum;

use crate::stand::Stand;
use crate::table::About;
use crate::turns::Mode;

/// A section on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SectionName {
    /// 64 bytes there and back.
    Pingpong,
    /// Bulk data one way.
    Stream,
    /// A connection for every request.
    Connect,
    /// redis-server under redis-benchmark.
    Redis,
    /// iperf3.
    Iperf,
    /// What the library costs a program that it cannot help.
    Overhead,
    /// What a silent program costs.
    Idle,
}

/// A section ready to run.
pub struct Section<'a> {
    /// How to read it.
    pub about: About,
    /// What to run.
    pub modes: Vec<Mode<'a>>,
}

impl SectionName {
    /// All, in the order of a full run.
    pub const ALL: [Self; 7] =
        [Self::Pingpong, Self::Stream, Self::Connect, Self::Redis, Self::Iperf, Self::Overhead, Self::Idle];

    /// The section's modes on this stand.
    pub fn build(self, stand: &Stand) -> Section<'_> {
        match self {
            Self::Pingpong => pingpong::section(stand),
            Self::Stream => stream::section(stand),
            Self::Connect => connect::section(stand),
            Self::Redis => redis::section(stand),
            Self::Iperf => iperf::section(stand),
            Self::Overhead => overhead::section(stand),
            Self::Idle => idle::section(stand),
        }
    }
}
