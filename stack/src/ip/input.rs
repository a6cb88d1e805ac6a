//! Frames in: from Ethernet bytes to a flow and a segment.
#![deny(unsafe_code)]

use zerocopy::FromBytes;

use super::flow::{Addr, Ends, FlowKey, PROTO_TCP};
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
    match parse_plain(frame).filter(Unverified::is_intact) {
        Some(found) => Ok(Incoming { flow: found.ends.flow(), segment: found.segment }),
        None => packet(frame)?.read(),
    }
}

/// What an ordinary frame brought, if its data is what its TCP checksum says.
#[derive(Clone, Copy, Debug)]
pub struct Unverified<'a> {
    /// Whose it is.
    pub ends: Ends,
    /// The segment.
    pub segment: Segment<'a>,
    /// The TCP header, and its options.
    header: &'a [u8; tcp::HEADER_LEN],
    options: &'a [u8],
    /// Bytes of the TCP packet.
    len: u16,
}

impl Unverified<'_> {
    /// The sum of all that the checksum covers but the data, which begins at an even place; `None` if nothing is left to verify: there is no
    /// data and the checksum is right, or it is left to a network card.
    #[inline(always)]
    pub fn sum(&self) -> Option<Sum> {
        let (pseudo, sum) = (self.pseudo(), self.whole_sum());
        let &[.., a, b, _, _] = self.header;
        let is_proven = (self.segment.payload.is_empty() && sum.is_valid()) || pseudo.is_partial([a, b]);
        (!is_proven).then_some(sum)
    }

    /// The same where nothing is left to a network card: such a segment will be found wrong.
    #[inline(always)]
    pub fn whole_sum(&self) -> Sum {
        let sum = self.pseudo().plus_header(self.header);
        match self.options.first_chunk::<{ tcp::TIMESTAMPS_LEN }>() {
            None if self.options.is_empty() => sum,
            Some(usual) if self.options.len() == tcp::TIMESTAMPS_LEN => sum.plus_header(usual),
            _ => sum.plus(self.options),
        }
    }

    /// The sum of the pseudo-header: the prefix of a v4-mapped address adds zero.
    #[inline(always)]
    fn pseudo(&self) -> Sum {
        self.ends.addresses().plus_upper(PROTO_TCP, self.len)
    }

    /// Is the data what the checksum says?
    #[inline(never)]
    pub fn is_intact(&self) -> bool {
        self.sum().is_none_or(|sum| sum.plus(self.segment.payload).is_valid())
    }
}

/// Reads an ordinary IPv4 frame: no tag, no IP options, no fragment, nothing wrong so far. For all others, [`parse`] says why. The
/// data is not looked at: who copies it can sum it on the way.
#[inline]
pub fn parse_plain(frame: &[u8]) -> Option<Unverified<'_>> {
    parse_with::<false>(frame)
}

/// The same of frames with the options that nearly every segment has.
#[inline(always)]
pub fn parse_usual(frame: &[u8]) -> Option<Unverified<'_>> {
    parse_with::<true>(frame)
}

#[inline(always)]
fn parse_with<const USUAL: bool>(frame: &[u8]) -> Option<Unverified<'_>> {
    const TCP_AT: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;
    const OPTIONS_AT: usize = TCP_AT + tcp::HEADER_LEN;
    let headers: &[u8; OPTIONS_AT] = frame.first_chunk()?;
    let (_, ip_bytes) = headers.split_at(ethernet::HEADER_LEN);
    let (ip_bytes, bytes) = ip_bytes.split_first_chunk::<{ ipv4::HEADER_LEN }>()?;
    let bytes: &[u8; tcp::HEADER_LEN] = bytes.try_into().ok()?;
    let (ip, header) = (ipv4::Header::ref_from_bytes(ip_bytes).ok()?, tcp::Header::ref_from_bytes(bytes).ok()?);
    // EtherType, version and header length; fragment and protocol: each as one word, what may be anything left out.
    const FIRST: u32 = u32::from_ne_bytes([0x08, 0x00, ipv4::VERSION_IHL, 0]);
    const FIRST_MASK: u32 = u32::from_ne_bytes([0xff, 0xff, 0xff, 0]);
    const SECOND: u32 = u32::from_ne_bytes([0, 0, 0, PROTO_TCP]);
    const SECOND_MASK: u32 = u32::from_ne_bytes([(ipv4::FRAGMENT >> 8) as u8, ipv4::FRAGMENT as u8, 0, 0xff]);
    let [first, second] = [12, 20].map(|at| {
        let &[a, b, c, d] = headers[at..].first_chunk().unwrap_or(&[0; 4]);
        u32::from_ne_bytes([a, b, c, d])
    });
    let differs = ((first & FIRST_MASK) ^ FIRST) | ((second & SECOND_MASK) ^ SECOND);
    if differs != 0 || !Sum::default().plus_header(ip_bytes).is_valid() {
        return None;
    }
    // All headers lie before the packet's end, and that in the frame.
    let payload_at = TCP_AT + header.header_len();
    let payload = frame.get(payload_at..ethernet::HEADER_LEN + usize::from(ip.total_len.get()))?;
    let bytes_of_options = frame.get(OPTIONS_AT..payload_at)?;
    let options = if USUAL { tcp::usual_options(bytes_of_options)? } else { tcp::parse_options(bytes_of_options) };
    let ends = Ends::of_packet(*ip_bytes.last_chunk()?, *bytes.first_chunk()?);
    let segment = segment(header, Codepoint::of(ip.tos), options, payload);
    let len = ip.total_len.get().wrapping_sub(ipv4::HEADER_LEN as u16);
    Some(Unverified { ends, segment, header: bytes, options: bytes_of_options, len })
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
        let options = tcp::parse_options(options);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A right frame with these options, a whole number of words, and with bytes behind the packet.
    fn frame(options: &[u8], data: &[u8], padding: usize) -> Vec<u8> {
        let (header_len, tcp_len) = (tcp::HEADER_LEN + options.len(), tcp::HEADER_LEN + options.len() + data.len());
        let mut ip = vec![0x45, 0, 0, 0, 7, 7, 0x40, 0, 64, PROTO_TCP, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
        ip[2..4].copy_from_slice(&((ipv4::HEADER_LEN + tcp_len) as u16).to_be_bytes());
        let checksum = Sum::default().plus(&ip).checksum();
        ip[10..12].copy_from_slice(&checksum);
        let mut packet =
            vec![0x9c, 0x40, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, (header_len * 4) as u8, 0x10, 1, 0, 0, 0, 0, 0];
        packet.extend(options.iter().chain(data));
        let pseudo = Sum::pseudo(&Addr::v4([10, 0, 0, 2]), &Addr::v4([10, 0, 0, 1]), PROTO_TCP, tcp_len as u16);
        let checksum = pseudo.plus(&packet).checksum();
        packet[16..18].copy_from_slice(&checksum);
        let ethernet = [0; 12].into_iter().chain([0x08, 0x00]);
        ethernet.chain(ip).chain(packet).chain(vec![0xee; padding]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        /// The short ways find nothing that the long one does not, and the same.
        #[test]
        fn all_ways_find_the_same(
            options in prop_oneof![
                Just(vec![]),
                Just(vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]),
                proptest::collection::vec(any::<u8>(), 3).prop_map(|bytes| [1, 1, 1, 1, 5, 10].into_iter().chain(bytes).chain([0; 7]).collect()),
            ],
            data in proptest::collection::vec(any::<u8>(), 0..9),
            padding in 0usize..3,
            change in proptest::option::of((0usize..90, any::<u8>())),
            cut in prop_oneof![3 => Just(0usize), 1 => 0usize..70],
        ) {
            let mut bytes = frame(&options, &data, padding);
            if let Some((at, value)) = change.filter(|(at, _)| *at < bytes.len()) {
                bytes[at] = value;
            }
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            let long = packet(&bytes).and_then(Packet::read);
            let short = [parse_plain(&bytes), parse_usual(&bytes)];
            for found in short.into_iter().flatten() {
                let told = Incoming { flow: found.ends.flow(), segment: found.segment };
                prop_assert_eq!(found.is_intact().then_some(told), long.ok());
            }
            prop_assert_eq!(parse(&bytes, bytes.len()), long);
            if change.is_none() && cut == 0 {
                prop_assert!(long.is_ok());
                prop_assert_eq!(short.map(|found| found.is_some()), [true, options.len() != 16]);
            }
        }
    }
}
