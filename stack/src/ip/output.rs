//! Frames out: headers around a segment's data.
#![deny(unsafe_code)]

use super::flow::{FlowKey, PROTO_TCP};
use super::path::Path;
use crate::tcp::image::{Image, flag};
use crate::tcp::segment::{SackBlocks, Timestamps};
use crate::tcp::{Codepoint, Flags, Kind, PlainOut, SegmentOut, SeqNr};
use crate::wire::checksum::Sum;
use crate::wire::{ethernet, ipv4, ipv6, tcp};

/// What of the TOS byte is the program's to choose: the rest is the ECN field (RFC 3168).
const DSCP: u8 = 0xfc;
/// Bytes of Ethernet and IP headers.
pub(super) const V4: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;
const V6: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;

/// Writes Ethernet, IP and TCP headers and the data into `frame`; returns the frame's length, or `None` if it does
/// not fit, the data is not as long as the segment says, or only one of the flow's addresses is IPv4.
pub fn build(
    frame: &mut [u8],
    path: &Path,
    flow: &FlowKey,
    segment: &SegmentOut,
    payload: (&[u8], &[u8]),
    ip_id: u16,
) -> Option<usize> {
    let data_len = payload.0.len() + payload.1.len();
    if data_len != segment.len as usize {
        return None;
    }
    let options_len = tcp::options_len(segment.timestamps.is_some(), &segment.sack);
    let tcp_len = tcp::HEADER_LEN + options_len + data_len;
    let tos = path.tos & DSCP | segment.ecn as u8;
    let (packet, before) = match (flow.local.as_v4(), flow.remote.as_v4()) {
        (Some(source), Some(destination)) => {
            let (place, packet) = frame.split_first_chunk_mut::<V4>()?;
            let (ether, ip) = place.split_at_mut(ethernet::HEADER_LEN);
            ether.copy_from_slice(&ether_header(path, ethernet::IPV4));
            let total_len = u16::try_from(ipv4::HEADER_LEN + tcp_len).ok()?;
            ip.copy_from_slice(&v4_header(path, (source, destination), tos, total_len, ip_id));
            (packet, V4)
        }
        (None, None) => {
            let (place, packet) = frame.split_first_chunk_mut::<V6>()?;
            let (ether, ip) = place.split_at_mut(ethernet::HEADER_LEN);
            ether.copy_from_slice(&ether_header(path, ethernet::IPV6));
            ip.copy_from_slice(&v6_header(path, flow, tos, u16::try_from(tcp_len).ok()?));
            (packet, V6)
        }
        _ => return None,
    };
    let pseudo = Sum::pseudo(&flow.local, &flow.remote, PROTO_TCP, u16::try_from(tcp_len).ok()?);
    write_tcp(packet.get_mut(..tcp_len)?, flow, segment, options_len, payload, pseudo)?;
    Some(before + tcp_len)
}

/// The same for ordinary segments over IPv4 whose data lies in one piece; `None` as well if the flow is another one.
///
/// Each field is written to its place as it is known, in whole words, and summed as it is written.
#[inline(always)]
pub fn build_plain(
    frame: &mut [u8],
    path: &Path,
    flow: &FlowKey,
    segment: &PlainOut,
    payload: &[u8],
    ip_id: u16,
) -> Option<usize> {
    match segment.timestamps {
        None => build_beside(frame, path, flow, segment, [], payload, ip_id),
        Some(timestamps) => {
            let mut options = [0; tcp::TIMESTAMPS_LEN];
            tcp::write_timestamps(&mut options, timestamps);
            build_beside(frame, path, flow, segment, options, payload, ip_id)
        }
    }
}

/// The same beside options of a known length.
#[inline(always)]
fn build_beside<const N: usize>(
    frame: &mut [u8],
    path: &Path,
    flow: &FlowKey,
    segment: &PlainOut,
    beside: [u8; N],
    payload: &[u8],
    ip_id: u16,
) -> Option<usize> {
    let (source, destination) = flow.both_v4()?;
    let tcp_len = tcp::HEADER_LEN + N + segment.len as usize;
    let total_len = u16::try_from(ipv4::HEADER_LEN + tcp_len).ok()?;
    let packet = frame.get_mut(..V4 + tcp_len)?;
    let (head, rest) = packet.split_first_chunk_mut::<{ V4 + tcp::HEADER_LEN }>()?;
    let (options, data) = rest.split_first_chunk_mut::<N>()?;

    head[..6].copy_from_slice(&path.dst_mac);
    head[6..12].copy_from_slice(&path.src_mac);
    head[12..14].copy_from_slice(&ethernet::IPV4.to_be_bytes());

    let word = |high: u16, low: u16| (u32::from(high) << 16 | u32::from(low)).to_be_bytes();
    let halves = |high: u8, low: u8| u16::from(high) << 8 | u16::from(low);
    let first = word(halves(ipv4::VERSION_IHL, path.tos & DSCP), total_len);
    let second = word(ip_id, ipv4::DF);
    let addresses = Sum::default().plus_word(source).plus_word(destination);
    let sum = addresses.plus_word(first).plus_word(second).plus_word([path.ttl, PROTO_TCP, 0, 0]);
    head[14..18].copy_from_slice(&first);
    head[18..22].copy_from_slice(&second);
    head[22..24].copy_from_slice(&[path.ttl, PROTO_TCP]);
    head[24..26].copy_from_slice(&sum.checksum());
    head[26..30].copy_from_slice(&source);
    head[30..34].copy_from_slice(&destination);

    let ports = flow.ports();
    let (seq, ack) = (segment.seq.0.to_be_bytes(), segment.ack.0.to_be_bytes());
    let offset = ((tcp::HEADER_LEN + N) as u8 / 4) << 4;
    let control = word(halves(offset, segment.flags.0), segment.window);
    head[34..38].copy_from_slice(&ports);
    head[38..42].copy_from_slice(&seq);
    head[42..46].copy_from_slice(&ack);
    head[46..50].copy_from_slice(&control);
    let mut sum = addresses.plus_upper(PROTO_TCP, tcp_len as u16);
    sum = sum.plus_word(ports).plus_word(seq).plus_word(ack).plus_word(control);
    *options = beside;
    sum = sum.plus_header(&beside);
    if payload.len() != data.len() {
        return None;
    }
    if !data.is_empty() {
        sum = sum.plus_copied(data, payload);
    }
    head[50..54].copy_from_slice(&word(u16::from_be_bytes(sum.checksum()), 0));
    Some(V4 + tcp_len)
}

#[inline(always)]
fn ether_header(path: &Path, ethertype: u16) -> [u8; ethernet::HEADER_LEN] {
    let header = ethernet::Header { destination: path.dst_mac, source: path.src_mac, ethertype: ethertype.into() };
    zerocopy::transmute!(header)
}

#[inline(always)]
fn v4_header(
    path: &Path,
    (source, destination): ([u8; 4], [u8; 4]),
    tos: u8,
    total_len: u16,
    id: u16,
) -> [u8; ipv4::HEADER_LEN] {
    let mut ip = ipv4::Header {
        version_ihl: ipv4::VERSION_IHL,
        tos,
        total_len: total_len.into(),
        id: id.into(),
        fragment: ipv4::DF.into(),
        ttl: path.ttl,
        proto: PROTO_TCP,
        checksum: [0; 2],
        source,
        destination,
    };
    let bytes: [u8; ipv4::HEADER_LEN] = zerocopy::transmute!(ip);
    ip.checksum = Sum::default().plus_header(&bytes).checksum();
    zerocopy::transmute!(ip)
}

fn v6_header(path: &Path, flow: &FlowKey, traffic_class: u8, payload_len: u16) -> [u8; ipv6::HEADER_LEN] {
    let header = ipv6::Header {
        start: ipv6::Header::start(traffic_class, path.flow_label),
        payload_len: payload_len.into(),
        next_header: PROTO_TCP,
        hop_limit: path.ttl,
        source: flow.local.0,
        destination: flow.remote.0,
    };
    zerocopy::transmute!(header)
}

/// Writes the TCP header, the options and the data, which fill `packet`; `pseudo` is the sum of its pseudo-header.
#[inline(always)]
fn write_tcp(
    packet: &mut [u8],
    flow: &FlowKey,
    segment: &SegmentOut,
    options_len: usize,
    payload: (&[u8], &[u8]),
    pseudo: Sum,
) -> Option<()> {
    let (place, rest) = packet.split_first_chunk_mut::<{ tcp::HEADER_LEN }>()?;
    let (options, data) = rest.split_at_mut_checked(options_len)?;
    let mut header = tcp::Header {
        source: flow.local_port,
        destination: flow.remote_port,
        seq: segment.seq.0.into(),
        ack: segment.ack.0.into(),
        offset: ((tcp::HEADER_LEN + options_len) as u8 / 4) << 4,
        flags: segment.flags.0,
        window: segment.window.into(),
        checksum: [0; 2],
        urgent: 0.into(),
    };
    let bytes: [u8; tcp::HEADER_LEN] = zerocopy::transmute!(header);
    let mut sum = pseudo.plus_header(&bytes);
    if options_len != 0 {
        tcp::write_options(options, segment.timestamps, &segment.sack);
        sum = sum.plus(options);
    }
    if !data.is_empty() {
        sum = copy_data(data, payload, sum)?;
    }
    header.checksum = sum.checksum();
    *place = zerocopy::transmute!(header);
    Some(())
}

/// Copies the two pieces of a segment's data, adding them to a sum.
#[inline(always)]
fn copy_data(place: &mut [u8], (one, two): (&[u8], &[u8]), sum: Sum) -> Option<Sum> {
    if two.is_empty() {
        return (place.len() == one.len()).then(|| sum.plus_copied(place, one));
    }
    let (first, second) = place.split_at_mut_checked(one.len())?;
    if one.len() % 2 == 0 && second.len() == two.len() {
        return Some(sum.plus_copied(first, one).plus_copied(second, two));
    }
    // The second piece begins in the middle of a word.
    first.copy_from_slice(one);
    second.copy_from_slice(two);
    Some(sum.plus(place))
}

/// A segment of the peer, to be made up for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromPeer<'a> {
    /// FIN|ACK: the peer's FIN, whose sequence number is `rcv_nxt - 1`.
    Fin,
    /// RST|ACK at `rcv_nxt`.
    Reset,
    /// ACK of everything that the image calls acknowledged.
    Ack,
    /// ACK as [`FromPeer::Ack`], and of these blocks beyond it (RFC 2018): of the first [`SackBlocks::MAX`] of them, one less beside timestamps.
    Sack(&'a [[u32; 2]]),
    /// ACK as [`FromPeer::Ack`] but without the FIN, whose timestamp says that what it acknowledges left so many ms ago.
    Echo(u32),
    /// Data at this sequence number.
    Data(u32, &'a [u8]),
}

/// Writes a frame as if the peer of `image` had sent it; returns its length. `path` is our path to the peer.
pub fn synthesize(frame: &mut [u8], path: &Path, image: &Image, what: FromPeer<'_>) -> Option<usize> {
    let fin_received = u32::from(image.flags & flag::FIN_RECEIVED != 0);
    let (seq, extra, data): (u32, Flags, &[u8]) = match what {
        FromPeer::Fin => (image.rcv_nxt.wrapping_sub(fin_received), Flags::FIN, &[]),
        FromPeer::Echo(_) => (image.rcv_nxt.wrapping_sub(fin_received), Flags::default(), &[]),
        FromPeer::Reset => (image.rcv_nxt, Flags::RST, &[]),
        FromPeer::Ack | FromPeer::Sack(_) => (image.rcv_nxt, Flags::default(), &[]),
        FromPeer::Data(seq, data) => (seq, Flags::default(), data),
    };
    let age = if let FromPeer::Echo(ms) = what { ms } else { 0 };
    let (val, ecr) = (image.ts_recent, image.ts_val.wrapping_sub(age));
    let timestamps = (image.flags & flag::TIMESTAMPS != 0).then_some(Timestamps { val, ecr });
    let segment = SegmentOut {
        seq: SeqNr(seq),
        ack: SeqNr(image.snd_una),
        flags: Flags::ACK.with(extra),
        window: u16::try_from(image.snd_wnd >> image.snd_wscale.min(14)).unwrap_or(u16::MAX),
        ecn: Codepoint::NotEct,
        timestamps,
        sack: blocks_of(what, timestamps.is_some()),
        len: data.len() as u32,
        kind: Kind::Ack,
    };
    let flow = FlowKey {
        local: image.flow.remote,
        remote: image.flow.local,
        local_port: image.flow.remote_port,
        remote_port: image.flow.local_port,
        ..image.flow
    };
    let back = Path { src_mac: path.dst_mac, dst_mac: path.src_mac, ttl: 64, ..*path };
    build(frame, &back, &flow, &segment, (data, &[]), 0)
}

fn blocks_of(what: FromPeer<'_>, beside_timestamps: bool) -> SackBlocks {
    let mut blocks = SackBlocks::default();
    if let FromPeer::Sack(told) = what {
        let max = SackBlocks::MAX - usize::from(beside_timestamps);
        for [start, end] in told.iter().take(max) {
            blocks.push(SeqNr(*start), SeqNr(*end));
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ip::input;
    use crate::testkit::crowd::flow;

    proptest! {
        /// Field by field or header by header: the same frame, which is what it says.
        #[test]
        fn an_ordinary_segment_is_the_same_both_ways(
            data in proptest::collection::vec(any::<u8>(), 0..1461),
            numbers: (u32, u32, u16, u16),
            tos: u8,
            timestamps: Option<(u32, u32)>,
            cut in 0usize..1461,
        ) {
            let (seq, ack, window, id) = numbers;
            let path = Path { dst_mac: [2, 0, 0, 0, 0, 2], src_mac: [2, 9, 8, 7, 6, 1], mtu: 1500, ttl: 63, tos, ..Path::default() };
            let segment = PlainOut {
                seq: SeqNr(seq),
                ack: SeqNr(ack),
                flags: Flags::ACK.with(Flags::PSH),
                window,
                len: data.len() as u32,
                timestamps: timestamps.map(|(val, ecr)| Timestamps { val, ecr }),
            };
            let (mut plain, mut long) = ([0xa5; 2048], [0x5a; 2048]);
            let len = build_plain(&mut plain, &path, &flow(7), &segment, &data, id).unwrap();
            for pieces in [(&data[..], &[][..]), data.split_at(cut.min(data.len()))] {
                prop_assert_eq!(build(&mut long, &path, &flow(7), &segment.into(), pieces, id), Some(len));
                prop_assert_eq!(&plain[..len], &long[..len]);
            }
            prop_assert!(plain[len..].iter().all(|&byte| byte == 0xa5));
            let found = input::parse(&plain[..len], 2048).unwrap();
            prop_assert_eq!(found.segment.payload, &data[..]);
            prop_assert_eq!((found.segment.seq, found.segment.timestamps), (segment.seq, segment.timestamps));
        }
    }

    #[test]
    fn what_is_not_ipv4_or_does_not_fit_is_left_to_others() {
        let (path, mut frame) = (Path::default(), [0; 100]);
        let segment =
            PlainOut { seq: SeqNr(1), ack: SeqNr(2), flags: Flags::ACK, window: 3, len: 20, timestamps: None };
        let mut plain =
            |flow: &FlowKey, segment: &PlainOut, data: &[u8]| build_plain(&mut frame, &path, flow, segment, data, 0);
        let v6 = FlowKey::tcp("[fd00::1]:80".parse().unwrap(), "[fd00::2]:90".parse().unwrap());
        assert_eq!(plain(&flow(0), &segment, &[0; 20]), Some(74));
        assert_eq!(plain(&v6, &segment, &[0; 20]), None);
        assert_eq!(plain(&flow(0), &segment, &[0; 19]), None, "the data is not as long as it says");
        assert_eq!(plain(&flow(0), &PlainOut { len: 50, ..segment }, &[0; 50]), None, "the frame is too short");
    }
}
