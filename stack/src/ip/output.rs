//! Frames out: headers around a segment's data.
#![deny(unsafe_code)]

use zerocopy::FromBytes;

use super::flow::{FlowKey, PROTO_TCP};
use super::input::packet;
use super::path::Path;
use crate::tcp::image::{Image, flag};
use crate::tcp::segment::{SackBlocks, Timestamps};
use crate::tcp::{Codepoint, Flags, Kind, SegmentOut, SeqNr};
use crate::wire::checksum::Sum;
use crate::wire::{ethernet, ipv4, ipv6, tcp};

/// What of the TOS byte is the program's to choose: the rest is the ECN field (RFC 3168).
const DSCP: u8 = 0xfc;

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
    let options_len = tcp::options_len(segment.timestamps.is_some(), &segment.sack);
    let tcp_at = ethernet::HEADER_LEN + if flow.is_v6() { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
    let data_at = tcp_at + tcp::HEADER_LEN + options_len;
    let middle = data_at + payload.0.len();
    let len = middle + payload.1.len();
    if len != data_at + segment.len as usize {
        return None;
    }
    let frame = frame.get_mut(..len)?;
    write_ip(frame, path, flow, segment.ecn, ip_id)?;
    frame[data_at..middle].copy_from_slice(payload.0);
    frame[middle..].copy_from_slice(payload.1);
    let packet = &mut frame[tcp_at..];
    write_tcp(packet, flow, segment, options_len)?;
    Some(len)
}

/// Writes the Ethernet and IP headers of a frame that is as long as it will be.
fn write_ip(frame: &mut [u8], path: &Path, flow: &FlowKey, ecn: Codepoint, ip_id: u16) -> Option<()> {
    let (ether, rest) = ethernet::Header::mut_from_prefix(frame).ok()?;
    let ethertype = if flow.is_v6() { ethernet::IPV6 } else { ethernet::IPV4 };
    *ether = ethernet::Header { destination: path.dst_mac, source: path.src_mac, ethertype: ethertype.into() };
    let tos = path.tos & DSCP | ecn as u8;
    if flow.is_v6() { write_v6(rest, path, flow, tos) } else { write_v4(rest, path, flow, tos, ip_id) }
}

fn write_v4(rest: &mut [u8], path: &Path, flow: &FlowKey, tos: u8, ip_id: u16) -> Option<()> {
    let total_len = u16::try_from(rest.len()).ok()?;
    let (ip, _) = ipv4::Header::mut_from_prefix(rest).ok()?;
    *ip = ipv4::Header {
        version_ihl: ipv4::VERSION_IHL,
        tos,
        total_len: total_len.into(),
        id: ip_id.into(),
        fragment: ipv4::DF.into(),
        ttl: path.ttl,
        proto: PROTO_TCP,
        checksum: [0; 2],
        source: flow.local.as_v4()?,
        destination: flow.remote.as_v4()?,
    };
    let bytes: [u8; ipv4::HEADER_LEN] = zerocopy::transmute!(*ip);
    ip.checksum = Sum::default().plus_header(&bytes).checksum();
    Some(())
}

fn write_v6(rest: &mut [u8], path: &Path, flow: &FlowKey, traffic_class: u8) -> Option<()> {
    if flow.remote.as_v4().is_some() {
        return None;
    }
    let (ip, payload) = ipv6::Header::mut_from_prefix(rest).ok()?;
    *ip = ipv6::Header {
        start: ipv6::Header::start(traffic_class, path.flow_label),
        payload_len: u16::try_from(payload.len()).ok()?.into(),
        next_header: PROTO_TCP,
        hop_limit: path.ttl,
        source: flow.local.0,
        destination: flow.remote.0,
    };
    Some(())
}

/// Writes the TCP header before the data that is already in `packet`.
fn write_tcp(packet: &mut [u8], flow: &FlowKey, segment: &SegmentOut, options_len: usize) -> Option<()> {
    let pseudo = Sum::pseudo(&flow.local, &flow.remote, PROTO_TCP, u16::try_from(packet.len()).ok()?);
    let (header, rest) = tcp::Header::mut_from_prefix(packet).ok()?;
    *header = tcp::Header {
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
    tcp::write_options(rest.get_mut(..options_len)?, segment.timestamps, &segment.sack);
    let checksum = pseudo.plus(packet).checksum();
    tcp::Header::mut_from_prefix(packet).ok()?.0.checksum = checksum;
    Some(())
}

/// Completes the TCP checksum of a frame that carries only the sum of its pseudo-header, which the kernel would refuse
/// from an injected frame. True if there was one to complete.
pub fn complete_checksum(frame: &mut [u8]) -> bool {
    let Ok(found) = packet(frame) else { return false };
    let Ok((header, _)) = tcp::Header::ref_from_prefix(found.tcp) else { return false };
    let pseudo = found.pseudo();
    if header.checksum != pseudo.partial() || pseudo.plus(found.tcp).is_valid() {
        return false;
    }
    let place = found.at..found.at + found.tcp.len();
    let tcp_bytes = &mut frame[place];
    let Ok((header, _)) = tcp::Header::mut_from_prefix(tcp_bytes) else { return false };
    header.checksum = [0; 2];
    let checksum = pseudo.plus(tcp_bytes).checksum();
    if let Ok((header, _)) = tcp::Header::mut_from_prefix(tcp_bytes) {
        header.checksum = checksum;
    }
    true
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
    /// Data at this sequence number.
    Data(u32, &'a [u8]),
}

/// Writes a frame as if the peer of `image` had sent it; returns its length. `path` is our path to the peer.
pub fn synthesize(frame: &mut [u8], path: &Path, image: &Image, what: FromPeer<'_>) -> Option<usize> {
    let fin_received = u32::from(image.flags & flag::FIN_RECEIVED != 0);
    let (seq, extra, data): (u32, Flags, &[u8]) = match what {
        FromPeer::Fin => (image.rcv_nxt.wrapping_sub(fin_received), Flags::FIN, &[]),
        FromPeer::Reset => (image.rcv_nxt, Flags::RST, &[]),
        FromPeer::Ack => (image.rcv_nxt, Flags::default(), &[]),
        FromPeer::Data(seq, data) => (seq, Flags::default(), data),
    };
    let timestamps =
        (image.flags & flag::TIMESTAMPS != 0).then_some(Timestamps { val: image.ts_recent, ecr: image.ts_val });
    let segment = SegmentOut {
        seq: SeqNr(seq),
        ack: SeqNr(image.snd_una),
        flags: Flags::ACK.with(extra),
        window: u16::try_from(image.snd_wnd >> image.snd_wscale.min(14)).unwrap_or(u16::MAX),
        ecn: Codepoint::NotEct,
        timestamps,
        sack: SackBlocks::default(),
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
