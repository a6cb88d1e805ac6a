//! Changes of the network under connections on lanes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;

use underpass_ctl::daemon::sockopt;
use underpass_ctl::net::conntrack;
use underpass_ctl::net::netlink::{Netlink, Protocol};
use underpass_lab::Side;
use underpass_stack::control::{DemoteAsk, PathChanged};
use underpass_stack::lane::Reason;

use crate::Bed;
use crate::client::{Client, hear_event};

#[test]
fn a_neighbours_new_address_is_told() {
    let bed = Bed::new();
    let (ours, _peer) = bed.pair();
    let mut client = Client::connect(&bed.socket);
    let slot = client.promote(&ours).unwrap();
    let (near, far) = (bed.lab.host(Side::Server), bed.lab.host(Side::Client));
    let address = far.v4.to_string();
    let args = ["neigh", "replace", &address, "lladdr", "02:11:22:33:44:55", "dev", &near.interface];
    near.namespace.ip(&args).unwrap();
    let changed = hear_event::<PathChanged>(client.events.as_fd());
    assert_eq!((changed.slot, changed.path.dst_mac), (slot, [0x02, 0x11, 0x22, 0x33, 0x44, 0x55]));
}

#[test]
fn a_connection_survives_the_loss_of_its_address_and_link() {
    let bed = Bed::new();
    let (mut ours, mut peer) = bed.pair();
    let mut client = Client::connect(&bed.socket);
    let slot = client.promote(&ours).unwrap();
    let near = bed.lab.host(Side::Server);
    let address = format!("{}/24", near.v4);
    near.namespace.ip(&["addr", "del", &address, "dev", &near.interface]).unwrap();
    let asked = hear_event::<DemoteAsk>(client.events.as_fd());
    assert_eq!((asked.slot, Reason::from_raw(asked.reason)), (slot, Reason::PathChanged));
    near.namespace.ip(&["link", "set", &near.interface, "down"]).unwrap();
    client.send(slot, b"into the void");
    client.demote(slot).unwrap();
    near.namespace.ip(&["link", "set", &near.interface, "up"]).unwrap();
    near.namespace.ip(&["addr", "add", &address, "dev", &near.interface]).unwrap();
    ours.write_all(b" and back").unwrap();
    let mut heard = [0; 22];
    peer.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"into the void and back");
}

#[test]
fn the_same_over_ipv6() {
    let bed = Bed { v6: true, ..Bed::new() };
    let (mut ours, mut peer) = bed.pair();
    let mut client = Client::connect(&bed.socket);
    let slot = client.promote(&ours).unwrap();
    let near = bed.lab.host(Side::Server);
    let address = format!("{}/64", near.v6);
    near.namespace.ip(&["addr", "del", &address, "dev", &near.interface]).unwrap();
    let asked = hear_event::<DemoteAsk>(client.events.as_fd());
    assert_eq!((asked.slot, Reason::from_raw(asked.reason)), (slot, Reason::PathChanged));
    // Every address and route of IPv6 goes with the link.
    near.namespace.ip(&["link", "set", &near.interface, "down"]).unwrap();
    client.send(slot, b"into the void");
    client.demote(slot).unwrap();
    near.namespace.ip(&["link", "set", &near.interface, "up"]).unwrap();
    near.namespace.ip(&["addr", "add", &address, "dev", &near.interface, "nodad"]).unwrap();
    ours.write_all(b" and back").unwrap();
    let mut heard = [0; 22];
    peer.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"into the void and back");
}

#[test]
fn a_neighbour_found_by_neighbor_discovery_is_followed() {
    let bed = Bed { v6: true, ..Bed::new() };
    let (ours, _peer) = bed.pair();
    let mut client = Client::connect(&bed.socket);
    let slot = client.promote(&ours).unwrap();
    let (near, far) = (bed.lab.host(Side::Server), bed.lab.host(Side::Client));
    let args = ["neigh", "replace", &far.v6.to_string(), "lladdr", "02:11:22:33:44:55", "dev", &near.interface];
    near.namespace.ip(&args).unwrap();
    let changed = hear_event::<PathChanged>(client.events.as_fd());
    assert_eq!((changed.slot, changed.path.dst_mac), (slot, [0x02, 0x11, 0x22, 0x33, 0x44, 0x55]));
    assert!(changed.path.flow_label != 0, "labels are chosen by default");
}

#[test]
fn headers_are_what_the_socket_and_the_namespace_say() {
    const IPV6_AUTOFLOWLABEL: i32 = 70;
    let bed = Bed { v6: true, ..Bed::new() };
    let near = &bed.lab.host(Side::Server).namespace;
    let mut client = Client::connect(&bed.socket);
    let mut path_with = |options: &[(i32, i32)]| {
        let (ours, _peer) = bed.pair();
        for &(name, value) in options {
            sockopt::set_int(ours.as_fd(), libc::SOL_IPV6, name, value).unwrap();
        }
        client.promote_only(&ours).unwrap().2.path
    };
    near.run("sysctl", &["-qw", "net.ipv6.flowlabel_state_ranges=1"]).unwrap();
    let plain = path_with(&[]);
    assert_eq!((plain.ttl, plain.tos, plain.mtu), (64, 0, 1500));
    assert!(plain.flow_label & 0x8_0000 != 0 && plain.flow_label < 1 << 20, "{:x}", plain.flow_label);
    let chosen = path_with(&[(libc::IPV6_UNICAST_HOPS, 50), (libc::IPV6_TCLASS, 0x28), (IPV6_AUTOFLOWLABEL, 0)]);
    assert_eq!((chosen.ttl, chosen.tos, chosen.flow_label), (50, 0x28, 0));
    near.run("sysctl", &["-qw", "net.ipv6.auto_flowlabels=0"]).unwrap();
    assert_eq!(path_with(&[(IPV6_AUTOFLOWLABEL, 1)]).flow_label, 0);
    near.run("sysctl", &["-qw", "net.ipv6.auto_flowlabels=1", "net.ipv6.flowlabel_state_ranges=0"]).unwrap();
    assert!(path_with(&[]).flow_label != 0);
    let interface = &bed.lab.host(Side::Server).interface;
    near.run("sysctl", &["-qw", &format!("net.ipv6.conf.{interface}.mtu=1400")]).unwrap();
    assert_eq!(path_with(&[]).mtu, 1400, "as a router can say");
}

#[test]
fn a_gateway_with_a_link_local_address_leads_on() {
    let bed = Bed::new();
    let (near, far) = (bed.lab.host(Side::Server), bed.lab.host(Side::Client));
    far.namespace.ip(&["addr", "add", "fe80::2/64", "dev", &far.interface, "nodad"]).unwrap();
    far.namespace.ip(&["link", "set", "lo", "up"]).unwrap();
    far.namespace.ip(&["addr", "add", "2001:db8:5::1/128", "dev", "lo", "nodad"]).unwrap();
    near.namespace.ip(&["route", "add", "2001:db8:5::/64", "via", "fe80::2", "dev", &near.interface]).unwrap();
    let address: std::net::Ipv6Addr = "2001:db8:5::1".parse().unwrap();
    let listener = far.namespace.inside(|| std::net::TcpListener::bind((address, 0)).unwrap()).unwrap();
    let to = listener.local_addr().unwrap();
    let mut ours = near.namespace.inside(|| TcpStream::connect(to).unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    let echo = std::thread::spawn(move || crate::echo(peer));
    let mut client = Client::connect(&bed.socket);
    let slot = client.promote(&ours).unwrap();
    client.send(slot, b"over the hill");
    let mut back = [0; 13];
    client.recv(slot, &mut back);
    assert_eq!(&back, b"over the hill");
    // The gateway is known by its link-local address, and followed.
    near.namespace.ip(&["route", "del", "2001:db8:5::/64"]).unwrap();
    let asked = hear_event::<DemoteAsk>(client.events.as_fd());
    assert_eq!((asked.slot, Reason::from_raw(asked.reason)), (slot, Reason::PathChanged));
    client.demote(slot).unwrap();
    near.namespace.ip(&["route", "add", "2001:db8:5::/64", "via", "fe80::2", "dev", &near.interface]).unwrap();
    ours.write_all(b"and back again").unwrap();
    let mut back = [0; 14];
    ours.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"and back again");
    drop(ours);
    echo.join().unwrap();
}

#[test]
fn a_link_local_connection_stays_where_it_is() {
    let bed = Bed::new();
    let (near, far) = (bed.lab.host(Side::Server), bed.lab.host(Side::Client));
    for (host, address) in [(near, "fe80::1/64"), (far, "fe80::2/64")] {
        host.namespace.ip(&["addr", "add", address, "dev", &host.interface, "nodad"]).unwrap();
    }
    let scope = |host: &underpass_lab::Host| {
        let text = host.namespace.ip(&["-o", "link", "show", "dev", &host.interface]).unwrap();
        text.split(':').next().and_then(|number| number.trim().parse::<u32>().ok()).expect("an index")
    };
    let to = |host| std::net::SocketAddrV6::new("fe80::2".parse().unwrap(), 0, 0, scope(host));
    let listener = far.namespace.inside(|| std::net::TcpListener::bind(to(far)).unwrap()).unwrap();
    let mut at = to(near);
    at.set_port(listener.local_addr().unwrap().port());
    let ours = near.namespace.inside(|| TcpStream::connect(at).unwrap()).unwrap();
    let mut client = Client::connect(&bed.socket);
    assert_eq!(client.promote(&ours).unwrap_err(), Reason::LinkLocal);
}

/// Does connection tracking here accept whatever this connection sends?
fn liberal(stream: &TcpStream) -> Option<bool> {
    let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    conntrack::is_liberal(&mut Netlink::open(Protocol::Netfilter, 0).unwrap(), local, peer).unwrap()
}

over_both_ip_versions! { a_stateful_firewall_goes_on_accepting_the_connection }

fn a_stateful_firewall_goes_on_accepting_the_connection(bed: Bed) {
    let near = &bed.lab.host(Side::Server).namespace;
    let rules = "table inet t { chain i { type filter hook input priority 0; policy accept; ct state invalid drop; }; \
                 chain o { type filter hook output priority 0; policy accept; ct state invalid drop; }; }";
    near.run("nft", &[rules]).unwrap();
    let (mut ours, echo) = bed.echo();
    let mut client = Client::connect(&bed.socket);
    let big = crate::pattern(0, 3_000_000);
    for _ in 0..2 {
        let slot = client.promote(&ours).unwrap();
        assert_eq!(near.inside(|| liberal(&ours)).unwrap(), Some(true));
        let mut back = vec![0; 50_000];
        for piece in big.chunks(50_000) {
            client.send(slot, piece);
            client.recv(slot, &mut back[..piece.len()]);
            assert!(back[..piece.len()] == *piece);
        }
        client.demote(slot).unwrap();
        ours.write_all(b"through").unwrap();
        let mut back = [0; 7];
        ours.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"through");
    }
    drop(ours);
    echo.join().unwrap();
}

#[test]
fn translated_flows_stay_in_the_kernel() {
    let bed = Bed::new();
    let far = bed.lab.host(Side::Client);
    let near = &bed.lab.host(Side::Server).namespace;
    let rules = format!(
        "table ip t {{ chain o {{ type nat hook output priority -100; ip daddr 192.0.2.1 dnat to {}; }}; }}",
        far.v4
    );
    near.run("nft", &[&rules]).unwrap();
    near.ip(&["route", "add", "192.0.2.1", "via", &far.v4.to_string()]).unwrap();
    let listener = far.namespace.inside(|| std::net::TcpListener::bind((far.v4, 0)).unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let ours = near.inside(|| std::net::TcpStream::connect(("192.0.2.1", port)).unwrap()).unwrap();
    let mut client = Client::connect(&bed.socket);
    assert_eq!(client.promote(&ours).unwrap_err(), Reason::Nat);
}

#[test]
fn somebody_elses_program_is_left_alone() {
    let bed = Bed::new();
    let (near, interface) = (&bed.lab.host(Side::Server).namespace, &bed.lab.host(Side::Server).interface);
    let object = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/daemon/foreign.c");
    let compiled = bed.lab.dir().join("foreign.o");
    let clang = std::process::Command::new("clang")
        .args(["-target", "bpf", "-O2", "-g", "-c", object, "-o"])
        .arg(&compiled)
        .status()
        .unwrap();
    assert!(clang.success());
    let compiled = compiled.to_str().unwrap();
    near.ip(&["link", "set", "dev", interface, "xdpgeneric", "obj", compiled, "sec", "xdp"]).unwrap();
    let (ours, _peer) = bed.pair();
    let mut client = Client::connect(&bed.socket);
    assert_eq!(client.promote(&ours).unwrap_err(), Reason::ForeignXdp);
    assert!(bed.has_xdp());
}
