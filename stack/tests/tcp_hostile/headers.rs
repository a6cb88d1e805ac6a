//! Any bytes as options of a segment, and as a frame.

use underpass_stack::ip::flow::FlowKey;
use underpass_stack::ip::input::parse;
use underpass_stack::tcp::segment::SackBlocks;
use underpass_stack::tcp::{Codepoint, SeqNr};
use underpass_stack::testkit::{A, Setup};
use underpass_stack::wire::tcp::{self, options_len, parse_options, write_options};

use super::forge::{Forged, has_partial_checksum, is_covered};
use super::input::Input;

/// Longest frame that is read.
const FRAME_MAX: usize = 1514;
/// Frames are IPv6 with this bit in the first byte.
const V6: u8 = 4;

/// One input: its first byte says what it is. Returns 1, the number of steps.
pub fn play(input: &[u8]) -> u64 {
    let Some((&kind, rest)) = input.split_first() else { return 0 };
    match kind % 4 {
        0 => options(rest),
        1 => any_frame(rest),
        2 => good_frame(rest, kind & V6 != 0),
        _ => almost_good_frame(rest, kind & V6 != 0),
    }
    1
}

/// What is read of options that can be read, written again, is read as the same.
fn options(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(tcp::OPTIONS_MAX)];
    let options = parse_options(bytes);
    let mut blocks = SackBlocks::default();
    assert!(options.sack.len() % 8 == 0 && options.sack.len() <= bytes.len());
    for block in options.sack.chunks_exact(8) {
        let number = |at: usize| SeqNr(u32::from_be_bytes(std::array::from_fn(|i| block[at + i])));
        assert!(blocks.push(number(0), number(4)), "more blocks than a header holds");
    }
    let mut out = vec![0; options_len(options.timestamps.is_some(), &blocks)];
    // Ours are padded: four blocks and timestamps were unpadded in theirs.
    write_options(&mut out, options.timestamps, &blocks);
    assert_eq!(parse_options(&out), options);
}

/// Whatever is taken for a segment lies within the frame.
fn any_frame(bytes: &[u8]) {
    let Ok(incoming) = parse(bytes, FRAME_MAX) else { return };
    let segment = incoming.segment;
    let inside = |part: &[u8]| part.is_empty() || bytes.as_ptr_range().contains(&part.as_ptr());
    assert!(inside(segment.payload) && inside(segment.sack) && bytes.len() <= FRAME_MAX);
    assert!(segment.payload.len() + segment.sack.len() + 40 <= bytes.len());
}

/// A frame says what was put into it.
fn good_frame(bytes: &[u8], v6: bool) {
    let (forged, flow) = forged(&mut Input(bytes), v6);
    let frame = forged.frame(&flow);
    let Ok(incoming) = parse(&frame, FRAME_MAX) else {
        assert!(!forged.options.is_empty(), "{forged:?}");
        return;
    };
    let segment = incoming.segment;
    assert_eq!(incoming.flow, flow);
    assert_eq!((segment.seq.0, segment.ack.0, segment.window), (forged.seq, forged.ack, forged.window));
    assert_eq!((segment.flags.0, segment.payload), (forged.flags, &forged.payload[..]));
    assert_eq!(segment.ecn, Codepoint::of(forged.tos));
    if forged.options.is_empty() {
        assert_eq!(segment.timestamps.map(|ts| (ts.val, ts.ecr)), forged.timestamps);
    }
}

/// A frame of which one bit was changed behind the Ethernet header says nothing.
fn almost_good_frame(bytes: &[u8], v6: bool) {
    let mut input = Input(bytes);
    let (at, bit) = (input.word() as usize, input.byte() % 8);
    let (forged, flow) = forged(&mut input, v6);
    let mut frame = forged.frame(&flow);
    let at = 14 + at % (frame.len() - 14);
    frame[at] ^= 1 << bit;
    if has_partial_checksum(&frame, &flow) || !is_covered(&flow, at) {
        return;
    }
    assert!(parse(&frame, FRAME_MAX).is_err(), "bit {bit} of byte {at} does not matter: {forged:?}");
}

fn forged(input: &mut Input<'_>, v6: bool) -> (Forged, FlowKey) {
    let flow = Setup { v6, ..Setup::default() }.image(A).flow;
    let [seq, ack] = [0; 2].map(|_: u32| input.word() as u32);
    let flags = input.byte();
    let timestamps = (input.byte() % 2 == 0).then(|| (input.word() as u32, input.word() as u32));
    let sack: Vec<(u32, u32)> = (0..input.byte() % 4).map(|_| (input.word() as u32, input.word() as u32)).collect();
    let room = 40 - timestamps.map_or(0, |_| 12) - if sack.is_empty() { 0 } else { 4 + 8 * sack.len() };
    let options: Vec<u8> = (0..usize::from(input.byte()) % (room + 1)).map(|_| input.byte()).collect();
    let (window, tos) = (input.word() as u16, input.byte());
    let payload = input.0[..input.0.len().min(1400)].to_vec();
    (Forged { seq, ack, flags, window, urgent: 0, tos, timestamps, sack, options, payload }, flow)
}
