//! Sums of 16-bit words over many bytes, for checksums: with AVX2 where the processor has it.
//!
//! `unsafe` here: calling code compiled for AVX2 after asking the processor, and its loads.

/// Fewer bytes than this are summed in ordinary registers.
#[cfg(target_arch = "x86_64")]
const WIDE: usize = 128;

/// A number congruent to the sum of the bytes taken as 16-bit words in the machine's order, modulo 2^16 - 1, and below 2^48 for
/// up to 64 KiB; it is zero only if all bytes are. An odd last byte is padded with zero.
#[inline]
pub fn words(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= WIDE && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::words(bytes) };
    }
    narrow(bytes)
}

/// In 32-bit steps: 2^16 is one, modulo 2^16 - 1.
#[inline]
fn narrow(bytes: &[u8]) -> u64 {
    let mut sum = 0;
    let mut steps = bytes.chunks_exact(8);
    for step in &mut steps {
        let word = u64::from_ne_bytes([step[0], step[1], step[2], step[3], step[4], step[5], step[6], step[7]]);
        sum += (word & 0xffff_ffff) + (word >> 32);
    }
    sum + rest(steps.remainder())
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
        __m256i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi16, _mm256_setzero_si256,
        _mm256_storeu_si256, _mm256_xor_si256,
    };

    /// Bytes of a register, and of a step.
    const REGISTER: usize = 32;
    const STEP: usize = 4 * REGISTER;
    /// Bytes after which the 32-bit lanes could overflow: a step adds at most 4 * 2^16 to all four sums of a lane.
    const PART: usize = STEP << 12;

    /// The only multiplication that adds neighbours takes words as signed. So 2^15 is taken off each first, by flipping its
    /// highest bit, and given back at the end.
    ///
    /// # Safety
    /// The processor must have AVX2.
    #[target_feature(enable = "avx2")]
    pub unsafe fn words(bytes: &[u8]) -> u64 {
        let (body, tail) = bytes.split_at(bytes.len() & !(REGISTER - 1));
        let mut signed = 0;
        for part in body.chunks(PART) {
            // SAFETY: AVX2 is there, as for this function; the length is a multiple of REGISTER.
            signed += unsafe { sum_part(part) };
        }
        (signed + ((body.len() as i64 / 2) << 15)) as u64 + super::narrow(tail)
    }

    /// # Safety
    /// The processor must have AVX2.
    #[target_feature(enable = "avx2")]
    unsafe fn sum_part(bytes: &[u8]) -> i64 {
        let (flip, one) = (_mm256_set1_epi16(i16::MIN), _mm256_set1_epi16(1));
        let mut sums = [_mm256_setzero_si256(); 4];
        let mut steps = bytes.chunks_exact(STEP);
        for step in &mut steps {
            for (n, sum) in sums.iter_mut().enumerate() {
                // SAFETY: n < 4, so the load ends within the step; it needs no alignment.
                let words = unsafe { _mm256_loadu_si256(step.as_ptr().add(n * REGISTER).cast::<__m256i>()) };
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_xor_si256(words, flip), one));
            }
        }
        for register in steps.remainder().chunks_exact(REGISTER) {
            // SAFETY: the chunk is as long as the load.
            let words = unsafe { _mm256_loadu_si256(register.as_ptr().cast::<__m256i>()) };
            sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(_mm256_xor_si256(words, flip), one));
        }
        let all = _mm256_add_epi32(_mm256_add_epi32(sums[0], sums[1]), _mm256_add_epi32(sums[2], sums[3]));
        let mut lanes = [0i32; 8];
        // SAFETY: the array has the register's size.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast::<__m256i>(), all) };
        lanes.into_iter().map(i64::from).sum()
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
