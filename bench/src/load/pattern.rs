//! Bytes by which every position of a stream can be told from its neighbours, cheap to make and to check.

/// A prime, so that no power-of-two shift of the stream looks like the stream.
const PERIOD: usize = 65_521;

/// The stream's bytes: position `p` carries byte `p mod PERIOD` of a fixed random-looking table.
pub struct Pattern {
    table: Vec<u8>,
}

impl Pattern {
    /// For pieces of up to `longest` bytes.
    pub fn new(longest: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut table: Vec<u8> = (0..PERIOD).map(|_| next_byte(&mut state)).collect();
        table.extend_from_within(..longest.min(PERIOD));
        while table.len() < PERIOD + longest {
            let repeated = table[table.len() - PERIOD];
            table.push(repeated);
        }
        Self { table }
    }

    /// The `len` bytes from position `position` on.
    #[inline]
    pub fn piece(&self, position: u64, len: usize) -> &[u8] {
        let at = (position % PERIOD as u64) as usize;
        &self.table[at..at + len]
    }
}

/// Marsaglia's xorshift64, high byte.
fn next_byte(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 56) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_and_shifts_differ() {
        let pattern = Pattern::new(1 << 17);
        for position in [0, 1, 65_520, 65_521, 1 << 40] {
            let whole = pattern.piece(position, 1 << 17);
            assert_eq!(whole[1000..], *pattern.piece(position + 1000, (1 << 17) - 1000));
            for shift in [1, 2, 8, 1448, 4096, 65_536] {
                assert_ne!(whole[..64], *pattern.piece(position + shift, 64), "shift {shift}");
            }
        }
    }
}
