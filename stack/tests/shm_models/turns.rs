//! A direction that goes to the ring and back while its reader follows: the stream arrives in order, every byte once.

use std::collections::VecDeque;

use loom::sync::atomic::AtomicBool;
use loom::sync::atomic::Ordering::{Acquire, Release};
use loom::sync::{Arc, Mutex};
use loom::thread;
use underpass_stack::lane::shm::layout::flag;
use underpass_stack::lane::shm::layout::line::FLAGS;
use underpass_stack::lane::shm::{Outbound, Sender, copies};

use super::channel::Channel;
use super::check;
use super::turns_reader::Reader;

/// More than any model sends: room is not the question here.
const CAPACITY: usize = 8;

/// One direction of a TCP connection and of its channel.
pub struct Direction {
    pub channel: Channel,
    pub kernel: Mutex<VecDeque<u8>>,
    is_done: AtomicBool,
}

/// What the sender does next.
#[derive(Clone, Copy)]
enum Step {
    /// Sends so many bytes to where they go now.
    Send(u8),
    /// Turns to the ring if it may.
    Enter,
    /// Turns to the ring as soon as it may.
    AwaitEnter,
    /// Turns to the kernel, if it is in the ring.
    Leave,
    /// The same, and gives the kernel copies of what is unread, of which it takes so many at most.
    LeaveCopying(u8),
}
use Step::*;

struct Writer<'a> {
    to: &'a Direction,
    outbound: Outbound,
    ring: Sender,
    kernel_bytes: u64,
    next: u8,
}

impl<'a> Writer<'a> {
    fn new(to: &'a Direction) -> Self {
        Self { to, outbound: Outbound::default(), ring: Sender::new(CAPACITY), kernel_bytes: 0, next: 0 }
    }

    fn go(&mut self, step: Step) {
        match step {
            Send(count) => {
                let bytes: Vec<u8> = (self.next..self.next + count).collect();
                self.next += count;
                self.send(&bytes);
            }
            Enter => self.enter(),
            AwaitEnter => {
                while !self.outbound.may_enter(&self.to.channel.receiver) {
                    thread::yield_now();
                }
                self.enter();
            }
            Leave if self.outbound.is_in_ring() => self.outbound.leave(&self.to.channel.sender, self.ring.tail()),
            LeaveCopying(most) if self.outbound.is_in_ring() => self.leave_copying(most.into()),
            Leave | LeaveCopying(_) => {}
        }
    }

    fn enter(&mut self) {
        if self.outbound.may_enter(&self.to.channel.receiver) {
            self.outbound.enter(&self.to.channel.sender, self.kernel_bytes);
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        if self.outbound.is_in_ring() {
            assert_eq!(self.to.channel.send(&mut self.ring, bytes), bytes.len());
        } else {
            self.to.kernel.lock().unwrap().extend(bytes);
            self.kernel_bytes += bytes.len() as u64;
        }
    }

    fn leave_copying(&mut self, most: usize) {
        let channel = &self.to.channel;
        let unread = self.ring.unread(&channel.receiver).unwrap();
        copies::announce(&channel.copies, unread as u64);
        self.outbound.leave(&channel.sender, self.ring.tail());
        let mut bytes = vec![0; unread.min(most)];
        let sent = self.ring.take_back(&channel.ring, self.ring.tail() - unread as u64, &mut bytes);
        for piece in bytes.chunks(1) {
            self.send(piece);
        }
        copies::settle(&channel.copies, unread as u64, sent as u64);
    }

    /// Gives back through the kernel what the reader does not want from the ring.
    fn heed_recall(&mut self) {
        let theirs = &self.to.channel.receiver;
        if !self.outbound.is_in_ring() || theirs[FLAGS].load(Acquire) & flag::RECALL == 0 {
            return;
        }
        let unread = self.ring.unread(theirs).unwrap();
        let (from, mut back) = (self.ring.tail() - unread as u64, vec![0; unread]);
        assert_eq!(self.ring.take_back(&self.to.channel.ring, from, &mut back), unread);
        self.outbound.leave(&self.to.channel.sender, from);
        self.send(&back);
    }

    fn run(&mut self, steps: &[Step]) {
        for &step in steps {
            self.heed_recall();
            self.go(step);
        }
        while !self.to.is_done.load(Acquire) {
            self.heed_recall();
            thread::yield_now();
        }
    }
}

/// The reader recalls what is in the ring once it has got `recall_after` bytes.
fn arrives_in_order(steps: &'static [Step], recall_after: Option<usize>, preemptions: usize) {
    check(preemptions, move || {
        let direction = Arc::new(Direction {
            channel: Channel::new(CAPACITY),
            kernel: Mutex::default(),
            is_done: AtomicBool::new(false),
        });
        let to = direction.clone();
        let writing = thread::spawn(move || Writer::new(&to).run(steps));
        let total = steps.iter().map(|step| if let Send(n) = step { *n } else { 0 }).sum();
        let got = Reader::new(&direction, CAPACITY).read(total, recall_after);
        assert_eq!(got, (0..total).collect::<Vec<u8>>());
        direction.is_done.store(true, Release);
        writing.join().unwrap();
    });
}

/// The reader comes to the ring and follows back, or finds both turns at once.
#[test]
fn into_the_ring_and_back() {
    arrives_in_order(&[Send(1), Enter, Send(2), Leave, Send(2)], None, 5);
}

#[test]
fn into_the_ring_twice() {
    arrives_in_order(&[Send(1), AwaitEnter, Send(1), Leave, Send(1), AwaitEnter, Send(1), Leave, Send(1)], None, 2);
}

#[test]
fn in_and_out_with_nothing_between() {
    arrives_in_order(&[AwaitEnter, Leave, Send(1), AwaitEnter, Send(1), Leave, AwaitEnter, Send(1)], None, 2);
}

#[test]
fn a_recall_gives_the_unread_bytes_to_the_kernel() {
    arrives_in_order(&[Send(1), AwaitEnter, Send(2), Send(1)], Some(2), 4);
}

/// The sender may have left by itself before it sees the recall, or the reader may not have come to the ring yet.
#[test]
fn a_recall_meets_a_sender_that_turns() {
    arrives_in_order(&[Send(1), Enter, Send(2), Leave, Send(1), Enter, Send(1)], Some(1), 4);
}

/// The reader has read some, all or nothing of what comes again.
#[test]
fn copies_are_read_once() {
    arrives_in_order(&[AwaitEnter, Send(2), LeaveCopying(9), Send(1)], None, 3);
}

#[test]
fn copies_of_a_ring_that_the_reader_finds_left() {
    arrives_in_order(&[Send(1), Enter, Send(2), LeaveCopying(9), Send(1)], None, 3);
}

/// What follows is not taken for the copies that the kernel had no room for.
#[test]
fn too_few_copies_cost_nothing() {
    arrives_in_order(&[AwaitEnter, Send(3), LeaveCopying(1), Send(2)], None, 3);
    arrives_in_order(&[AwaitEnter, Send(2), LeaveCopying(0), Send(2)], None, 3);
}

/// The reader wants no more from the ring than it has had, and finds the rest in the kernel.
#[test]
fn a_reader_overtakes_in_the_kernel() {
    arrives_in_order(&[AwaitEnter, Send(3), LeaveCopying(9), Send(1)], Some(1), 3);
    arrives_in_order(&[AwaitEnter, Send(2), LeaveCopying(1), Send(1)], Some(1), 3);
    arrives_in_order(&[Send(1), Enter, Send(2), LeaveCopying(9), Send(1)], Some(0), 3);
}
