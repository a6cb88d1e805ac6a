//! The reader of a direction, by the rules of `turn`.

use loom::sync::atomic::Ordering::Release;
use loom::thread;
use underpass_stack::lane::shm::copies::overtake;
use underpass_stack::lane::shm::layout::flag;
use underpass_stack::lane::shm::layout::line::FLAGS;
use underpass_stack::lane::shm::{Copies, Inbound, Overtake, Receiver, Turn};

use super::turns::Direction;

pub struct Reader<'a> {
    from: &'a Direction,
    inbound: Inbound,
    ring: Receiver,
    /// Bytes of the kernel's stream that are in `got`.
    kernel_bytes: u64,
    /// Bytes of the kernel's stream that were received too early.
    aside: Vec<u8>,
    got: Vec<u8>,
    recalled: bool,
    copies: Copies,
}

impl<'a> Reader<'a> {
    pub fn new(from: &'a Direction, capacity: usize) -> Self {
        let (inbound, ring) = (Inbound::default(), Receiver::new(capacity));
        from.channel.receiver[FLAGS].store(flag::READY, Release);
        Self {
            from,
            inbound,
            ring,
            kernel_bytes: 0,
            aside: Vec::new(),
            got: Vec::new(),
            recalled: false,
            copies: Copies::default(),
        }
    }

    pub fn read(mut self, total: u8, recall_after: Option<usize>) -> Vec<u8> {
        while self.got.len() < total.into() {
            if !self.recalled && recall_after.is_some_and(|count| self.got.len() >= count) {
                self.recalled = true;
                self.from.channel.receiver[FLAGS].store(flag::READY | flag::RECALL, Release);
            }
            if !self.step() {
                thread::yield_now();
            }
        }
        self.got
    }

    /// Returns whether anything has happened.
    fn step(&mut self) -> bool {
        match self.inbound.next(&self.from.channel.sender).unwrap() {
            Turn::Stay if !self.inbound.is_in_ring() => self.take_kernel(usize::MAX) > 0,
            Turn::Stay if self.recalled => false,
            Turn::Stay => self.take_ring(usize::MAX) > 0,
            Turn::ToRing(at) => {
                let left = at.checked_sub(self.kernel_bytes).expect("not too far") as usize;
                self.follow_if(left == 0) || self.take_kernel(left) > 0
            }
            // After a recall, the sender may have left by itself.
            Turn::ToKernel(at) => {
                let left = at.checked_sub(self.ring.head()).expect("not too far") as usize;
                if self.recalled && left > 0 && self.aside.is_empty() {
                    return self.overtake(left);
                }
                let is_there = self.follow_if(left == 0);
                if is_there {
                    self.meet_copies();
                }
                is_there || self.take_ring(left) > 0
            }
        }
    }

    fn follow_if(&mut self, is_there: bool) -> bool {
        if is_there {
            self.inbound.follow(&self.from.channel.receiver);
        }
        is_there
    }

    fn overtake(&mut self, left: usize) -> bool {
        let channel = &self.from.channel;
        match overtake(&channel.sender, &channel.copies, self.ring.head(), channel.capacity()).unwrap() {
            Overtake::Now(copies) => {
                self.copies = copies;
                self.follow_if(true)
            }
            Overtake::Later => false,
            Overtake::Never => self.take_ring(left) > 0,
        }
    }

    fn meet_copies(&mut self) {
        let channel = &self.from.channel;
        self.copies = Copies::all(&channel.copies, channel.capacity()).unwrap();
        let came = (self.copies.left(&channel.copies, channel.capacity()) as usize).min(self.aside.len());
        self.aside.drain(..came);
        self.throw_away(came);
    }

    fn throw_away(&mut self, count: usize) {
        self.kernel_bytes += count as u64;
        self.copies.throw_away(count as u64);
    }

    /// Returns whether there are no more of them.
    fn drop_copies(&mut self) -> bool {
        let channel = &self.from.channel;
        let left = |copies: &Copies| copies.left(&channel.copies, channel.capacity()) as usize;
        if left(&self.copies) == 0 {
            return true;
        }
        let queued = self.from.kernel.lock().unwrap().len();
        let piece = queued.min(left(&self.copies));
        self.from.kernel.lock().unwrap().drain(..piece);
        self.throw_away(piece);
        left(&self.copies) == 0
    }

    fn take_ring(&mut self, most: usize) -> usize {
        let bytes = self.from.channel.receive(&mut self.ring, most);
        self.got.extend(&bytes);
        bytes.len()
    }

    fn take_kernel(&mut self, most: usize) -> usize {
        if !self.drop_copies() {
            return 0;
        }
        let mut bytes = std::mem::take(&mut self.aside);
        bytes.extend(self.from.kernel.lock().unwrap().drain(..));
        let in_order = self.inbound.in_order(&self.from.channel.sender, self.kernel_bytes, bytes.len());
        let n = in_order.unwrap().min(most);
        self.aside = bytes.split_off(n);
        self.kernel_bytes += n as u64;
        self.got.extend(&bytes);
        n
    }
}
