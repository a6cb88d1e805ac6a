//! What did an acknowledgement say, before anything is made of it?

use super::image::flag;
use super::rate::Delivery;
use super::recovery::Recovery;
use super::segment::{Flags, Segment};
use super::seq::SeqNr;
use super::tcb::Tcb;
use super::time::Instant;

/// Blocks of a SACK option at most.
const BLOCKS: usize = 4;

/// One acceptable acknowledgement.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    /// Bytes newly acknowledged, FIN included.
    pub acked: u32,
    /// What was newly delivered.
    pub delivery: Delivery,
    /// Without SACK: the same once more in every way (RFC 5681, section 2).
    pub repeats: bool,
    /// It says nothing but where the peer stands, and that not for the first time.
    pub is_bare_repeat: bool,
    /// The duplicate that it reports (RFC 2883).
    pub duplicate: Option<(SeqNr, SeqNr)>,
    /// Our clock as it echoes it, ms, without the connection's offset.
    pub echo: Option<u32>,
    /// Something that was sent once only, and before the present recovery, was delivered.
    pub original: bool,
    /// Something was delivered that others had overtaken on their way.
    pub overtaken: bool,
    /// Bytes in the network before it came.
    pub pipe_before: u32,
    /// Bytes that had been lost before it came ([`super::rate::Rate::lost`]).
    pub lost_before: u32,
}

/// The blocks of a SACK option (RFC 2018, section 3): the report of a duplicate (RFC 2883), and the others in ascending order.
struct Blocks {
    duplicate: Option<(SeqNr, SeqNr)>,
    list: [(SeqNr, SeqNr); BLOCKS],
    len: usize,
}

impl Blocks {
    /// Blocks of nothing between `ack` and `nxt` are passed over.
    fn of(option: &[u8], ack: SeqNr, nxt: SeqNr, reach: u32) -> Self {
        let mut blocks = Self { duplicate: None, list: [(ack, ack); BLOCKS], len: 0 };
        for (at, block) in option.chunks_exact(8).take(BLOCKS).enumerate() {
            let number =
                |at: usize| SeqNr(u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]));
            let (start, end) = (number(0), number(4));
            // Distances: three comparisons of numbers that lie anywhere can be true although the block is not in flight.
            let [from, to, sent] = [start, end, nxt].map(|number| number.since(ack));
            if at == 0 && start.lt(end) && end.le(ack) && ack.since(start) <= reach {
                blocks.duplicate = Some((start, end));
            } else if 0 < from && from < to && to <= sent {
                let first = blocks.list[0];
                if at == 1 && blocks.len == 1 && start.le(first.0) && first.1.le(end) {
                    // The first lies in the second: it came twice.
                    blocks.duplicate = Some(first);
                    blocks.len = 0;
                }
                blocks.list[blocks.len] = (start, end);
                blocks.len += 1;
            }
        }
        let list = &mut blocks.list[..blocks.len];
        list.sort_unstable_by_key(|(start, _)| start.since(ack));
        blocks
    }
}

impl Recovery {
    /// Takes what an acknowledgement says into the records.
    pub(crate) fn hear(&mut self, now: Instant, tcb: &Tcb, segment: &Segment<'_>, window_changed: bool) -> Heard {
        let sack = tcb.has(flag::SACK);
        let acked = segment.ack.since(tcb.snd_una);
        let is_bare = segment.payload.is_empty() && !segment.flags.has(Flags::FIN);
        let is_bare_repeat = acked == 0 && is_bare && !window_changed && (segment.sack.is_empty() || !sack);
        let mut heard = Heard {
            acked,
            repeats: is_bare_repeat && !sack && tcb.flight() > 0,
            is_bare_repeat,
            echo: tcb.echo_of(segment.timestamps),
            pipe_before: self.pipe(tcb),
            lost_before: self.rate.lost(),
            ..Heard::default()
        };
        if acked > 0 {
            self.take_acked(now, segment.ack, &mut heard);
        }
        if sack && !segment.sack.is_empty() {
            self.take_blocks(now, tcb, segment, &mut heard);
        }
        if let Some(rtt) = heard.delivery.rtt(now) {
            self.rack.measured(now, rtt);
        }
        if !sack && heard.delivery.ambiguous {
            // What arrived long ago is acknowledged with the retransmission that fills the gap: nothing else could have said so.
            heard.original = false;
        }
        self.rate.on_delivery(now, &heard.delivery);
        if heard.overtaken {
            let seldom = self.seldom();
            seldom.reordered = seldom.reordered.wrapping_add(1);
        }
        heard
    }

    /// Takes an acknowledgement of new data, which says nothing else, into the records of a calm connection, piece by piece; returns
    /// what it delivered.
    pub(crate) fn hear_pieces(&mut self, now: Instant, ack: SeqNr, echo: Option<u32>) -> Delivery {
        let mut delivery = Delivery::default();
        let Self { sent, rack, .. } = self;
        sent.take_acked(ack, |piece| {
            delivery.ambiguous |= piece.resent;
            delivery.add(piece);
            rack.arrived(now, piece, echo);
        });
        delivery
    }

    fn take_acked(&mut self, now: Instant, ack: SeqNr, heard: &mut Heard) {
        let Self { sent, rack, loss, .. } = self;
        sent.take_acked(ack, |piece| {
            if !piece.sacked {
                heard.delivery.ambiguous |= piece.resent;
                heard.original |= !piece.resent && !piece.blurred && piece.end.le(loss.recover);
                heard.delivery.add(piece);
                heard.overtaken |= rack.arrived(now, piece, heard.echo);
            }
        });
    }

    fn take_blocks(&mut self, now: Instant, tcb: &Tcb, segment: &Segment<'_>, heard: &mut Heard) {
        let blocks = Blocks::of(segment.sack, segment.ack, tcb.snd_nxt, tcb.max_window);
        heard.duplicate = blocks.duplicate;
        let Self { sent, rack, loss, .. } = self;
        for &(start, end) in &blocks.list[..blocks.len] {
            sent.take_sacked(start, end, |piece| {
                heard.original |= !piece.resent && !piece.blurred && piece.end.le(loss.recover);
                heard.delivery.add(piece);
                heard.delivery.sacked = heard.delivery.sacked.saturating_add(piece.len());
                // Out of order, the peer echoes what came before the gap (RFC 7323, section 4.3).
                heard.overtaken |= rack.arrived(now, piece, None);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Edges = (u32, u32);

    fn blocks(list: &[Edges]) -> (Option<Edges>, Vec<Edges>) {
        let option: Vec<u8> = list.iter().flat_map(|(s, e)| [s.to_be_bytes(), e.to_be_bytes()]).flatten().collect();
        let found = Blocks::of(&option, SeqNr(1000), SeqNr(9000), 5000);
        let plain = |(start, end): (SeqNr, SeqNr)| (start.0, end.0);
        (found.duplicate.map(plain), found.list[..found.len].iter().copied().map(plain).collect())
    }

    #[test]
    fn blocks_come_in_order_without_nonsense() {
        assert_eq!(blocks(&[(5000, 6000), (2000, 3000)]), (None, vec![(2000, 3000), (5000, 6000)]));
        assert_eq!(blocks(&[(1000, 2000), (8000, 9001), (4000, 3000)]), (None, vec![]));
        assert_eq!(blocks(&[(2000, 3000), (500, 900)]), (None, vec![(2000, 3000)]));
    }

    #[test]
    fn duplicates_are_told_apart() {
        assert_eq!(blocks(&[(500, 900), (2000, 3000)]), (Some((500, 900)), vec![(2000, 3000)]));
        assert_eq!(blocks(&[(2500, 2600), (2000, 3000)]), (Some((2500, 2600)), vec![(2000, 3000)]));
        assert_eq!(blocks(&[(2000, 3000), (2000, 3000)]), (Some((2000, 3000)), vec![(2000, 3000)]));
        assert_eq!(blocks(&[(u32::MAX - 9000, 900)]), (None, vec![]), "too long ago");
    }
}
