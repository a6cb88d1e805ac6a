//! What the kernel does: it shows frames, takes leftovers, says that a packet was too big, and in the worst case lies about its rings.

use underpass_stack::ip::path::Path;
use underpass_stack::stats::Counter;
use underpass_stack::tcp::Instant;
use underpass_stack::xsk::Desc;
use underpass_stack::xsk::memory::Which;

use super::arrivals::Staged;
use super::ends::Home;
use super::player::Player;
use super::queues::Queue;
use super::stream::is_at_most;

/// Packets of which routers say that they are too big, bytes.
const CLAIMS: u32 = 1600;

/// What has to be so after a pass.
#[derive(Clone, Copy)]
struct Due {
    rcv_nxt: u32,
    snd_una: u32,
    /// Something came for it.
    is_spoken_to: bool,
}

impl Player<'_> {
    /// All that was staged, or the oldest of it in each queue, in one pass.
    pub(super) fn show_most(&mut self) {
        match self.input.byte() {
            0..16 => (),
            kind @ 16..48 => self.pass(usize::from(kind)),
            _ => self.pass(usize::MAX),
        }
    }

    pub(super) fn show(&mut self) {
        let count = self.input.up_to(self.most_staged());
        self.pass(count);
    }

    /// One pass over up to `count` frames of each queue. What an honest peer has said in its turn has arrived then.
    pub(super) fn pass(&mut self, count: usize) {
        self.look();
        let (mut shown, mut seen) = (Vec::new(), 0);
        for queue in &mut self.queues {
            let (staged, count) = queue.show(count);
            shown.extend(staged);
            seen += count;
        }
        let due: Vec<Option<Due>> = (0..self.ends.len()).map(|n| self.due(n, &shown)).collect();
        let count = shown.len();
        assert!(self.is_lost || seen == count);
        let taken = self.stack.pass(self.now);
        assert!(self.is_lost || taken == count, "{taken} of {count} frames");
        self.check_silence();
        self.look();
        for (n, due) in due.into_iter().enumerate() {
            let Some(due) = due.filter(|_| self.is_well(n)) else { continue };
            let seen = self.ends[n].seen;
            let stands = (seen.rcv_nxt, seen.snd_una) == (due.rcv_nxt, due.snd_una);
            assert!(due.is_spoken_to || stands, "connection {n} heard what was for another: {seen:?}");
            // More, where it closes a gap.
            assert!(is_at_most(due.rcv_nxt, seen.rcv_nxt), "connection {n} did not take what came in order: {seen:?}");
            assert!(is_at_most(due.snd_una, seen.snd_una), "connection {n} did not hear an acknowledgement");
        }
    }

    /// What has to be so of a connection after these frames; `None`: there are some of which one cannot know.
    fn due(&self, n: usize, shown: &[Staged]) -> Option<Due> {
        let seen = &self.ends[n].seen;
        if !self.is_live(n) || !self.is_well(n) || self.ends[n].has_closed || self.is_lost {
            return None;
        }
        let mut due = Due { rcv_nxt: seen.rcv_nxt, snd_una: seen.snd_una, is_spoken_to: false };
        for staged in shown {
            match *staged {
                Staged::Hostile { to } if to == n => return None,
                Staged::Honest { to, seq, end, ack, val } if to == n => {
                    let is_old = val.is_some_and(|val| !is_at_most(seen.ts_recent, val));
                    let is_heard = is_at_most(seen.snd_una, ack) && is_at_most(ack, seen.snd_nxt);
                    if seq != due.rcv_nxt || !is_at_most(end, self.ends[n].edge()) || is_old || !is_heard {
                        return None;
                    }
                    due.is_spoken_to = true;
                    due.rcv_nxt = end;
                    due.snd_una = if is_at_most(due.snd_una, ack) { ack } else { due.snd_una };
                }
                _ => (),
            }
        }
        Some(due)
    }

    /// Time passes, to the next timer mostly.
    pub(super) fn wait(&mut self) {
        let to = self.stack.next_deadline();
        let length = match self.input.byte() {
            0 => 3_600_000_000_000,
            byte @ 1..64 => u64::from(byte) * 1_000_000,
            byte @ 64..128 => u64::from(byte) * 10_000,
            _ => to.map_or(0, |at| at.nanos_since(self.now)),
        };
        self.now = self.now.after(length);
        self.pass(0);
        if length == 0 {
            self.now = Instant(self.now.0 + 1);
        }
    }

    /// The kernel takes leftovers and gives frames back.
    pub(super) fn return_frames(&mut self) {
        let leftovers = self.stack.take_leftovers();
        if !leftovers.is_empty() {
            self.reached.insert("frames for the kernel");
        }
        self.taken.extend(leftovers);
        let count = self.input.up_to(self.taken.len());
        for leftover in self.taken.drain(..count) {
            self.stack.recycle(leftover);
        }
    }

    pub(super) fn packet_too_big(&mut self) {
        let n = self.pick();
        let seen = self.ends[n].seen;
        let flight = seen.snd_nxt.wrapping_sub(seen.snd_una);
        let seq = seen.snd_una.wrapping_add(self.input.up_to(flight as usize) as u32);
        let generation = u32::from(self.input.byte() == 0);
        let mtu = self.input.up_to(CLAIMS as usize) as u32;
        let Home::Stack { slot, generation: current } = self.ends[n].home else { return };
        self.stack.packet_too_big(slot, current.wrapping_add(generation), seq, mtu, self.now);
        self.stack.send_touched(self.now);
        if self.stack.stats().get(Counter::TooBigTaken) > 0 {
            self.reached.insert("packet too big, believed");
        }
    }

    pub(super) fn set_path(&mut self) {
        let n = self.pick();
        let Home::Stack { slot, generation } = self.ends[n].home else { return };
        let known_mtu = 600 + 4 * u16::from(self.input.byte());
        let path = Path { known_mtu, ..self.ends[n].setup.path() };
        self.stack.set_path(slot, generation, path, self.now);
    }

    /// Addresses and lengths that cannot be, which do no harm; or cursors that are wrong, after which nobody knows where a frame is.
    pub(super) fn lie(&mut self) {
        let (kind, word) = (self.input.byte(), self.input.word());
        let beyond = u64::from(self.card.frames) * 2048;
        let at = (word >> 60) as usize % self.queues.len();
        let queue = &mut self.queues[at];
        match kind % 16 {
            0..=3 => lie_about_length(queue, word),
            4..=7 => {
                if queue.wire.opposite().put(Desc::new(beyond.saturating_add(word), word as u32)) {
                    queue.staged.push_back(Staged::Nothing);
                }
            }
            8..=11 => {
                queue.wire.opposite().complete(beyond.saturating_add(word));
            }
            12 | 13 => self.lie_about_completion(at, word),
            _ if kind >> 4 == 0 => {
                self.is_lost = true;
                let which = [Which::Fill, Which::Rx, Which::Tx, Which::Completion][word as usize % 4];
                queue.wire.opposite().lose_count(which, (word >> 8) as u32);
                queue.staged.clear();
            }
            _ => return,
        }
        self.reached.insert("a kernel that lies");
    }

    /// A frame was sent, says the kernel, that is free. Until that is noticed it lies in two places, so nobody counts any more.
    fn lie_about_completion(&mut self, queue: usize, word: u64) {
        let free = self.stack.free_frames(0);
        let at = word as usize % free.len();
        if free[at] {
            self.queues[queue].wire.opposite().complete(at as u64 * 2048);
            self.is_lost = true;
        }
    }
}

/// A received packet that leaves the UMEM, or is longer than any.
fn lie_about_length(queue: &mut Queue, word: u64) {
    let Some(addr) = queue.wire.take_empty() else { return };
    let len = [u32::MAX, 2049 + (word >> 8) as u32 % 1_000_000, 0, 1 << 31][word as usize % 4];
    if queue.wire.put(Desc::new(addr + (word >> 32) % 2048, len)) {
        queue.staged.push_back(Staged::Nothing);
    }
}
