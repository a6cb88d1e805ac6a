//! Ends: of clients, of the daemon, and of both.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use underpass_lab::wait_for;
use underpass_stack::control::{AdoptConn, AdoptPort, DemoteAsk, DemoteForeign, Done, Restore};
use underpass_stack::lane::Reason;

use crate::client::{Client, hear_event, open_session};
use crate::{Bed, LIMIT, client, pattern};

over_both_ip_versions! {
    a_dead_clients_connection_goes_on_in_the_kernel
    a_lane_outlives_the_daemon_and_the_next_one_takes_over
}

fn a_dead_clients_connection_goes_on_in_the_kernel(bed: Bed) {
    for _ in 0..10 {
        let (mut ours, mut peer) = bed.pair();
        let mut client = Client::connect(&bed.socket);
        let slot = client.promote(&ours).unwrap();
        client.send(slot, b"said on the lane");
        // These frames lie in the RX ring: nobody makes a pass any more.
        peer.write_all(b"in the ring").unwrap();
        drop(client);
        bed.wait_idle();
        let mut heard = [0; 16];
        peer.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"said on the lane");
        let mut waiting = [0; 11];
        ours.read_exact(&mut waiting).unwrap();
        assert_eq!(&waiting, b"in the ring");
        ours.write_all(b"alive").unwrap();
        peer.read_exact(&mut heard[..5]).unwrap();
        assert_eq!(&heard[..5], b"alive");
    }
    wait_for("the sessions to end", LIMIT, || bed.status().sessions == 0).unwrap();
    assert_eq!(bed.status().reaped, 10);
    assert!(!bed.has_xdp(), "the last session takes the program along");
}

#[test]
fn an_orderly_end_asks_for_the_connections_and_removes_the_program() {
    let mut bed = Bed::new();
    let (mut ours, echo) = bed.echo();
    let mut client = Client::connect(&bed.socket);
    let slot = client.promote(&ours).unwrap();
    assert!(bed.has_xdp());
    bed.daemon.signal(libc::SIGTERM).unwrap();
    let asked = hear_event::<DemoteAsk>(client.events.as_fd());
    assert_eq!((asked.slot, Reason::from_raw(asked.reason)), (u32::MAX, Reason::DaemonGone));
    client.demote(slot).unwrap();
    let status = bed.daemon.wait(LIMIT).unwrap();
    assert!(status.success(), "{status}");
    assert!(!bed.has_xdp());
    ours.write_all(b"kernel").unwrap();
    let mut back = [0; 6];
    ours.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"kernel");
    drop(ours);
    echo.join().unwrap();
}

fn a_lane_outlives_the_daemon_and_the_next_one_takes_over(mut bed: Bed) {
    let (mut ours, echo) = bed.echo();
    let mut client = Client::connect(&bed.socket);
    let slot = client.promote(&ours).unwrap();
    bed.daemon.kill();
    let sent = pattern(0, 5000);
    let mut back = vec![0; 5000];
    client.send(slot, &sent);
    client.recv(slot, &mut back);
    assert_eq!(back, sent, "without a daemon");
    bed.restart();
    client.reconnect(&bed.socket);
    let (attach, attached) = client.attached.unwrap();
    let port = AdoptPort { attach, xsk_base: attached.xsk_base, queues: attached.queues };
    let umem = client.umem.as_ref().unwrap();
    let mut fds = vec![umem.as_fd()];
    fds.extend(client.stack.wait_fds());
    client.ask(&port, &fds).as_message::<Done>().unwrap();
    let generation = client.stack.record(slot).unwrap().generation;
    let conn = AdoptConn { slot, generation, port: attach.port, restore: Restore::default() };
    client.ask(&conn, &[ours.as_fd()]).as_message::<Done>().unwrap();
    client.send(slot, &sent);
    client.recv(slot, &mut back);
    client.demote(slot).unwrap();
    ours.write_all(&sent).unwrap();
    ours.read_exact(&mut back).unwrap();
    assert_eq!(back, sent, "in the kernel again");
    drop(ours);
    echo.join().unwrap();
    drop(client);
    wait_for("the adopted program to go", std::time::Duration::from_secs(15), || !bed.has_xdp()).unwrap();
}

#[test]
fn what_a_killed_daemon_left_goes_after_the_grace_time() {
    let mut bed = Bed::new();
    let (ours, peer) = bed.pair();
    let mut client = Client::connect(&bed.socket);
    client.promote(&ours).unwrap();
    bed.daemon.kill();
    drop((client, ours, peer));
    assert!(bed.has_xdp());
    bed.restart();
    wait_for("the program to go", std::time::Duration::from_secs(15), || !bed.has_xdp()).unwrap();
}

#[test]
fn whoever_holds_the_socket_too_waits_for_its_demotion() {
    let bed = Bed::new();
    let (ours, echo) = bed.echo();
    let mut owner = Client::connect(&bed.socket);
    let slot = owner.promote(&ours).unwrap();
    let socket = bed.socket.clone();
    let mut copy = ours.try_clone().unwrap();
    let other = std::thread::spawn(move || {
        let session = open_session(&socket).unwrap();
        let done = client::ask(session.as_fd(), &DemoteForeign { pad: 0 }, &[copy.as_fd()]).as_message::<Done>();
        copy.write_all(b"mine").unwrap();
        let mut back = [0; 4];
        copy.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"mine");
        done
    });
    let asked = hear_event::<DemoteAsk>(owner.events.as_fd());
    assert_eq!((asked.slot, Reason::from_raw(asked.reason)), (slot, Reason::Shared));
    owner.demote(slot).unwrap();
    assert_eq!(other.join().unwrap().unwrap().count, 1);
    let session = open_session(&bed.socket).unwrap();
    let done = client::ask(session.as_fd(), &DemoteForeign { pad: 0 }, &[ours.as_fd()]).as_message::<Done>();
    assert_eq!(done.unwrap().count, 0, "nobody's any more");
    drop(ours);
    echo.join().unwrap();
}

#[test]
fn on_demand_it_ends_with_its_last_client() {
    let mut bed = Bed::with(Default::default(), &["--on-demand"]);
    let client = Client::connect(&bed.socket);
    assert!(bed.daemon.exited().is_none());
    drop(client);
    assert!(bed.daemon.wait(LIMIT).unwrap().success());
    assert!(!bed.socket.exists());
}
