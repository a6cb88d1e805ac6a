//! A buffer that notices when more is copied into it than it has room for.

const MARGIN: usize = 64;
const CANARY: u8 = 0x5a;

/// Room for some bytes, with more around it.
pub struct Buffer(Vec<u8>);

impl Buffer {
    pub fn new(len: usize) -> Self {
        Self(vec![CANARY; len + 2 * MARGIN])
    }

    pub fn room(&mut self) -> &mut [u8] {
        let end = self.0.len() - MARGIN;
        &mut self.0[MARGIN..end]
    }

    /// Only the first `used` bytes of the room may have changed.
    pub fn check(&self, used: usize) {
        let (before, rest) = self.0.split_at(MARGIN);
        let is_whole = |bytes: &[u8]| bytes.iter().all(|&byte| byte == CANARY);
        assert!(is_whole(before) && is_whole(&rest[used..]), "a copy stays in its buffer");
    }
}
