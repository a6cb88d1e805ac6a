//! Headers of ordinary IPv4 segments of one size that leave one after the other: written and summed once, and what differs put in.
#![deny(unsafe_code)]

use super::flow::{FlowKey, PROTO_TCP};
use super::output::{self, V4};
use super::path::Path;
use crate::tcp::{Flags, PlainOut, SeqNr};
use crate::wire::checksum::Sum;
use crate::wire::{ethernet, ipv4, tcp};

/// The longest headers: with timestamps.
const MOST: usize = V4 + tcp::HEADER_LEN + tcp::TIMESTAMPS_LEN;
/// Where the fields lie that differ, and the length.
const TOTAL_LEN: usize = 16;
const IP_ID: usize = 18;
const IP_CHECKSUM: usize = 24;
const SEQ: usize = 38;
const FLAGS: usize = 47;
const TCP_CHECKSUM: usize = 50;

/// The headers of all of them.
#[derive(Debug)]
pub struct Template {
    /// Those of a segment with sequence number and IP identification 0.
    head: [u8; MOST],
    /// How long they are.
    len: usize,
    /// Bytes of data in each segment.
    data_len: usize,
    /// The sum of the IP header, folded, and that of the TCP header with its pseudo-header.
    ip: u16,
    tcp: Sum,
}

impl Template {
    /// Is there one for segments of a flow with so many bytes of data each, and do they fit into frames of this size?
    pub fn fits(flow: &FlowKey, data_len: usize, frame_size: usize) -> bool {
        flow.both_v4().is_some() && data_len <= (frame_size.min(usize::from(u16::MAX))).saturating_sub(MOST)
    }

    /// For segments like this one. `None` if the flow is not one of IPv4, or the packet would be too long.
    pub fn new(path: &Path, flow: &FlowKey, like: &PlainOut) -> Option<Self> {
        let (source, destination) = flow.both_v4()?;
        let mut head = [0; MOST];
        let first = PlainOut { seq: SeqNr(0), len: 0, ..*like };
        let len = output::build_plain(&mut head, path, flow, &first, &[], 0)?;
        let data_len = like.len as usize;
        let total_len = u16::try_from(len - ethernet::HEADER_LEN + data_len).ok()?;
        head[TOTAL_LEN..TOTAL_LEN + 2].copy_from_slice(&total_len.to_be_bytes());
        head[IP_CHECKSUM..IP_CHECKSUM + 2].fill(0);
        head[TCP_CHECKSUM..TCP_CHECKSUM + 2].fill(0);
        let (ip, rest) = head[ethernet::HEADER_LEN..len].split_at(ipv4::HEADER_LEN);
        let tcp_len = u16::try_from(rest.len() + data_len).ok()?;
        let pseudo = Sum::default().plus_word(source).plus_word(destination).plus_upper(PROTO_TCP, tcp_len);
        let (ip, tcp) = (u16::from_ne_bytes(Sum::default().plus(ip).partial()), pseudo.plus(rest));
        Some(Self { head, len, data_len, ip, tcp })
    }

    /// Writes the frame of a segment like that of [`Template::new`], apart from its sequence number and PSH; returns its length. 0, and nothing of
    /// use written: it does not fit, or the data has another length.
    #[inline(always)]
    pub fn write(&self, frame: &mut [u8], segment: &PlainOut, data: &[u8], ip_id: u16) -> usize {
        let Some((head, _)) = frame.split_first_chunk_mut::<MOST>() else { return 0 };
        // All of it, which takes no loop; data follows where it ends.
        *head = self.head;
        let id = ip_id.to_be_bytes();
        let (sum, carry) = self.ip.overflowing_add(u16::from_ne_bytes(id));
        let sum = sum + u16::from(carry);
        head[IP_ID..IP_ID + 2].copy_from_slice(&id);
        head[IP_CHECKSUM..IP_CHECKSUM + 2].copy_from_slice(&(!sum).to_ne_bytes());
        let seq = segment.seq.0.to_be_bytes();
        head[SEQ..SEQ + 4].copy_from_slice(&seq);
        let pushes = segment.flags.0 & Flags::PSH.0;
        head[FLAGS] |= pushes;
        let end = self.len + self.data_len;
        let Some(place) = frame.get_mut(self.len..end).filter(|place| place.len() == data.len()) else { return 0 };
        let sum = self.tcp.plus_word(seq).plus_word([0, pushes, 0, 0]).plus_copied(place, data);
        frame[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&sum.checksum());
        end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tcp::segment::Timestamps;
    use crate::testkit::crowd::flow;

    proptest! {
        /// The frames are those that are built one by one.
        #[test]
        fn each_frame_is_as_built_alone(
            data in proptest::collection::vec(any::<u8>(), 12..1461),
            numbers: (u32, u32, u16, u16),
            tos: u8,
            timestamps: Option<(u32, u32)>,
        ) {
            let (seq, ack, window, id) = numbers;
            let path = Path { dst_mac: [2, 0, 0, 0, 0, 2], src_mac: [2, 9, 8, 7, 6, 1], mtu: 1500, ttl: 63, tos, ..Path::default() };
            let timestamps = timestamps.map(|(val, ecr)| Timestamps { val, ecr });
            let len = data.len() as u32;
            let first = PlainOut { seq: SeqNr(seq), ack: SeqNr(ack), flags: Flags::ACK, window, len, timestamps };
            let template = Template::new(&path, &flow(7), &first).unwrap();
            for (number, flags) in [(0, Flags::ACK), (1, Flags::ACK), (9, Flags::ACK.with(Flags::PSH))] {
                let segment = PlainOut { seq: first.seq.plus(number * len), flags, ..first };
                let (mut quick, mut alone) = ([0xa5; 2048], [0xa5; 2048]);
                let id = id.wrapping_add(number as u16);
                let written = template.write(&mut quick, &segment, &data, id);
                prop_assert_eq!(output::build_plain(&mut alone, &path, &flow(7), &segment, &data, id), Some(written));
                prop_assert_eq!(&quick[..], &alone[..]);
            }
        }
    }

    #[test]
    fn what_is_not_ipv4_or_does_not_fit_has_none() {
        let path = Path::default();
        let segment =
            PlainOut { seq: SeqNr(1), ack: SeqNr(2), flags: Flags::ACK, window: 3, len: 1000, timestamps: None };
        let v6 = FlowKey::tcp("[fd00::1]:80".parse().unwrap(), "[fd00::2]:90".parse().unwrap());
        assert!(Template::new(&path, &v6, &segment).is_none());
        assert!(Template::new(&path, &flow(0), &PlainOut { len: 65_500, ..segment }).is_none());
        let template = Template::new(&path, &flow(0), &segment).unwrap();
        assert_eq!(template.write(&mut [0; 1054], &segment, &[0; 1000], 0), 1054);
        assert_eq!(template.write(&mut [0; 1053], &segment, &[0; 1000], 0), 0, "the frame is too short");
        assert_eq!(template.write(&mut [0; 1054], &segment, &[0; 999], 0), 0, "the data is not as long as it says");
        assert_eq!(template.write(&mut [0; 50], &segment, &[], 0), 0);
    }
}
