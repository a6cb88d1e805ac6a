//! Frames: what is built is understood, and whatever else arrives is judged without harm.

mod v6;

use proptest::prelude::*;
use underpass_stack::ip::flow::FlowKey;
use underpass_stack::ip::input::{Drop, Incoming, parse};
use underpass_stack::ip::late::{complete_checksum, forget_timestamps};
use underpass_stack::ip::output::{FromPeer, build, synthesize};
use underpass_stack::ip::path::Path;
use underpass_stack::tcp::image::{Image, flag};
use underpass_stack::tcp::segment::{SackBlocks, Timestamps};
use underpass_stack::tcp::{Codepoint, Flags, Kind, Segment, SegmentOut, SeqNr};
use underpass_stack::testkit::{A, B, LinkSpec, Pair, Setup};
use underpass_stack::wire::checksum::Sum;
use underpass_stack::wire::tcp::find_timestamps;

const MAX: usize = 1514;
/// Offset of the TCP header, and of its checksum, in a frame without tags and options.
const TCP_AT: usize = 34;
const CHECKSUM_AT: usize = TCP_AT + 16;

fn flow() -> FlowKey {
    FlowKey::tcp("10.1.2.3:6379".parse().unwrap(), "192.168.200.4:51000".parse().unwrap())
}

fn mirrored(flow: FlowKey) -> FlowKey {
    FlowKey::tcp(flow.remote(), flow.local())
}

fn path() -> Path {
    Path { ifindex: 3, mtu: 1500, src_mac: [2, 0, 0, 0, 0, 1], dst_mac: [2, 0, 0, 0, 0, 2], ttl: 64, ..Path::default() }
}

fn segment(len: u32) -> SegmentOut {
    let mut sack = SackBlocks::default();
    assert!(sack.push(SeqNr(70), SeqNr(90)));
    SegmentOut {
        seq: SeqNr(0xfffffff0),
        ack: SeqNr(77),
        flags: Flags::ACK.with(Flags::PSH),
        window: 501,
        ecn: Codepoint::Ect0,
        timestamps: Some(Timestamps { val: 123_456, ecr: 654_321 }),
        sack,
        len,
        kind: Kind::Data,
    }
}

fn frame(data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xee; MAX];
    let (one, two) = data.split_at(data.len() / 3);
    let len = build(&mut frame, &path(), &flow(), &segment(data.len() as u32), (one, two), 99).expect("fits");
    frame.truncate(len);
    frame
}

/// Leaves only the pseudo-header's sum in the checksum field, as a veth peer does.
fn make_partial(frame: &mut [u8]) {
    let tcp_len = (frame.len() - TCP_AT) as u16;
    let partial = Sum::pseudo(&flow().local, &flow().remote, 6, tcp_len).partial();
    frame[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&partial);
}

#[test]
fn a_frame_is_what_the_standards_say() {
    let frame = frame(b"abc");
    assert_eq!(&frame[..14], &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    assert_eq!(&frame[14..24], &[0x45, 2, 0, 67, 0, 99, 0x40, 0, 64, 6], "ECT(0), DF, TTL 64, TCP, 67 bytes");
    assert_eq!(parse(&frame, MAX).unwrap().segment.ecn, Codepoint::Ect0);
    assert_eq!(&frame[26..34], &[10, 1, 2, 3, 192, 168, 200, 4]);
    assert_eq!(&frame[34..38], &[0x18, 0xeb, 0xc7, 0x38], "ports 6379 and 51000");
    assert_eq!(&frame[46..48], &[0xb0, 0x18], "44 bytes of header, PSH and ACK");
    assert_eq!(&frame[frame.len() - 3..], b"abc");
}

#[test]
fn what_does_not_fit_is_refused() {
    let data = [0; 100];
    let mut small = [0; 150];
    assert_eq!(build(&mut small, &path(), &flow(), &segment(100), (&data, &[]), 0), None);
    let mut big = [0; 200];
    assert_eq!(build(&mut big, &path(), &flow(), &segment(99), (&data, &[]), 0), None, "data of another length");
}

#[test]
fn every_kind_of_bad_frame_has_its_reason() {
    let good = frame(b"hello");
    let judge = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        parse(&frame, MAX).map(|_| ())
    };
    let fix_ip = |f: &mut Vec<u8>| {
        f[24..26].fill(0);
        let sum = Sum::default().plus(&f[14..34]).checksum();
        f[24..26].copy_from_slice(&sum);
    };
    assert_eq!(judge(&|_| ()), Ok(()));
    assert_eq!(judge(&|f| f.resize(MAX + 1, 0)), Err(Drop::Oversize));
    assert_eq!(judge(&|f| f.resize(f.len() + 9, 7)), Ok(()), "Ethernet padding");
    assert_eq!(judge(&|f| f.truncate(f.len() - 1)), Err(Drop::Runt));
    assert_eq!(judge(&|f| f.truncate(13)), Err(Drop::Runt));
    assert_eq!(judge(&|f| f[12] = 0x86), Err(Drop::NotTcp));
    assert_eq!(judge(&|f| f[14] = 0x65), Err(Drop::BadIpHeader));
    assert_eq!(judge(&|f| f[14] = 0x44), Err(Drop::BadIpHeader));
    assert_eq!(judge(&|f| f[22] ^= 1), Err(Drop::BadIpHeader), "header checksum");
    let udp = |f: &mut Vec<u8>| {
        f[23] = 17;
        fix_ip(f);
    };
    assert_eq!(judge(&udp), Err(Drop::NotTcp));
    let fragment = |f: &mut Vec<u8>| {
        f[20] = 0x20;
        fix_ip(f);
    };
    assert_eq!(judge(&fragment), Err(Drop::Fragment));
    assert_eq!(judge(&|f| f[46] = 0x40), Err(Drop::BadTcpHeader));
    assert_eq!(judge(&|f| f[46] = 0xf0), Err(Drop::BadTcpHeader));
    assert_eq!(judge(&|f| *f.last_mut().unwrap() ^= 1), Err(Drop::BadChecksum));
}

#[test]
fn options_that_run_past_the_header_are_passed_over() {
    let mut bad = frame(b"hello");
    // The usual layout is NOP NOP 8 10: make the timestamps option longer than the header.
    bad[TCP_AT + 23] = 41;
    make_partial(&mut bad);
    let segment = parse(&bad, MAX).expect("a segment all the same").segment;
    assert_eq!((segment.timestamps, segment.payload), (None, &b"hello"[..]));
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
    let mut wrong = whole.clone();
    wrong[CHECKSUM_AT] ^= 0x10;
    assert!(!complete_checksum(&mut wrong), "a wrong checksum is not ours to mend");
}

#[test]
fn timestamps_can_be_taken_out_of_a_frame() {
    check_forgetting(frame);
}

fn check_forgetting(frame: fn(&[u8]) -> Vec<u8>) {
    for data in [&b""[..], b"odd", b"some data"] {
        let whole = frame(data);
        let mut late = whole.clone();
        assert!(forget_timestamps(&mut late));
        let (before, after) = (parse(&whole, MAX).unwrap(), parse(&late, MAX).expect("the checksum is right"));
        assert_eq!(after.segment.timestamps, None);
        assert_eq!(
            Incoming { segment: Segment { timestamps: before.segment.timestamps, ..after.segment }, ..after },
            before
        );
        assert!(!forget_timestamps(&mut late), "nothing left to forget");
    }
}

#[test]
fn timestamps_are_found_among_other_options_and_damage_finds_nothing() {
    let found = |options: &[u8]| find_timestamps(options);
    assert_eq!(found(&[8, 10, 0, 0, 0, 0, 0, 0, 0, 0]), Some(0..10));
    assert_eq!(found(&[1, 2, 4, 5, 180, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 9]), Some(5..15));
    let nothing: [&[u8]; 7] = [&[], &[1, 1], &[8], &[8, 10, 0], &[8, 9, 0, 0, 0, 0, 0, 0, 0, 0], &[0, 8, 10], &[3, 0]];
    for options in nothing {
        assert_eq!(found(options), None, "{options:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_survive_the_detour(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), from in 0usize..200) {
        forget_timestamps(&mut bytes);
        let mut damaged = frame(b"hello");
        for (place, byte) in damaged.iter_mut().skip(from).zip(&bytes) {
            *place = *byte;
        }
        forget_timestamps(&mut damaged);
        complete_checksum(&mut damaged);
    }
}

#[test]
fn synthesized_segments_come_from_the_peer() {
    let image = Image {
        flow: flow(),
        snd_una: 500,
        rcv_nxt: 9001,
        snd_wnd: 1 << 16,
        snd_wscale: 7,
        flags: flag::TIMESTAMPS | flag::FIN_RECEIVED,
        ts_val: 11,
        ts_recent: 22,
        ..Image::default()
    };
    let made = |what| {
        let mut frame = vec![0; 128];
        let len = synthesize(&mut frame, &path(), &image, what).expect("fits");
        frame.truncate(len);
        frame
    };
    for (what, seq, extra, ecr) in [
        (FromPeer::Fin, 9000, Flags::FIN, 11),
        (FromPeer::Reset, 9001, Flags::RST, 11),
        (FromPeer::Ack, 9001, Flags::default(), 11),
        (FromPeer::Echo(12), 9000, Flags::default(), u32::MAX),
    ] {
        let frame = made(what);
        assert_eq!(&frame[..6], &path().src_mac, "to us");
        let incoming = parse(&frame, MAX).unwrap();
        assert_eq!(incoming.flow, flow(), "seen from us");
        let segment = incoming.segment;
        assert_eq!((segment.seq, segment.ack), (SeqNr(seq), SeqNr(500)));
        assert_eq!(segment.flags, Flags::ACK.with(extra));
        assert_eq!((segment.window, segment.payload.len()), (512, 0));
        assert_eq!(segment.timestamps, Some(Timestamps { val: 22, ecr }));
    }
    let blocks = [[600, 700], [800, 900], [1000, 1100], [1200, 1300]];
    let segment = made(FromPeer::Sack(&blocks));
    let segment = parse(&segment, MAX).unwrap().segment;
    let told: Vec<u8> = blocks[..3].concat().into_iter().flat_map(u32::to_be_bytes).collect();
    assert_eq!((segment.seq, segment.ack, segment.sack), (SeqNr(9001), SeqNr(500), &told[..]));
    let frame = made(FromPeer::Data(9500, b"ahead of the rest"));
    let segment = parse(&frame, MAX).unwrap().segment;
    assert_eq!((segment.seq, segment.payload), (SeqNr(9500), &b"ahead of the rest"[..]));
}

proptest! {
    #[test]
    fn what_is_built_is_understood(data in proptest::collection::vec(any::<u8>(), 0..1400)) {
        let bytes = frame(&data);
        let incoming = parse(&bytes, MAX).unwrap();
        let sent = segment(data.len() as u32);
        prop_assert_eq!(incoming.flow, mirrored(flow()));
        let got = incoming.segment;
        prop_assert_eq!((got.seq, got.ack, got.flags, got.window), (sent.seq, sent.ack, sent.flags, sent.window));
        prop_assert_eq!(got.timestamps, sent.timestamps);
        prop_assert_eq!(got.sack, &[0, 0, 0, 70, 0, 0, 0, 90][..]);
        prop_assert_eq!(got.payload, &data[..]);
    }

    #[test]
    fn random_bytes_do_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = parse(&bytes, MAX);
        complete_checksum(&mut bytes);
        for (start, len) in [([8, 0, 0x45], 1), ([0x86, 0xdd, 0x60], 7)] {
            if bytes.len() > 14 + len {
                bytes[12..15].copy_from_slice(&start);
                bytes[14 + len - 1] = if len == 7 { 6 } else { start[2] };
            }
            let _ = parse(&bytes, MAX);
            complete_checksum(&mut bytes);
        }
    }

    /// Frames with a few bytes changed and their checksums put right, so that they reach deep into the engine.
    #[test]
    fn mutated_frames_do_no_harm(
        frames in proptest::collection::vec(
            (proptest::collection::vec((14usize..120, any::<u8>()), 0..6), 0u32..1500, any::<u8>()), 1..20),
    ) {
        let mut pair = Pair::new(&Setup::default(), LinkSpec::default(), 1);
        let (image, ..) = pair.hosts[B].export(pair.now);
        let (flow, path) = (image.flow, path());
        for (changes, len, flags) in frames {
            let len = len.min(1400);
            let mut out = SegmentOut { seq: SeqNr(image.snd_nxt), ack: SeqNr(image.rcv_nxt), ..segment(len) };
            out.flags = Flags(flags);
            let mut bytes = vec![0; MAX];
            let data = vec![flags; len as usize];
            let len = build(&mut bytes, &path, &flow, &out, (&data, &[]), 0).unwrap();
            bytes.truncate(len);
            for (at, value) in changes {
                if at < bytes.len() && !(26..38).contains(&at) {
                    bytes[at] = value;
                }
            }
            bytes[24..26].fill(0);
            let sum = Sum::default().plus(&bytes[14..34]).checksum();
            bytes[24..26].copy_from_slice(&sum);
            let sum = Sum::pseudo(&flow.local, &flow.remote, 6, (len - TCP_AT) as u16).partial();
            bytes[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum);
            pair.hosts[A].connection().send(pair.now, b"in flight", false);
            pair.hosts[A].frame_in(pair.now, &bytes);
            pair.step();
            pair.hosts[A].export(pair.now);
        }
    }
}
