//! A stack with some connections, whose input says what happens to it.

use std::collections::BTreeSet;

use underpass_stack::stack::{Leftover, Stack};
use underpass_stack::tcp::{Connection, Instant};

use super::ends::{Ends, Home};
use super::input::Input;
use super::queues::Queue;
use super::setup::{Card, Setup};

/// Steps of one input at most.
const STEPS: u64 = 600;

/// Plays an input; returns the number of steps.
pub fn play(input: &[u8]) -> u64 {
    Player::new(input).run()
}

/// The stack, and everything around it.
pub struct Player<'a> {
    pub(super) input: Input<'a>,
    pub(super) stack: Stack,
    pub(super) queues: Vec<Queue>,
    pub(super) card: Card,
    pub(super) now: Instant,
    pub(super) ends: Vec<Ends>,
    /// Promotions that were begun and may come to nothing.
    pub(super) reserved: Vec<u32>,
    /// Frames taken from the stack for the kernel.
    pub(super) taken: Vec<Leftover>,
    /// A kernel that lies has lost its frames: nothing holds of where they are, or of what is sent.
    pub(super) is_lost: bool,
    pub(super) reached: BTreeSet<&'static str>,
}

impl<'a> Player<'a> {
    /// The first bytes of the input say what there is.
    pub fn new(input: &'a [u8]) -> Self {
        let mut input = Input(input);
        let now = Instant(1_000_000_000);
        let card = Card::read(&mut input);
        let mut stack = Stack::new("hostile", std::process::id(), 0, |fd| fd).expect("an arena");
        let queues = Queue::attach(&card, &mut stack);
        let count = 1 + usize::from(input.byte()) % 6;
        let ends = (0..count).map(|number| Ends::new(number, Setup::read(number, &card, &mut input))).collect();
        let mut player = Self {
            input,
            stack,
            queues,
            card,
            now,
            ends,
            reserved: Vec::new(),
            taken: Vec::new(),
            is_lost: false,
            reached: BTreeSet::new(),
        };
        (0..count).for_each(|n| player.promote(n));
        player.check();
        player
    }

    /// Returns the number of steps.
    pub fn run(&mut self) -> u64 {
        let mut steps = 0;
        while !self.input.0.is_empty() && steps < STEPS {
            self.step();
            self.check();
            steps += 1;
        }
        self.finish();
        steps
    }

    /// Where it has been, for inputs that are kept because of it.
    pub fn reached(&self) -> &BTreeSet<&'static str> {
        &self.reached
    }

    fn step(&mut self) {
        let kind = self.input.byte();
        match kind % 32 {
            0..=3 => self.burst_of_one(),
            4..=6 => self.burst_of_several(),
            7 | 8 => self.hostile(),
            9 => self.damaged(),
            10 => self.noise(),
            11 | 12 => self.acknowledge(),
            13 => self.turmoil(),
            14 => self.show(),
            15 | 16 => self.write(),
            17 | 18 => self.read(),
            19 => self.settings(),
            20 => self.wait(),
            21 => self.depart(),
            22 => self.freeze(),
            23 => self.thaw(),
            24 => self.change_hands(),
            25 => self.reserve(),
            26 => self.return_frames(),
            27 => self.packet_too_big(),
            28 => self.end(),
            29 => self.lie(),
            30 if kind < 128 => self.set_path(),
            30 => self.steer(),
            _ => self.close(),
        }
    }

    /// A connection that the input picks.
    pub(super) fn pick(&mut self) -> usize {
        usize::from(self.input.byte()) % self.ends.len()
    }

    /// The engine's connection, if the stack runs it.
    pub(super) fn connection(&mut self, n: usize) -> Option<Connection<'_>> {
        let Home::Stack { slot, .. } = self.ends[n].home else { return None };
        self.stack.connection(slot)
    }

    /// Is it with the stack, and not frozen?
    pub(super) fn is_live(&self, n: usize) -> bool {
        self.ends[n].slot().and_then(|slot| self.stack.record(slot)).is_some_and(|record| record.is_live())
    }
}
