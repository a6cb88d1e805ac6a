//! Messages whose last segment is to be lost once.

use std::collections::HashSet;

/// What stands before the number at the end of such a message.
const MARK: &[u8] = b"lose this segment once: ";
const NUMBER: usize = size_of::<u64>();

/// A message of `len` bytes whose last segment the link loses once for each `number`, if it is told to.
///
/// # Panics
/// If the message is too short for its mark.
pub fn marked(len: usize, number: u64) -> Vec<u8> {
    let mut message = vec![b'.'; len];
    let at = len.checked_sub(MARK.len() + NUMBER).expect("a message has room for its mark");
    message[at..at + MARK.len()].copy_from_slice(MARK);
    message[at + MARK.len()..].copy_from_slice(&number.to_be_bytes());
    message
}

/// Which marks have been seen.
#[derive(Debug, Default)]
pub(super) struct Marks(HashSet<u64>);

impl Marks {
    /// Is this a frame whose data ends with a mark that was not seen before?
    pub fn is_first(&mut self, frame: &[u8]) -> bool {
        let Some((rest, number)) = frame.split_last_chunk::<NUMBER>() else { return false };
        rest.ends_with(MARK) && self.0.insert(u64::from_be_bytes(*number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_segment_is_known_by_its_end_and_only_once() {
        let mut marks = Marks::default();
        let (one, two) = (marked(1000, 7), marked(MARK.len() + NUMBER, 8));
        assert_eq!((one.len(), marks.is_first(&one), marks.is_first(&one)), (1000, true, false));
        assert!(marks.is_first(&two) && !marks.is_first(&one[..999]) && !marks.is_first(b""));
    }
}
