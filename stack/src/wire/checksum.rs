//! The Internet checksum (RFC 1071).
//!
//! The sum is taken over words in the machine's own byte order, which RFC 1071, section 2(B) allows.

use crate::ip::flow::Addr;
use crate::mem::sum;

/// A ones' complement sum that is not folded yet: of 64-bit words, modulo 2^64 - 1, which 2^16 - 1 divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sum(u64);

impl Sum {
    /// Of 2^16 - 1, modulo 2^64.
    const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
    /// How many multiples 2^16 - 1 has below 2^64 without zero.
    const MULTIPLES: u64 = u64::MAX / 0xffff;

    /// Of one word.
    #[inline(always)]
    pub fn of_word(word: u64) -> Self {
        Self(word)
    }

    /// The pseudo-header of an upper-layer packet of `len` bytes (RFC 9293, section 3.1). One formula serves both IP
    /// versions: the prefix of a v4-mapped address adds 0xffff, which is zero in ones' complement.
    #[inline(always)]
    pub fn pseudo(source: &Addr, destination: &Addr, proto: u8, len: u16) -> Self {
        Self::default().plus_header(&source.0).plus_header(&destination.0).plus_upper(proto, len)
    }

    /// Adds what a pseudo-header has beside the addresses.
    #[must_use]
    #[inline(always)]
    pub fn plus_upper(self, proto: u8, len: u16) -> Self {
        let [high, low] = len.to_be_bytes();
        self.plus_header(&[0, proto, high, low])
    }

    /// Adds bytes that start at an even offset of the packet; an odd last byte is padded with zero.
    #[must_use]
    #[inline(always)]
    pub fn plus(self, bytes: &[u8]) -> Self {
        Self(sum::add(self.0, sum::words(bytes)))
    }

    /// Adds four bytes that start at an even offset.
    #[must_use]
    #[inline(always)]
    pub fn plus_word(self, bytes: [u8; 4]) -> Self {
        Self(sum::add(self.0, u32::from_ne_bytes(bytes).into()))
    }

    /// Copies bytes to a place of the same length, and adds them as [`Sum::plus`] does.
    #[must_use]
    #[inline(always)]
    pub fn plus_copied(self, to: &mut [u8], from: &[u8]) -> Self {
        Self(sum::add(self.0, sum::copy(to, from)))
    }

    /// Adds the words of a header whose length is known.
    #[must_use]
    #[inline(always)]
    pub fn plus_header<const N: usize>(self, header: &[u8; N]) -> Self {
        const { assert!(N % 4 == 0 && N <= 64) };
        let (mut sum, mut left) = (self.0, &header[..]);
        // A loop that the compiler unrolls.
        while let Some((word, rest)) = left.split_first_chunk() {
            sum = sum::add(sum, u64::from_ne_bytes(*word));
            left = rest;
        }
        if let Some((word, _)) = left.split_first_chunk() {
            sum = sum::add(sum, u32::from_ne_bytes(*word).into());
        }
        Self(sum)
    }

    /// The sum in 16 bits, as it would stand in a header that awaits checksum offload.
    #[inline]
    pub fn partial(self) -> [u8; 2] {
        self.folded().to_ne_bytes()
    }

    /// The checksum: what to store in the header field, which was zero while summing.
    #[inline]
    pub fn checksum(self) -> [u8; 2] {
        (!self.folded()).to_ne_bytes()
    }

    /// Is this the sum of data that includes its right checksum? Folded it would be 0xffff, so 2^16 - 1 divides it, and it is not zero:
    /// that takes no folding.
    #[inline(always)]
    pub fn is_valid(self) -> bool {
        // Its multiples but zero become 1, 2, ... this way, and all other numbers larger ones.
        self.0.wrapping_mul(Self::INVERSE).wrapping_sub(1) < Self::MULTIPLES
    }

    /// Is this its [`Sum::partial`]? Nearly never, which is found out without folding.
    #[inline(always)]
    pub fn is_partial(self, field: [u8; 2]) -> bool {
        let difference = sum::add(self.0, u64::from(!u16::from_ne_bytes(field)));
        difference.wrapping_mul(Self::INVERSE) <= Self::MULTIPLES && self.partial() == field
    }

    #[inline]
    fn folded(self) -> u16 {
        let (sum, carry) = (self.0 as u32).overflowing_add((self.0 >> 32) as u32);
        let sum = sum + u32::from(carry);
        let (sum, carry) = (sum as u16).overflowing_add((sum >> 16) as u16);
        sum + u16::from(carry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071, section 4.1, word by word in network order.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::default().plus(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.partial(), [0xdd, 0xf2]);
        assert_eq!(sum.checksum(), [0x22, 0x0d]);
    }

    #[test]
    fn a_sum_is_valid_if_it_folds_to_all_ones() {
        assert_eq!(Sum::INVERSE.wrapping_mul(0xffff), 1);
        for sum in [0, 1, 0xfffe, 0xffff, 0x1_0000, 0x1_fffe, u64::MAX - 1, u64::MAX, 0xffff_0000_0000_0000, 1 << 63] {
            assert_eq!(Sum(sum).is_valid(), Sum(sum).folded() == 0xffff, "{sum:#x}");
        }
    }

    #[test]
    fn mapped_addresses_sum_like_ipv4() {
        let (a, b) = ([10, 0, 0, 1], [192, 168, 7, 200]);
        let mapped = Sum::pseudo(&Addr::v4(a), &Addr::v4(b), 6, 1000);
        let plain = Sum::default().plus(&a).plus(&b).plus(&[0, 6, 3, 232]);
        assert_eq!(mapped.partial(), plain.partial());
        let header: [u8; 20] = std::array::from_fn(|n| n as u8 * 13);
        assert_eq!(plain.plus_header(&header).partial(), plain.plus(&header).partial());
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference(bytes in proptest::collection::vec(any::<u8>(), 0..3000), cut in 0usize..1500) {
            prop_assert_eq!(u16::from_be_bytes(Sum::default().plus(&bytes).checksum()), reference(&bytes));
            let (one, two) = bytes.split_at((cut * 2).min(bytes.len() & !1));
            prop_assert_eq!(u16::from_be_bytes(Sum::default().plus(one).plus(two).checksum()), reference(&bytes));
        }

        #[test]
        fn a_flipped_bit_is_seen(mut bytes in proptest::collection::vec(any::<u8>(), 2..200), at: usize, bit in 0u8..8) {
            bytes[..2].fill(0);
            let checksum = Sum::default().plus(&bytes).checksum();
            bytes[..2].copy_from_slice(&checksum);
            prop_assert!(Sum::default().plus(&bytes).is_valid());
            let sum = Sum::default().plus(&bytes);
            let field = [bytes[0], bytes[bytes.len() - 1]];
            for field in [sum.partial(), field, [0; 2], [0xff; 2]] {
                prop_assert_eq!(sum.is_partial(field), sum.partial() == field);
            }
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(!Sum::default().plus(&bytes).is_valid());
        }
    }
}
