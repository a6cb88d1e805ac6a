//! What can be measured, one file a section.

mod bad_link;
mod choice;
mod connect;
mod engine;
mod idle;
mod iperf;
mod overhead;
mod pingpong;
mod redis;
mod redis_programs;
mod shm;
mod stream;

use std::fmt;

use clap::ValueEnum;
use underpass_lab::LabError;

pub use self::choice::Choice;
use crate::stand::{Place, Stand};
use crate::table::About;
use crate::turns::Mode;

/// A section on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SectionName {
    /// The TCP engine alone, beside smoltcp's: instructions and time of a segment (only if named).
    Engine,
    /// 64 bytes there and back, over loopback.
    ShmPingpong,
    /// redis-server under redis-benchmark, over loopback.
    ShmRedis,
    /// iperf3, over loopback.
    ShmIperf,
    /// A connection for every request, over loopback.
    ShmConnect,
    /// Thousands of connections at once, over loopback.
    ShmMany,
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
    /// Goodput over bad links: loss by round-trip time by congestion control (12 minutes; only if named).
    BadLink,
    /// Requests whose last segment is lost (only if named).
    TailLoss,
    /// A connection of the lane and one of the kernel share a link (only if named).
    Fairness,
}

/// A section ready to run.
pub struct Section<'a> {
    /// How to read it.
    pub about: About,
    /// What to run.
    pub modes: Vec<Mode<'a>>,
}

impl SectionName {
    /// A full run, in its order: first what needs no lab, so that the labs' daemon is not there yet.
    pub const ALL: [Self; 12] = [
        Self::ShmPingpong,
        Self::ShmRedis,
        Self::ShmIperf,
        Self::ShmConnect,
        Self::ShmMany,
        Self::Pingpong,
        Self::Stream,
        Self::Connect,
        Self::Redis,
        Self::Iperf,
        Self::Overhead,
        Self::Idle,
    ];

    /// Where it is measured.
    pub fn place(self) -> Place {
        match self {
            Self::Engine => Place::Memory,
            Self::ShmPingpong | Self::ShmRedis | Self::ShmIperf | Self::ShmConnect | Self::ShmMany => Place::Loopback,
            Self::Pingpong | Self::Stream | Self::Connect | Self::Redis | Self::Iperf | Self::Overhead | Self::Idle => {
                Place::Labs
            }
            Self::BadLink | Self::TailLoss | Self::Fairness => Place::BadLinks,
        }
    }

    /// Rounds, if nobody asks for another number.
    pub fn rounds(self, quick: bool) -> usize {
        match (self, quick) {
            (Self::BadLink | Self::Fairness, true) => 1,
            (Self::BadLink | Self::Fairness, false) | (_, true) => 3,
            (_, false) => 5,
        }
    }

    /// The section's modes on this stand; an error if its place cannot be made.
    pub fn build(self, stand: &Stand) -> Result<Section<'_>, LabError> {
        Ok(match self {
            Self::Engine => engine::section(stand.programs()),
            Self::ShmPingpong => shm::pingpong::section(stand.loopback()?),
            Self::ShmRedis => shm::redis::section(stand.loopback()?),
            Self::ShmIperf => shm::iperf::section(stand.loopback()?),
            Self::ShmConnect => shm::connect::section(stand.loopback()?),
            Self::ShmMany => shm::many::section(stand.loopback()?),
            Self::Pingpong => pingpong::section(stand.labs()?),
            Self::Stream => stream::section(stand.labs()?),
            Self::Connect => connect::section(stand.labs()?),
            Self::Redis => redis::section(stand.labs()?),
            Self::Iperf => iperf::section(stand.labs()?),
            Self::Overhead => overhead::section(stand.labs()?),
            Self::Idle => idle::section(stand.labs()?),
            Self::BadLink => bad_link::goodput::section(stand.bad_links()?),
            Self::Fairness => bad_link::fairness::section(stand.bad_links()?),
            Self::TailLoss => bad_link::tail_loss::section(stand.bad_links()?),
        })
    }
}

impl fmt::Display for SectionName {
    /// As on the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}
