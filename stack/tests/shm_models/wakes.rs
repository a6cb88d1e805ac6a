//! Who sleeps until something comes is woken: wants, inboxes and bells together.

use loom::sync::Arc;
use loom::thread;
use underpass_stack::lane::shm::layout::want::{DATA, SPACE};
use underpass_stack::lane::shm::{Receiver, Sender, Word, notice};

use super::bell::Bell;
use super::channel::{Channel, words};
use super::check;

/// Up to this many words of an inbox matter to channels below 64.
const INBOX_WORDS: usize = 33;
const CHANNEL: usize = 3;
const PLACE: usize = 2;

/// Where one side sleeps, and what it wants.
struct Side {
    wants: Vec<Word>,
    inbox: Vec<Word>,
    bell: Bell,
}

impl Side {
    fn new() -> Self {
        Self { wants: words(2), inbox: words(INBOX_WORDS), bell: Bell::default() }
    }

    /// The other side has changed something.
    fn tell(&self, want: usize) {
        if let Some(place) = notice::claim(&self.wants[want]) {
            assert_eq!(place, PLACE);
            if notice::post(&self.inbox, CHANNEL) {
                self.bell.ring();
            }
        }
    }

    /// Waits until `there` says so; once it sleeps, only a notice lets it look again.
    fn wait(&self, want: usize, there: impl Fn() -> bool) {
        while !there() {
            notice::arm(&self.wants[want], PLACE, 0);
            if there() {
                return;
            }
            self.sleep();
        }
    }

    fn sleep(&self) {
        while !self.is_told() {
            notice::doze(&self.inbox);
            if notice::is_empty(&self.inbox) {
                self.bell.wait();
            }
        }
    }

    fn is_told(&self) -> bool {
        let mut told = false;
        notice::take(&self.inbox, |channel| told |= channel == CHANNEL);
        told
    }
}

/// Both sides of a one-way channel.
struct Both {
    channel: Channel,
    sending: Side,
    receiving: Side,
}

impl Both {
    fn new(capacity: usize) -> Self {
        Self { channel: Channel::new(capacity), sending: Side::new(), receiving: Side::new() }
    }

    fn send(&self, bytes: u8) {
        let mut sender = Sender::new(self.channel.capacity());
        for byte in 0..bytes {
            self.sending.wait(SPACE, || sender.space(&self.channel.receiver).unwrap() > 0);
            assert_eq!(self.channel.send(&mut sender, &[byte]), 1);
            self.receiving.tell(DATA);
        }
    }

    fn receive(&self, bytes: u8) {
        let mut receiver = Receiver::new(self.channel.capacity());
        for byte in 0..bytes {
            self.receiving.wait(DATA, || receiver.available(&self.channel.sender).unwrap() > 0);
            assert_eq!(self.channel.receive(&mut receiver, 1), [byte]);
            self.sending.tell(SPACE);
        }
    }
}

fn bytes_go_through(bytes: u8, capacity: usize, preemptions: usize) {
    check(preemptions, move || {
        let both = Arc::new(Both::new(capacity));
        let theirs = both.clone();
        let sending = thread::spawn(move || theirs.send(bytes));
        both.receive(bytes);
        sending.join().unwrap();
    });
}

/// The sender always has room: only the receiver sleeps.
#[test]
fn a_receiver_is_woken_by_bytes() {
    bytes_go_through(3, 4, 3);
}

/// Only one byte fits: both sleep in turn.
#[test]
fn a_sender_is_woken_by_room() {
    bytes_go_through(3, 1, 3);
}
