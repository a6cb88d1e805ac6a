//! Sums of 16-bit words over many bytes, for checksums: with AVX2 where the processor has it.
//!
//! `unsafe` here: calling code compiled for AVX2 after asking the processor, and its loads.

/// Fewer bytes than this are summed in ordinary registers.
#[cfg(target_arch = "x86_64")]
const WIDE: usize = 128;

/// A number congruent to the sum of the bytes taken as 16-bit words in the machine's order, modulo 2^16 - 1; it is zero only if all
/// bytes are. An odd last byte is padded with zero.
#[inline]
pub fn words(bytes: &[u8]) -> u64 {
    if bytes.is_empty() {
        return 0;
    }
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= WIDE && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::words(bytes) };
    }
    narrow(bytes)
}

/// The sum modulo 2^64 - 1: what runs over is one. Zero only if both are.
#[inline]
pub fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    // Where there was a carry, the sum is at most 2^64 - 2.
    sum.wrapping_add(carry.into())
}

/// In 64-bit steps: 2^16 is one, modulo 2^16 - 1.
#[inline]
fn narrow(mut bytes: &[u8]) -> u64 {
    let mut sum = 0;
    while let Some((step, rest)) = bytes.split_first_chunk::<32>() {
        let (mut left, mut at_once) = (&step[..], sum);
        // A loop that the compiler unrolls.
        while let Some((word, rest)) = left.split_first_chunk() {
            at_once = add(at_once, u64::from_ne_bytes(*word));
            left = rest;
        }
        (sum, bytes) = (at_once, rest);
    }
    while let Some((word, rest)) = bytes.split_first_chunk() {
        sum = add(sum, u64::from_ne_bytes(*word));
        bytes = rest;
    }
    if bytes.is_empty() { sum } else { add(sum, rest(bytes)) }
}

/// Fewer than eight bytes.
#[inline]
fn rest(mut bytes: &[u8]) -> u64 {
    let mut sum = 0;
    if let Some((four, more)) = bytes.split_first_chunk() {
        sum += u64::from(u32::from_ne_bytes(*four));
        bytes = more;
    }
    if let Some((two, more)) = bytes.split_first_chunk() {
        sum += u64::from(u16::from_ne_bytes(*two));
        bytes = more;
    }
    if let [last] = bytes {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    sum
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm_add_epi64, _mm_cvtsi128_si64, _mm_extract_epi64, _mm256_add_epi32, _mm256_add_epi64,
        _mm256_and_si256, _mm256_castsi256_si128, _mm256_cvtepi32_epi64, _mm256_extracti128_si256, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_set1_epi16, _mm256_setzero_si256, _mm256_xor_si256,
    };

    /// Bytes of a register, and of a step.
    const REGISTER: usize = 32;
    const STEP: usize = 8 * REGISTER;
    /// Bytes after which the 32-bit lanes could overflow: a register adds at most 2^16 to a lane.
    const PART: usize = REGISTER << 14;
    /// From byte n on, a mask of the last n bytes of a register.
    const LAST: [[u8; REGISTER]; 2] = [[0; REGISTER], [0xff; REGISTER]];

    /// Sums of pairs of words. The only multiplication that adds neighbours takes words as signed. So 2^15 is taken off each first, by
    /// flipping its highest bit, and given back at the end.
    #[derive(Clone, Copy)]
    struct Lanes([__m256i; 4]);

    impl Lanes {
        /// Adds the words of a register to one of the four.
        #[target_feature(enable = "avx2")]
        #[inline]
        fn add(&mut self, n: usize, words: __m256i) {
            let (flip, one) = (_mm256_set1_epi16(i16::MIN), _mm256_set1_epi16(1));
            self.0[n] = _mm256_add_epi32(self.0[n], _mm256_madd_epi16(_mm256_xor_si256(words, flip), one));
        }

        /// All of them together.
        #[target_feature(enable = "avx2")]
        #[inline]
        fn total(&self) -> i64 {
            let [a, b, c, d] = self.0;
            let all = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
            // The lanes are signed: each half is widened before they are added.
            let (low, high) = (_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
            let wide = _mm256_add_epi64(_mm256_cvtepi32_epi64(low), _mm256_cvtepi32_epi64(high));
            let pair = _mm_add_epi64(_mm256_castsi256_si128(wide), _mm256_extracti128_si256::<1>(wide));
            _mm_cvtsi128_si64(pair) + _mm_extract_epi64::<1>(pair)
        }
    }

    /// # Safety
    /// The processor must have AVX2.
    #[target_feature(enable = "avx2")]
    pub unsafe fn words(bytes: &[u8]) -> u64 {
        if bytes.len() <= PART {
            // SAFETY: AVX2 is there, as for this function.
            return unsafe { part(bytes) };
        }
        // SAFETY: as above; all parts but the last are of even length.
        bytes.chunks(PART).map(|bytes| unsafe { part(bytes) }).fold(0, super::add)
    }

    /// # Safety
    /// The processor must have AVX2.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn part(bytes: &[u8]) -> u64 {
        let mut lanes = Lanes([_mm256_setzero_si256(); 4]);
        let mut steps = bytes.chunks_exact(STEP);
        for step in &mut steps {
            for (n, register) in step.chunks_exact(REGISTER).enumerate() {
                // SAFETY: the chunk is as long as the load, which needs no alignment.
                lanes.add(n % 4, unsafe { _mm256_loadu_si256(register.as_ptr().cast::<__m256i>()) });
            }
        }
        let mut registers = steps.remainder().chunks_exact(REGISTER);
        for register in &mut registers {
            // SAFETY: the chunk is as long as the load.
            lanes.add(0, unsafe { _mm256_loadu_si256(register.as_ptr().cast::<__m256i>()) });
        }
        let tail = registers.remainder();
        let mut count = bytes.len() / REGISTER;
        let rest = match (bytes.last_chunk::<REGISTER>(), LAST.as_flattened()[tail.len()..].first_chunk::<REGISTER>()) {
            // The words of the tail are those at the end of the last register's worth.
            (Some(last), Some(mask)) if tail.len() % 2 == 0 && !tail.is_empty() => {
                count += 1;
                // SAFETY: both arrays are as long as the load.
                let [last, mask] = [last, mask].map(|at| unsafe { _mm256_loadu_si256(at.as_ptr().cast::<__m256i>()) });
                lanes.add(1, _mm256_and_si256(last, mask));
                0
            }
            _ => super::narrow(tail),
        };
        super::add((lanes.total() + ((count * REGISTER / 2) as i64 * (1 << 15))) as u64, rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reference(bytes: &[u8]) -> u64 {
        let word = |pair: &[u8]| u64::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        bytes.chunks(2).map(word).sum()
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(words(&bytes) % 0xffff, reference(&bytes) % 0xffff);
            prop_assert_eq!(narrow(&bytes) % 0xffff, reference(&bytes) % 0xffff);
        }
    }

    #[test]
    fn no_lane_overflows() {
        for byte in [0, 0x7f, 0x80, 0xff] {
            let bytes = vec![byte; (1 << 20) + 127];
            assert_eq!(words(&bytes) % 0xffff, reference(&bytes) % 0xffff, "{byte}");
            assert_eq!(words(&bytes) == 0, byte == 0);
        }
    }
}
