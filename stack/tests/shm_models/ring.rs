//! One sender, one receiver: the stream arrives as it was sent, and nobody touches a byte that the other side uses.

use std::ops::Range;

use loom::sync::Arc;
use loom::thread;
use underpass_stack::lane::shm::{Receiver, Sender};

use super::channel::Channel;
use super::check;

const CAPACITY: usize = 4;
/// A switch before and after each of two steps of one side.
const PREEMPTIONS: usize = 4;

/// Bytes `range` of the stream that every model sends.
fn stream(range: Range<u8>) -> Vec<u8> {
    range.map(|n| n + 1).collect()
}

/// Pieces of these lengths go into the ring as far as there is room, while the receiver takes at most `most` bytes several times.
/// Nobody waits, so that every order is looked at; what is left is taken afterwards.
fn pieces_arrive(lengths: &'static [u8], most: &'static [usize]) {
    check(PREEMPTIONS, move || {
        let channel = Arc::new(Channel::new(CAPACITY));
        let theirs = channel.clone();
        let sending = thread::spawn(move || send_pieces(&theirs, lengths));
        let (mut receiver, mut got) = (Receiver::new(CAPACITY), Vec::new());
        for &most in most {
            got.extend(channel.receive(&mut receiver, most));
        }
        let (mut sender, sent) = sending.join().unwrap();
        // The ring goes on from wherever it is.
        got.extend(channel.receive(&mut receiver, CAPACITY));
        assert_eq!(channel.send(&mut sender, &stream(sent..sent + 4)), CAPACITY);
        got.extend(channel.receive(&mut receiver, CAPACITY));
        assert_eq!(got, stream(0..sent + 4));
    });
}

fn send_pieces(channel: &Channel, lengths: &[u8]) -> (Sender, u8) {
    let (mut sender, mut at) = (Sender::new(CAPACITY), 0);
    for length in lengths {
        at += channel.send(&mut sender, &stream(at..at + length)) as u8;
    }
    (sender, at)
}

/// The later pieces begin again at the ring's start, or go on behind the first: as far as the receiver has come.
#[test]
fn short_pieces_rewind() {
    pieces_arrive(&[1, 2, 3, 2], &[4, 4, 1]);
}

#[test]
fn pieces_wrap_around_the_end() {
    pieces_arrive(&[3, 2, 3], &[2, 2, 2]);
}

#[test]
fn a_full_ring_takes_what_fits() {
    pieces_arrive(&[7, 7, 7], &[3, 1, 2]);
}

/// Several pushes before one publication, and a look further ahead before anything is taken.
#[test]
fn pushes_become_visible_together() {
    check(PREEMPTIONS, || {
        let channel = Arc::new(Channel::new(CAPACITY));
        let theirs = channel.clone();
        let sending = thread::spawn(move || {
            let mut sender = Sender::new(CAPACITY);
            for at in [0, 2] {
                for piece in [stream(at..at + 1), stream(at + 1..at + 2)] {
                    assert_eq!(sender.push(&theirs.receiver, &theirs.ring, &piece), Ok(1));
                }
                sender.publish(&theirs.sender);
            }
        });
        let (mut receiver, mut got) = (Receiver::new(CAPACITY), Vec::new());
        while got.len() < 4 {
            if receiver.available(&channel.sender).unwrap() < 2 {
                thread::yield_now();
                continue;
            }
            let mut second = [0];
            receiver.peek(&channel.sender, &channel.ring, 1, &mut second);
            got.extend(channel.receive(&mut receiver, 2));
            assert_eq!(got.last(), Some(&second[0]));
        }
        assert_eq!(got, stream(0..4));
        sending.join().unwrap();
    });
}
