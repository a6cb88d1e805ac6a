//! Sequence numbers.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A sequence number (RFC 9293, section 3.4). The space is a circle, so there is no `Ord`: comparisons are right for
/// numbers less than 2^31 apart.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct SeqNr(pub u32);

impl SeqNr {
    /// `n` further on.
    pub const fn plus(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// `n` back.
    pub const fn minus(self, n: u32) -> Self {
        Self(self.0.wrapping_sub(n))
    }

    /// Steps from `earlier` to here, modulo 2^32.
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Steps from `earlier` to here; zero if that lies ahead.
    pub const fn ahead_of(self, earlier: Self) -> u32 {
        if self.gt(earlier) { self.since(earlier) } else { 0 }
    }

    /// Before `other`.
    pub const fn lt(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Before or at `other`.
    pub const fn le(self, other: Self) -> bool {
        !other.lt(self)
    }

    /// After `other`.
    pub const fn gt(self, other: Self) -> bool {
        other.lt(self)
    }

    /// After or at `other`.
    pub const fn ge(self, other: Self) -> bool {
        !self.lt(other)
    }

    /// The later of two.
    pub const fn later(self, other: Self) -> Self {
        if self.lt(other) { other } else { self }
    }

    /// The earlier of two.
    pub const fn earlier(self, other: Self) -> Self {
        if self.lt(other) { self } else { other }
    }
}

impl std::fmt::Debug for SeqNr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_holds_across_the_wrap(base: u32, a in 0u32..1 << 30, b in 0u32..1 << 30) {
            let (x, y) = (SeqNr(base).plus(a), SeqNr(base).plus(b));
            prop_assert_eq!(x.lt(y), a < b);
            prop_assert_eq!(x.le(y), a <= b);
            prop_assert_eq!(x.gt(y), a > b);
            prop_assert_eq!(x.ge(y), a >= b);
            prop_assert_eq!(x.later(y), SeqNr(base).plus(a.max(b)));
            prop_assert_eq!(x.earlier(y), SeqNr(base).plus(a.min(b)));
            prop_assert_eq!(x.ahead_of(y), a.saturating_sub(b));
            prop_assert_eq!(x.minus(a), SeqNr(base));
        }
    }
}
