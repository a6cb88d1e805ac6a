//! Frames that arrive: those that an honest peer sends, and all others.

use underpass_stack::ip::input;
use underpass_stack::tcp::Flags;
use underpass_stack::tcp::image::flag;
use underpass_stack::testkit::wire::FRAME;

use super::ends::Ends;
use super::forge::{Forged, has_partial_checksum, is_covered};
use super::player::Player;
use super::setup::flow;
use super::stream::bytes;

/// Most frames of a burst.
const BURST: usize = 40;

/// A frame that was staged and not shown.
#[derive(Clone, Copy, Debug)]
pub enum Staged {
    /// It changes nothing: damaged, or nobody's.
    Nothing,
    /// What an honest peer says next.
    Honest { to: usize, seq: u32, end: u32, ack: u32, val: Option<u32> },
    /// Anything else.
    Hostile { to: usize },
}

impl Player<'_> {
    pub(super) fn stage(&mut self, frame: &[u8], queue: usize, what: Staged) -> bool {
        let queue = &mut self.queues[queue];
        let is_staged = queue.wire.stage(frame);
        if is_staged {
            queue.staged.push_back(what);
        } else {
            self.reached.insert("no frame to receive into");
        }
        is_staged
    }

    /// Stages what the peer says next. False if there was no room.
    pub(super) fn stage_honest(&mut self, n: usize, forged: &Forged) -> bool {
        let (seq, len) = (forged.seq, forged.payload.len() as u32);
        let fin = u32::from(forged.flags & Flags::FIN.0 != 0);
        let (end, val) = (seq.wrapping_add(len + fin), forged.timestamps.map(|(val, _)| val));
        let what = Staged::Honest { to: n, seq, end, ack: forged.ack, val };
        let is_staged = self.stage(&forged.frame(&self.ends[n].setup.flow), self.ends[n].queue, what);
        if is_staged {
            self.ends[n].next = end;
        }
        is_staged
    }

    pub(super) fn stage_hostile(&mut self, n: usize, forged: &Forged) {
        self.ends[n].has_closed |= forged.flags & Flags::FIN.0 != 0;
        self.stage(&forged.frame(&self.ends[n].setup.flow), self.ends[n].queue, Staged::Hostile { to: n });
    }

    /// Bytes of the next segment: full ones are frequent.
    fn segment_len(&mut self, n: usize) -> usize {
        let full = self.ends[n].full();
        match self.input.byte() {
            0..128 => full,
            kind @ 128..192 => usize::from(kind - 128),
            192..208 => 0,
            _ => self.input.up_to(full),
        }
    }

    /// Segments of one flow that follow each other.
    pub(super) fn burst_of_one(&mut self) {
        let n = self.pick();
        let kind = self.input.byte();
        let count = 2 + usize::from(kind) % (BURST - 1);
        self.ends[n].synchronise();
        let alike = (kind & 0x40 != 0).then(|| self.segment_len(n));
        let mut staged = 0;
        for _ in 0..count {
            let len = alike.unwrap_or_else(|| self.segment_len(n));
            let mut forged = self.ends[n].honest(len);
            if kind & 0x80 != 0 {
                self.season(n, &mut forged);
            }
            staged += usize::from(self.stage_honest(n, &forged));
        }
        if staged > 1 {
            self.reached.insert("a burst of one flow");
        }
        self.show_most();
    }

    /// Segments of all flows, mixed.
    pub(super) fn burst_of_several(&mut self) {
        let count = 2 + usize::from(self.input.byte()) % (BURST - 1);
        self.ends.iter_mut().for_each(Ends::synchronise);
        let (mut before, mut changes) = (None, 0);
        for _ in 0..count {
            let n = self.pick();
            let len = self.segment_len(n);
            let mut forged = self.ends[n].honest(len);
            self.season(n, &mut forged);
            if self.stage_honest(n, &forged) {
                changes += usize::from(before.replace(n).is_some_and(|before| before != n));
            }
        }
        if changes > 1 {
            self.reached.insert("a burst of several flows");
        }
        self.show_most();
    }

    /// What differs between segments of an honest peer.
    fn season(&mut self, n: usize, forged: &mut Forged) {
        let kind = self.input.byte();
        forged.flags |= kind & Flags::PSH.0;
        if kind & 3 == 0 {
            self.report(n, forged);
        }
        if kind & 0xc4 == 0x40 {
            self.ends[n].clock += 1;
        }
        if kind & 0xe0 == 0xe0 {
            forged.window = u16::from(self.input.byte()) << 8 | 0xff;
        }
    }

    /// Says what the peer has behind a gap (RFC 2018).
    pub(super) fn report(&self, n: usize, forged: &mut Forged) {
        if self.ends[n].seen.flags & flag::SACK != 0 {
            forged.sack = self.ends[n].got.newest(3);
            // Options take the place of data.
            forged.payload.truncate(self.ends[n].full() - 4 - 8 * forged.sack.len());
        }
    }

    /// Pure acknowledgements of what the peer has.
    pub(super) fn acknowledge(&mut self) {
        let n = self.pick();
        self.depart_all(0);
        self.ends[n].synchronise();
        for _ in 0..1 + self.input.byte() % 4 {
            let mut forged = self.ends[n].honest(0);
            self.season(n, &mut forged);
            self.stage_honest(n, &forged);
        }
        self.show_most();
    }

    /// A burst with holes in it, segments that come twice, and in another order.
    pub(super) fn turmoil(&mut self) {
        let n = self.pick();
        self.ends[n].synchronise();
        let start = self.ends[n].next;
        for _ in 0..2 + self.input.byte() % 30 {
            let len = self.segment_len(n);
            let mut forged = self.ends[n].honest(len);
            let kind = self.input.byte();
            let len = forged.payload.len() as u32;
            if kind % 4 == 0 {
                self.stage_honest(n, &forged);
                continue;
            }
            if kind % 4 == 1 {
                // Once more, or something around it.
                let seq = start.wrapping_add(u32::from(self.input.byte()) * len / 4);
                forged.seq = seq;
                forged.payload = bytes(self.ends[n].peers(), seq, len as usize);
            }
            if kind % 4 != 3 {
                self.stage_hostile(n, &forged);
            }
            // The third is lost.
            self.ends[n].next = self.ends[n].next.wrapping_add(len);
        }
        self.show_most();
    }

    /// A peer that says what it likes.
    pub(super) fn hostile(&mut self) {
        let n = self.pick();
        let mut forged = self.ends[n].honest(0);
        self.forge_numbers(n, &mut forged);
        self.forge_flags(&mut forged);
        self.forge_options(n, &mut forged);
        let len = self.input.up_to(self.card.mtu as usize - 100);
        forged.payload = bytes(self.ends[n].peers(), forged.seq, len);
        self.stage_hostile(n, &forged);
    }

    fn forge_numbers(&mut self, n: usize, forged: &mut Forged) {
        let (ends, input) = (&self.ends[n], &mut self.input);
        let seen = &ends.seen;
        forged.seq = match input.byte() % 8 {
            0 => input.word() as u32,
            1 => ends.edge().wrapping_sub(input.byte().into()),
            2 => seen.rcv_nxt.wrapping_sub(u32::from(input.byte()) * 20),
            3 | 4 => seen.rcv_nxt.wrapping_add(u32::from(input.byte()) * 100),
            _ => ends.next,
        };
        let flight = seen.snd_nxt.wrapping_sub(seen.snd_una);
        forged.ack = match input.byte() % 8 {
            0 => input.word() as u32,
            1 => seen.snd_nxt.wrapping_add(input.byte().into()),
            2 => seen.snd_una.wrapping_add(input.up_to(flight as usize) as u32),
            _ => forged.ack,
        };
    }

    fn forge_flags(&mut self, forged: &mut Forged) {
        let input = &mut self.input;
        forged.flags = match input.byte() % 16 {
            0 => input.byte(),
            1 => Flags::ACK.0 | Flags::FIN.0,
            2 => Flags::ACK.0 | Flags::URG.0,
            _ => Flags::ACK.0 | (input.byte() & 0xc8),
        };
        forged.urgent = u16::from(input.byte());
        forged.tos = input.byte();
        forged.window = u16::from_le_bytes([input.byte(), input.byte()]);
    }

    fn forge_options(&mut self, n: usize, forged: &mut Forged) {
        let (una, input) = (self.ends[n].seen.snd_una, &mut self.input);
        if input.byte() % 8 == 0 {
            forged.timestamps = (input.byte() % 4 != 0).then(|| (input.word() as u32, input.word() as u32));
        }
        for _ in 0..input.byte() % 4 {
            let start = una.wrapping_add(u32::from(input.byte()) * 100);
            forged.sack.push((start, start.wrapping_add(u32::from(input.byte()) * 100)));
        }
        if input.byte() % 16 == 0 {
            forged.options = (0..input.byte() % 12).map(|_| input.byte()).collect();
        }
    }

    /// What an honest peer says next, damaged on the way: as if it had never come.
    pub(super) fn damaged(&mut self) {
        let n = self.pick();
        let flow = self.ends[n].setup.flow;
        let len = self.segment_len(n);
        let mut frame = self.ends[n].honest(len).frame(&flow);
        let at = 14 + self.input.word() as usize % (frame.len() - 14);
        frame[at] ^= 1 << (self.input.byte() % 8);
        if has_partial_checksum(&frame, &flow) || !is_covered(&flow, at) {
            return;
        }
        self.reached.insert("damaged frames");
        self.stage(&frame, self.ends[n].queue, Staged::Nothing);
    }

    /// Frames that are no segments of any connection.
    pub(super) fn noise(&mut self) {
        let n = self.pick();
        let len = self.segment_len(n);
        let forged = self.ends[n].honest(len);
        let own = self.ends[n].setup.flow;
        let mut frame = forged.frame(&own);
        match self.input.byte() % 8 {
            0 => frame = (0..self.input.up_to(2048)).map(|_| self.input.byte()).collect(),
            1 => frame.truncate(self.input.up_to(53)),
            2 => frame.resize(self.card.mtu as usize + 19 + self.input.up_to(500), 0),
            3 => frame[12..14].copy_from_slice(&[0x08, 0x06]),
            4 => frame = forged.frame(&flow(usize::from(self.input.byte()) + 100, own.is_v6())),
            // Another protocol, or a fragment: the checksum of the header is made right again.
            5 => rewrite(&mut frame, 23, 17),
            6 => rewrite(&mut frame, 20, 0x20),
            _ => frame = forged.frame(&flow(n, !own.is_v6())),
        }
        self.stage_noise(&frame, self.ends[n].queue);
    }

    /// Made of bytes it may be a segment after all, and a flow's twin may exist.
    fn stage_noise(&mut self, frame: &[u8], queue: usize) {
        let found = input::parse(frame, FRAME as usize).ok().and_then(|found| {
            let to = self.ends.iter().position(|ends| ends.setup.flow == found.flow)?;
            Some((to, found.segment.flags.has(Flags::FIN)))
        });
        let Some((to, closes)) = found else {
            self.stage(frame, queue, Staged::Nothing);
            return;
        };
        self.ends[to].has_closed |= closes;
        self.stage(frame, queue, Staged::Hostile { to });
    }
}

/// Writes one byte of an IPv4 header and keeps its checksum right (RFC 1624); of an IPv6 header, its next header.
fn rewrite(frame: &mut [u8], at: usize, value: u8) {
    if frame[12] != 0x08 {
        frame[20] = 44;
        return;
    }
    let word = |frame: &[u8], at: usize| u32::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let even = at & !1;
    let before = word(frame, even);
    frame[at] = value;
    let mut sum = (!word(frame, 24) & 0xffff) + (!before & 0xffff) + word(frame, even);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
