//! The pass: RX rings, then timers, then everything that has something to send.

use super::kick::Unkicked;
use super::{SlotState, Stack, Wheel, event};
use crate::stats::Counter;
use crate::tcp::{Instant, Outcome};
use crate::xsk::queue::Queue;

impl Stack {
    /// Would a pass have anything to do? Cheap, for those who look again and again.
    pub fn has_news(&self, now: Instant) -> bool {
        self.unkicked != Unkicked::Nowhere
            || !self.touched.is_empty()
            || self.wheel.soonest().is_some_and(|soonest| soonest <= now)
            || self.ports[..self.port_limit].iter().flatten().any(|port| port.queues.iter().any(Queue::rx_waits))
    }

    /// One run over RX rings, timers and TX rings, if they have anything. Returns how many frames came in.
    pub fn pass(&mut self, now: Instant) -> usize {
        self.pass_by(now, || now)
    }

    /// The same where the time passes: `now` decides whether there is anything, `clock` is asked once all frames of this pass have
    /// arrived. A thread that loses its processor in between would else take them for older than they are, and the shortest round trip
    /// of a path, which it is judged by for long, for shorter.
    pub fn pass_by(&mut self, now: Instant, clock: impl Fn() -> Instant) -> usize {
        let any = self.look();
        if !any && !self.has_news(now) {
            return 0;
        }
        let mut now = self.not_back(clock());
        let mut received = self.receive(now);
        self.stats().add(Counter::Passes, 1);
        if self.wheel.is_due(now) {
            received += self.receive_all_until(&mut now, clock);
            self.run_timers(now);
        }
        self.send_all(now);
        received
    }

    /// Sees what lies in the RX rings; has anything arrived?
    fn look(&mut self) -> bool {
        let mut any = false;
        for port in self.ports[..self.port_limit].iter_mut().flatten() {
            match &mut port.queues[..] {
                [only] => any |= only.rx_look(),
                several => several.iter_mut().for_each(|queue| any |= queue.rx_look()),
            }
        }
        any
    }

    /// Timers are due at `now`: takes in all that has arrived by then, since that may be what they wait for, and moves `now` on. Who comes
    /// late finds more than one batch holds. Returns how many frames that were.
    #[inline(never)]
    fn receive_all_until(&mut self, now: &mut Instant, clock: impl Fn() -> Instant) -> usize {
        let queues = self.ports[..self.port_limit].iter_mut().flatten().flat_map(|port| &mut port.queues);
        let waiting: usize = queues.map(|queue| queue.rx_available() as usize).sum();
        let mut received = 0;
        // No more than that: somebody may send as fast as we read.
        while received < waiting && self.look() {
            *now = self.not_back(clock());
            received += self.receive(*now);
        }
        received
    }

    /// Carries an engine's decisions out.
    #[inline(never)]
    pub(super) fn apply(&mut self, slot: u32, outcome: &Outcome, now: Instant) {
        let stats = self.stats();
        outcome.counts.iter().for_each(|counter| stats.add(counter, 1));
        let bit = |on: bool, bit: u8| u8::from(on) * bit;
        let bits = event::data(outcome.readable, outcome.writable)
            | bit(outcome.peer_fin, event::PEER_FIN | event::READABLE)
            | bit(outcome.reset, event::RESET)
            | bit(outcome.timed_out, event::TIMED_OUT)
            | bit(outcome.urgent, event::URGENT)
            | bit(outcome.closed, event::CLOSED);
        if outcome.path_mtu {
            self.note_path(slot, now);
        }
        self.fit_rings(slot);
        self.raise(slot, bits);
        if self.slots[slot as usize].orphan {
            match bits & (event::CLOSED | event::DEMOTE) {
                0 => self.limit_orphan(slot, now),
                _ => self.bury(slot),
            }
        }
    }

    #[inline(never)]
    pub(super) fn run_timers(&mut self, now: Instant) {
        while let Some(slot) = self.wheel.pop(now) {
            let Some(state) = self.slots.get_mut(slot as usize) else { continue };
            state.scheduled = Instant::NEVER;
            let Some(mut connection) = self.connection(slot) else { continue };
            let due = connection.tcb.deadline().is_some_and(|due| due <= now);
            let outcome = due.then(|| connection.on_timer(now));
            connection.tcb.settle_timers();
            let bound = connection.tcb.deadline_bound();
            if let Some(state) = self.slots.get_mut(slot as usize) {
                // The acknowledgement of what was sent last is often the last that is heard of a connection for long.
                self.records.take_back(&mut state.recovery);
                state.schedule(&mut self.wheel, slot, bound, now);
            }
            if let Some(outcome) = outcome {
                self.touch(slot);
                self.apply(slot, &outcome, now);
            }
        }
    }

    /// The earliest timer of any connection, or a little earlier; at once if a connection has more to send.
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.touched.is_empty() {
            return Some(Instant(1));
        }
        self.wheel.soonest()
    }
}

impl SlotState {
    /// Sees to it that the wheel wakes the connection no later than its deadline, for which `bound` stands. Deadlines move
    /// on with nearly every segment; the wheel's entry does only when it has run out.
    #[inline]
    pub(super) fn schedule(&mut self, wheel: &mut Wheel, slot: u32, bound: Option<Instant>, now: Instant) {
        let Some(bound) = bound else { return };
        if !self.scheduled.is_set() || bound < self.scheduled {
            self.scheduled = bound;
            wheel.set(slot, bound, now);
        }
    }
}
