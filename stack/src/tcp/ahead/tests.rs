use proptest::prelude::*;
use zerocopy::FromBytes;

use super::*;

/// Pieces one byte long, two apart, fill it.
const SPAN: u32 = 3 * MAX_PIECES as u32;

#[derive(Default)]
struct Both {
    near: Ranges,
    far: Option<Box<Rare>>,
}

impl Both {
    fn ahead(&mut self) -> Ahead<'_> {
        Ahead { near: &mut self.near, far: &mut self.far }
    }

    fn all(&self) -> Vec<Range> {
        let far = self.far.iter().flat_map(|far| far.beyond.0.iter());
        self.near.as_slice().iter().chain(far).copied().collect()
    }
}

/// Piece `n`, touching no other.
fn piece(n: u32) -> Range {
    let start = SeqNr(u32::MAX - 1000).plus(3 * n);
    Range { start, end: start.plus(1) }
}

#[test]
fn as_many_as_allowed_are_kept_and_no_more() {
    const MOST: u32 = MAX_PIECES as u32;
    // From below, from above, every other one first.
    let orders: [fn(u32) -> u32; 3] = [|n| n, |n| MOST - n, |n| n * 2 % MOST + n / (MOST / 2)];
    for order in orders {
        let mut both = Both::default();
        for Range { start, end } in (0..MOST).map(|n| piece(order(n))) {
            assert_eq!(both.ahead().insert(start, end), Some(Range { start, end }));
        }
        let all = both.all();
        assert_eq!(all.len(), MAX_PIECES);
        let bottom = Range { start: piece(0).start.minus(5), end: piece(0).start.minus(4) };
        for Range { start, end } in [bottom, piece(MOST + 1)] {
            assert_eq!(both.ahead().insert(start, end), None);
        }
        assert_eq!(both.all(), all);
        // What touches a piece is none of its own: here, one between two.
        let (from, to) = (piece(order(5)).end, piece(order(5)).start.plus(3));
        assert!(both.ahead().insert(from, to).is_some_and(|whole| whole.end.since(whole.start) == 4));
        assert_eq!(both.all().len(), MAX_PIECES - 1);
    }
}

#[test]
fn memory_for_many_pieces_is_given_back() {
    for (pieces, kept) in [(KEPT, true), (MAX_BEYOND, false)] {
        let mut both = Both::default();
        for Range { start, end } in (0..(MAX_RANGES + pieces) as u32).map(piece) {
            both.ahead().insert(start, end);
        }
        assert_eq!(both.far.as_ref().map(|far| far.beyond.0.len()), Some(pieces));
        both.ahead().trim(piece(MAX_PIECES as u32).start);
        assert_eq!(
            (both.all().len(), both.far.is_some_and(|far| far.beyond.0.capacity() != 0)),
            (0, kept),
            "{pieces} pieces"
        );
    }
}

proptest! {
    #[test]
    fn behaves_like_a_set_of_bytes(
        base: u32,
        steps in proptest::collection::vec((0u8..60, 0..SPAN, 1u32..6), 1..1500),
    ) {
        let base = SeqNr(base);
        let mut both = Both::default();
        let mut model = vec![false; SPAN as usize + 8];
        for (step, at, len) in steps {
            let (start, end) = (at, at + len);
            if step == 0 {
                let from = start / 8;
                both.ahead().trim(base.plus(from));
                model[..from as usize].fill(false);
            } else {
                let whole = both.ahead().insert(base.plus(start), base.plus(end));
                match whole {
                    Some(whole) => {
                        model[start as usize..end as usize].fill(true);
                        prop_assert!(whole.start.le(base.plus(start)) && whole.end.ge(base.plus(end)));
                        let (low, high) = (whole.start.since(base) as usize, whole.end.since(base) as usize);
                        prop_assert!(model[low..high].iter().all(|held| *held));
                    }
                    None => prop_assert_eq!(both.all().len(), MAX_PIECES),
                }
            }
            let gap = (start..end).find(|&i| !model[i as usize]);
            prop_assert_eq!(both.ahead().gap(base.plus(start), base.plus(end)).map(|g| g.start.since(base)), gap);
            prop_assert_eq!(both.ahead().holding(base.plus(at)).is_some(), model[at as usize]);
        }
        let all = both.all();
        prop_assert!(all.windows(2).all(|w| w[0].end.lt(w[1].start)), "apart and in order");
        let held: u32 = all.iter().map(|range| range.end.since(range.start)).sum();
        prop_assert_eq!(held as usize, model.iter().filter(|held| **held).count());
        prop_assert!(both.near.is_full() || both.far.is_none_or(|far| far.beyond.0.is_empty()));
    }

    /// The record's part lies in the arena, where anybody may scribble between two steps.
    #[test]
    fn survives_any_record(
        bytes in proptest::collection::vec(any::<u8>(), size_of::<Ranges>()),
        len in prop_oneof![0u32..30, any::<u32>()],
        steps in proptest::collection::vec((0u8..4, any::<u32>(), 1u32..100_000), 1..200),
    ) {
        let mut both = Both::default();
        for at in 0..MAX_PIECES as u32 / 2 {
            both.ahead().insert(SeqNr(10 * at), SeqNr(10 * at + 1));
        }
        let mut bytes = bytes;
        let len_at = bytes.len() - 8;
        bytes[len_at..len_at + 4].copy_from_slice(&len.to_ne_bytes());
        both.near = Ranges::read_from_bytes(&bytes).unwrap();
        for (step, at, len) in steps {
            let (start, end) = (SeqNr(at), SeqNr(at).plus(len));
            match step {
                0 => both.ahead().trim(start),
                1 => { both.ahead().gap(start, end); }
                2 => { both.ahead().holding(start); }
                _ => { both.ahead().insert(start, end); }
            }
        }
        prop_assert!(both.all().len() <= MAX_PIECES);
    }
}
