//! What the peer stores.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use underpass_stack::lane::shm::Word;
use underpass_stack::mem::Bytes;

use super::input::{Input, Random};
use super::pages::{CHANNEL_AT, CHANNEL_LEN, INBOXES_AT, INBOXES_LEN, OURS, Pages, RING, THEIRS};

/// Numbers at which something may go wrong.
const ODD: [u64; 12] =
    [0, 1, 2, 3, 17, RING as u64 - 1, RING as u64, RING as u64 + 1, 1 << 32, i64::MAX as u64, u64::MAX - 1, u64::MAX];

/// Stores to one word or to some bytes.
pub fn store(pages: &Pages, input: &mut Input<'_>) {
    match input.byte() % 8 {
        0 => fill(pages, input),
        1 => store_word(pages.inbox(input.byte() as usize % 2), input),
        2 => store_word(pages.wants(input.byte() as usize % 2), input),
        // Mostly its own line, which we look at.
        3 => store_word(pages.line(OURS), input),
        4 => store_word(pages.copies(THEIRS), input),
        _ => store_word(pages.line(THEIRS), input),
    }
}

fn store_word(words: &[Word], input: &mut Input<'_>) {
    let word = &words[usize::from(input.byte()) % words.len()];
    let old = word.load(Relaxed);
    let new = match input.byte() % 8 {
        0 => ODD[usize::from(input.byte()) % ODD.len()],
        1 => input.word(),
        2 => old.wrapping_add(ODD[usize::from(input.byte()) % ODD.len()]),
        3 => old.wrapping_sub(input.byte().into()),
        4 => 1 << (input.byte() % 64),
        // What an honest peer would do.
        _ => old.wrapping_add(input.byte().into()),
    };
    word.store(new, Relaxed);
}

fn fill(pages: &Pages, input: &mut Input<'_>) {
    let (start, len) = if input.byte() % 2 == 0 { (CHANNEL_AT, CHANNEL_LEN) } else { (INBOXES_AT, INBOXES_LEN) };
    let at = input.up_to(len);
    let bytes = vec![input.byte(); input.up_to(len - at)];
    pages.0.bytes(start, len).write(at, &bytes);
}

/// Stores without end.
pub fn scribble(pages: &Pages, stop: &AtomicBool) {
    let mut random = Random(7);
    while !stop.load(Relaxed) {
        let input = random.input(64);
        let mut input = Input(&input);
        while !input.0.is_empty() {
            store(pages, &mut input);
        }
    }
}
