//! A byte ring addressed by stream position.
//!
//! Positions are sequence numbers less a base: a power-of-two ring divides the 2^32 sequence space evenly, so position `seq` lies
//! at `seq & (size - 1)` and nothing has to be translated.

/// Copies `data` to stream position `seq` on. The caller keeps `data.len() <= ring.len()`.
#[inline]
pub fn write(ring: &mut [u8], seq: u32, data: &[u8]) {
    debug_assert!(ring.len().is_power_of_two() && data.len() <= ring.len());
    let (before, after) = ring.split_at_mut(seq as usize & (ring.len() - 1));
    match after.get_mut(..data.len()) {
        Some(place) => place.copy_from_slice(data),
        None => {
            let (one, two) = data.split_at(after.len());
            after.copy_from_slice(one);
            before[..two.len()].copy_from_slice(two);
        }
    }
}

/// The place of the `len` bytes from stream position `seq` on, if it is in one piece.
#[inline]
pub fn place(ring: &mut [u8], seq: u32, len: usize) -> Option<&mut [u8]> {
    debug_assert!(ring.len().is_power_of_two());
    let at = seq as usize & (ring.len() - 1);
    ring.get_mut(at..at + len)
}

/// The `len` bytes from stream position `seq` on, if they lie in one piece.
#[inline]
pub fn piece(ring: &[u8], seq: u32, len: usize) -> Option<&[u8]> {
    debug_assert!(ring.len().is_power_of_two());
    let at = seq as usize & ring.len().wrapping_sub(1);
    ring.get(at..at.checked_add(len)?)
}

/// The `len` bytes from stream position `seq` on, in at most two pieces.
#[inline]
pub fn slices(ring: &[u8], seq: u32, len: usize) -> (&[u8], &[u8]) {
    debug_assert!(ring.len().is_power_of_two() && len <= ring.len());
    let (before, after) = ring.split_at(seq as usize & (ring.len() - 1));
    match after.get(..len) {
        Some(all) => (all, &[]),
        None => (after, &before[..len - after.len()]),
    }
}

/// Copies from stream position `seq` on into `out`.
#[inline]
pub fn read(ring: &[u8], seq: u32, out: &mut [u8]) {
    if let Some(all) = piece(ring, seq, out.len()) {
        return out.copy_from_slice(all);
    }
    let (one, two) = slices(ring, seq, out.len());
    let (first, second) = out.split_at_mut(one.len());
    first.copy_from_slice(one);
    second.copy_from_slice(two);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_both_wraps() {
        let mut ring = vec![0u8; 64];
        let data: Vec<u8> = (0..64).collect();
        for start in [0u32, 5, 63, 64, u32::MAX - 3] {
            write(&mut ring, start, &data);
            let mut out = vec![0u8; 64];
            read(&ring, start, &mut out);
            assert_eq!(out, data, "start {start}");
        }
    }
}
