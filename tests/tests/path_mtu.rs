//! Paths with a narrow link in the middle, of which the hosts learn from a router, or from nobody.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};
use underpass_lab::{Kind, Lab, LabOptions, Over, Preload, Router, Side, Standstills, Talk, wait_for};

const TRAFFIC: &str = env!("CARGO_BIN_EXE_traffic");
const EAGER: (&str, &str) = ("UNDERPASS_PROMOTE", "eager");
/// Bytes of a message: several full segments.
const MESSAGE: usize = 20_000;

/// Two hosts, a router between them.
fn lab() -> Lab {
    lab_over(Over::V4)
}

fn lab_over(over: Over) -> Lab {
    Lab::with_daemon(LabOptions { routed: true, over, ..LabOptions::default() }).unwrap()
}

fn router(lab: &Lab) -> &Router {
    lab.router().expect("a lab with a router")
}

fn counter(lab: &Lab, talk: &mut Talk, name: &str) -> u64 {
    lab.counter(talk.program(Side::Server).pid(), name).unwrap()
}

/// An echo server on the lane.
fn echo(lab: &Lab) -> Talk {
    let mut talk = Talk::start(lab, TRAFFIC, Kind::PingPong(MESSAGE), Preload::Server, &[EAGER]).unwrap();
    talk.await_lane(lab, Side::Server).unwrap_or_else(|error| panic!("{error}"));
    talk
}

/// Goes on for some rounds; how long they took, but for times in which the machine stood still.
fn rounds(talk: &mut Talk) -> Duration {
    let watch = Standstills::watch().unwrap();
    let start = Instant::now();
    talk.go_on(20).unwrap();
    start.elapsed().saturating_sub(watch.total())
}

#[track_caller]
fn still_on_the_lane(lab: &Lab, talk: &mut Talk) {
    let socket = talk.connection(lab, Side::Server).unwrap();
    assert_eq!((socket.tier.as_str(), socket.demoted), ("xdp", 0), "{socket:?}");
}

#[test]
fn a_router_is_believed_at_once() {
    believed_at_once(Over::V4);
}

/// Packet too big of ICMPv6 (RFC 4443, section 3.2).
#[test]
fn a_router_is_believed_at_once_over_ipv6() {
    believed_at_once(Over::V6);
}

fn believed_at_once(over: Over) {
    let lab = lab_over(over);
    let mut talk = echo(&lab);
    rounds(&mut talk);
    router(&lab).narrow(&lab, Side::Client, 1400).unwrap();
    let took = rounds(&mut talk);
    // No timeout: the first message of the router has everything sent again.
    assert!(took < Duration::from_millis(200), "{took:?}");
    still_on_the_lane(&lab, &mut talk);
    assert_eq!(counter(&lab, &mut talk, "black_holes"), 0);
    assert!(counter(&lab, &mut talk, "too_big_taken") >= 1);
    talk.end().unwrap();
}

#[test]
fn a_silent_router_costs_a_moment() {
    let lab = lab();
    let mut talk = echo(&lab);
    rounds(&mut talk);
    router(&lab).speak(false).unwrap();
    router(&lab).narrow(&lab, Side::Client, 1400).unwrap();
    let took = rounds(&mut talk);
    // Two timeouts of 200 and 400 ms.
    assert!(took < Duration::from_secs(3), "{took:?}");
    still_on_the_lane(&lab, &mut talk);
    assert!(counter(&lab, &mut talk, "black_holes") >= 1);
    // The kernel would never find out by itself (tcp_mtu_probing is off): it is told.
    let pid = talk.program(Side::Server).pid().to_string();
    lab.underpass(&["demote", "-p", &pid, "--all"]).unwrap();
    talk.await_connection(&lab, Side::Server, "a demotion", |socket| socket.demoted >= 1).unwrap();
    rounds(&mut talk);
    talk.end().unwrap();
}

#[test]
fn what_the_kernel_has_learnt_counts_on_the_lane() {
    let lab = lab();
    router(&lab).narrow(&lab, Side::Client, 1400).unwrap();
    let mut before = Talk::start(&lab, TRAFFIC, Kind::PingPong(MESSAGE), Preload::Neither, &[]).unwrap();
    before.go_on(5).unwrap();
    before.end().unwrap();
    let mut talk = echo(&lab);
    rounds(&mut talk);
    still_on_the_lane(&lab, &mut talk);
    assert_eq!((counter(&lab, &mut talk, "too_big_taken"), counter(&lab, &mut talk, "timeouts")), (0, 0));
    talk.end().unwrap();
}

/// The ICMP message of a router (RFC 1191, section 4): no more than `mtu` bytes of the packet fit that began with `quoted`.
fn message(mtu: u16, quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![3, 4, 0, 0, 0, 0, (mtu >> 8) as u8, mtu as u8];
    message.extend(quoted);
    let words = message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

#[test]
fn forged_messages_change_nothing() {
    let lab = lab();
    let mut talk = echo(&lab);
    let pid = talk.program(Side::Server).pid();
    let ours = lab.connections().unwrap().into_iter().find(|c| c.pid == pid && c.socket.tier == "xdp").unwrap();
    let (Some(SocketAddr::V4(local)), Some(SocketAddr::V4(peer))) = (ours.local, ours.peer) else {
        panic!("{ours:?}");
    };
    let mut quoted = vec![0x45, 0, 0x05, 0xdc, 0, 0, 0x40, 0, 63, 6, 0, 0];
    quoted.extend(local.ip().octets().into_iter().chain(peer.ip().octets()));
    quoted.extend(local.port().to_be_bytes().into_iter().chain(peer.port().to_be_bytes()));
    let victim = lab.host(Side::Server).v4.octets();
    // Everything is right but the sequence number, which somebody who does not see the packets has to guess.
    router(&lab)
        .namespace()
        .inside(|| {
            let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Icmp).unwrap();
            for guess in 0..200u32 {
                let seq = guess.wrapping_mul(0x0147_ae15).to_be_bytes();
                let forged = message(576, &[&quoted[..], &seq].concat());
                let [a, b, c, d] = victim;
                sendto(raw.as_raw_fd(), &forged, &SockaddrIn::new(a, b, c, d, 0), MsgFlags::empty()).unwrap();
            }
        })
        .unwrap();
    wait_for("the forged messages to be judged", Duration::from_secs(5), || {
        lab.counter(pid, "too_big_ignored").is_ok_and(|ignored| ignored >= 100)
    })
    .unwrap();
    rounds(&mut talk);
    still_on_the_lane(&lab, &mut talk);
    assert_eq!(counter(&lab, &mut talk, "too_big_taken"), 0);
    talk.end().unwrap();
}
