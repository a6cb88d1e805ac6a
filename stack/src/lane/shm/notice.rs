//! How one process tells another that something has come on a channel.
//!
//! A thread that does not look at a channel itself has its *want* armed there: the number of the inbox that a notice is to go to.
//! Who changes something takes the want away, sets the channel's bit in that inbox, and rings the inbox's bell if somebody sleeps
//! over it. Both are used up by one notice, so a busy thread is not told twice and costs no system call.

use super::layout::{CHANNELS, INBOX_WORDS, PLACES};
use super::word::{Ordering::*, Word, full_fence};

/// The word that says that somebody sleeps.
const ASLEEP: usize = 0;
/// First word of the summary: a bit for each word of bits.
const SUMMARY: usize = 16;
/// Words of the summary.
const SUMMARY_WORDS: usize = CHANNELS / 64 / 64;
/// First word of bits: one for each channel.
const BITS: usize = 32;

const _: () = assert!(BITS + CHANNELS / 64 == INBOX_WORDS && SUMMARY + SUMMARY_WORDS <= BITS);

/// Wants a notice in inbox `place`. An older want of another place becomes one of `general`, whose owner tells everybody. What
/// is waited for has to be looked at once more afterwards.
///
/// Several threads may do this at once. Who finds that the want has changed under its hands does not know for whom, and wants
/// the notice that everybody is told of.
pub fn arm(want: &Word, place: usize, general: usize) {
    let mine = place as u64 + 1;
    let before = want.load(Relaxed);
    let general = general as u64 + 1;
    let next = if before == 0 || before == mine { mine } else { general };
    if before != next && want.compare_exchange(before, next, AcqRel, Relaxed).is_err() {
        want.swap(general, AcqRel);
    }
    full_fence();
}

/// Takes a want away after a change has been published. Returns the inbox that is to be told.
#[inline]
pub fn claim(want: &Word) -> Option<usize> {
    full_fence();
    if want.load(Relaxed) == 0 {
        return None;
    }
    let place = want.swap(0, AcqRel).checked_sub(1)?;
    // Anything else is the other side's mistake, and its own loss.
    usize::try_from(place).ok().filter(|&place| place < PLACES)
}

/// Sets a channel's bit. Returns whether the bell has to be rung.
pub fn post(inbox: &[Word], channel: usize) -> bool {
    let word = channel % CHANNELS / 64;
    // Also a release: another channel's summary may lead the taker here before ours is stored. What it then stores to the
    // channel's want has to come after the claim.
    inbox[BITS + word].fetch_or(1 << (channel % 64), Release);
    inbox[SUMMARY + word / 64].fetch_or(1 << (word % 64), Release);
    full_fence();
    inbox[ASLEEP].load(Relaxed) != 0 && inbox[ASLEEP].swap(0, AcqRel) != 0
}

/// Is there a notice?
#[inline]
pub fn is_empty(inbox: &[Word]) -> bool {
    inbox[SUMMARY..SUMMARY + SUMMARY_WORDS].iter().all(|word| word.load(Relaxed) == 0)
}

/// Takes every notice.
pub fn take(inbox: &[Word], mut each: impl FnMut(usize)) {
    for at in 0..SUMMARY_WORDS {
        if inbox[SUMMARY + at].load(Relaxed) == 0 {
            continue;
        }
        for word in bits(inbox[SUMMARY + at].swap(0, AcqRel)) {
            let word = at * 64 + word;
            for bit in bits(inbox[BITS + word].swap(0, AcqRel)) {
                each(word * 64 + bit);
            }
        }
    }
}

/// From now on a notice rings the bell. The inbox has to be looked at once more before sleeping.
pub fn doze(inbox: &[Word]) {
    // A swap puts it after every swap that woke us before; loom does not see that order in a plain store.
    inbox[ASLEEP].swap(1, AcqRel);
    full_fence();
}

fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        word &= word.wrapping_sub(1);
        (bit < 64).then_some(bit as usize)
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn inbox() -> Vec<Word> {
        (0..INBOX_WORDS).map(|_| Word::new(0)).collect()
    }

    #[test]
    fn notices_are_told_once_each() {
        let inbox = inbox();
        for channel in [0, 63, 64, 4097, CHANNELS - 1, 64] {
            assert!(!post(&inbox, channel));
        }
        let mut told = Vec::new();
        take(&inbox, |channel| told.push(channel));
        assert_eq!(told, [0, 63, 64, 4097, CHANNELS - 1]);
        assert!(is_empty(&inbox));
        take(&inbox, |channel| panic!("told again: {channel}"));
    }

    #[test]
    fn a_bell_is_rung_once_for_a_sleeper() {
        let inbox = inbox();
        doze(&inbox);
        assert!(post(&inbox, 5));
        assert!(!post(&inbox, 6));
    }

    #[test]
    fn wants_of_two_places_become_one_of_the_general_place() {
        let want = Word::new(0);
        arm(&want, 3, 0);
        arm(&want, 3, 0);
        assert_eq!(claim(&want), Some(3));
        assert_eq!(claim(&want), None);
        arm(&want, 3, 0);
        arm(&want, 4, 0);
        assert_eq!(claim(&want), Some(0));
        want.store(99, Relaxed);
        assert_eq!(claim(&want), None);
    }
}
