//! Several senders tell one inbox at once.

use loom::sync::Arc;
use loom::sync::atomic::Ordering::{Acquire, Release};
use loom::thread;
use underpass_stack::lane::shm::{Word, notice};

use super::bell::Bell;
use super::channel::words;
use super::check;

/// As much of an inbox as channels below 128 need.
const INBOX_WORDS: usize = 34;
const PLACE: usize = 1;

/// An inbox, and for every channel its want and how far its sender is.
struct Place {
    inbox: Vec<Word>,
    bell: Bell,
    channels: Vec<(usize, Word, Word)>,
}

impl Place {
    fn new(channels: &[usize]) -> Self {
        let channels = channels.iter().map(|&number| (number, Word::new(0), Word::new(0))).collect();
        Self { inbox: words(INBOX_WORDS), bell: Bell::default(), channels }
    }

    fn send(&self, which: usize, changes: u64) {
        let (number, want, progress) = &self.channels[which];
        for n in 1..=changes {
            progress.store(n, Release);
            if notice::claim(want).is_some() && notice::post(&self.inbox, *number) {
                self.bell.ring();
            }
        }
    }

    /// Arms a channel's want and looks once more: has its sender come to the end?
    fn is_done(&self, which: usize, changes: u64) -> bool {
        let (_, want, progress) = &self.channels[which];
        notice::arm(want, PLACE, PLACE);
        progress.load(Acquire) == changes
    }

    /// Looks at a channel only when told about it.
    fn receive(&self, changes: u64) {
        let mut done: Vec<bool> = (0..self.channels.len()).map(|which| self.is_done(which, changes)).collect();
        while done.contains(&false) {
            let mut told = Vec::new();
            notice::take(&self.inbox, |number| told.push(number));
            for number in &told {
                let which = self.channels.iter().position(|(other, ..)| other == number).expect("one of ours");
                done[which] |= self.is_done(which, changes);
            }
            if told.is_empty() {
                self.sleep();
            }
        }
    }

    fn sleep(&self) {
        notice::doze(&self.inbox);
        if notice::is_empty(&self.inbox) {
            self.bell.wait();
        }
    }
}

fn nothing_is_lost(channels: &'static [usize], changes: u64, preemptions: usize) {
    check(preemptions, move || {
        let place = Arc::new(Place::new(channels));
        let sending: Vec<_> = (0..channels.len())
            .map(|which| {
                let place = place.clone();
                thread::spawn(move || place.send(which, changes))
            })
            .collect();
        place.receive(changes);
        for thread in sending {
            thread.join().unwrap();
        }
    });
}

#[test]
fn two_channels_of_one_word() {
    nothing_is_lost(&[0, 1], 2, 3);
}

#[test]
fn two_channels_of_two_words() {
    nothing_is_lost(&[0, 64], 2, 3);
}
