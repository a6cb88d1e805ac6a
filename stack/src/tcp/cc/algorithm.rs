//! Which algorithms are there, and what are they called?

/// The algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// CUBIC (RFC 9438) with HyStart++ (RFC 9406).
    #[default]
    Cubic,
    /// NewReno (RFC 5681, RFC 6582).
    Reno,
    /// DCTCP (RFC 8257); without ECN it is NewReno.
    Dctcp,
    /// BBR, version 1.
    Bbr,
}

impl Algorithm {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Cubic, Self::Reno, Self::Dctcp, Self::Bbr];

    /// Any number stands for an algorithm: zero, and what nobody wrote, for the default.
    pub(super) fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Reno,
            2 => Self::Dctcp,
            3 => Self::Bbr,
            _ => Self::Cubic,
        }
    }

    /// The name by which TCP_CONGESTION knows it (tcp(7)).
    pub fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Reno => "reno",
            Self::Dctcp => "dctcp",
            Self::Bbr => "bbr",
        }
    }

    /// The algorithm of this name.
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.iter().copied().find(|algorithm| algorithm.name().as_bytes() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_memory_is_the_default_and_each_number_its_algorithm() {
        assert_eq!(Algorithm::from_raw(0), Algorithm::default());
        assert_eq!(Algorithm::from_raw(u32::MAX), Algorithm::default());
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_raw(*algorithm as u32), *algorithm);
            assert_eq!(Algorithm::named(algorithm.name().as_bytes()), Some(*algorithm));
        }
        assert_eq!(Algorithm::named(b"vegas"), None);
    }
}
