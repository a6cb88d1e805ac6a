//! Sums of 16-bit words over many bytes, for checksums, alone and while the bytes are copied: with AVX2 where the processor has it.
//!
//! `unsafe` here: calling code compiled for AVX2 after asking the processor, its loads and its stores.

/// Fewer bytes than this are summed in ordinary registers.
#[cfg(target_arch = "x86_64")]
const WIDE: usize = 128;

/// A number congruent to the sum of the bytes taken as 16-bit words in the machine's order, modulo 2^16 - 1; it is zero only if all
/// bytes are. An odd last byte is padded with zero.
#[inline]
pub fn words(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= WIDE && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::words(bytes) };
    }
    narrow(bytes)
}

/// Copies bytes to a place of the same length, and sums them as [`words`] does: both in one pass over them.
///
/// # Panics
/// If the place has another length.
#[inline(always)]
pub fn copy(to: &mut [u8], from: &[u8]) -> u64 {
    assert_eq!(to.len(), from.len(), "a copy has the length of the original");
    #[cfg(target_arch = "x86_64")]
    if from.len() >= WIDE && std::arch::is_x86_feature_detected!("avx2") {
        if from.len() <= avx2::PART {
            // SAFETY: the processor has AVX2, and the place is as long as what comes there.
            return unsafe { avx2::part_of::<true>(from.as_ptr(), from.len(), to.as_mut_ptr()) };
        }
        // SAFETY: as above.
        return unsafe { avx2::copy(to, from) };
    }
    narrow_copy(to, from)
}

/// As [`copy`], in 64-bit steps.
#[inline(never)]
fn narrow_copy(to: &mut [u8], from: &[u8]) -> u64 {
    let (mut steps, mut places) = (from.chunks_exact(32), to.chunks_exact_mut(32));
    let mut sum = 0;
    for (step, place) in (&mut steps).zip(&mut places) {
        for (word, place) in step.chunks_exact(8).zip(place.chunks_exact_mut(8)) {
            place.copy_from_slice(word);
        }
        for word in step.chunks_exact(8) {
            sum = add(sum, u64::from_ne_bytes(word.try_into().unwrap_or_default()));
        }
    }
    let (last, place) = (steps.remainder(), places.into_remainder());
    if last.is_empty() { sum } else { copy_last(place, last, sum) }
}

/// The same for what is left, added to `sum`.
#[inline(never)]
fn copy_last(to: &mut [u8], from: &[u8], sum: u64) -> u64 {
    to.copy_from_slice(from);
    add(sum, narrow(from))
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
        __m256i, _mm_add_epi64, _mm_cvtsi128_si64, _mm_unpackhi_epi64, _mm256_add_epi64, _mm256_and_si256,
        _mm256_avg_epu16, _mm256_blend_epi32, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_loadu_si256,
        _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_srli_epi64, _mm256_storeu_si256, _mm256_sub_epi64,
    };

    /// Bytes of a register, and of a step.
    const REGISTER: usize = 32;
    const STEP: usize = 8 * REGISTER;
    /// Bytes after which the estimate in [`Lanes`] could miss what ran over.
    pub const PART: usize = REGISTER << 11;
    /// From byte n on, a mask of the last n bytes of a register.
    const LAST: [[u8; REGISTER]; 2] = [[0; REGISTER], [0xff; REGISTER]];

    /// # Safety
    /// The processor must have AVX2.
    #[inline]
    pub unsafe fn words(bytes: &[u8]) -> u64 {
        // SAFETY: AVX2 is there, as for this function; all parts but the last are of even length.
        let sum = |part: &[u8]| unsafe { part_of::<false>(part.as_ptr(), part.len(), std::ptr::null_mut()) };
        if bytes.len() <= PART { sum(bytes) } else { bytes.chunks(PART).map(sum).fold(0, super::add) }
    }

    /// # Safety
    /// The processor must have AVX2, and both must be of the same length.
    #[inline]
    pub unsafe fn copy(to: &mut [u8], from: &[u8]) -> u64 {
        // SAFETY: AVX2 is there; the caller gives places of the same length as what comes there.
        let copy = |to: &mut [u8], from: &[u8]| unsafe { part_of::<true>(from.as_ptr(), from.len(), to.as_mut_ptr()) };
        to.chunks_mut(PART).zip(from.chunks(PART)).map(|(to, from)| copy(to, from)).fold(0, super::add)
    }

    /// Sums of 64-bit lanes. What is added runs over, and no instruction says how often; but that follows from an estimate that is wrong
    /// by less than half of 2^64. The mean of up to eight numbers, of which only the highest words count, gives one for two instructions less
    /// than to add both halves of each.
    ///
    /// In units of 2^48: a mean of eight is rounded up by less than 1.6, so eight times it is too high by less than 13, and the shift takes
    /// less than 1. In a [`PART`] that makes at most 256 * 13, of the 2^15 that are half of 2^64.
    #[derive(Clone, Copy)]
    struct Lanes {
        /// Modulo 2^64.
        sums: [__m256i; 2],
        /// All of them added, about, in units of 2^48, and a half of 2^64.
        about: __m256i,
    }

    impl Lanes {
        #[target_feature(enable = "avx2")]
        #[inline]
        fn new() -> Self {
            Self { sums: [_mm256_setzero_si256(); 2], about: _mm256_set1_epi64x(1 << 15) }
        }

        /// Adds `N` registers, eight at most: `MEAN` is 48 less the logarithm of `N`.
        #[target_feature(enable = "avx2")]
        #[inline]
        fn add<const N: usize, const MEAN: i32>(&mut self, take: impl Fn(usize) -> __m256i) {
            let mut means = [_mm256_setzero_si256(); N];
            for (n, place) in means.iter_mut().enumerate() {
                let words = take(n);
                self.sums[n % 2] = _mm256_add_epi64(self.sums[n % 2], words);
                *place = words;
            }
            let mut left = N;
            while left > 1 {
                left /= 2;
                for n in 0..left {
                    means[n] = _mm256_avg_epu16(means[2 * n], means[2 * n + 1]);
                }
            }
            self.about = _mm256_add_epi64(self.about, _mm256_srli_epi64::<MEAN>(means[0]));
        }

        /// All lanes: each time that one ran over is 2^64, which is one.
        #[target_feature(enable = "avx2")]
        #[inline]
        fn total(self) -> u64 {
            let sum = _mm256_add_epi64(self.sums[0], self.sums[1]);
            let over = _mm256_srli_epi64::<16>(_mm256_sub_epi64(self.about, _mm256_srli_epi64::<48>(sum)));
            let (high, low) =
                (_mm256_srli_epi64::<32>(sum), _mm256_blend_epi32::<0b1010_1010>(sum, _mm256_setzero_si256()));
            let four = _mm256_add_epi64(_mm256_add_epi64(high, low), over);
            let two = _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256::<1>(four));
            _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two))) as u64
        }
    }

    /// The sum of at most [`PART`] bytes.
    ///
    /// Never inlined: where the compiler knows that `to` lies elsewhere, it makes two passes of it.
    ///
    /// # Safety
    /// The processor must have AVX2. There must be `len` bytes at `from`. With `COPY`, as many must be writable at `to`, apart from
    /// those.
    #[target_feature(enable = "avx2")]
    #[inline(never)]
    pub unsafe fn part_of<const COPY: bool>(from: *const u8, len: usize, to: *mut u8) -> u64 {
        if len < REGISTER {
            // SAFETY: so many bytes are there, and writable with `COPY`.
            return unsafe { few::<COPY>(from, len, to) };
        }
        // SAFETY: each `at` below has a whole register behind it that lies within `len`. Neither place needs to be aligned.
        let take = |at: usize| unsafe {
            let words = _mm256_loadu_si256(from.add(at).cast::<__m256i>());
            if COPY {
                _mm256_storeu_si256(to.add(at).cast::<__m256i>(), words);
            }
            words
        };
        let mut lanes = Lanes::new();
        let mut at = 0;
        while at != len / STEP * STEP {
            lanes.add::<8, 45>(|n| take(at + n * REGISTER));
            at += STEP;
        }
        if len & (4 * REGISTER) != 0 {
            lanes.add::<4, 46>(|n| take(at + n * REGISTER));
            at += 4 * REGISTER;
        }
        if len & (2 * REGISTER) != 0 {
            lanes.add::<2, 47>(|n| take(at + n * REGISTER));
            at += 2 * REGISTER;
        }
        if len & REGISTER != 0 {
            lanes.add::<1, 48>(|_| take(at));
            at += REGISTER;
        }
        let tail = len - at;
        if tail % 2 != 0 {
            // SAFETY: the tail lies within `len`.
            return super::add(lanes.total(), unsafe { few::<COPY>(from.add(at), tail, to.wrapping_add(at)) });
        }
        if tail != 0 {
            // Its words are those at the end of the last register's worth.
            // SAFETY: `tail` is less than a register, and the mask two registers long.
            let mask = unsafe { _mm256_loadu_si256(LAST.as_ptr().cast::<u8>().add(tail).cast::<__m256i>()) };
            lanes.add::<1, 48>(|_| _mm256_and_si256(take(len - REGISTER), mask));
        }
        lanes.total()
    }

    /// The same for fewer bytes than a register has.
    ///
    /// # Safety
    /// As for the function above, but for AVX2.
    #[inline(never)]
    unsafe fn few<const COPY: bool>(from: *const u8, len: usize, to: *mut u8) -> u64 {
        // SAFETY: there are so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(from, len) };
        if COPY {
            // SAFETY: they are writable there, apart from these.
            unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
        }
        super::narrow(bytes)
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
            let mut place = vec![0xa5; bytes.len()];
            prop_assert_eq!(copy(&mut place, &bytes) % 0xffff, reference(&bytes) % 0xffff);
            prop_assert_eq!(place, bytes);
        }
    }

    /// Runs of the bytes that bring sums to their limits, which bytes at random hardly ever do.
    fn runs() -> impl Strategy<Value = Vec<u8>> {
        let run = (proptest::sample::select(&[0, 0xff, 0xfe, 0x80, 0x7f][..]), 1..60usize);
        let runs = proptest::collection::vec(run, 0..20);
        runs.prop_map(|runs| runs.into_iter().flat_map(|(byte, len)| vec![byte; len]).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn agrees_with_the_reference_at_the_limits(bytes in runs()) {
            let wanted = reference(&bytes) % 0xffff;
            let mut place = vec![0xa5; bytes.len()];
            prop_assert_eq!(words(&bytes) % 0xffff, wanted);
            prop_assert_eq!(copy(&mut place, &bytes) % 0xffff, wanted);
            prop_assert_eq!(place, bytes);
        }
    }

    /// The last bytes alone come close to 2^64: what the registers have summed must not push them over it unnoticed.
    #[test]
    fn a_tail_that_is_nearly_all_ones_keeps_its_carry() {
        for tail in (9..32).step_by(2) {
            let mut bytes = vec![1; 128 + tail];
            bytes[128..].fill(0);
            bytes[128..136].fill(0xff);
            assert_eq!(words(&bytes) % 0xffff, reference(&bytes) % 0xffff, "{tail}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        /// Where each rounding goes the same way, over all that is summed at once, the estimate still tells how often the lanes ran over.
        #[test]
        fn roundings_do_not_add_up_to_a_carry(
            pattern in proptest::collection::vec(proptest::sample::select(&[0u16, 1, 2, 0x7fff, 0x8000, 0xfffe, 0xffff][..]), 128),
            steps in prop_oneof![1..300usize, Just(256)],
            start in proptest::collection::vec(any::<u16>(), 0..16),
        ) {
            let repeated = (0..steps).flat_map(|_| pattern.iter());
            let bytes: Vec<u8> = start.iter().chain(repeated).flat_map(|word| word.to_ne_bytes()).collect();
            prop_assert_eq!(words(&bytes) % 0xffff, reference(&bytes) % 0xffff);
        }
    }

    #[test]
    fn no_lane_overflows() {
        for byte in [0, 0x7f, 0x80, 0xff] {
            let bytes = vec![byte; (1 << 20) + 127];
            assert_eq!(words(&bytes) % 0xffff, reference(&bytes) % 0xffff, "{byte}");
            assert_eq!(words(&bytes) == 0, byte == 0);
            let mut place = vec![0xa5; bytes.len()];
            assert_eq!(copy(&mut place, &bytes) % 0xffff, reference(&bytes) % 0xffff, "{byte}");
            assert_eq!(place, bytes);
        }
    }
}
