//! The XDP program's decisions, frame by frame. They need root.

use underpass_stack::ip::flow::FlowKey;

use super::Steer;
use super::counters::Steered;
use super::inject::test_run;

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN_ACK: u8 = 17;

fn flow() -> FlowKey {
    FlowKey::tcp("192.0.2.1:80".parse().unwrap(), "192.0.2.2:999".parse().unwrap())
}

/// A frame from 192.0.2.2:999 to 192.0.2.1:80 with 10 bytes of data.
fn frame(flags: u8, tag: Option<u16>) -> Vec<u8> {
    let mut out = vec![2; 12];
    if let Some(control) = tag {
        out.extend([0x81, 0x00]);
        out.extend(control.to_be_bytes());
    }
    out.extend([0x08, 0x00, 0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1]);
    out.extend(999u16.to_be_bytes());
    out.extend(80u16.to_be_bytes());
    out.extend(1000u32.to_be_bytes());
    out.extend(2000u32.to_be_bytes());
    out.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
    out.extend([b'x'; 10]);
    out
}

fn flow_v6() -> FlowKey {
    FlowKey::tcp("[2001:db8::1]:80".parse().unwrap(), "[2001:db8::2]:999".parse().unwrap())
}

/// The same over IPv6.
fn frame_v6(flags: u8, tag: Option<u16>) -> Vec<u8> {
    let v4 = frame(flags, tag);
    let ethertype = if tag.is_some() { 16 } else { 12 };
    let mut out = v4[..ethertype].to_vec();
    out.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 30, 6, 64]);
    let flow = flow_v6();
    out.extend(flow.remote.0);
    out.extend(flow.local.0);
    out.extend(&v4[ethertype + 22..]);
    out
}

/// What the program counts for one frame.
fn counted(steer: &Steer, frame: &[u8]) -> Steered {
    let before = steer.steered().unwrap();
    test_run(steer.program(), frame, 1).unwrap();
    let after = steer.steered().unwrap();
    Steered {
        redirected: after.redirected - before.redirected,
        watched: after.watched - before.watched,
        missed: after.missed - before.missed,
        not_ours: after.not_ours - before.not_ours,
    }
}

const REDIRECTED: Steered = Steered { redirected: 1, watched: 0, missed: 0, not_ours: 0 };
const WATCHED: Steered = Steered { redirected: 0, watched: 1, missed: 0, not_ours: 0 };
const MISSED: Steered = Steered { redirected: 0, watched: 0, missed: 1, not_ours: 0 };
const NOT_OURS: Steered = Steered { redirected: 0, watched: 0, missed: 0, not_ours: 1 };

#[test]
fn only_the_exact_flow_is_redirected() {
    let mut steer = Steer::load().unwrap();
    let data = frame(ACK, None);
    assert_eq!(counted(&steer, &data), MISSED);
    steer.redirect(&flow(), 0).unwrap();
    assert!(steer.holds(&flow()));
    assert_eq!(steer.flows(), [flow()]);
    assert_eq!(counted(&steer, &data), REDIRECTED);
    assert_eq!(counted(&steer, &frame(ACK, Some(7 << 13))), REDIRECTED, "with a priority");
    assert_eq!(counted(&steer, &frame(ACK, Some(5))), NOT_OURS, "another VLAN's");
    let mut other_port = data.clone();
    other_port[35] ^= 1;
    assert_eq!(counted(&steer, &other_port), MISSED);
    assert!(steer.release(&flow()));
    assert!(!steer.release(&flow()));
    assert_eq!(counted(&steer, &data), MISSED);
}

#[test]
fn what_opens_a_connection_goes_to_the_kernel_unless_there_is_one() {
    let mut steer = Steer::load().unwrap();
    assert_eq!(counted(&steer, &frame(SYN, None)), NOT_OURS);
    steer.watch(&flow()).unwrap();
    assert_eq!(counted(&steer, &frame(SYN, None)), NOT_OURS, "it is not what the kernel's socket is fed with");
    assert_eq!(steer.watched(&flow()).unwrap().passed, 0);
    steer.redirect(&flow(), 0).unwrap();
    assert_eq!(counted(&steer, &frame(SYN, None)), REDIRECTED, "the peer has started anew");
    steer.release(&flow());
    steer.unwatch(&flow());
    assert_eq!(counted(&steer, &frame(SYN, None)), NOT_OURS);
}

#[test]
fn what_is_odd_goes_to_the_kernel() {
    let mut steer = Steer::load().unwrap();
    steer.redirect(&flow(), 0).unwrap();
    let changed = |at: usize, to: u8| {
        let mut bytes = frame(ACK, None);
        bytes[at] = to;
        bytes
    };
    let cases = [
        ("IP options", changed(14, 0x46)),
        ("IP version", changed(14, 0x55)),
        ("more fragments", changed(20, 0x20)),
        ("a later fragment", changed(21, 7)),
        ("UDP", changed(23, 17)),
        ("total length shorter than the header", changed(17, 10)),
        ("TCP header shorter than it may be", changed(46, 0x40)),
        ("TCP header beyond the packet", changed(46, 0xf0)),
        ("ARP", changed(13, 0x06)),
    ];
    for (what, bytes) in cases {
        assert_eq!(counted(&steer, &bytes), NOT_OURS, "{what}");
    }
    let whole = frame(ACK, None);
    for cut in 14..54 {
        assert_eq!(counted(&steer, &whole[..cut]), NOT_OURS, "cut at {cut}");
    }
}

#[test]
fn a_watch_remembers_how_far_the_kernel_was_fed() {
    let mut steer = Steer::load().unwrap();
    steer.watch(&flow()).unwrap();
    assert_eq!(steer.watched(&flow()).unwrap().passed, 0);
    assert_eq!(counted(&steer, &frame(ACK, None)), WATCHED);
    let seen = steer.watched(&flow()).unwrap();
    assert_eq!((seen.passed, seen.passed_end), (1, 1010));
    assert_eq!(counted(&steer, &frame(FIN_ACK, None)), WATCHED);
    let seen = steer.watched(&flow()).unwrap();
    assert_eq!((seen.passed, seen.passed_end), (2, 1011), "a FIN counts");
    steer.redirect(&flow(), 0).unwrap();
    assert_eq!(counted(&steer, &frame(ACK, None)), REDIRECTED);
    assert_eq!(steer.watched(&flow()).unwrap().passed, 2, "what was recorded stays");
    steer.unwatch(&flow());
    assert!(steer.watched(&flow()).is_err());
}

#[test]
fn ipv6_is_steered_in_the_same_way() {
    let mut steer = Steer::load().unwrap();
    assert_eq!(counted(&steer, &frame_v6(ACK, None)), MISSED);
    steer.watch(&flow_v6()).unwrap();
    assert_eq!(counted(&steer, &frame_v6(FIN_ACK, None)), WATCHED);
    assert_eq!(steer.watched(&flow_v6()).unwrap().passed_end, 1011);
    steer.redirect(&flow_v6(), 0).unwrap();
    assert_eq!(counted(&steer, &frame_v6(ACK, None)), REDIRECTED);
    assert_eq!(counted(&steer, &frame_v6(ACK, Some(7 << 13))), REDIRECTED, "with a priority");
    assert_eq!(counted(&steer, &frame_v6(ACK, Some(5))), NOT_OURS, "another VLAN's");
    assert_eq!(counted(&steer, &frame_v6(SYN, None)), REDIRECTED);
    for (what, at, to) in [("version", 14, 0x40), ("fragment", 20, 44), ("hop by hop", 20, 0), ("ICMPv6", 20, 58)] {
        let mut bytes = frame_v6(ACK, None);
        bytes[at] = to;
        assert_eq!(counted(&steer, &bytes), NOT_OURS, "{what}");
    }
    for cut in 14..74 {
        assert_eq!(counted(&steer, &frame_v6(ACK, None)[..cut]), NOT_OURS, "cut at {cut}");
    }
}

#[test]
fn a_mapped_address_on_the_wire_is_no_ipv4_flow() {
    let mut steer = Steer::load().unwrap();
    steer.redirect(&flow(), 0).unwrap();
    let mut bytes = frame_v6(ACK, None);
    bytes[22..38].copy_from_slice(&flow().remote.0);
    bytes[38..54].copy_from_slice(&flow().local.0);
    assert_eq!(counted(&steer, &bytes), NOT_OURS);
}
