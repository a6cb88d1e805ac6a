//! smoltcp, set up as its documentation says: one interface, one socket set, `poll` after each event. No congestion control, which
//! is its default.

use std::io;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Checksum, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, HardwareAddress,
    IpAddress, IpCidr, IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};
use underpass_stack::ip::flow::FlowKey;
use underpass_stack::tcp::Flags;
use underpass_stack::testkit::crowd::Peer;

use super::{Engine, ROOMY};

/// Bytes of a frame.
const FRAME: usize = 1514;
/// Frames that the card holds in each direction.
const FRAMES: usize = 256;
/// Bytes of each socket buffer: room for a whole group of full segments; or for a few.
const ROOMY_BUFFER: usize = 256 << 10;
const BUFFER: usize = 8 << 10;
const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEERS: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The engine.
pub struct Smol {
    interface: Interface,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
    card: Card,
    peers: Vec<Peer>,
    taken: Vec<u32>,
    now: Instant,
    frame: Vec<u8>,
}

impl Smol {
    /// So many connections, set up by handshakes. Without `verify`, received checksums are taken as right.
    pub fn new(connections: usize, verify: bool) -> io::Result<Self> {
        let mut card = Card::new(if verify { Checksum::Both } else { Checksum::Tx });
        let mut interface =
            Interface::new(Config::new(HardwareAddress::Ethernet(EthernetAddress(OURS))), &mut card, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, 1), 8));
        });
        let mut sockets = SocketSet::new(Vec::with_capacity(connections));
        let buffer = if connections < ROOMY { ROOMY_BUFFER } else { BUFFER };
        let mut handles = Vec::with_capacity(connections);
        for _ in 0..connections {
            let (rx, tx) = (tcp::SocketBuffer::new(vec![0; buffer]), tcp::SocketBuffer::new(vec![0; buffer]));
            let mut socket = tcp::Socket::new(rx, tx);
            socket.set_nagle_enabled(false);
            socket.listen(80).map_err(|error| io::Error::other(format!("listen: {error:?}")))?;
            handles.push(sockets.add(socket));
        }
        let (now, frame) = (Instant::from_micros(1_000_000), vec![0; 2048]);
        let (peers, taken) = (Vec::with_capacity(connections), Vec::with_capacity(connections));
        let mut smol = Self { interface, sockets, handles, card, peers, taken, now, frame };
        for number in 0..connections {
            if number == 0 || smol.peers[number - 1].flow.local != Peer::of(number, 0, 0).flow.local {
                smol.introduce(number)?;
            }
            smol.connect(number)?;
        }
        Ok(smol)
    }

    /// The host of a connection's peer asks for our Ethernet address, by which its own becomes known.
    fn introduce(&mut self, number: usize) -> io::Result<()> {
        let arp = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: EthernetAddress(PEERS),
            source_protocol_addr: address(Peer::of(number, 0, 0).flow.local.as_v4()),
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: Ipv4Address::new(10, 0, 0, 1),
        };
        let len = 14 + arp.buffer_len();
        let mut packet = ethernet(&mut self.frame[..len], EthernetProtocol::Arp);
        arp.emit(&mut ArpPacket::new_unchecked(packet.payload_mut()));
        self.card.stage(&self.frame[..len]);
        self.receive(1);
        match self.card.collect(&mut |_| ()) {
            1 => Ok(()),
            count => Err(io::Error::other(format!("{count} answers to ARP"))),
        }
    }

    /// The handshake of one connection. The first socket that still listens takes it.
    fn connect(&mut self, number: usize) -> io::Result<()> {
        let isn = (number as u32).wrapping_mul(0x85eb_ca6b);
        let mut peer = Peer::of(number, isn.wrapping_add(1), 0);
        let len = syn(&mut self.frame, &peer.flow, isn);
        self.card.stage(&self.frame[..len]);
        self.receive(1);
        let mut answer = None;
        self.card.collect(&mut |frame| {
            let segment = TcpPacket::new_checked(&frame[34..]).ok();
            answer = segment.filter(|segment| segment.syn() && segment.ack()).map(|segment| segment.seq_number().0);
        });
        let refused = || io::Error::other(format!("no answer to SYN {number}"));
        peer.ack = (answer.ok_or_else(refused)? as u32).wrapping_add(1);
        self.taken.push(peer.ack);
        self.peers.push(peer);
        self.stage(number, false, &[]);
        self.receive(1);
        let socket = self.sockets.get::<tcp::Socket<'_>>(self.handles[number]);
        if socket.state() == tcp::State::Established { Ok(()) } else { Err(refused()) }
    }

    fn poll(&mut self) {
        self.now += smoltcp::time::Duration::from_micros(1);
        self.interface.poll(self.now, &mut self.card, &mut self.sockets);
    }
}

fn address(octets: Option<[u8; 4]>) -> Ipv4Address {
    Ipv4Address::from(octets.unwrap_or_default())
}

/// Writes an Ethernet header from the peers to us.
fn ethernet(frame: &mut [u8], ethertype: EthernetProtocol) -> EthernetFrame<&mut [u8]> {
    let ether = EthernetRepr { src_addr: EthernetAddress(PEERS), dst_addr: EthernetAddress(OURS), ethertype };
    let mut packet = EthernetFrame::new_unchecked(frame);
    ether.emit(&mut packet);
    packet
}

/// Writes a SYN with the options that Underpass's connections have too; returns the frame's length.
fn syn(frame: &mut [u8], flow: &FlowKey, isn: u32) -> usize {
    let port = |bytes| u16::from_be_bytes(bytes);
    let (source, destination) = (address(flow.local.as_v4()), address(flow.remote.as_v4()));
    let tcp = TcpRepr {
        src_port: port(flow.local_port),
        dst_port: port(flow.remote_port),
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(isn as i32),
        ack_number: None,
        window_len: u16::MAX,
        window_scale: Some(7),
        max_seg_size: Some(super::FULL as u16),
        sack_permitted: true,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = Ipv4Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let len = 14 + ip.buffer_len() + tcp.buffer_len();
    let mut packet = ethernet(&mut frame[..len], EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(packet.payload_mut());
    ip.emit(&mut packet, &Default::default());
    let mut packet = TcpPacket::new_unchecked(packet.payload_mut());
    tcp.emit(&mut packet, &source.into(), &destination.into(), &Default::default());
    len
}

impl Engine for Smol {
    fn stage(&mut self, connection: usize, push: bool, data: &[u8]) {
        let flags = if push { Flags::PSH } else { Flags::default() };
        let len = self.peers[connection].send(&mut self.frame, flags, data);
        self.card.stage(&self.frame[..len]);
    }

    fn receive(&mut self, frames: usize) {
        self.card.shown += frames;
        self.poll();
    }

    fn read(&mut self, connection: usize, out: &mut [u8]) -> usize {
        self.sockets.get_mut::<tcp::Socket<'_>>(self.handles[connection]).recv_slice(out).unwrap_or(0)
    }

    fn write(&mut self, connection: usize, data: &[u8]) -> usize {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handles[connection]);
        let taken = socket.send_slice(data).unwrap_or(0);
        self.poll();
        taken
    }

    fn collect(&mut self) -> io::Result<(u64, u64)> {
        let Self { card, peers, taken, .. } = self;
        super::scene::collect(|each| card.collect(each), peers, taken)
    }

    fn foresee(&mut self, connection: usize, bytes: usize) {
        let peer = &mut self.peers[connection];
        peer.ack = peer.ack.wrapping_add(bytes as u32);
    }
}

/// Frames in memory, in both directions.
struct Card {
    received: Vec<[u8; FRAME]>,
    lengths: Vec<usize>,
    /// Frames staged, shown and taken so far; they lie in `received` in turn.
    staged: usize,
    shown: usize,
    taken: usize,
    sent: Sent,
    checksum: Checksum,
}

struct Sent {
    frames: Vec<[u8; FRAME]>,
    lengths: Vec<usize>,
}

impl Card {
    fn new(checksum: Checksum) -> Self {
        let sent = Sent { frames: vec![[0; FRAME]; FRAMES], lengths: Vec::with_capacity(FRAMES) };
        let (received, lengths) = (vec![[0; FRAME]; FRAMES], vec![0; FRAMES]);
        Self { received, lengths, staged: 0, shown: 0, taken: 0, sent, checksum }
    }

    fn stage(&mut self, frame: &[u8]) {
        let place = self.staged % FRAMES;
        assert!(self.staged - self.taken < FRAMES, "no frame");
        self.received[place][..frame.len()].copy_from_slice(frame);
        self.lengths[place] = frame.len();
        self.staged += 1;
    }

    fn collect(&mut self, each: &mut dyn FnMut(&[u8])) -> usize {
        for (frame, &len) in self.sent.frames.iter().zip(&self.sent.lengths) {
            each(&frame[..len]);
        }
        let count = self.sent.lengths.len();
        self.sent.lengths.clear();
        count
    }
}

impl Device for Card {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        if self.taken == self.shown || self.sent.lengths.len() == FRAMES {
            return None;
        }
        let place = self.taken % FRAMES;
        self.taken += 1;
        Some((RxToken(&self.received[place][..self.lengths[place]]), TxToken(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_>> {
        (self.sent.lengths.len() < FRAMES).then_some(TxToken(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities.checksum.ipv4 = self.checksum;
        capabilities.checksum.tcp = self.checksum;
        capabilities
    }
}

struct RxToken<'a>(&'a [u8]);

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

struct TxToken<'a>(&'a mut Sent);

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, make: F) -> R {
        let place = self.0.lengths.len();
        self.0.lengths.push(len);
        make(&mut self.0.frames[place][..len])
    }
}
