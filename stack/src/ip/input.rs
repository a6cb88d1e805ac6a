//! Frames in: from Ethernet bytes to a flow and a segment.
#![deny(unsafe_code)]

use zerocopy::FromBytes;

use super::flow::{Addr, FlowKey, PROTO_TCP};
use crate::stats::Counter;
use crate::tcp::{Codepoint, Flags, Segment, SeqNr};
use crate::wire::checksum::Sum;
use crate::wire::{ethernet, ipv4, ipv6, tcp};

/// What a frame brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// The connection, seen from this host: local is the destination.
    pub flow: FlowKey,
    /// The segment.
    pub segment: Segment<'a>,
}

/// Why a frame is not a segment for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// Shorter than its headers say.
    Runt,
    /// Longer than a frame may be.
    Oversize,
    /// Something else than TCP behind a plain IP header: the kernel's.
    NotTcp,
    /// A fragment: the kernel's.
    Fragment,
    /// Malformed IP header, or its checksum is wrong.
    BadIpHeader,
    /// Malformed TCP header or options.
    BadTcpHeader,
    /// The TCP checksum is wrong.
    BadChecksum,
}

impl Drop {
    /// What to count.
    pub fn counter(self) -> Counter {
        match self {
            Self::Runt => Counter::RxRunt,
            Self::Oversize => Counter::RxOversize,
            Self::NotTcp => Counter::RxNotTcp,
            Self::Fragment => Counter::RxFragment,
            Self::BadIpHeader => Counter::RxBadIpHeader,
            Self::BadTcpHeader => Counter::RxBadTcpHeader,
            Self::BadChecksum => Counter::RxBadChecksum,
        }
    }

    /// Is the frame the kernel's to judge, so that it should be injected there?
    pub fn is_for_kernel(self) -> bool {
        matches!(self, Self::NotTcp | Self::Fragment)
    }
}

/// A TCP packet of a frame: where it lies and what IP says of it.
pub(super) struct Packet<'a> {
    pub source: Addr,
    pub destination: Addr,
    pub ecn: Codepoint,
    /// Header and data.
    pub tcp: &'a [u8],
    /// Offset of `tcp` in the frame.
    pub at: usize,
}

/// Reads an Ethernet frame of at most `max_frame` bytes. The TCP checksum may be complete, or be the mere sum of the
/// pseudo-header that a peer on the same host leaves for a network card to complete.
pub fn parse(frame: &[u8], max_frame: usize) -> Result<Incoming<'_>, Drop> {
    if frame.len() > max_frame {
        return Err(Drop::Oversize);
    }
    match parse_plain(frame, max_frame).filter(Unverified::is_intact) {
        Some(found) => Ok(found.incoming),
        None => packet(frame)?.read(),
    }
}

/// What a frame brought, if its data is what its TCP checksum says.
#[derive(Clone, Copy, Debug)]
pub struct Unverified<'a> {
    /// What it brought.
    pub incoming: Incoming<'a>,
    /// The sum of all that the checksum covers but the data, which begins at an even place; `None` if nothing is left to verify.
    pub sum: Option<Sum>,
}

impl Unverified<'_> {
    /// Is the data what the checksum says?
    #[inline(never)]
    pub fn is_intact(&self) -> bool {
        self.sum.is_none_or(|sum| sum.plus(self.incoming.segment.payload).is_valid())
    }
}

/// Reads an ordinary IPv4 frame: no tag, no IP options, no fragment, nothing wrong so far. For all others, [`parse`] says why. The
/// data is not looked at: who copies it can sum it on the way.
#[inline(always)]
pub fn parse_plain(frame: &[u8], max_frame: usize) -> Option<Unverified<'_>> {
    const TCP_AT: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;
    let headers: &[u8; TCP_AT] = frame.first_chunk()?;
    let (ether, ip_bytes) = ethernet::Header::ref_from_prefix(headers).ok()?;
    let ip_bytes: &[u8; ipv4::HEADER_LEN] = ip_bytes.try_into().ok()?;
    let ip = ipv4::Header::ref_from_bytes(ip_bytes).ok()?;
    // Before anything of it is compared, so that it is read in whole words.
    let sum = Sum::default().plus_header(ip_bytes);
    let is_plain = ether.ethertype.get() == ethernet::IPV4
        && ip.version_ihl == ipv4::VERSION_IHL
        && ip.proto == PROTO_TCP
        && ip.fragment.get() & ipv4::FRAGMENT == 0
        && frame.len() <= max_frame;
    if !is_plain || !sum.is_valid() {
        return None;
    }
    let packet = frame.get(TCP_AT..ethernet::HEADER_LEN + usize::from(ip.total_len.get()))?;
    let (bytes, rest) = packet.split_first_chunk::<{ tcp::HEADER_LEN }>()?;
    let header = tcp::Header::ref_from_bytes(bytes).ok()?;
    // The sum of the addresses: the prefix of a v4-mapped one adds zero.
    let addresses: &[u8; 8] = ip_bytes.last_chunk()?;
    let pseudo = Sum::default().plus_header(addresses).plus_upper(PROTO_TCP, packet.len() as u16);
    let (options, payload) = rest.split_at_checked(header.header_len().checked_sub(tcp::HEADER_LEN)?)?;
    let is_left_to_card = header.checksum == pseudo.partial();
    let header_sum = pseudo.plus_header(bytes);
    let sum = match options.first_chunk::<{ tcp::TIMESTAMPS_LEN }>() {
        _ if is_left_to_card => None,
        None if options.is_empty() => Some(header_sum),
        Some(usual) if options.len() == tcp::TIMESTAMPS_LEN => Some(header_sum.plus_header(usual)),
        _ => Some(header_sum.plus(options)),
    };
    let options = tcp::parse_options(options)?;
    let flow = FlowKey::of_v4(ip.destination, ip.source, header.destination, header.source);
    let incoming = Incoming { flow, segment: segment(header, Codepoint::of(ip.tos), options, payload) };
    Some(Unverified { incoming, sum })
}

#[inline(always)]
fn segment<'a>(header: &tcp::Header, ecn: Codepoint, options: tcp::Options<'a>, payload: &'a [u8]) -> Segment<'a> {
    Segment {
        seq: SeqNr(header.seq.get()),
        ack: SeqNr(header.ack.get()),
        flags: Flags(header.flags),
        window: header.window.get(),
        ecn,
        timestamps: options.timestamps,
        sack: options.sack,
        payload,
    }
}

/// Finds the TCP packet in a frame.
pub(super) fn packet(frame: &[u8]) -> Result<Packet<'_>, Drop> {
    let (ethertype, at) = ethernet::payload_at(frame).ok_or(Drop::Runt)?;
    match ethertype {
        ethernet::IPV4 => packet_v4(&frame[at..], at),
        ethernet::IPV6 => packet_v6(&frame[at..], at),
        _ => Err(Drop::NotTcp),
    }
}

/// The packet in `bytes`, which begin at `at` in their frame.
fn packet_v4(bytes: &[u8], at: usize) -> Result<Packet<'_>, Drop> {
    let (ip, _) = ipv4::Header::ref_from_prefix(bytes).map_err(|_| Drop::Runt)?;
    let (header_len, total_len) = (ip.header_len(), usize::from(ip.total_len.get()));
    if ip.version_ihl >> 4 != 4 || header_len < ipv4::HEADER_LEN || total_len < header_len {
        return Err(Drop::BadIpHeader);
    }
    // Ethernet pads short packets, so there may be more bytes than the packet has, but never fewer.
    let whole = bytes.get(..total_len).ok_or(Drop::Runt)?;
    if !Sum::default().plus(&whole[..header_len]).is_valid() {
        return Err(Drop::BadIpHeader);
    }
    if ip.proto != PROTO_TCP {
        return Err(Drop::NotTcp);
    }
    if ip.fragment.get() & ipv4::FRAGMENT != 0 {
        return Err(Drop::Fragment);
    }
    let (source, destination, ecn) = (Addr::v4(ip.source), Addr::v4(ip.destination), Codepoint::of(ip.tos));
    Ok(Packet { source, destination, ecn, tcp: &whole[header_len..], at: at + header_len })
}

/// As [`packet_v4`]. Extension headers, fragments among them (RFC 8200, section 4), are the kernel's.
fn packet_v6(bytes: &[u8], at: usize) -> Result<Packet<'_>, Drop> {
    let (ip, rest) = ipv6::Header::ref_from_prefix(bytes).map_err(|_| Drop::Runt)?;
    let (source, destination) = (Addr(ip.source), Addr(ip.destination));
    // A v4-mapped address on the wire would pass for an IPv4 connection's (RFC 4942, section 2.2).
    if ip.version() != 6 || source.as_v4().is_some() || destination.as_v4().is_some() {
        return Err(Drop::BadIpHeader);
    }
    let tcp = rest.get(..usize::from(ip.payload_len.get())).ok_or(Drop::Runt)?;
    if ip.next_header != PROTO_TCP {
        return Err(Drop::NotTcp);
    }
    let ecn = Codepoint::of(ip.traffic_class());
    Ok(Packet { source, destination, ecn, tcp, at: at + ipv6::HEADER_LEN })
}

impl<'a> Packet<'a> {
    /// The sum of the pseudo-header.
    pub fn pseudo(&self) -> Sum {
        // What follows an IP header is at most 65535 bytes long.
        Sum::pseudo(&self.source, &self.destination, PROTO_TCP, self.tcp.len() as u16)
    }

    /// Reads the TCP header.
    fn read(self) -> Result<Incoming<'a>, Drop> {
        let (header, rest) = tcp::Header::ref_from_prefix(self.tcp).map_err(|_| Drop::Runt)?;
        let options_len = header.header_len().checked_sub(tcp::HEADER_LEN).ok_or(Drop::BadTcpHeader)?;
        let (options, payload) = rest.split_at_checked(options_len).ok_or(Drop::BadTcpHeader)?;
        if !self.checksum_is_acceptable(header.checksum) {
            return Err(Drop::BadChecksum);
        }
        let options = tcp::parse_options(options).ok_or(Drop::BadTcpHeader)?;
        let flow = FlowKey {
            local: self.destination,
            remote: self.source,
            local_port: header.destination,
            remote_port: header.source,
            proto: PROTO_TCP,
            pad: [0; 3],
        };
        Ok(Incoming { flow, segment: segment(header, self.ecn, options, payload) })
    }

    fn checksum_is_acceptable(&self, field: [u8; 2]) -> bool {
        let pseudo = self.pseudo();
        field == pseudo.partial() || pseudo.plus(self.tcp).is_valid()
    }
}
