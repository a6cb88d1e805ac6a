//! What the kernel's congestion control has learnt of a path beside window and threshold, as it tells it (TCP_CC_INFO, tcp(7)).

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::Algorithm;

/// Linux counts gains in parts of this.
const BBR_UNIT: u32 = 256;
/// DCTCP.Alpha is counted in parts of this there (DCTCP_MAX_ALPHA).
const DCTCP_ONE: u32 = 1024;

/// What is known of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Learnt {
    /// Nothing, or nothing that goes beyond window and threshold.
    #[default]
    Nothing,
    /// BBR's model.
    Bbr {
        /// The rate at which the path delivers, bytes a second.
        bandwidth: u64,
        /// Shortest round trip of late, µs.
        min_rtt_us: u32,
        /// Was the path's rate found, that is, is startup over?
        full: bool,
    },
    /// DCTCP's.
    Dctcp {
        /// DCTCP.Alpha (RFC 8257, section 3.3), how much of the data is marked, in parts of 1024.
        alpha: u32,
    },
}

/// `struct tcp_bbr_info`, linux/inet_diag.h.
#[repr(C)]
#[derive(FromBytes, KnownLayout, Immutable)]
struct BbrInfo {
    bw_lo: u32,
    bw_hi: u32,
    min_rtt: u32,
    pacing_gain: u32,
    cwnd_gain: u32,
}

/// `struct tcp_dctcp_info`, linux/inet_diag.h.
#[repr(C)]
#[derive(FromBytes, KnownLayout, Immutable)]
struct DctcpInfo {
    enabled: u16,
    ce_state: u16,
    alpha: u32,
    ab_ecn: u32,
    ab_tot: u32,
}

impl Learnt {
    /// The largest `union tcp_cc_info` of linux/inet_diag.h, bytes.
    pub const INFO_LEN: usize = size_of::<BbrInfo>();

    /// Reads what TCP_CC_INFO gave for a socket with this congestion control. Too little of it, or nonsense, is nothing.
    pub fn of(algorithm: Algorithm, info: &[u8]) -> Self {
        match algorithm {
            Algorithm::Bbr => BbrInfo::read_from_prefix(info).map_or(Self::Nothing, |(info, _)| info.learnt()),
            Algorithm::Dctcp => DctcpInfo::read_from_prefix(info).map_or(Self::Nothing, |(info, _)| info.learnt()),
            Algorithm::Cubic | Algorithm::Reno => Self::Nothing,
        }
    }
}

impl BbrInfo {
    fn learnt(&self) -> Learnt {
        let bandwidth = u64::from(self.bw_hi) << 32 | u64::from(self.bw_lo);
        // The kernel begins with the largest number there is.
        if bandwidth == 0 || self.min_rtt == 0 || self.min_rtt == u32::MAX {
            return Learnt::Nothing;
        }
        Learnt::Bbr { bandwidth, min_rtt_us: self.min_rtt, full: self.is_past_startup() }
    }

    /// Only startup sends at more than twice the rate that it knows. Looking for the shortest round trip, with both gains one, may
    /// interrupt startup: then nobody can tell, and startup once more does less harm than a rate that was never found.
    fn is_past_startup(&self) -> bool {
        self.pacing_gain < 2 * BBR_UNIT && self.cwnd_gain > BBR_UNIT
    }
}

impl DctcpInfo {
    /// Where the peer does not do ECN, the kernel's DCTCP is another's algorithm and not enabled.
    fn learnt(&self) -> Learnt {
        if self.enabled == 0 { Learnt::Nothing } else { Learnt::Dctcp { alpha: self.alpha.min(DCTCP_ONE) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn what_bbr_tells_is_read() {
        let info = words(&[1_250_000, 1, 20_000, 256, 512]);
        let known = |full| Learnt::Bbr { bandwidth: (1 << 32) + 1_250_000, min_rtt_us: 20_000, full };
        assert_eq!(Learnt::of(Algorithm::Bbr, &info), known(true));
        // Startup; drain; a round trip is looked for.
        for (gains, full) in [([739, 739], false), ([88, 739], true), ([256, 256], false)] {
            let info = words(&[1_250_000, 1, 20_000, gains[0], gains[1]]);
            assert_eq!(Learnt::of(Algorithm::Bbr, &info), known(full), "{gains:?}");
        }
        assert_eq!(Learnt::of(Algorithm::Cubic, &info), Learnt::Nothing);
    }

    #[test]
    fn what_dctcp_tells_is_read() {
        let info = |enabled: u32, alpha| words(&[u32::from_ne_bytes([enabled as u8, 0, 0, 0]), alpha, 3, 4]);
        assert_eq!(Learnt::of(Algorithm::Dctcp, &info(1, 77)), Learnt::Dctcp { alpha: 77 });
        assert_eq!(Learnt::of(Algorithm::Dctcp, &info(1, 9_999)), Learnt::Dctcp { alpha: 1024 });
        assert_eq!(Learnt::of(Algorithm::Dctcp, &info(0, 77)), Learnt::Nothing);
    }

    #[test]
    fn too_little_and_nonsense_are_nothing() {
        let nothing = |info: &[u8]| assert_eq!(Learnt::of(Algorithm::Bbr, info), Learnt::Nothing, "{info:?}");
        nothing(&[]);
        nothing(&words(&[1, 0, 20_000, 256]));
        nothing(&words(&[0, 0, 20_000, 256, 512]));
        nothing(&words(&[1, 0, u32::MAX, 256, 512]));
        assert_eq!(Learnt::of(Algorithm::Dctcp, &[1]), Learnt::Nothing);
    }
}
