//! What a peer does to a live engine, and what routers and others do in its name.

use underpass_stack::tcp::image::{Image, flag};
use underpass_stack::tcp::{Flags, SeqNr};
use zerocopy::IntoBytes;

use super::forge::{Forged, has_partial_checksum, ip_header_len, is_covered};
use super::input::Input;
use super::segments::{Player, byte};

/// The lowest claims of routers that are believed (Linux: `net.ipv4.route.min_pmtu`; RFC 8200, section 5).
const CLAIM_MIN: [u32; 2] = [552, 1280];
/// TCP header with timestamps.
const TCP: usize = 32;

impl Player {
    /// What a peer would say that has received everything.
    fn next(&self, image: &Image, payload: Vec<u8>) -> Forged {
        let val = image.ts_recent.max(1).wrapping_add(1);
        Forged {
            seq: image.rcv_nxt,
            ack: self.seen,
            flags: Flags::ACK.0,
            window: 0x1000,
            timestamps: (image.flags & flag::TIMESTAMPS != 0).then_some((val, self.echo)),
            payload,
            ..Forged::default()
        }
    }

    /// An honest peer: acknowledges, and says something itself.
    pub(super) fn honest(&mut self, input: &mut Input<'_>) {
        self.answer(input, 0);
    }

    /// The same behind a congested router, which marks what it carries in both directions.
    pub(super) fn marked(&mut self, input: &mut Input<'_>) {
        let marks = input.byte();
        self.answer(input, marks);
    }

    /// `marks`: the codepoint that arrives, and the flags ECE and CWR.
    fn answer(&mut self, input: &mut Input<'_>, marks: u8) {
        self.transmit();
        let image = self.image();
        let window = image.rcv_wup.wrapping_add(image.rcv_wnd).wrapping_sub(image.rcv_nxt) as usize;
        let fin = image.flags & flag::FIN_RECEIVED != 0;
        let len = if fin { 0 } else { input.up_to(self.mtu - ip_header_len(&self.flow) - TCP).min(window) };
        let mut forged = self.next(&image, self.peer_bytes(image.rcv_nxt, len));
        // Not always the last word: a part may be missing.
        if input.byte() % 4 == 0 {
            forged.ack = self.between(&image, input);
            forged.sack = self.blocks(&image, input);
        }
        forged.tos = marks & 3;
        forged.flags |= marks & (Flags::ECE.0 | Flags::CWR.0);
        self.give(&forged);
    }

    /// A peer that lies, repeats itself, or has lost its mind.
    pub(super) fn hostile(&mut self, input: &mut Input<'_>) {
        let image = self.image();
        let mut forged = self.next(&image, Vec::new());
        let edge = image.rcv_wup.wrapping_add(image.rcv_wnd);
        forged.seq = match input.byte() % 8 {
            0 => word(input),
            1 => edge.wrapping_sub(input.byte().into()),
            2 => edge.wrapping_add(input.byte().into()),
            3 => image.rcv_nxt.wrapping_sub(u32::from(input.byte()) * 20),
            4..=6 => image.rcv_nxt.wrapping_add(u32::from(input.byte()) * 100),
            _ => image.rcv_nxt,
        };
        forged.ack = match input.byte() % 8 {
            0 => word(input),
            1 => image.snd_una.wrapping_sub(word(input) % 100_000),
            2 => image.snd_nxt.wrapping_add(input.byte().into()),
            3..=5 => self.between(&image, input),
            _ => image.snd_una,
        };
        forged.flags = match input.byte() % 8 {
            0 => input.byte(),
            1 => (Flags::ACK.0 | Flags::FIN.0) | (input.byte() & Flags::PSH.0),
            _ => Flags::ACK.0 | (input.byte() & 0xc8),
        };
        forged.window = match input.byte() {
            0..32 => 0,
            32..64 => u16::MAX,
            byte => u16::from(byte) << (byte % 8),
        };
        forged.tos = input.byte();
        forged.urgent = u16::from(input.byte());
        if input.byte() % 4 == 0 {
            let val =
                image.ts_recent.wrapping_add(word(input) >> (input.byte() % 32)).wrapping_sub(input.byte().into());
            forged.timestamps = (input.byte() % 4 != 0).then(|| (val, self.echo.wrapping_sub(word(input) % 5000)));
        }
        forged.sack = self.blocks(&image, input);
        if input.byte() % 16 == 0 {
            forged.options = (0..input.byte() % 12).map(|_| input.byte()).collect();
        }
        forged.payload = self.peer_bytes(forged.seq, input.up_to(self.mtu - ip_header_len(&self.flow) - 60));
        self.give(&forged);
    }

    /// A frame that was changed on the way: as if it had never come.
    pub(super) fn damaged(&mut self, input: &mut Input<'_>) {
        let image = self.image();
        let forged = self.next(&image, self.peer_bytes(image.rcv_nxt, input.up_to(100)));
        let mut frame = forged.frame(&self.flow);
        // Ethernet has a checksum of its own; of the rest nearly any one bit is protected.
        let at = 14 + usize::from(input.byte()) % (frame.len() - 14);
        frame[at] ^= 1 << (input.byte() % 8);
        if has_partial_checksum(&frame, &self.flow) || !is_covered(&self.flow, at) {
            return;
        }
        let before = self.host.tcb.as_bytes().to_vec();
        self.host.frame_in(self.now, &frame);
        assert!(before == self.host.tcb.as_bytes(), "a damaged frame has changed the connection");
    }

    /// A router says that a packet was too large, or somebody in its name.
    pub(super) fn packet_too_big(&mut self, input: &mut Input<'_>) {
        let (image, before) = (self.image(), self.host.tcb.path_mtu());
        let seq = match input.byte() % 4 {
            0 => word(input),
            1 => image.snd_nxt.wrapping_add(input.byte().into()),
            2 => image.snd_una.wrapping_sub(1 + u32::from(input.byte())),
            _ => self.between(&image, input),
        };
        let claim = match input.byte() % 4 {
            0 => word(input),
            1 => before.saturating_add(input.byte().into()),
            _ => before.saturating_sub(u32::from(input.byte()) * 4),
        };
        let in_flight = seq.wrapping_sub(image.snd_una) < image.snd_nxt.wrapping_sub(image.snd_una);
        let record = self.host.tcb.as_bytes().to_vec();
        self.host.packet_too_big(self.now, SeqNr(seq), claim);
        assert!(in_flight || record == self.host.tcb.as_bytes(), "believed of a packet that is not in flight");
        let (after, least) = (self.host.tcb.path_mtu(), CLAIM_MIN[usize::from(self.flow.remote.as_v4().is_none())]);
        assert!((before.min(least)..=before).contains(&after), "{claim} was said, {before} became {after}");
    }

    /// A peer that selectively acknowledges in crumbs: each needs a record of its own.
    pub(super) fn sack_crumbs(&mut self, input: &mut Input<'_>) {
        let image = self.image();
        let mut forged = self.next(&image, Vec::new());
        forged.ack = image.snd_una;
        let mut start = self.between(&image, input);
        let (count, len, stride) = crumbs(input);
        for _ in 0..count.min(self.crumbs) {
            // No header holds more beside timestamps.
            forged.sack = (0..3).map(|n| start.wrapping_add(n * stride)).map(|at| (at, at.wrapping_add(len))).collect();
            self.give(&forged);
            start = start.wrapping_add(3 * stride);
        }
        self.crumbs -= count.min(self.crumbs);
    }

    /// Data in crumbs, each behind a gap.
    pub(super) fn data_crumbs(&mut self, input: &mut Input<'_>) {
        let image = self.image();
        let window = image.rcv_wup.wrapping_add(image.rcv_wnd).wrapping_sub(image.rcv_nxt) as usize;
        let mut start = image.rcv_nxt.wrapping_add(1 + input.up_to(window) as u32);
        let (count, len, stride) = crumbs(input);
        for _ in 0..count.min(self.crumbs) {
            let mut forged = self.next(&image, self.peer_bytes(start, len as usize));
            forged.seq = start;
            self.give(&forged);
            start = start.wrapping_add(stride);
        }
        self.crumbs -= count.min(self.crumbs);
    }

    fn give(&mut self, forged: &Forged) {
        self.host.frame_in(self.now, &forged.frame(&self.flow));
        self.host.assert_bounded();
    }

    /// What the peer's program says from `seq` on.
    fn peer_bytes(&self, seq: u32, len: usize) -> Vec<u8> {
        (0..len).map(|i| byte(1, seq.wrapping_add(i as u32))).collect()
    }

    /// A number within what was sent and is not acknowledged.
    fn between(&self, image: &Image, input: &mut Input<'_>) -> u32 {
        image.snd_una.wrapping_add(input.up_to(image.snd_nxt.wrapping_sub(image.snd_una) as usize) as u32)
    }

    fn blocks(&self, image: &Image, input: &mut Input<'_>) -> Vec<(u32, u32)> {
        let count = [0, 0, 0, 1, 1, 2, 3, 4][usize::from(input.byte() % 8)];
        let block = |input: &mut Input<'_>| {
            if input.byte() % 16 == 0 {
                return (word(input), word(input));
            }
            let start = self.between(image, input);
            (start, start.wrapping_add(u32::from(input.byte()) * 100))
        };
        (0..count).map(|_| block(input)).collect()
    }
}

fn word(input: &mut Input<'_>) -> u32 {
    input.word() as u32
}

/// How many crumbs, how long, and how far apart.
fn crumbs(input: &mut Input<'_>) -> (u32, u32, u32) {
    let (count, len) = (1 + u32::from(input.byte()), 1 + u32::from(input.byte() % 4));
    (count, len, len + 1 + u32::from(input.byte() % 64))
}
