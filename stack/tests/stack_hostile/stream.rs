//! The two streams of a connection, and what of one has arrived.

/// The byte of stream `stream` whose sequence number is `seq`.
pub fn byte(stream: usize, seq: u32) -> u8 {
    (seq.wrapping_mul(0x9e37_79b1) >> 21) as u8 ^ (stream as u8).wrapping_mul(37)
}

/// `len` bytes from `seq` on.
pub fn bytes(stream: usize, seq: u32, len: usize) -> Vec<u8> {
    (0..len).map(|n| byte(stream, seq.wrapping_add(n as u32))).collect()
}

/// Panics unless `data` is what the stream has from `seq` on.
pub fn assert_is(stream: usize, seq: u32, data: &[u8], what: &str) {
    for (n, got) in data.iter().enumerate() {
        let expected = byte(stream, seq.wrapping_add(n as u32));
        assert_eq!(*got, expected, "{what}: byte {n} of {} from {seq} on, stream {stream}", data.len());
    }
}

/// Is sequence number `a` at or before `b`?
pub fn is_at_most(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) < 1 << 31
}

/// Put together by its receiver.
#[derive(Clone, Debug, Default)]
pub struct Assembly {
    /// The first number that is missing.
    pub next: u32,
    /// Pieces behind it, in the order in which they came.
    ahead: Vec<(u32, u32)>,
}

impl Assembly {
    pub fn from(next: u32) -> Self {
        Self { next, ahead: Vec::new() }
    }

    /// `[start, end)` has arrived.
    pub fn add(&mut self, start: u32, end: u32) {
        self.ahead.push((start, end));
        self.settle();
    }

    /// All before `next` is known, or never will be.
    pub fn skip_to(&mut self, next: u32) {
        if is_at_most(self.next, next) {
            self.next = next;
            self.settle();
        }
    }

    fn settle(&mut self) {
        while let Some(&(_, end)) =
            self.ahead.iter().find(|(start, end)| is_at_most(*start, self.next) && !is_at_most(*end, self.next))
        {
            self.next = end;
        }
        let next = self.next;
        self.ahead.retain(|(_, end)| !is_at_most(*end, next));
    }

    /// The newest pieces behind a gap.
    pub fn newest(&self, most: usize) -> Vec<(u32, u32)> {
        self.ahead.iter().rev().take(most).copied().collect()
    }
}
