//! Connections between kernel and lane, and back.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;

use underpass_ctl::daemon::sockopt;
use underpass_lab::{LabOptions, Side, Standstills};
use underpass_stack::lane::Reason;
use underpass_stack::stack::{Event, event};
use underpass_stack::stats::Counter;
use underpass_stack::tcp::{Algorithm, Learnt};

use crate::client::Client;
use crate::{Bed, pattern};

fn retransmits(stream: &TcpStream) -> u32 {
    // tcpi_total_retrans of struct tcp_info.
    let info = sockopt::get::<[u8; 104]>(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_INFO);
    u32::from_ne_bytes(info.unwrap().0[100..104].try_into().unwrap())
}

fn kernel_round(stream: &mut TcpStream, at: &mut usize, len: usize) {
    let sent = pattern(*at, len);
    stream.write_all(&sent).unwrap();
    let mut back = vec![0; len];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, sent);
    *at += len;
}

fn lane_round(client: &mut Client, slot: u32, at: &mut usize, len: usize) {
    let sent = pattern(*at, len);
    client.send(slot, &sent);
    let mut back = vec![0; len];
    client.recv(slot, &mut back);
    assert_eq!(back, sent);
    *at += len;
}

over_both_ip_versions! {
    one_connection_changes_tier_a_hundred_times
    a_peer_that_never_stops_talking_loses_nothing
    queues_on_both_sides_travel_along
    the_peers_end_survives_a_demotion
    our_end_survives_a_demotion
    both_ends_closed_survive_a_demotion
    a_reset_heard_on_the_lane_is_reported_by_the_kernel
    a_promotion_that_is_not_taken_up_is_undone_at_the_end
}

fn one_connection_changes_tier_a_hundred_times(bed: Bed) {
    let (mut ours, peer) = bed.pair();
    let watched = peer.try_clone().unwrap();
    let echo = std::thread::spawn(move || crate::echo(peer));
    let mut client = Client::connect(&bed.socket);
    let watch = Standstills::watch().unwrap();
    let mut at = 0;
    for round in 0..100 {
        kernel_round(&mut ours, &mut at, 64);
        let slot = client.promote(&ours).unwrap_or_else(|reason| panic!("round {round}: {reason:?}"));
        for _ in 0..5 {
            lane_round(&mut client, slot, &mut at, 64);
        }
        lane_round(&mut client, slot, &mut at, 20_000);
        client.demote(slot).unwrap();
    }
    kernel_round(&mut ours, &mut at, 100_000);
    // Others may run beside this, and whoever is not scheduled for 8 ms answers too late once in a while; a step that loses frames does so
    // in every round.
    let (again, excused) = (retransmits(&watched), watch.count().min(20));
    assert!(u64::from(again) <= 2 + excused, "{again} retransmissions of the peer in a hundred rounds; {watch}");
    let status = bed.status();
    assert_eq!((status.promoted, status.demoted, status.connections), (100, 100, 0));
    drop(ours);
    echo.join().unwrap();
}

/// Frames that come while the connection changes hands are lost in numbers. What came after them goes along, or the connection
/// stays where it is until the gap is closed: nothing that was acknowledged selectively is forgotten, and no timeout is needed.
fn a_peer_that_never_stops_talking_loses_nothing(bed: Bed) {
    let (mut ours, mut peer) = bed.pair();
    let kernels = || [Side::Server, Side::Client].map(|side| bed.lab.host(side).namespace.kernel_counters().unwrap());
    let before = kernels();
    let watch = Standstills::watch().unwrap();
    let total = 60_000_000;
    let writer = std::thread::spawn(move || {
        for start in (0..total).step_by(10_000) {
            peer.write_all(&pattern(start, 10_000)).unwrap();
        }
        peer
    });
    let mut client = Client::connect(&bed.socket);
    let (mut at, mut promotions) = (0, 0);
    let mut take = |piece: usize, read: &mut dyn FnMut(&mut [u8])| {
        let mut bytes = vec![0; piece.min(total - at)];
        read(&mut bytes);
        assert!(bytes == pattern(at, bytes.len()), "bytes differ after {at}");
        at += bytes.len();
        at < total
    };
    let mut more = true;
    while more {
        more = match client.promote(&ours) {
            Ok(slot) => {
                promotions += 1;
                // What the kernel had received, and then some that comes over the lane.
                let piece = client.readable(slot) + 70_000;
                let more = take(piece, &mut |bytes| client.recv(slot, bytes));
                client.demote(slot).unwrap();
                more
            }
            Err(reason) => {
                assert!(reason.is_passing(), "{reason:?}");
                take(70_000, &mut |bytes| ours.read_exact(bytes).unwrap())
            }
        };
    }
    let after = kernels();
    let grown = |name: &str| [0, 1].map(|side| after[side][name] - before[side][name]);
    let [_, timeouts] = grown("TcpExt.TCPTimeouts");
    let [_, reneging] = grown("TcpExt.TCPSACKReneging");
    let frames = client.stack.stats().get(Counter::RxFrames);
    let refused = bed.status().refused;
    let seen = format!(
        "{promotions} promotions, {refused} refused, {frames} frames over the lane; the peer: {timeouts} timeouts, {reneging} for reneging; {watch}; \
         grown, ours and theirs: {:?}",
        after[0].keys().map(|name| (name, grown(name))).filter(|(_, grown)| *grown != [0, 0]).collect::<Vec<_>>()
    );
    println!("{seen}");
    assert!(promotions > 5 && frames > 2_000, "{seen}");
    assert!(reneging == 0 && timeouts <= 2 + watch.count().min(5), "{seen}");
    drop(writer.join().unwrap());
    assert_eq!(ours.read(&mut [0]).unwrap(), 0);
}

#[test]
fn many_queues_and_larger_packets_are_carried_too() {
    let options = LabOptions { queues: 2, mtu: 3000, ..LabOptions::default() };
    let bed = Bed::with(options, &[]);
    let mut client = Client::connect(&bed.socket);
    let mut conns: Vec<_> = (0..8).map(|_| bed.echo()).collect();
    let slots: Vec<u32> = conns.iter().map(|(ours, _)| client.promote(ours).unwrap()).collect();
    assert_eq!(client.attached.unwrap().1.queues, 2);
    for round in 0..5 {
        for slot in &slots {
            let mut at = round * 50_000;
            lane_round(&mut client, *slot, &mut at, 50_000);
        }
    }
    for ((ours, _), slot) in conns.iter_mut().zip(slots) {
        client.demote(slot).unwrap();
        kernel_round(ours, &mut 7, 1000);
    }
    for (ours, echo) in conns {
        drop(ours);
        echo.join().unwrap();
    }
}

#[test]
fn a_wire_whose_packets_do_not_fit_stays_with_the_kernel() {
    for mtu in [3700, 9000] {
        let bed = Bed::with(LabOptions { mtu, ..LabOptions::default() }, &[]);
        let (ours, _peer) = bed.pair();
        assert_eq!(Client::connect(&bed.socket).promote(&ours).unwrap_err(), Reason::Mtu, "MTU {mtu}");
        assert!(!bed.has_xdp());
    }
}

fn queues_on_both_sides_travel_along(bed: Bed) {
    let (mut ours, mut peer) = bed.pair();
    // Unread: 5000 bytes. Not yet acknowledged or not yet sent: as much as the peer's window leaves in our queue.
    peer.write_all(&pattern(0, 5000)).unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let Ok(n) = ours.write(&pattern(sent, 4096)) {
        sent += n;
    }
    ours.set_nonblocking(false).unwrap();
    let mut client = Client::connect(&bed.socket);
    let slot = client.promote(&ours).unwrap();
    let mut unread = vec![0; 5000];
    client.recv(slot, &mut unread);
    assert_eq!(unread, pattern(0, 5000));
    client.demote(slot).unwrap();
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        peer.read_to_end(&mut got).unwrap();
        got
    });
    ours.write_all(&pattern(sent, 100)).unwrap();
    drop(ours);
    let got = reader.join().unwrap();
    assert_eq!(got.len(), sent + 100);
    assert!(got == pattern(0, sent + 100));
}

fn the_peers_end_survives_a_demotion(bed: Bed) {
    let (mut ours, mut peer) = bed.pair();
    let mut client = Client::connect(&bed.socket);
    let slot = client.promote(&ours).unwrap();
    peer.write_all(b"last words").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let mut first = [0; 4];
    client.recv(slot, &mut first);
    client.demote(slot).unwrap();
    let mut rest = Vec::new();
    ours.read_to_end(&mut rest).unwrap();
    assert_eq!((&first, rest.as_slice()), (b"last", &b" words"[..]));
    ours.write_all(b"an answer").unwrap();
    drop(ours);
    let mut heard = Vec::new();
    peer.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"an answer");
}

fn our_end_survives_a_demotion(bed: Bed) {
    let (mut ours, mut peer) = bed.pair();
    let mut client = Client::connect(&bed.socket);
    let slot = client.promote(&ours).unwrap();
    client.send(slot, b"all");
    let now = crate::client::now();
    client.stack.with_connection(slot, now, |connection| connection.shutdown_write(now)).unwrap();
    let mut heard = Vec::new();
    peer.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"all");
    client.demote(slot).unwrap();
    peer.write_all(b"still here").unwrap();
    drop(peer);
    let mut rest = Vec::new();
    ours.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"still here");
}

fn both_ends_closed_survive_a_demotion(bed: Bed) {
    let (mut ours, mut peer) = bed.pair();
    let mut client = Client::connect(&bed.socket);
    let slot = client.promote(&ours).unwrap();
    let now = crate::client::now();
    peer.write_all(b"bye").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let mut heard = [0; 3];
    client.recv(slot, &mut heard);
    client.stack.with_connection(slot, now, |connection| connection.shutdown_write(now)).unwrap();
    assert_eq!(peer.read(&mut heard).unwrap(), 0);
    client.stack.pass(crate::client::now());
    client.demote(slot).unwrap();
    assert_eq!(ours.read(&mut heard).unwrap(), 0);
    assert!(ours.take_error().unwrap().is_none());
}

fn a_reset_heard_on_the_lane_is_reported_by_the_kernel(bed: Bed) {
    let (mut ours, mut peer) = bed.pair();
    let mut client = Client::connect(&bed.socket);
    let slot = client.promote(&ours).unwrap();
    peer.write_all(b"before").unwrap();
    let mut heard = [0; 2];
    client.recv(slot, &mut heard);
    // Closing at once, whatever is on the way: a reset.
    set_linger_zero(&peer);
    drop(peer);
    let limit = std::time::Instant::now() + crate::LIMIT;
    let mut events = Vec::new();
    while !events.iter().any(|event: &Event| event.bits & event::RESET != 0) {
        assert!(std::time::Instant::now() < limit, "no reset heard");
        client.stack.pass(crate::client::now());
        client.stack.take_events(&mut events);
    }
    client.demote(slot).unwrap();
    let mut rest = [0; 10];
    let outcome: Vec<_> = (0..2).map(|_| ours.read(&mut rest).map_err(|error| error.raw_os_error())).collect();
    assert!(outcome.contains(&Err(Some(libc::ECONNRESET))), "{outcome:?}");
}

fn set_linger_zero(stream: &TcpStream) {
    let linger = [1i32, 0];
    underpass_ctl::daemon::sockopt::set(stream.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
}

fn a_promotion_that_is_not_taken_up_is_undone_at_the_end(bed: Bed) {
    let (mut ours, mut peer) = bed.pair();
    peer.write_all(b"unread").unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let Ok(n) = ours.write(&pattern(sent, 4096)) {
        sent += n;
    }
    ours.set_nonblocking(false).unwrap();
    let mut client = Client::connect(&bed.socket);
    client.promote_only(&ours).unwrap();
    drop(client);
    bed.wait_idle();
    let mut unread = [0; 6];
    ours.read_exact(&mut unread).unwrap();
    assert_eq!(&unread, b"unread");
    drop(ours);
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert!(got == pattern(0, sent));
}

#[test]
fn what_the_lane_cannot_honour_stays_in_the_kernel() {
    let bed = Bed::new();
    let mut client = Client::connect(&bed.socket);
    let with = |level, name, value| {
        let (ours, peer) = bed.pair();
        underpass_ctl::daemon::sockopt::set_int(ours.as_fd(), level, name, value).unwrap();
        (ours, peer)
    };
    let cases = [
        (with(libc::SOL_SOCKET, libc::SO_MARK, 7), Reason::Mark),
        (with(libc::SOL_SOCKET, libc::SO_OOBINLINE, 1), Reason::Urgent),
        (with(libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1), Reason::SocketOption),
        (with(libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0), Reason::SocketOption),
        (with(libc::SOL_SOCKET, libc::SO_RCVLOWAT, 100), Reason::SocketOption),
        (with(libc::IPPROTO_TCP, libc::TCP_INQ, 1), Reason::SocketOption),
        (with(libc::SOL_IP, libc::IP_MINTTL, 3), Reason::SocketOption),
    ];
    for ((ours, _peer), reason) in &cases {
        assert_eq!(client.promote(ours).unwrap_err(), *reason);
    }
    let over_v6 = Bed { v6: true, ..bed };
    let with = |name, value: &[u8]| {
        let (ours, peer) = over_v6.pair();
        underpass_ctl::daemon::sockopt::set(ours.as_fd(), libc::SOL_IPV6, name, value).unwrap();
        (ours, peer)
    };
    const ON: &[u8] = &[1, 0, 0, 0];
    let cases_v6 = [
        with(libc::IPV6_RECVTCLASS, ON),
        with(libc::IPV6_RECVPKTINFO, ON),
        with(libc::IPV6_RECVERR, ON),
        with(libc::IPV6_MINHOPCOUNT, &[9, 0, 0, 0]),
        // A padding option of eight bytes in every packet.
        with(libc::IPV6_DSTOPTS, &[0, 0, 1, 4, 0, 0, 0, 0]),
    ];
    for (ours, _peer) in &cases_v6 {
        assert_eq!(client.promote(ours).unwrap_err(), Reason::SocketOption);
    }
    let bed = Bed { v6: false, ..over_v6 };
    let (filtered, _peer) = bed.pair();
    underpass_ctl::daemon::sockopt::attach_drop_all(filtered.as_fd()).unwrap();
    assert_eq!(client.promote(&filtered).unwrap_err(), Reason::Filter);
    let (closing, peer) = bed.pair();
    drop(peer);
    let mut byte = [0];
    assert_eq!((&closing).read(&mut byte).unwrap(), 0);
    assert_eq!(client.promote(&closing).unwrap_err(), Reason::NotConnected);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let own = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(client.promote(&own).unwrap_err(), Reason::Loopback);
    let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::from(std::os::fd::OwnedFd::from(datagram));
    assert_eq!(client.promote(&stream).unwrap_err(), Reason::NotTcp);
    assert!(!bed.has_xdp(), "a refusal leaves no program on the interface");
}

#[test]
#[ignore = "a measurement"]
fn how_long_it_takes() {
    let bed = Bed::new();
    let (mut ours, _echo) = bed.echo();
    let mut client = Client::connect(&bed.socket);
    let (mut up, mut down, mut at) = (Vec::new(), Vec::new(), 0);
    for _ in 0..300 {
        kernel_round(&mut ours, &mut at, 64);
        let start = std::time::Instant::now();
        let slot = client.promote(&ours).unwrap();
        up.push(start.elapsed());
        lane_round(&mut client, slot, &mut at, 64);
        let generation = client.freeze(slot);
        let start = std::time::Instant::now();
        let done = underpass_stack::control::Demote { slot, generation };
        client.ask(&done, &[]).as_message::<underpass_stack::control::Demoted>().unwrap();
        down.push(start.elapsed());
        client.stack.release(slot);
    }
    up.sort();
    down.sort();
    println!("promote: median {:?}, p99 {:?}; demote: median {:?}, p99 {:?}", up[150], up[297], down[150], down[297]);
}

/// The lane goes on with the model of the kernel's BBR, which it reads from the socket (TCP_CC_INFO).
#[test]
fn what_the_kernels_bbr_has_learnt_is_understood() {
    const TCP_CC_INFO: i32 = 26;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    sockopt::set(ours.as_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"bbr").unwrap();
    let mut taken = vec![0; 100_000];
    for _ in 0..20 {
        ours.write_all(&taken).unwrap();
        peer.read_exact(&mut taken).unwrap();
    }
    let (info, len) = sockopt::get::<[u8; Learnt::INFO_LEN]>(ours.as_fd(), libc::IPPROTO_TCP, TCP_CC_INFO).unwrap();
    let learnt = Learnt::of(Algorithm::Bbr, &info[..len]);
    let Learnt::Bbr { bandwidth, min_rtt_us, .. } = learnt else { panic!("{learnt:?}") };
    assert!(bandwidth > 1_000_000 && (1..1_000_000).contains(&min_rtt_us), "{learnt:?}");
}
