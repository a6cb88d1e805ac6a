//! What a connection has found out about its path goes on with it in the kernel, however short the path.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use underpass_ctl::daemon::repair::TcpInfo;
use underpass_ctl::daemon::sockopt;
use underpass_lab::wait_for;

use crate::client::Client;
use crate::{Bed, LIMIT};

over_both_ip_versions! {
    window_and_threshold_are_the_lanes_after_a_demotion
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
