//! Frames of a peer that says what it likes, from the Ethernet header on.

use underpass_stack::ip::flow::{FlowKey, PROTO_TCP};
use underpass_stack::wire::checksum::Sum;

const ETHERNET: usize = 14;
const IP: usize = 20;
const TCP: usize = 20;

/// What a frame says.
#[derive(Clone, Debug, Default)]
pub struct Forged {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    /// The IP header's type of service: its lower two bits are the ECN field.
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
        frame[12..].copy_from_slice(&[0x08, 0x00]);
        frame.extend(self.ip_header(flow, (IP + tcp_len) as u16));
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

    fn ip_header(&self, flow: &FlowKey, len: u16) -> Vec<u8> {
        let address = |addr: &underpass_stack::ip::flow::Addr| addr.as_v4().expect("an IPv4 flow");
        let mut header = vec![0x45, self.tos];
        header.extend(len.to_be_bytes());
        header.extend([0, 0, 0x40, 0, 64, PROTO_TCP, 0, 0]);
        header.extend(address(&flow.remote));
        header.extend(address(&flow.local));
        let sum = Sum::default().plus(&header).checksum();
        header[10..12].copy_from_slice(&sum);
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
