//! Bytes that become steps, and where they come from.

/// An input that is being read; zeros after its end.
pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    pub fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A number up to `most`; the ends are frequent.
    pub fn up_to(&mut self, most: usize) -> usize {
        match self.byte() {
            0 => 0,
            1 => most,
            2 => most.saturating_sub(1),
            near @ 3..64 => most.min(near.into()),
            high => most.min(usize::from(high - 64) * (most / 192 + 1) + usize::from(self.byte())),
        }
    }
}

/// Numbers for tests that run for a time: xorshift64*.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }

    pub fn input(&mut self, longest: usize) -> Vec<u8> {
        (0..self.below(longest)).map(|_| self.next() as u8).collect()
    }

    /// One of `seeds`, cut, joined with another and changed in places.
    pub fn change(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let (one, two) = (&seeds[self.below(seeds.len())], &seeds[self.below(seeds.len())]);
        let mut input = one[..self.below(one.len() + 1)].to_vec();
        input.extend(&two[self.below(two.len() + 1)..]);
        for _ in 0..self.below(20) {
            let at = self.below(input.len());
            if let Some(byte) = input.get_mut(at) {
                *byte = self.next() as u8;
            }
        }
        input
    }
}
