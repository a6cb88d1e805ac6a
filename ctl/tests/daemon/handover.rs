//! What a connection has found out about its path goes on with it in the kernel, however short the path.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Instant;

use underpass_ctl::daemon::repair::{TcpInfo, unacked};
use underpass_ctl::daemon::sockopt;
use underpass_lab::{Side, wait_for};

use crate::client::{Client, now};
use crate::{Bed, LIMIT};

over_both_ip_versions! {
    window_and_threshold_are_the_lanes_after_a_demotion
    the_round_trip_is_the_lanes_after_a_demotion
    without_timestamps_the_round_trip_is_measured_anew
}

fn window_and_threshold_are_the_lanes_after_a_demotion(bed: Bed) {
    let mut client = Client::connect(&bed.socket);
    for algorithm in ["cubic", "reno"] {
        for (cwnd, ssthresh) in [(33, 21), (4, 2), (20, u32::MAX), (10, 30)] {
            let (ours, mut peer) = bed.pair();
            sockopt::set(ours.as_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, algorithm.as_bytes()).unwrap();
            let change = |image: &mut underpass_stack::tcp::image::Image| {
                (image.cwnd, image.ssthresh) = (cwnd, ssthresh);
            };
            let slot = client.promote_changed(&ours, change).unwrap();
            let mut heard = [0; 5];
            client.send(slot, b"lane!");
            peer.read_exact(&mut heard).unwrap();
            let tcb = &client.stack.record(slot).unwrap().tcb;
            let (on_lane, mss) = (tcb.congestion(), tcb.mss());
            client.demote(slot).unwrap();
            let threshold = if ssthresh == u32::MAX { 0x7fff_ffff } else { on_lane.1 / mss };
            let info = TcpInfo::of(ours.as_fd()).unwrap();
            assert_eq!((info.snd_cwnd, info.snd_ssthresh), (on_lane.0 / mss, threshold), "{algorithm}");
            assert_eq!((info.snd_cwnd, info.snd_ssthresh.min(99)), (cwnd, ssthresh.min(99)), "{algorithm}");
            let (name, _) = sockopt::get::<[u8; 16]>(ours.as_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION).unwrap();
            assert!(name.starts_with(algorithm.as_bytes()), "{name:?}");
            (&ours).write_all(b"again").unwrap();
            peer.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"again");
        }
    }
}

fn the_round_trip_is_the_lanes_after_a_demotion(bed: Bed) {
    let mut client = Client::connect(&bed.socket);
    for (srtt_us, ms) in [(90, 1), (80_000, 80), (300_000, 300)] {
        for is_read in [true, false] {
            let (ours, mut peer) = bed.pair();
            let slot = client.promote_changed(&ours, |image| image.srtt_us = srtt_us).unwrap();
            // Which brings the peer's timestamp, too.
            peer.write_all(b"told").unwrap();
            let has_all = || {
                client.stack.pass(now());
                client.readable(slot) == 4
            };
            wait_for("the lane to have it", LIMIT, has_all).unwrap();
            if is_read {
                client.recv(slot, &mut [0; 4]);
            }
            let start = Instant::now();
            client.demote(slot).unwrap();
            let took = start.elapsed().as_millis() as u32;
            assert_eq!(unacked(ours.as_fd()).unwrap(), 0, "something of before is in flight");
            let info = TcpInfo::of(ours.as_fd()).unwrap();
            // The kernel's clock counts whole ms, and goes on meanwhile.
            assert!((ms * 1000..(ms + took + 3) * 1000).contains(&info.rtt), "{} instead of {ms} ms", info.rtt);
            // Its first idea of the variation is half of that, and 200 ms at least for the timeout.
            let rto = info.rtt + (2 * info.rtt).max(200_000);
            assert!((rto..rto + 10_000).contains(&info.rto), "a timeout of {} us", info.rto);
            echo_once(&ours, &mut peer, if is_read { b"" } else { b"told" });
        }
    }
}

fn without_timestamps_the_round_trip_is_measured_anew(bed: Bed) {
    for side in [Side::Server, Side::Client] {
        let timestamps = || std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", "0");
        bed.lab.host(side).namespace.inside(timestamps).unwrap().unwrap();
    }
    let mut client = Client::connect(&bed.socket);
    let (ours, mut peer) = bed.pair();
    let slot = client.promote_changed(&ours, |image| image.srtt_us = 80_000).unwrap();
    client.demote(slot).unwrap();
    assert_eq!(unacked(ours.as_fd()).unwrap(), 0, "something of before is in flight");
    assert_eq!(TcpInfo::of(ours.as_fd()).unwrap().rtt, 0);
    echo_once(&ours, &mut peer, b"");
}

/// `unread` and something new come from the peer, something new goes there.
fn echo_once(mut ours: &TcpStream, peer: &mut TcpStream, unread: &[u8]) {
    peer.write_all(b"more").unwrap();
    ours.write_all(b"again").unwrap();
    let mut heard = vec![0; unread.len() + 4];
    ours.read_exact(&mut heard).unwrap();
    assert_eq!(heard, [unread, b"more"].concat());
    let mut heard = [0; 5];
    peer.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"again");
}

#[test]
fn a_killed_daemon_leaves_no_congestion_control_behind() {
    let mut bed = Bed::new();
    let own = format!("underpass{:x}", bed.daemon.pid());
    let registered = || {
        let all = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap();
        all.split_whitespace().any(|name| name == own)
    };
    wait_for("the congestion control", LIMIT, registered).unwrap();
    bed.daemon.kill();
    wait_for("the congestion control to go", LIMIT, || !registered()).unwrap();
}
