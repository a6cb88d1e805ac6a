//! The TCP header and its options (RFC 9293, section 3.1; RFC 7323; RFC 2018).

use std::ops::Range;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::tcp::segment::{SackBlocks, Timestamps};

/// Bytes of the header without options.
pub const HEADER_LEN: usize = size_of::<Header>();
/// Bytes of a timestamps option with its padding.
pub const TIMESTAMPS_LEN: usize = 12;
/// Bytes of options at most.
pub const OPTIONS_MAX: usize = 40;

const END: u8 = 0;
/// An option of one byte that says nothing.
pub const NOP: u8 = 1;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
/// What nearly every segment carries: two NOPs and a timestamps option.
const USUAL: [u8; 4] = [NOP, NOP, TIMESTAMPS, 10];

/// The header without options.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
pub struct Header {
    /// Source port.
    pub source: [u8; 2],
    /// Destination port.
    pub destination: [u8; 2],
    /// Sequence number.
    pub seq: U32,
    /// Acknowledgement number.
    pub ack: U32,
    /// Header length in words, in the upper half.
    pub offset: u8,
    /// Control bits.
    pub flags: u8,
    /// Window.
    pub window: U16,
    /// Checksum.
    pub checksum: [u8; 2],
    /// Urgent pointer.
    pub urgent: U16,
}

impl Header {
    /// Bytes of the header as it claims, options included.
    pub fn header_len(&self) -> usize {
        usize::from(self.offset >> 4) * 4
    }
}

/// The options of an established connection's segments; all others are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options<'a> {
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// Blocks of a SACK option, 8 bytes each.
    pub sack: &'a [u8],
}

/// Reads the options; what follows a malformed one is passed over.
#[inline(always)]
pub fn parse_options(bytes: &[u8]) -> Options<'_> {
    usual_options(bytes).unwrap_or_else(|| read_options(bytes))
}

/// The same of none, or of a timestamps option with its padding; `None` for all others.
#[inline(always)]
pub fn usual_options(bytes: &[u8]) -> Option<Options<'_>> {
    if bytes.is_empty() {
        return Some(Options::default());
    }
    let &[a, b, c, d, ref body @ ..] = <&[u8; TIMESTAMPS_LEN]>::try_from(bytes).ok()?;
    ([a, b, c, d] == USUAL).then(|| Options { timestamps: timestamps(body), sack: &[] })
}

/// The options before one that runs past the header or claims an impossible length: as in Linux, the segment is one all the same.
fn read_options(mut bytes: &[u8]) -> Options<'_> {
    let mut options = Options::default();
    while let [kind, rest @ ..] = bytes {
        match *kind {
            END => break,
            NOP => bytes = rest,
            kind => {
                let len = rest.first().map_or(0, |&len| usize::from(len));
                let Some(body) = bytes.get(2..len) else { break };
                match kind {
                    TIMESTAMPS if len == 10 => options.timestamps = timestamps(body),
                    SACK if !body.is_empty() && body.len() % 8 == 0 => options.sack = body,
                    _ => (),
                }
                bytes = &bytes[len..];
            }
        }
    }
    options
}

/// Where in the options a timestamps option lies. `None` also if they are malformed before it.
pub fn find_timestamps(options: &[u8]) -> Option<Range<usize>> {
    let mut at = 0;
    loop {
        match *options.get(at..)? {
            [NOP, ..] => at += 1,
            [END, ..] | [] | [_] => return None,
            [TIMESTAMPS, 10, ..] => return (at + 10 <= options.len()).then_some(at..at + 10),
            [_, len, ..] => at += usize::from(len.max(2)),
        }
    }
}

fn timestamps(body: &[u8]) -> Option<Timestamps> {
    let &[a, b, c, d, e, f, g, h] = body else { return None };
    Some(Timestamps { val: u32::from_be_bytes([a, b, c, d]), ecr: u32::from_be_bytes([e, f, g, h]) })
}

/// Bytes that the options of an outgoing segment take.
#[inline]
pub fn options_len(timestamps: bool, sack: &SackBlocks) -> usize {
    let blocks = sack.as_slice().len();
    usize::from(timestamps) * TIMESTAMPS_LEN + if blocks == 0 { 0 } else { 4 + 8 * blocks }
}

/// Writes the options into `out`, which is [`options_len`] bytes long.
pub fn write_options(out: &mut [u8], timestamps: Option<Timestamps>, sack: &SackBlocks) {
    let (first, second) = out.split_at_mut(if timestamps.is_some() { TIMESTAMPS_LEN.min(out.len()) } else { 0 });
    if let (Some(ts), Ok(place)) = (timestamps, <&mut [u8; TIMESTAMPS_LEN]>::try_from(first)) {
        write_timestamps(place, ts);
    }
    write_sack(second, sack);
}

/// Writes a timestamps option and its padding.
#[inline]
pub fn write_timestamps(place: &mut [u8; TIMESTAMPS_LEN], timestamps: Timestamps) {
    place[..4].copy_from_slice(&USUAL);
    place[4..8].copy_from_slice(&timestamps.val.to_be_bytes());
    place[8..].copy_from_slice(&timestamps.ecr.to_be_bytes());
}

fn write_sack(out: &mut [u8], sack: &SackBlocks) {
    let blocks = sack.as_slice();
    let Some((head, body)) = out.split_at_mut_checked(4) else { return };
    head.copy_from_slice(&[NOP, NOP, SACK, 2 + 8 * blocks.len() as u8]);
    for (place, (start, end)) in body.chunks_exact_mut(8).zip(blocks) {
        place[..4].copy_from_slice(&start.0.to_be_bytes());
        place[4..].copy_from_slice(&end.0.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::SeqNr;
    use proptest::prelude::*;

    #[test]
    fn options_that_run_past_the_header_end_the_list() {
        for bad in [&[TIMESTAMPS][..], &[TIMESTAMPS, 10, 0], &[3, 0, 0, 0], &[3, 1, 0, 0], &[NOP, NOP, 254, 9, 1]] {
            assert_eq!(parse_options(bad), Options::default(), "{bad:?}");
            let known = [&[NOP, NOP, TIMESTAMPS, 10, 0, 0, 0, 1, 0, 0, 0, 2][..], bad].concat();
            let timestamps = Some(Timestamps { val: 1, ecr: 2 });
            assert_eq!(parse_options(&known), Options { timestamps, sack: &[] }, "{bad:?}");
        }
        for good in [&[][..], &[END, 77, 255], &[NOP, NOP, NOP], &[254, 2], &[TIMESTAMPS, 3, 9]] {
            assert_eq!(parse_options(good), Options::default(), "{good:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..41)) {
            prop_assert_eq!(parse_options(&bytes).sack.len() % 8, 0);
        }

        #[test]
        fn what_is_written_is_read(ts: Option<(u32, u32)>, blocks in proptest::collection::vec(any::<(u32, u32)>(), 0..4)) {
            let timestamps = ts.map(|(val, ecr)| Timestamps { val, ecr });
            let mut sack = SackBlocks::default();
            for (start, end) in &blocks {
                prop_assert!(sack.push(SeqNr(*start), SeqNr(*end)));
            }
            let mut out = vec![0xaa; options_len(timestamps.is_some(), &sack)];
            prop_assert!(out.len() <= OPTIONS_MAX && out.len() % 4 == 0);
            write_options(&mut out, timestamps, &sack);
            let options = parse_options(&out);
            prop_assert_eq!(options.timestamps, timestamps);
            let wire: Vec<u8> = blocks.iter().flat_map(|(s, e)| [s.to_be_bytes(), e.to_be_bytes()].concat()).collect();
            prop_assert_eq!(options.sack, &wire[..]);
        }
    }
}
