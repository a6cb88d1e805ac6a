//! The same over IPv6.

use proptest::prelude::*;
use underpass_stack::ip::flow::{Addr, FlowKey};
use underpass_stack::ip::input::{Drop, parse};
use underpass_stack::ip::late::complete_checksum;
use underpass_stack::ip::output::{FromPeer, build, synthesize};
use underpass_stack::ip::path::Path;
use underpass_stack::tcp::image::{Image, flag};
use underpass_stack::tcp::{Codepoint, Flags, SeqNr};
use underpass_stack::testkit::{A, B, LinkSpec, Pair, Setup};
use underpass_stack::wire::checksum::Sum;

use super::{MAX, mirrored, segment};

/// Offset of the TCP header, and of its checksum, in a frame without tags.
const TCP_AT: usize = 54;
const CHECKSUM_AT: usize = TCP_AT + 16;

fn flow() -> FlowKey {
    FlowKey::tcp("[2001:db8::1]:6379".parse().unwrap(), "[2001:db8:7::2]:51000".parse().unwrap())
}

fn path() -> Path {
    Path { tos: 0x2b, flow_label: 0xabcde, ttl: 61, ..super::path() }
}

fn frame(data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xee; MAX];
    let (one, two) = data.split_at(data.len() / 3);
    let len = build(&mut frame, &path(), &flow(), &segment(data.len() as u32), (one, two), 99).expect("fits");
    frame.truncate(len);
    frame
}

/// Leaves only the pseudo-header's sum in the checksum field.
fn make_partial(frame: &mut [u8]) {
    let tcp_len = (frame.len() - TCP_AT) as u16;
    let partial = Sum::pseudo(&flow().local, &flow().remote, 6, tcp_len).partial();
    frame[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&partial);
}

#[test]
fn a_frame_is_what_the_standards_say() {
    let frame = frame(b"abc");
    assert_eq!(&frame[..14], &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd]);
    assert_eq!(&frame[14..18], &[0x62, 0xaa, 0xbc, 0xde], "version 6, class 0x28 with ECT(0), label abcde");
    assert_eq!(parse(&frame, MAX).unwrap().segment.ecn, Codepoint::Ect0);
    assert_eq!(&frame[18..22], &[0, 47, 6, 61], "47 bytes follow, TCP, hop limit 61");
    assert_eq!(&frame[22..38], &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(&frame[38..54], &[0x20, 1, 0x0d, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(&frame[54..58], &[0x18, 0xeb, 0xc7, 0x38], "ports 6379 and 51000");
    // RFC 8200, section 8.1, written out: addresses, the length in four bytes, three zeros, the next header.
    let pseudo = Sum::default().plus(&frame[22..54]).plus(&[0, 0, 0, 47]).plus(&[0, 0, 0, 6]);
    assert!(pseudo.plus(&frame[54..]).is_valid());
    assert_eq!(&frame[frame.len() - 3..], b"abc");
}

#[test]
fn a_label_beyond_twenty_bits_does_not_reach_the_class() {
    let mut frame = vec![0; MAX];
    let path = Path { tos: 0, flow_label: u32::MAX, ..path() };
    build(&mut frame, &path, &flow(), &segment(0), (&[], &[]), 0).expect("fits");
    assert_eq!(&frame[14..18], &[0x60, 0x2f, 0xff, 0xff]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let data = [0; 100];
    let whole = frame(&data).len();
    let mut small = vec![0; whole - 1];
    assert_eq!(build(&mut small, &path(), &flow(), &segment(100), (&data, &[]), 0), None);
    let mixed = FlowKey { remote: Addr::v4([192, 0, 2, 1]), ..flow() };
    assert_eq!(build(&mut vec![0; MAX], &path(), &mixed, &segment(100), (&data, &[]), 0), None);
    let mixed = FlowKey { local: Addr::v4([192, 0, 2, 1]), ..flow() };
    assert_eq!(build(&mut vec![0; MAX], &path(), &mixed, &segment(100), (&data, &[]), 0), None);
}

#[test]
fn every_kind_of_bad_frame_has_its_reason() {
    let good = frame(b"hello");
    let judge = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        parse(&frame, MAX).map(|_| ())
    };
    assert_eq!(judge(&|_| ()), Ok(()));
    assert_eq!(judge(&|f| f.resize(f.len() + 9, 7)), Ok(()), "Ethernet padding");
    assert_eq!(judge(&|f| f[15] ^= 0xff), Ok(()), "another class and label");
    assert_eq!(judge(&|f| f.truncate(f.len() - 1)), Err(Drop::Runt));
    assert_eq!(judge(&|f| f.truncate(53)), Err(Drop::Runt));
    assert_eq!(judge(&|f| f[19] = 19), Err(Drop::Runt), "a TCP header that is cut off");
    assert_eq!(judge(&|f| f[18..20].fill(0)), Err(Drop::Runt), "a jumbogram's length");
    assert_eq!(judge(&|f| f[14] = 0x45), Err(Drop::BadIpHeader));
    for (extension, name) in [(0, "hop by hop"), (43, "routing"), (44, "fragment"), (60, "destination"), (51, "AH")] {
        assert_eq!(judge(&|f| f[20] = extension), Err(Drop::NotTcp), "{name}");
    }
    assert!(Drop::NotTcp.is_for_kernel());
    assert_eq!(judge(&|f| f[TCP_AT + 12] = 0x40), Err(Drop::BadTcpHeader));
    assert_eq!(judge(&|f| f[TCP_AT + 12] = 0xf0), Err(Drop::BadTcpHeader));
    assert_eq!(judge(&|f| *f.last_mut().unwrap() ^= 1), Err(Drop::BadChecksum));
    assert_eq!(judge(&|f| f[37] ^= 1), Err(Drop::BadChecksum), "another source");
    assert_eq!(judge(&|f| f[CHECKSUM_AT..CHECKSUM_AT + 2].fill(0)), Err(Drop::BadChecksum), "none at all");
}

#[test]
fn mapped_addresses_are_never_on_the_wire() {
    // Otherwise they would pass for a connection over IPv4, whose flow has the same form.
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3];
    for at in [22, 38] {
        let mut bytes = frame(b"hello");
        bytes[at..at + 16].copy_from_slice(&mapped);
        assert_eq!(parse(&bytes, MAX), Err(Drop::BadIpHeader));
    }
    let v4 = FlowKey::tcp("[::ffff:10.1.2.3]:6379".parse().unwrap(), "[::ffff:10.1.2.4]:5".parse().unwrap());
    assert!(!v4.is_v6());
    let mut bytes = vec![0; MAX];
    build(&mut bytes, &path(), &v4, &segment(0), (&[], &[]), 0).expect("fits");
    assert_eq!(&bytes[12..15], &[8, 0, 0x45]);
}

#[test]
fn a_tag_of_no_vlan_is_passed_over() {
    let tagged = |control: u8, number: u8| {
        let mut tagged = frame(b"hello");
        tagged.splice(12..12, [0x81, 0x00, control, number]);
        parse(&tagged, MAX).map(|incoming| (incoming.flow, incoming.segment.payload.to_vec()))
    };
    assert_eq!(tagged(0xe0, 0), Ok((mirrored(flow()), b"hello".to_vec())), "a priority");
    assert_eq!((tagged(0, 5), tagged(0xe1, 0)), (Err(Drop::NotTcp), Err(Drop::NotTcp)), "another interface's");
}

#[test]
fn partial_checksums_are_accepted_and_can_be_completed() {
    let whole = frame(b"some data");
    let mut partial = whole.clone();
    make_partial(&mut partial);
    assert_ne!(partial, whole);
    assert_eq!(parse(&partial, MAX).unwrap(), parse(&whole, MAX).unwrap());
    assert!(complete_checksum(&mut partial));
    assert_eq!(partial, whole);
    assert!(!complete_checksum(&mut partial), "nothing left to complete");
}

#[test]
fn timestamps_can_be_taken_out_of_a_frame() {
    super::check_forgetting(frame);
}

#[test]
fn synthesized_segments_come_from_the_peer() {
    let image = Image { flow: flow(), snd_una: 500, rcv_nxt: 9001, flags: flag::FIN_RECEIVED, ..Image::default() };
    let mut frame = vec![0; 128];
    let len = synthesize(&mut frame, &path(), &image, FromPeer::Fin).expect("fits");
    frame.truncate(len);
    assert_eq!(&frame[..6], &path().src_mac, "to us");
    let incoming = parse(&frame, MAX).unwrap();
    assert_eq!(incoming.flow, flow(), "seen from us");
    let got = incoming.segment;
    assert_eq!((got.seq, got.ack, got.flags), (SeqNr(9000), SeqNr(500), Flags::ACK.with(Flags::FIN)));
    let mut long = vec![0; 1514];
    let len = synthesize(&mut long, &path(), &image, FromPeer::Data(9500, &[7; 1428])).expect("fits");
    assert_eq!(parse(&long[..len], MAX).unwrap().segment.payload, &[7; 1428]);
}

#[test]
fn two_ends_talk_over_ipv6() {
    let mut pair = Pair::new(&Setup { v6: true, ..Setup::default() }, LinkSpec::default(), 1);
    let data: Vec<u8> = (0..30_000u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(pair.hosts[A].connection().send(pair.now, &data, false), data.len());
    let (mut got, mut out) = (Vec::new(), vec![0; 64 << 10]);
    pair.flush();
    while got.len() < data.len() {
        assert!(pair.step(), "the simulation ended after {} bytes", got.len());
        let n = pair.hosts[B].connection().recv(&mut out);
        got.extend_from_slice(&out[..n]);
    }
    assert_eq!(got, data);
    assert_eq!(pair.hosts[A].tcb.mss(), 1500 - 60 - 12);
}

proptest! {
    #[test]
    fn what_is_built_is_understood(data in proptest::collection::vec(any::<u8>(), 0..1400)) {
        let bytes = frame(&data);
        let incoming = parse(&bytes, MAX).unwrap();
        prop_assert_eq!(incoming.flow, mirrored(flow()));
        let (got, sent) = (incoming.segment, segment(data.len() as u32));
        prop_assert_eq!((got.seq, got.ack, got.flags, got.window), (sent.seq, sent.ack, sent.flags, sent.window));
        prop_assert_eq!(got.payload, &data[..]);
    }
}
