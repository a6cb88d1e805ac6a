//! Plays an input: steps of ours and stores of the peer, in the order in which the bytes say.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use underpass_stack::lane::shm::copies::overtake;
use underpass_stack::lane::shm::layout::line::{BASE, ENTER_AT, HEAD, LEAVE_AT, SEEN, TAIL, TURN};
use underpass_stack::lane::shm::layout::{CHANNELS, INBOX_WORDS, PLACES, line_at, wants_at};
use underpass_stack::lane::shm::{Copies, Inbound, Outbound, Overtake, Receiver, Sender, Turn, notice};

use super::buffer::Buffer;
use super::input::Input;
use super::pages::{CHANNEL_AT, OURS, Pages, RING, THEIRS, inbox_start, ring_start};
use super::peer;
use super::watch::Watch;

/// Bytes of the shared pages that a step may have changed.
type Changed = Vec<Range<usize>>;

/// Our side of a channel.
pub struct Player<'a> {
    pages: &'a Pages,
    peer: &'a Pages,
    sender: Sender,
    receiver: Receiver,
    outbound: Outbound,
    inbound: Inbound,
    /// Turns of the peer that we have followed.
    followed: u64,
    /// None while the peer stores at the same time.
    watch: Option<Watch>,
}

impl<'a> Player<'a> {
    pub fn new(pages: &'a Pages, peer: &'a Pages) -> Self {
        Self {
            pages,
            peer,
            sender: Sender::new(RING),
            receiver: Receiver::new(RING),
            outbound: Outbound::default(),
            inbound: Inbound::default(),
            followed: 0,
            watch: Some(Watch::new(pages)),
        }
    }

    /// The peer stores by itself.
    pub fn racing(self) -> Self {
        Self { watch: None, ..self }
    }

    /// Returns the number of steps.
    pub fn play(&mut self, input: &[u8]) -> u64 {
        let (mut input, mut steps) = (Input(input), 0);
        while !input.0.is_empty() {
            let changed = self.step(&mut input);
            if let Some(watch) = &mut self.watch {
                watch.check(self.pages, &changed);
            }
            steps += 1;
        }
        steps
    }

    fn step(&mut self, input: &mut Input<'_>) -> Changed {
        match input.byte() % 16 {
            0 | 1 => self.push(input),
            2 | 3 => self.receive(input),
            4 => self.take_back(input),
            5 => self.turn_out(input),
            6 => self.turn_in(input),
            7 => self.arm(input),
            8 => self.claim(input),
            9 => self.post(input),
            10 => self.take(),
            11 => self.doze(),
            12 => self.meet_copies(input),
            _ if self.watch.is_some() => self.peer_stores(input),
            _ => Vec::new(),
        }
    }

    fn push(&mut self, input: &mut Input<'_>) -> Changed {
        let (theirs, ring, before) = (self.pages.line(THEIRS), self.pages.ring(OURS), self.sender.tail());
        let bytes = vec![input.byte(); input.up_to(2 * RING)];
        let pushed = self.sender.push(theirs, &ring, &bytes);
        let n = pushed.unwrap_or(0);
        assert!(n <= bytes.len().min(RING));
        assert_eq!(self.sender.tail(), before.wrapping_add(n as u64));
        assert!(self.sender.space(theirs).is_ok_and(|space| space <= RING) || pushed.is_err() || self.watch.is_none());
        self.sender.publish(self.pages.line(OURS));
        self.expect_word(TAIL, self.sender.tail());
        vec![ring_range(OURS), our_word(TAIL), our_word(BASE)]
    }

    fn receive(&mut self, input: &mut Input<'_>) -> Changed {
        let (theirs, before) = (self.pages.line(THEIRS), self.receiver.head());
        let Ok(available) = self.receiver.available(theirs) else { return Vec::new() };
        assert!(available <= RING);
        let offset = input.up_to(available);
        let n = input.up_to(available - offset);
        let mut buffer = Buffer::new(n);
        self.receiver.peek(theirs, &self.pages.ring(THEIRS), offset, buffer.room());
        buffer.check(n);
        self.receiver.consume(self.pages.line(OURS), n);
        assert_eq!(self.receiver.head(), before.wrapping_add(n as u64));
        self.expect_word(HEAD, self.receiver.head());
        vec![our_word(HEAD)]
    }

    fn take_back(&mut self, input: &mut Input<'_>) -> Changed {
        let claimed = self.pages.line(THEIRS)[HEAD].load(Relaxed);
        let mut buffer = Buffer::new(input.up_to(2 * RING));
        let room = buffer.room().len();
        let n = self.sender.take_back(&self.pages.ring(OURS), claimed, buffer.room());
        assert!(n <= room.min(RING));
        buffer.check(n);
        Vec::new()
    }

    fn turn_out(&mut self, input: &mut Input<'_>) -> Changed {
        let (mine, was_in_ring) = (self.pages.line(OURS), self.outbound.is_in_ring());
        if was_in_ring {
            assert!(!self.outbound.may_enter(self.pages.line(THEIRS)));
            self.outbound.leave(mine, self.sender.tail());
        } else if self.outbound.may_enter(self.pages.line(THEIRS)) || input.byte() == 0 {
            self.outbound.enter(mine, input.word());
        } else {
            return Vec::new();
        }
        assert_eq!(self.outbound.is_in_ring(), !was_in_ring);
        vec![our_word(ENTER_AT), our_word(LEAVE_AT), our_word(TURN)]
    }

    /// The reader's rules about copies: never more than a ring holds.
    fn meet_copies(&mut self, input: &mut Input<'_>) -> Changed {
        let (theirs, head) = (self.pages.copies(THEIRS), self.receiver.head());
        let copies = match overtake(self.pages.line(THEIRS), theirs, head, RING) {
            Ok(Overtake::Now(copies)) => Some(copies),
            _ => Copies::all(theirs, RING).ok(),
        };
        if let Some(mut copies) = copies {
            let left = copies.left(theirs, RING);
            assert!(left <= RING as u64);
            copies.throw_away(input.word());
            assert!(copies.left(theirs, RING) <= RING as u64);
        }
        Vec::new()
    }

    fn turn_in(&mut self, input: &mut Input<'_>) -> Changed {
        let (theirs, was_in_ring) = (self.pages.line(THEIRS), self.inbound.is_in_ring());
        if !was_in_ring {
            let (read, received) = (input.word() >> (input.byte() % 64), input.up_to(RING));
            assert!(
                self.inbound.in_order(theirs, read, received).is_ok_and(|n| n <= received) || self.is_refused(read)
            );
        }
        let next = self.inbound.next(theirs);
        self.expect_turn(next.ok());
        match next {
            Ok(Turn::ToRing(_)) => assert!(!was_in_ring),
            Ok(Turn::ToKernel(_)) => assert!(was_in_ring),
            Ok(Turn::Stay) | Err(_) => return Vec::new(),
        }
        self.inbound.follow(self.pages.line(OURS));
        self.followed += 1;
        assert_eq!(self.inbound.is_in_ring(), !was_in_ring);
        vec![our_word(SEEN)]
    }

    /// Turns are believed that an honest sender could have made: none, one, or to the ring and back.
    fn expect_turn(&self, next: Option<Turn>) {
        if self.watch.is_none() {
            return;
        }
        let ahead = self.pages.line(THEIRS)[TURN].load(Relaxed).wrapping_sub(self.followed);
        let most = if self.inbound.is_in_ring() { 1 } else { 2 };
        assert_eq!(next.is_some(), ahead <= most);
        assert_eq!(next == Some(Turn::Stay), ahead == 0);
    }

    /// Is what the peer states about its turns refused of a reader that has read so much?
    fn is_refused(&self, read: u64) -> bool {
        let turn = self.inbound.next(self.pages.line(THEIRS));
        self.watch.is_none() || turn.is_err() || matches!(turn, Ok(Turn::ToRing(at)) if at < read)
    }

    fn arm(&mut self, input: &mut Input<'_>) -> Changed {
        let want = input.byte() as usize % 2;
        notice::arm(&self.pages.wants(OURS)[want], input.byte() as usize % PLACES, 0);
        vec![want_range(OURS, want)]
    }

    fn claim(&mut self, input: &mut Input<'_>) -> Changed {
        let want = input.byte() as usize % 2;
        let place = notice::claim(&self.pages.wants(THEIRS)[want]);
        assert!(place.is_none_or(|place| place < PLACES));
        vec![want_range(THEIRS, want)]
    }

    fn post(&mut self, input: &mut Input<'_>) -> Changed {
        // Channels are ours, but nothing bad comes of a number beyond them.
        notice::post(self.pages.inbox(THEIRS), input.up_to(2 * CHANNELS));
        vec![inbox_range(THEIRS)]
    }

    fn take(&mut self) -> Changed {
        let mut count = 0;
        notice::take(self.pages.inbox(OURS), |channel| {
            assert!(channel < CHANNELS);
            count += 1;
        });
        assert!(count <= CHANNELS);
        assert!(notice::is_empty(self.pages.inbox(OURS)) || self.watch.is_none());
        vec![inbox_range(OURS)]
    }

    fn doze(&mut self) -> Changed {
        notice::doze(self.pages.inbox(OURS));
        notice::is_empty(self.pages.inbox(OURS));
        vec![inbox_range(OURS)]
    }

    fn peer_stores(&mut self, input: &mut Input<'_>) -> Changed {
        peer::store(self.peer, input);
        self.watch = Some(Watch::new(self.pages));
        Vec::new()
    }

    /// One of our words holds what we have just stored.
    fn expect_word(&self, word: usize, value: u64) {
        if self.watch.is_some() {
            assert_eq!(self.pages.line(OURS)[word].load(Relaxed), value);
        }
    }
}

fn words_at(start: usize, word: usize) -> Range<usize> {
    start + word * 8..start + word * 8 + 8
}

fn our_word(word: usize) -> Range<usize> {
    words_at(CHANNEL_AT + line_at(OURS, RING), word)
}

fn want_range(side: usize, want: usize) -> Range<usize> {
    words_at(CHANNEL_AT + wants_at(side, RING), want)
}

fn ring_range(side: usize) -> Range<usize> {
    ring_start(side)..ring_start(side) + RING
}

fn inbox_range(side: usize) -> Range<usize> {
    inbox_start(side)..inbox_start(side) + INBOX_WORDS * 8
}
