//! What restored sockets go on with, over loopback. They need root.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt::TcpCongestion};
use underpass_stack::tcp::image::Image;

use super::handover::{Congestion, give};
use super::repair::TcpInfo;
use super::repair_tests::{BOTH, cycle_and, pair, pair_over, talk};
use super::sockopt;
use crate::bpf::Algorithm;

const INFINITE: u32 = 0x7fff_ffff;
/// What the kernel begins with.
const ANEW: Congestion = Congestion { cwnd: 10, ssthresh: INFINITE };

fn of(stream: &TcpStream) -> Congestion {
    let info = TcpInfo::of(stream.as_fd()).unwrap();
    Congestion { cwnd: info.snd_cwnd, ssthresh: info.snd_ssthresh }
}

fn cookie(stream: &TcpStream) -> u64 {
    sockopt::get(stream.as_fd(), libc::SOL_SOCKET, libc::SO_COOKIE).unwrap().0
}

fn name(stream: &TcpStream) -> String {
    let (name, _) = sockopt::get::<[u8; 16]>(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION).unwrap();
    String::from_utf8(name.to_vec()).unwrap().trim_end_matches('\0').to_owned()
}

fn choose(stream: &TcpStream, name: &str) {
    setsockopt(stream, TcpCongestion, &name.into()).unwrap();
}

/// What the kernel has, without other daemons' algorithms.
fn available() -> Vec<String> {
    let all = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap();
    all.split_whitespace().filter(|name| !Algorithm::is_kin(name)).map(str::to_owned).collect()
}

#[test]
fn a_restored_socket_takes_window_and_threshold_and_its_neighbours_do_not() {
    let algorithm = Algorithm::load().unwrap();
    let wanted = [(700, 350), (3, 2), (1, INFINITE), (10, 7), (1 << 20, INFINITE - 1)];
    for (address, chosen) in BOTH.into_iter().flat_map(|address| available().into_iter().map(move |c| (address, c))) {
        let (mut ours, mut peer) = pair_over(address);
        let (neighbour, _its_peer) = pair_over(address);
        choose(&ours, &chosen);
        let own = (cookie(&ours), cookie(&neighbour)).0;
        talk(&mut ours, &mut peer, 1);
        cycle_and(&ours, |_| (), || assert_eq!(of(&ours), ANEW, "the kernel begins anew"));
        for (cwnd, ssthresh) in wanted {
            let give = || give(&algorithm, ours.as_fd(), own, Congestion { cwnd, ssthresh }).unwrap();
            cycle_and(&ours, |_| (), || assert!(give()));
            // BBR knows no threshold.
            let ssthresh = if chosen == "bbr" { INFINITE } else { ssthresh };
            assert_eq!((name(&ours), of(&ours)), (chosen.clone(), Congestion { cwnd, ssthresh }));
            assert_eq!(of(&neighbour), ANEW);
            talk(&mut ours, &mut peer, 2);
        }
        transfer(&ours, &peer);
        assert_eq!(name(&ours), chosen);
    }
}

/// Many windows each way.
fn transfer(ours: &TcpStream, peer: &TcpStream) {
    const BYTES: usize = 8 << 20;
    let mut got = vec![0; BYTES];
    for (mut from, mut to) in [(ours, peer), (peer, ours)] {
        std::thread::scope(|scope| {
            scope.spawn(move || from.write_all(&vec![7; BYTES]).unwrap());
            to.read_exact(&mut got).unwrap();
        });
        assert!(got.iter().all(|&byte| byte == 7));
        got.fill(0);
    }
}

#[test]
fn two_daemons_do_not_get_into_each_others_way() {
    let algorithms = [Algorithm::load().unwrap(), Algorithm::load().unwrap()];
    let ((ours, _peer), (theirs, _their_peer)) = (pair(), pair());
    choose(&ours, "reno");
    choose(&theirs, "reno");
    let wanted = [Congestion { cwnd: 40, ssthresh: 20 }, Congestion { cwnd: 60, ssthresh: 30 }];
    algorithms[1].expect(cookie(&ours), 50, 50).unwrap();
    for ((algorithm, stream), wanted) in algorithms.iter().zip([&ours, &theirs]).zip(wanted) {
        assert!(give(algorithm, stream.as_fd(), cookie(stream), wanted).unwrap());
    }
    assert_eq!([of(&ours), of(&theirs)], wanted);
    assert!(!give(&algorithms[0], ours.as_fd(), cookie(&theirs), ANEW).unwrap());
    assert_eq!(of(&ours), wanted[0], "the cookie is another's");
}

#[test]
fn a_socket_that_a_dead_daemon_has_left_behind_gets_a_real_algorithm() {
    let wanted = Congestion { cwnd: 40, ssthresh: 20 };
    let (dead, alive) = (Algorithm::load().unwrap(), Algorithm::load().unwrap());
    let (mut ours, mut peer) = pair();
    choose(&ours, dead.name());
    drop(dead);
    talk(&mut ours, &mut peer, 1);
    assert!(give(&alive, ours.as_fd(), cookie(&ours), wanted).unwrap());
    assert!(available().contains(&name(&ours)), "{}", name(&ours));
    assert_eq!(of(&ours), wanted);
}

#[test]
fn a_socket_whose_route_has_chosen_is_left_alone() {
    let algorithm = Algorithm::load().unwrap();
    let address = Ipv4Addr::new(127, 1, 2, 3);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let route = format!("route add local {address} dev lo table local congctl lock reno");
            for words in ["link set lo up", &route] {
                assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "{words}");
            }
            let (mut ours, mut peer) = pair_over(IpAddr::V4(address));
            assert!(!give(&algorithm, ours.as_fd(), cookie(&ours), Congestion { cwnd: 40, ssthresh: 20 }).unwrap());
            assert_eq!((name(&ours), of(&ours)), ("reno".to_owned(), ANEW));
            talk(&mut ours, &mut peer, 1);
        });
    });
}

#[test]
fn a_socket_whose_algorithm_is_gone_is_left_alone() {
    let algorithm = Algorithm::load().unwrap();
    let (mut ours, mut peer) = pair();
    let stranger = Algorithm::load_as("stranger", true).unwrap();
    let chosen = stranger.name().to_owned();
    choose(&ours, &chosen);
    drop(stranger);
    assert!(!give(&algorithm, ours.as_fd(), cookie(&ours), Congestion { cwnd: 40, ssthresh: 20 }).unwrap());
    assert_eq!((name(&ours), of(&ours)), (chosen, ANEW), "a socket without a cookie is nobody's");
    talk(&mut ours, &mut peer, 1);
}

#[test]
fn a_window_is_what_was_offered_at_most_and_what_the_kernel_can_count() {
    let mut image = Image { cwnd: 50, ssthresh: u32::MAX, max_window: 60_000, mss_clamp: 1000, ..any_image() };
    assert_eq!(Congestion::of(&image), Congestion { cwnd: 50, ssthresh: INFINITE });
    (image.cwnd, image.ssthresh) = (70, 35);
    assert_eq!(Congestion::of(&image), Congestion { cwnd: 60, ssthresh: 35 });
    (image.cwnd, image.ssthresh, image.max_window) = (0, 0, u32::MAX);
    assert_eq!(Congestion::of(&image), Congestion { cwnd: 1, ssthresh: 2 });
    (image.cwnd, image.mss_clamp) = (u32::MAX, 0);
    assert_eq!(Congestion::of(&image).cwnd, 1 << 20);
}

/// One of a live socket.
fn any_image() -> Image {
    let (ours, _peer) = pair();
    let mut seen = None;
    super::repair_tests::cycle(&ours, |dumped| seen = Some(dumped.image));
    seen.unwrap()
}
