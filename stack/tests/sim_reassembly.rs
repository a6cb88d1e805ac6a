//! Pieces of a stream in any order, overlapping, again and again: what can be read is the stream.

use proptest::prelude::*;
use underpass_stack::tcp::{Codepoint, Flags, Segment, SeqNr, State};
use underpass_stack::testkit::{A, LinkSpec, Pair, Setup};

const LEN: u32 = 3000;

fn byte(at: u32) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 24) as u8
}

/// Gives A the bytes `[at, at + len)` of the stream, with FIN if they reach its end.
fn give(pair: &mut Pair, start: SeqNr, at: u32, len: u32) {
    let end = (at + len).min(LEN);
    let data: Vec<u8> = (at..end).map(byte).collect();
    let flags = if end == LEN { Flags::ACK.with(Flags::FIN) } else { Flags::ACK };
    let ack = SeqNr(pair.hosts[A].export(pair.now).0.snd_nxt);
    let segment = Segment {
        seq: start.plus(at),
        ack,
        flags,
        window: 512,
        ecn: Codepoint::NotEct,
        timestamps: None,
        sack: &[],
        payload: &data,
    };
    let now = pair.now;
    pair.hosts[A].connection().on_segment(now, &segment);
    while pair.hosts[A].frame_out(now).is_some() {}
}

proptest! {
    #[test]
    fn any_order_gives_the_stream(
        isn: u32,
        pieces in proptest::collection::vec((0..LEN, 1u32..400, 0usize..100), 1..80),
    ) {
        let mut pair = Pair::new(&Setup { isn: [5, isn], ..Setup::default() }, LinkSpec::default(), 1);
        let start = SeqNr(isn);
        let mut got = Vec::new();
        let mut model = vec![false; LEN as usize];
        for (at, len, read) in pieces {
            give(&mut pair, start, at, len);
            model[at as usize..(at + len).min(LEN) as usize].fill(true);
            let complete = model.iter().take_while(|have| **have).count();
            prop_assert!(got.len() + pair.hosts[A].tcb.readable() <= complete, "no byte that did not come");
            let mut out = vec![0; read];
            let len = pair.hosts[A].connection().recv(&mut out);
            got.extend_from_slice(&out[..len]);
        }
        // Whatever did not find a place before comes again now.
        for at in (0..LEN).step_by(100) {
            give(&mut pair, start, at, 100);
        }
        let mut out = vec![0; LEN as usize];
        let len = pair.hosts[A].connection().recv(&mut out);
        got.extend_from_slice(&out[..len]);
        prop_assert_eq!(got.len(), LEN as usize);
        prop_assert!((0..LEN).all(|at| got[at as usize] == byte(at)));
        prop_assert!(pair.hosts[A].tcb.at_eof());
        prop_assert_eq!(pair.hosts[A].tcb.state(), State::CloseWait);
    }
}
