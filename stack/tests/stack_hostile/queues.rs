//! The card's queues: which flow arrives by which.

use std::collections::VecDeque;

use underpass_stack::stack::Stack;
use underpass_stack::testkit::Wire;

use super::arrivals::Staged;
use super::player::Player;
use super::setup::Card;

/// One queue.
pub struct Queue {
    pub wire: Wire,
    /// What was staged and not shown.
    pub staged: VecDeque<Staged>,
}

impl Queue {
    pub fn attach(card: &Card, stack: &mut Stack) -> Vec<Self> {
        let wires = Wire::attach_queues(stack, 0, card.frames, card.entries, card.mtu, card.queues).expect("a card");
        wires.into_iter().map(|wire| Self { wire, staged: VecDeque::new() }).collect()
    }

    /// Shows the oldest `count` frames to the stack, and says what they are.
    pub fn show(&mut self, count: usize) -> (Vec<Staged>, usize) {
        let shown: Vec<Staged> = self.staged.drain(..count.min(self.staged.len())).collect();
        let seen = self.wire.show(shown.len());
        (shown, seen)
    }
}

impl Player<'_> {
    /// Most that are staged in any queue.
    pub(super) fn most_staged(&self) -> usize {
        self.queues.iter().map(|queue| queue.staged.len()).max().unwrap_or(0)
    }

    /// The queues that something happens to: one, or all of them.
    pub(super) fn pick_queues(&mut self) -> &mut [Queue] {
        let count = self.queues.len();
        if count == 1 {
            return &mut self.queues;
        }
        match usize::from(self.input.byte()) % (count + 1) {
            all if all == count => &mut self.queues,
            one => &mut self.queues[one..=one],
        }
    }

    /// From now on a flow arrives by another queue, and overtakes what it has in the one before.
    pub(super) fn steer(&mut self) {
        let n = self.pick();
        let to = usize::from(self.input.byte()) % self.queues.len();
        let from = std::mem::replace(&mut self.ends[n].queue, to);
        if from == to {
            return;
        }
        self.reached.insert("a flow that was steered elsewhere");
        for staged in &mut self.queues[from].staged {
            if matches!(staged, Staged::Honest { to, .. } if *to == n) {
                *staged = Staged::Hostile { to: n };
            }
        }
    }
}
