//! Frames of a peer that says what it likes, from the Ethernet header on.

use underpass_stack::ip::flow::{Addr, FlowKey, PROTO_TCP};
use underpass_stack::wire::checksum::Sum;

const ETHERNET: usize = 14;
const TCP: usize = 20;
const IPV4: usize = 20;
const IPV6: usize = 40;

/// Bytes of a flow's IP headers.
pub fn ip_header_len(flow: &FlowKey) -> usize {
    if flow.remote.as_v4().is_some() { IPV4 } else { IPV6 }
}

/// Is the checksum, by chance, the one that a peer on the same host leaves for a network card to complete? It protects nothing. The
/// addresses and the length of an IPv6 packet count as they are in the frame: no checksum of its header would tell that they changed.
pub fn has_partial_checksum(frame: &[u8], flow: &FlowKey) -> bool {
    let at = ETHERNET + ip_header_len(flow);
    let (source, destination, len) = match ip_header_len(flow) {
        IPV4 => (flow.remote, flow.local, (frame.len() - at) as u16),
        _ => (address_at(frame, 22), address_at(frame, 38), u16::from_be_bytes([frame[18], frame[19]])),
    };
    frame[at + 16..at + 18] == Sum::pseudo(&source, &destination, PROTO_TCP, len).partial()
}

fn address_at(frame: &[u8], at: usize) -> Addr {
    Addr(std::array::from_fn(|i| frame[at + i]))
}

/// Is this byte of a flow's frames covered by a checksum? An IPv6 header has none, and the pseudo-header (RFC 8200, section 8.1) leaves
/// out its first word and the hop limit.
pub fn is_covered(flow: &FlowKey, at: usize) -> bool {
    let bare = ip_header_len(flow) == IPV6 && matches!(at - ETHERNET, 0..4 | 7);
    !bare
}

/// What a frame says.
#[derive(Clone, Debug, Default)]
pub struct Forged {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    /// The IP header's type of service, or traffic class: the lower two bits are the ECN field.
    pub tos: u8,
    /// TSval and TSecr.
    pub timestamps: Option<(u32, u32)>,
    pub sack: Vec<(u32, u32)>,
    /// Other options, as they are.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Forged {
    /// The frame, addressed to the local end of `flow`, with right lengths and checksums.
    pub fn frame(&self, flow: &FlowKey) -> Vec<u8> {
        let options = self.all_options();
        let tcp_len = TCP + options.len() + self.payload.len();
        let mut frame = vec![0; ETHERNET];
        let (ethertype, ip) = self.ip_header(flow, tcp_len as u16);
        frame[12..].copy_from_slice(&ethertype);
        frame.extend(ip);
        let at = frame.len();
        frame.extend(self.tcp_header(flow, options.len()));
        frame.extend(&options);
        frame.extend(&self.payload);
        let sum = Sum::pseudo(&flow.remote, &flow.local, PROTO_TCP, tcp_len as u16).plus(&frame[at..]).checksum();
        frame[at + 16..at + 18].copy_from_slice(&sum);
        frame
    }

    fn all_options(&self) -> Vec<u8> {
        let mut all = Vec::new();
        if let Some((val, ecr)) = self.timestamps {
            all.extend([1, 1, 8, 10]);
            all.extend([val.to_be_bytes(), ecr.to_be_bytes()].concat());
        }
        if !self.sack.is_empty() {
            all.extend([1, 1, 5, 2 + 8 * self.sack.len() as u8]);
            all.extend(self.sack.iter().flat_map(|(start, end)| [start.to_be_bytes(), end.to_be_bytes()].concat()));
        }
        all.extend(&self.options);
        // No header holds more.
        all.truncate(40);
        all.resize(all.len().next_multiple_of(4), 0);
        all
    }

    /// The EtherType and the IP header before `len` bytes of TCP.
    fn ip_header(&self, flow: &FlowKey, len: u16) -> ([u8; 2], Vec<u8>) {
        match (flow.remote.as_v4(), flow.local.as_v4()) {
            (Some(remote), Some(local)) => ([0x08, 0x00], self.ipv4_header(remote, local, len)),
            _ => ([0x86, 0xdd], self.ipv6_header(flow, len)),
        }
    }

    fn ipv4_header(&self, source: [u8; 4], destination: [u8; 4], len: u16) -> Vec<u8> {
        let mut header = vec![0x45, self.tos];
        header.extend((IPV4 as u16 + len).to_be_bytes());
        header.extend([0, 0, 0x40, 0, 64, PROTO_TCP, 0, 0]);
        header.extend(source);
        header.extend(destination);
        let sum = Sum::default().plus(&header).checksum();
        header[10..12].copy_from_slice(&sum);
        header
    }

    fn ipv6_header(&self, flow: &FlowKey, len: u16) -> Vec<u8> {
        let mut header = vec![0x60 | (self.tos >> 4), self.tos << 4, 0, 0];
        header.extend(len.to_be_bytes());
        header.extend([PROTO_TCP, 64]);
        header.extend(flow.remote.0);
        header.extend(flow.local.0);
        header
    }

    fn tcp_header(&self, flow: &FlowKey, options: usize) -> Vec<u8> {
        let mut header = [flow.remote_port, flow.local_port].concat();
        header.extend(self.seq.to_be_bytes());
        header.extend(self.ack.to_be_bytes());
        header.extend([(((TCP + options) / 4) << 4) as u8, self.flags]);
        header.extend(self.window.to_be_bytes());
        header.extend([0, 0]);
        header.extend(self.urgent.to_be_bytes());
        header
    }
}
