//! What has a restored socket still to hear of its peer? Made up as segments of the peer.

use underpass_stack::ip::output::{FromPeer, synthesize};
use underpass_stack::tcp::image::{Image, flag};
use underpass_stack::tcp::scoreboard::{Piece, fate};
use underpass_stack::tcp::segment::SackBlocks;
use underpass_stack::wire::{ipv4, ipv6};

use super::repair::Dump;
use super::round_trip;
use super::session::Conn;
use crate::steer::inject::MAX_FRAME;

/// Room for a made-up segment without data.
const CONTROL_FRAME: usize = 128;
/// Segments made up of out-of-order data at most, more than a window of 8 MiB has: each costs a system call, and others wait. But what is
/// left out was acknowledged (RFC 2018), and the peer finds out that it was dropped by a timeout.
const MAX_AHEAD: usize = 8192;
/// What every path carries (RFC 791: hosts accept 576 bytes).
const MIN_MTU: usize = 576;
/// Bytes of an Ethernet header; of a TCP header with a timestamp.
const ETHERNET: usize = 14;
const TCP_HEADER: usize = 32;

/// In the order in which they should arrive. `image` is the dump's as it is now.
pub fn frames(conn: &Conn, image: &Image, dump: &Dump) -> Vec<Vec<u8>> {
    let mut frames: Vec<_> = round_trip_frame(conn, image).into_iter().collect();
    frames.extend(control_frames(conn, image));
    frames.extend(sack_frames(conn, image, &dump.sent.pieces));
    frames.extend(data_frames(conn, image, &dump.ahead));
    frames
}

/// That it has what came before the oldest byte in flight, and has taken a round trip to say so.
fn round_trip_frame(conn: &Conn, image: &Image) -> Option<Vec<u8>> {
    from_peer(conn, image, FromPeer::Echo(round_trip::to_be_told(image)?))
}

/// What the peer has said that a restored socket has still to hear: its FIN or RST, its acknowledgement of our FIN. Where we owe the
/// peer an acknowledgement, a segment from before the window makes the kernel send one at once.
fn control_frames(conn: &Conn, image: &Image) -> Vec<Vec<u8>> {
    let has = |bit: u32| image.flags & bit != 0;
    let frame = |what| from_peer(conn, image, what);
    let fin_received = has(flag::FIN_RECEIVED);
    if has(flag::RESET_RECEIVED) {
        // In the order in which the peer said them: what a reset means depends on the state that it meets.
        let fin = if fin_received { frame(FromPeer::Fin) } else { None };
        return fin.into_iter().chain(frame(FromPeer::Reset)).collect();
    }
    let told = if fin_received {
        frame(FromPeer::Fin)
    } else if has(flag::FIN_ACKED) {
        frame(FromPeer::Ack)
    } else if image.rcv_wup != image.rcv_nxt {
        from_peer(conn, &Image { rcv_nxt: image.rcv_wup.wrapping_sub(1), ..*image }, FromPeer::Ack)
    } else {
        None
    };
    told.into_iter().collect()
}

/// What of our own data the peer has acknowledged selectively. It tells each piece a few times only, and the kernel would send it again.
fn sack_frames(conn: &Conn, image: &Image, pieces: &[Piece]) -> Vec<Vec<u8>> {
    let Image { snd_una, snd_nxt, flags, .. } = *image;
    if flags & flag::SACK == 0 || flags & flag::RESET_RECEIVED != 0 {
        return Vec::new();
    }
    let in_flight = snd_nxt.wrapping_sub(snd_una);
    let at = |seq: u32| seq.wrapping_sub(snd_una);
    let sacked = pieces.iter().filter(|piece| piece.fate == fate::SACKED);
    let sound =
        sacked.filter(|piece| 0 < at(piece.start) && at(piece.start) < at(piece.end) && at(piece.end) <= in_flight);
    let blocks: Vec<[u32; 2]> = sound.map(|piece| [piece.start, piece.end]).collect();
    // As many as there is room for beside timestamps.
    blocks.chunks(SackBlocks::MAX - 1).filter_map(|told| from_peer(conn, image, FromPeer::Sack(told))).collect()
}

/// What arrived out of order, as far as it is not too much. The peer was told that we have it (RFC 2018), and would find out only by a
/// timeout that we do not.
fn data_frames(conn: &Conn, image: &Image, ahead: &[(u32, Vec<u8>)]) -> Vec<Vec<u8>> {
    // The path may be a client's word.
    let (least, ip_header) =
        if conn.flow.is_v6() { (ipv6::MTU_MIN as usize, ipv6::HEADER_LEN) } else { (MIN_MTU, ipv4::HEADER_LEN) };
    let mtu = (conn.path.mtu as usize).clamp(least, MAX_FRAME - ETHERNET);
    let room = mtu - ip_header - TCP_HEADER;
    let pieces = ahead.iter().flat_map(|(seq, bytes)| {
        let cut = bytes.chunks(room).enumerate();
        cut.map(move |(n, chunk)| (seq.wrapping_add((n * room) as u32), chunk))
    });
    pieces.take(MAX_AHEAD).filter_map(|(seq, chunk)| from_peer(conn, image, FromPeer::Data(seq, chunk))).collect()
}

fn from_peer(conn: &Conn, image: &Image, what: FromPeer<'_>) -> Option<Vec<u8>> {
    let mut image = *image;
    // Without a timestamp to echo none is better than a wrong one, which would be taken for an old segment's. And data may come after what
    // the peer has just sent again, next to which its timestamp is old (RFC 7323, section 5).
    if image.flags & flag::TS_RECENT == 0 || matches!(what, FromPeer::Data(..)) {
        image.flags &= !flag::TIMESTAMPS;
    }
    let data = if let FromPeer::Data(_, data) = what { data.len() } else { 0 };
    let mut frame = vec![0; CONTROL_FRAME + data];
    let len = synthesize(&mut frame, &conn.path, &image, what)?;
    frame.truncate(len);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use underpass_stack::ip::flow::FlowKey;
    use underpass_stack::ip::{input, path::Path};
    use underpass_stack::tcp::Instant;

    use super::*;
    use crate::daemon::repair::Transmissions;

    const UNA: u32 = u32::MAX - 2000;

    fn conn(flow: FlowKey) -> Conn {
        let fd = std::fs::File::open("/dev/null").unwrap().into();
        let path = Path { mtu: 1500, ttl: 64, ..Path::default() };
        let next_hop = Ipv4Addr::LOCALHOST.into();
        let restore = Default::default();
        Conn { generation: 1, fd, cookie: 1, flow, netns: 1, port: 0, path, next_hop, restore, kept: None }
    }

    fn dump(flags: u32, pieces: &[(u32, u32, u32)]) -> Dump {
        let local: SocketAddr = ([192, 0, 2, 1], 1).into();
        let flow = FlowKey::tcp(local, ([192, 0, 2, 2], 2).into());
        let image = Image {
            flow,
            snd_una: UNA,
            snd_nxt: UNA.wrapping_add(10_000),
            snd_end: UNA.wrapping_add(10_000),
            flags,
            ..Image::default()
        };
        let piece = |&(start, end, fate): &(u32, u32, u32)| Piece {
            start: UNA.wrapping_add(start),
            end: UNA.wrapping_add(end),
            fate,
        };
        let sent = Transmissions { pieces: pieces.iter().map(piece).collect(), ..Transmissions::default() };
        Dump { image, at: Instant(1), recv: Vec::new(), send: Vec::new(), ahead: Vec::new(), sent }
    }

    /// The blocks of each frame, from the oldest unacknowledged byte on.
    fn told(dump: &Dump) -> Vec<Vec<(u32, u32)>> {
        let blocks = |frame: &Vec<u8>| {
            let segment = input::parse(frame, 2000).unwrap().segment;
            assert_eq!(segment.ack.0, UNA);
            let edge = |word: &[u8]| u32::from_be_bytes(word.try_into().unwrap()).wrapping_sub(UNA);
            segment.sack.chunks_exact(8).map(|block| (edge(&block[..4]), edge(&block[4..]))).collect()
        };
        frames(&conn(dump.image.flow), &dump.image, dump).iter().map(blocks).collect()
    }

    #[test]
    fn what_the_peer_has_is_told_whole_and_nothing_else() {
        let pieces: Vec<_> = (0..8).map(|n| (1000 + n * 1000, 1500 + n * 1000, fate::SACKED)).collect();
        let others = [(100, 200, fate::LOST), (200, 300, fate::RESENT)];
        let told = told(&dump(flag::SACK, &[&others[..], &pieces[..]].concat()));
        assert_eq!(told.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2]);
        assert_eq!(told.concat(), pieces.iter().map(|(start, end, _)| (*start, *end)).collect::<Vec<_>>());
    }

    /// The first acknowledgement that reaches the socket is the one that is timed.
    #[test]
    fn the_round_trip_is_told_first() {
        let stamps = flag::TIMESTAMPS | flag::TS_RECENT;
        let mut dump = dump(flag::SACK | flag::FIN_RECEIVED | stamps, &[(1000, 2000, fate::SACKED)]);
        (dump.image.srtt_us, dump.image.ts_val) = (40_000, 1000);
        let echoes = |dump: &Dump| {
            let frames = frames(&conn(dump.image.flow), &dump.image, dump);
            let echo = |frame: &Vec<u8>| input::parse(frame, 2000).unwrap().segment.timestamps.unwrap().ecr;
            frames.iter().map(echo).collect::<Vec<_>>()
        };
        assert_eq!(echoes(&dump), [960, 1000, 1000], "round trip, FIN, blocks");
        dump.image.srtt_us = 0;
        assert_eq!(echoes(&dump), [1000, 1000]);
        assert_eq!(dump.image_at(Instant(7_999_999)).ts_val, 1007);
    }

    /// The list comes from the client's memory.
    #[test]
    fn nonsense_is_not_told() {
        let nonsense = [(0, 500), (500, 500), (900, 800), (9000, 10_001), (20_000, 21_000), (u32::MAX, 100)];
        let nonsense: Vec<_> = nonsense.iter().map(|(start, end)| (*start, *end, fate::SACKED)).collect();
        assert!(told(&dump(flag::SACK, &nonsense)).is_empty());
        let sound = [(1000, 2000, fate::SACKED)];
        assert!(told(&dump(0, &sound)).is_empty(), "it was not negotiated");
        assert_eq!(told(&dump(flag::SACK, &sound)).len(), 1);
    }
}
