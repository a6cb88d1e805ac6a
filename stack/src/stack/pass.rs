//! The pass: RX rings, then timers, then everything that has something to send.

use std::cmp::Reverse;

use super::{Stack, event};
use crate::stats::Counter;
use crate::tcp::{Instant, Outcome};
use crate::xsk::queue::Queue;

impl Stack {
    /// Would a pass have anything to do? Cheap, for those who look again and again.
    pub fn has_news(&self, now: Instant) -> bool {
        let due = |&Reverse((deadline, _)): &Reverse<(Instant, u32)>| deadline <= now;
        self.unkicked
            || !self.touched.is_empty()
            || self.timers.peek().is_some_and(due)
            || self.ports[..self.port_limit].iter().flatten().any(|port| port.queues.iter().any(Queue::rx_waits))
    }

    /// One run over RX rings, timers and TX rings, if they have anything. Returns how many frames came in.
    pub fn pass(&mut self, now: Instant) -> usize {
        if !self.has_news(now) {
            return 0;
        }
        let now = self.not_back(now);
        self.stats().add(Counter::Passes, 1);
        let received = self.receive(now);
        self.run_timers(now);
        self.send_touched(now);
        received
    }

    /// Carries an engine's decisions out.
    pub(super) fn apply(&mut self, slot: u32, outcome: &Outcome, now: Instant) {
        let stats = self.stats();
        for counter in outcome.counts.iter() {
            stats.add(counter, 1);
        }
        let bits = [
            (outcome.readable, event::READABLE),
            (outcome.writable, event::WRITABLE),
            (outcome.peer_fin, event::PEER_FIN | event::READABLE),
            (outcome.reset, event::RESET),
            (outcome.timed_out, event::TIMED_OUT),
            (outcome.urgent, event::URGENT),
            (outcome.closed, event::CLOSED),
        ];
        let bits = bits.iter().filter(|(on, _)| *on).fold(0, |all, (_, bit)| all | bit);
        if outcome.path_mtu {
            self.note_path(slot, now);
        }
        self.fit_rings(slot);
        self.raise(slot, bits);
        self.touch(slot);
        if bits & (event::CLOSED | event::DEMOTE) != 0 && self.slots[slot as usize].orphan {
            self.bury(slot);
        }
    }

    pub(super) fn run_timers(&mut self, now: Instant) {
        while let Some(&Reverse((deadline, slot))) = self.timers.peek() {
            if deadline > now {
                break;
            }
            self.timers.pop();
            let Some(state) = self.slots.get_mut(slot as usize) else { continue };
            if state.scheduled != Some(deadline) {
                continue;
            }
            state.scheduled = None;
            let Some(mut connection) = self.connection(slot) else { continue };
            if connection.tcb.deadline().is_some_and(|due| due <= now) {
                let outcome = connection.on_timer(now);
                self.apply(slot, &outcome, now);
            } else {
                self.schedule(slot);
            }
        }
    }

    /// Sees to it that the heap wakes the connection no later than its deadline.
    pub(super) fn schedule(&mut self, slot: u32) {
        let Some(deadline) = self.connection(slot).and_then(|c| c.tcb.deadline()) else { return };
        let state = &mut self.slots[slot as usize];
        if state.scheduled.is_none_or(|at| deadline < at) {
            state.scheduled = Some(deadline);
            self.timers.push(Reverse((deadline, slot)));
        }
    }

    /// The earliest timer of any connection; at once if a connection has more to send.
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.touched.is_empty() {
            return Some(Instant(1));
        }
        self.timers.peek().map(|&Reverse((deadline, _))| deadline)
    }
}
