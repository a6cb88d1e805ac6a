//! Dump and restore in place, over loopback, with the kernel as both ends. They need root.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use underpass_stack::control::Restore;
use underpass_stack::ip::flow::FlowKey;
use underpass_stack::tcp::image::flag;

use super::eligible::Endpoints;
use super::repair::{Dump, DumpError, TcpInfo, dump, in_repair, open, remember, silence, thaw, unacked};
use super::restore::{Bytes, SNDBUF_LOCK, hollow, restore, set_window};
use super::sockopt::{self, Family, get_int, set_int};
use crate::net::flow_label::Label;

pub(super) fn pair() -> (TcpStream, TcpStream) {
    pair_over(Ipv4Addr::LOCALHOST.into())
}

pub(super) fn pair_over(address: IpAddr) -> (TcpStream, TcpStream) {
    let listener = listen_on(address);
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    for end in [&ours, &peer] {
        end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    (ours, peer)
}

/// Over IPv6 with segments that TCP_MAXSEG can name: the loopback's are larger.
fn listen_on(address: IpAddr) -> TcpListener {
    let listener = TcpListener::bind((address, 0)).unwrap();
    if address.is_ipv6() {
        set_int(listener.as_fd(), libc::IPPROTO_TCP, libc::TCP_MAXSEG, 32_000).unwrap();
    }
    listener
}

fn flow_of(stream: &TcpStream) -> FlowKey {
    FlowKey::tcp(stream.local_addr().unwrap(), stream.peer_addr().unwrap())
}

/// A dump of a connection whose last segments may still be on their way through the kernel.
fn settled_dump(fd: BorrowedFd<'_>, flow: FlowKey, saved: &Restore) -> Dump {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        match dump(fd, flow, saved) {
            Err(DumpError::Moving) if Instant::now() < until => {}
            other => return other.unwrap(),
        }
    }
}

/// Takes the connection out of the kernel and puts it back, as promotion and demotion do.
pub(super) fn cycle(stream: &TcpStream, change: impl FnOnce(&mut Dump)) {
    cycle_and(stream, change, || ());
}

pub(super) fn cycle_and(stream: &TcpStream, change: impl FnOnce(&mut Dump), before_waking: impl FnOnce()) {
    let fd = stream.as_fd();
    let mss = get_int(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG).unwrap();
    let saved = out_and_in(stream, change, before_waking);
    assert!(!in_repair(fd).unwrap());
    assert_eq!(remember(fd).unwrap(), saved);
    assert_eq!(get_int(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG).unwrap(), mss);
    assert!(stream.take_error().unwrap().is_none());
}

/// Returns what the socket had before.
fn out_and_in(stream: &TcpStream, change: impl FnOnce(&mut Dump), before_waking: impl FnOnce()) -> Restore {
    let fd = stream.as_fd();
    let saved = remember(fd).unwrap();
    open(fd).unwrap();
    silence(fd).unwrap();
    let mut dumped = settled_dump(fd, flow_of(stream), &saved);
    hollow(fd, &dumped.image).unwrap();
    assert!(in_repair(fd).unwrap());
    change(&mut dumped);
    let bytes = Bytes { recv: &dumped.recv, before: &[], send: &dumped.send };
    restore(fd, &dumped.image, bytes, &saved, before_waking).unwrap();
    saved
}

pub(super) fn talk(ours: &mut TcpStream, peer: &mut TcpStream, round: u8) {
    let mut seen = [0; 100];
    ours.write_all(&[round; 100]).unwrap();
    peer.read_exact(&mut seen).unwrap();
    assert_eq!(seen, [round; 100]);
    peer.write_all(&[!round; 100]).unwrap();
    ours.read_exact(&mut seen).unwrap();
    assert_eq!(seen, [!round; 100]);
}

pub(super) const BOTH: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

#[test]
fn a_live_connection_survives_two_hundred_cycles() {
    for address in BOTH {
        let (mut ours, mut peer) = pair_over(address);
        for round in 0..200u8 {
            cycle(&ours, |_| ());
            talk(&mut ours, &mut peer, round);
        }
    }
}

#[test]
fn the_accepting_side_survives_too_and_its_listener_goes_on() {
    for address in BOTH {
        let listener = listen_on(address);
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut ours, _) = listener.accept().unwrap();
        for round in 0..20 {
            cycle(&ours, |_| ());
            talk(&mut ours, &mut peer, round);
        }
        let again = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(again.peer_addr().unwrap(), listener.local_addr().unwrap());
    }
}

#[test]
fn unread_bytes_come_back_in_order() {
    BOTH.map(pair_over).into_iter().for_each(|(ours, peer)| unread_bytes_of(ours, peer));
}

fn unread_bytes_of(mut ours: TcpStream, mut peer: TcpStream) {
    let sent: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    let mut got = vec![0; 50_000];
    let (first, more) = sent.split_at(got.len());
    peer.write_all(first).unwrap();
    // Nothing takes the peer's segments elsewhere here: while the socket is closed for an instant, one of them would be answered by a reset.
    await_silence(&peer);
    ours.read_exact(&mut got[..10]).unwrap();
    for upto in (10..got.len()).step_by(7_000) {
        cycle(&ours, |_| ());
        let end = (upto + 7_000).min(got.len());
        ours.read_exact(&mut got[upto..end]).unwrap();
    }
    let mut rest = vec![0; more.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| (&peer).write_all(more).unwrap());
        ours.read_exact(&mut rest).unwrap();
    });
    got.extend(rest);
    assert_eq!(got, sent);
    talk(&mut ours, &mut peer, 9);
}

/// Waits until everything that was written has been acknowledged.
fn await_silence(stream: &TcpStream) {
    let until = Instant::now() + Duration::from_secs(5);
    while unacked(stream.as_fd()).unwrap() > 0 {
        assert!(Instant::now() < until, "{} bytes unacknowledged", unacked(stream.as_fd()).unwrap());
        std::thread::yield_now();
    }
}

#[test]
fn unsent_bytes_are_sent_and_sent_ones_retransmitted() {
    BOTH.map(pair_over).into_iter().for_each(|(ours, peer)| unsent_bytes_of(ours, peer));
}

fn unsent_bytes_of(mut ours: TcpStream, mut peer: TcpStream) {
    ours.set_nonblocking(true).unwrap();
    let mut sent = Vec::new();
    // The peer does not read: its window closes, and both unsent and unacknowledged bytes pile up.
    while let Ok(n) = ours.write(&[sent.len() as u8; 3001]) {
        sent.extend(vec![sent.len() as u8; n]);
    }
    ours.set_nonblocking(false).unwrap();
    let (mut queued, mut in_flight, mut window) = (0, 0, 0);
    cycle(&ours, |Dump { image, send, .. }| {
        queued = send.len();
        (in_flight, window) = (image.snd_nxt.wrapping_sub(image.snd_una), image.snd_wnd);
    });
    assert!(queued > 100_000, "{queued} bytes queued");
    assert!(
        in_flight <= window && queued > in_flight as usize,
        "{in_flight} of {queued} bytes in flight, window {window}"
    );
    let mut got = vec![0; sent.len()];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, sent);
    talk(&mut ours, &mut peer, 3);
}

#[test]
fn an_untouched_socket_thaws() {
    let (mut ours, mut peer) = pair();
    peer.write_all(b"waiting").unwrap();
    let mut first = [0; 1];
    ours.read_exact(&mut first).unwrap();
    let fd = ours.as_fd();
    let saved = remember(fd).unwrap();
    open(fd).unwrap();
    silence(fd).unwrap();
    let dumped = dump(fd, flow_of(&ours), &saved).unwrap();
    assert_eq!(dumped.recv, b"aiting");
    set_window(fd, &dumped.image).unwrap();
    thaw(fd, &saved).unwrap();
    let mut rest = [0; 6];
    ours.read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"aiting");
    talk(&mut ours, &mut peer, 1);
}

#[test]
fn our_fin_queued_reaches_the_peer_after_the_bytes() {
    let (mut ours, mut peer) = pair();
    peer.write_all(b"unread").unwrap();
    cycle(&ours, |dumped| {
        dumped.send.extend(b"last words");
        dumped.image.snd_end = dumped.image.snd_end.wrapping_add(10);
        dumped.image.flags |= flag::FIN_QUEUED;
    });
    let mut heard = Vec::new();
    peer.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"last words");
    peer.write_all(b" and more").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let mut unread = Vec::new();
    ours.read_to_end(&mut unread).unwrap();
    assert_eq!(unread, b"unread and more");
}

#[test]
fn our_fin_in_flight_is_sent_again_if_it_was_lost() {
    let (mut ours, mut peer) = pair();
    cycle(&ours, |dumped| {
        dumped.send.extend(b"lost on the way");
        dumped.image.snd_end = dumped.image.snd_end.wrapping_add(15);
        dumped.image.snd_nxt = dumped.image.snd_end.wrapping_add(1);
        dumped.image.flags |= flag::FIN_SENT;
    });
    let mut heard = Vec::new();
    peer.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"lost on the way");
    drop(peer);
    assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn options_of_the_program_come_back() {
    let (ours, _peer) = pair();
    let fd = ours.as_fd();
    set_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).unwrap();
    set_int(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1).unwrap();
    set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 77_000).unwrap();
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 33).unwrap();
    ours.set_nodelay(true).unwrap();
    cycle(&ours, |_| ());
    assert_eq!(get_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR).unwrap(), 1);
    assert_eq!(get_int(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE).unwrap(), 1);
    assert_eq!(get_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF).unwrap(), 154_000);
    assert_eq!(get_int(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE).unwrap(), 33);
    assert!(ours.nodelay().unwrap());
}

#[test]
fn a_v6_socket_with_mapped_addresses_survives() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut peer = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (mut ours, _) = listener.accept().unwrap();
    assert!(matches!(ours.local_addr().unwrap(), SocketAddr::V6(_)));
    for round in 0..10 {
        cycle(&ours, |_| ());
        talk(&mut ours, &mut peer, round);
    }
}

#[test]
fn a_socket_that_the_program_had_bound_survives() {
    let any: [(IpAddr, AddressFamily, Family); 2] = [
        (Ipv4Addr::UNSPECIFIED.into(), AddressFamily::Inet, Family::V4),
        (Ipv6Addr::UNSPECIFIED.into(), AddressFamily::Inet6, Family::V6),
    ];
    for (address, (any, domain, family)) in BOTH.into_iter().zip(any) {
        let listener = listen_on(address);
        let bound = socket(domain, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        sockopt::bind(bound.as_fd(), family, SocketAddr::new(any, 0)).unwrap();
        sockopt::connect(bound.as_fd(), family, listener.local_addr().unwrap(), 0).unwrap();
        let mut ours = TcpStream::from(bound);
        let (mut peer, _) = listener.accept().unwrap();
        for round in 0..10 {
            cycle(&ours, |_| ());
            talk(&mut ours, &mut peer, round);
        }
    }
}

#[test]
fn a_flow_label_that_the_program_chose_survives() {
    /// `struct in6_flowlabel_req`: a label (network order) to be made for everybody (IPV6_FL_S_ANY, IPV6_FL_F_CREATE).
    fn lease(label: u32) -> [u8; 32] {
        let mut request = [0; 32];
        request[..16].copy_from_slice(&Ipv6Addr::LOCALHOST.octets());
        request[16..20].copy_from_slice(&label.to_be_bytes());
        (request[21], request[22]) = (255, 1);
        request
    }
    const IPV6_FLOWLABEL_MGR: i32 = 32;
    const IPV6_FLOWINFO_SEND: i32 = 33;
    const LABEL: u32 = 0x1_2345;
    let listener = listen_on(Ipv6Addr::LOCALHOST.into());
    let ours = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    sockopt::set(ours.as_fd(), libc::SOL_IPV6, IPV6_FLOWLABEL_MGR, &lease(LABEL)).unwrap();
    set_int(ours.as_fd(), libc::SOL_IPV6, IPV6_FLOWINFO_SEND, 1).unwrap();
    sockopt::connect(ours.as_fd(), Family::V6, listener.local_addr().unwrap(), LABEL.to_be()).unwrap();
    let mut ours = TcpStream::from(ours);
    let (mut peer, _) = listener.accept().unwrap();
    assert_eq!(Endpoints::of(ours.as_fd()).unwrap().label, Label::Fixed(LABEL));
    cycle(&ours, |_| ());
    assert_eq!(Endpoints::of(ours.as_fd()).unwrap().label, Label::Fixed(LABEL));
    talk(&mut ours, &mut peer, 1);
    assert_eq!(Endpoints::of(peer.as_fd()).unwrap().label, Label::Auto);
}

/// Runs `work` in a network namespace of its own in which ECN is asked for.
fn with_ecn(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            assert!(std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
            std::fs::write("/proc/sys/net/ipv4/tcp_ecn", "1").unwrap();
            work();
        });
    });
}

#[test]
fn what_was_negotiated_of_ecn_survives() {
    with_ecn(|| {
        let (mut ours, mut peer) = pair();
        for round in 0..3 {
            cycle(&ours, |dumped| assert_ne!(dumped.image.flags & flag::ECN, 0));
            talk(&mut ours, &mut peer, round);
        }
        let options = super::repair::TcpInfo::of(ours.as_fd()).unwrap().options;
        assert_ne!(options & super::repair::TCPI_OPT_ECN, 0);
        assert!(!super::restore::loses_ecn());
    });
    let (ours, _peer) = pair();
    cycle(&ours, |dumped| assert_eq!(dumped.image.flags & flag::ECN, 0, "the default does not ask for it"));
}

/// The kernel makes a send buffer that it tunes no larger than this, nor leaves it so.
#[test]
fn a_send_buffer_holds_what_is_queued_and_does_not_shrink_below() {
    let sizes = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").unwrap();
    let largest: usize = sizes.split_whitespace().nth(2).unwrap().parse().unwrap();
    for (queued, locked) in [(largest / 2, 0), (largest + (1 << 20), SNDBUF_LOCK)] {
        let (ours, mut peer) = pair();
        let bytes: Vec<u8> = (0..queued).map(|n| (n % 251) as u8).collect();
        let queue = |dumped: &mut Dump| {
            dumped.image.snd_end = dumped.image.snd_end.wrapping_add(queued as u32);
            dumped.send.clone_from(&bytes);
        };
        let saved = out_and_in(&ours, queue, || ());
        let after = remember(ours.as_fd()).unwrap();
        assert_eq!(after, Restore { buf_lock: locked, ..saved }, "{queued} bytes");
        let size = || get_int(ours.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF).unwrap() as usize;
        assert!((queued..=queued.max(largest)).contains(&size()), "{} for {queued}", size());
        let mut seen = vec![0; queued];
        peer.read_exact(&mut seen).unwrap();
        assert!(seen == bytes);
        assert!(size() >= queued, "{} for {queued}", size());
    }
}

/// The peer's last word may come after a connection was found fit for a lane and before it is read out: it will not be said again.
#[test]
fn an_end_that_comes_in_between_is_not_lost() {
    for reset in [false, true] {
        let (mut ours, mut peer) = pair();
        let (fd, flow) = (ours.as_fd(), flow_of(&ours));
        let saved = remember(fd).unwrap();
        open(fd).unwrap();
        peer.write_all(b"the last").unwrap();
        if reset {
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            sockopt::set(peer.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &[linger.l_onoff, linger.l_linger]).unwrap();
        }
        drop(peer);
        let until = Instant::now() + Duration::from_secs(2);
        while TcpInfo::of(fd).unwrap().is_established() {
            assert!(Instant::now() < until, "the end did not arrive");
            std::thread::yield_now();
        }
        silence(fd).unwrap();
        assert!(matches!(dump(fd, flow, &saved), Err(DumpError::Closed)), "{reset}");
        thaw(fd, &saved).unwrap();
        let mut read = Vec::new();
        let end = ours.read_to_end(&mut read).map_err(|error| error.raw_os_error());
        assert_eq!(end, if reset { Err(Some(libc::ECONNRESET)) } else { Ok(8) });
        assert!(reset || read == b"the last");
    }
}
