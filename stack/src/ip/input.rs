//! Frames in.
#![deny(unsafe_code)]
use super::flow::FlowKey;
use crate::stats::Counter;
use crate::tcp::Segment;

/// What a frame brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// The connection, seen from this host: local is the destination.
    pub flow: FlowKey,
    /// The segment.
    pub segment: Segment<'a>,
}

/// Why a frame is not a segment for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// Shorter than its headers say.
    Runt,
    /// Longer than a frame may be.
    Oversize,
    /// Something else than TCP over IPv4: the kernel's.
    NotIpv4Tcp,
    /// A fragment: the kernel's.
    Fragment,
    /// Malformed IP header, or its checksum is wrong.
    BadIpHeader,
    /// Malformed TCP header or options.
    BadTcpHeader,
    /// The TCP checksum is wrong.
    BadChecksum,
}

impl Drop {
    /// What to count.
    pub fn counter(self) -> Counter {
        match self {
            Self::Runt => Counter::RxRunt,
            Self::Oversize => Counter::RxOversize,
            Self::NotIpv4Tcp => Counter::RxNotIpv4Tcp,
            Self::Fragment => Counter::RxFragment,
            Self::BadIpHeader => Counter::RxBadIpHeader,
            Self::BadTcpHeader => Counter::RxBadTcpHeader,
            Self::BadChecksum => Counter::RxBadChecksum,
        }
    }

    /// Is the frame the kernel's to judge, so that it should be injected there?
    pub fn is_kernels(self) -> bool {
        matches!(self, Self::NotIpv4Tcp | Self::Fragment)
    }
}

/// Reads an Ethernet frame of at most `max_frame` bytes.
pub fn parse(frame: &[u8], max_frame: usize) -> Result<Incoming<'_>, Drop> { let _ = (frame, max_frame); todo!() }
