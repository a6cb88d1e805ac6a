//! A byte ring addressed by stream position.
//!
//! Positions are sequence numbers less a base: a power-of-two ring divides the 2^32 sequence space evenly, so position `seq` lies
//! at `seq & (size - 1)` and nothing has to be translated.

/// Copies `data` to stream position `seq` on. The caller keeps `data.len() <= ring.len()`.
#[inline]
pub fn write(ring: &mut [u8], seq: u32, data: &[u8]) {
    debug_assert!(ring.len().is_power_of_two() && data.len() <= ring.len());
    let at = seq as usize & (ring.len() - 1);
    let first = data.len().min(ring.len() - at);
    ring[at..at + first].copy_from_slice(&data[..first]);
    if first < data.len() {
        ring[..data.len() - first].copy_from_slice(&data[first..]);
    }
}

/// The place of the `len` bytes from stream position `seq` on, if it is in one piece.
#[inline]
pub fn place(ring: &mut [u8], seq: u32, len: usize) -> Option<&mut [u8]> {
    debug_assert!(ring.len().is_power_of_two());
    let at = seq as usize & (ring.len() - 1);
    ring.get_mut(at..at + len)
}

/// The `len` bytes from stream position `seq` on, in at most two pieces.
#[inline]
pub fn slices(ring: &[u8], seq: u32, len: usize) -> (&[u8], &[u8]) {
    debug_assert!(ring.len().is_power_of_two() && len <= ring.len());
    let at = seq as usize & (ring.len() - 1);
    let first = len.min(ring.len() - at);
    (&ring[at..at + first], &ring[..len - first])
}

/// Copies from stream position `seq` on into `out`.
#[inline]
pub fn read(ring: &[u8], seq: u32, out: &mut [u8]) {
    let (one, two) = slices(ring, seq, out.len());
    out[..one.len()].copy_from_slice(one);
    if !two.is_empty() {
        out[one.len()..].copy_from_slice(two);
    }
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
