//! Socket options of IPv6. Over IPv4 the kernel refuses them, and so has everybody else to.

use libc::{IPPROTO_IPV6, IPPROTO_TCP};

use super::group;
use crate::session::Session;
use crate::sys::sock;

group!("options6":
    readable hop_limit_and_class unknown;
    received_beside flow_labels
);

/// <linux/in6.h>
const IPV6_FLOWINFO: i32 = 11;
const IPV6_FLOWINFO_SEND: i32 = 33;
const IPV6_AUTOFLOWLABEL: i32 = 70;

fn readable(s: &mut Session) {
    for (label, name) in [
        ("IPV6_V6ONLY", libc::IPV6_V6ONLY),
        ("IPV6_TCLASS", libc::IPV6_TCLASS),
        ("IPV6_UNICAST_HOPS", libc::IPV6_UNICAST_HOPS),
        ("IPV6_MTU_DISCOVER", libc::IPV6_MTU_DISCOVER),
        ("IPV6_MTU", libc::IPV6_MTU),
        ("IPV6_RECVERR", libc::IPV6_RECVERR),
        ("IPV6_RECVTCLASS", libc::IPV6_RECVTCLASS),
        ("IPV6_RECVPKTINFO", libc::IPV6_RECVPKTINFO),
        ("IPV6_RECVHOPLIMIT", libc::IPV6_RECVHOPLIMIT),
        ("IPV6_MULTICAST_HOPS", libc::IPV6_MULTICAST_HOPS),
        ("IPV6_FLOWINFO", IPV6_FLOWINFO),
        ("IPV6_FLOWINFO_SEND", IPV6_FLOWINFO_SEND),
        ("IPV6_AUTOFLOWLABEL", IPV6_AUTOFLOWLABEL),
    ] {
        s.ret(label, sock::get_int(s.fd, IPPROTO_IPV6, name));
    }
    s.exchange();
    s.ret("TCP_MAXSEG", sock::get_int(s.fd, IPPROTO_TCP, libc::TCP_MAXSEG));
}

fn hop_limit_and_class(s: &mut Session) {
    s.round_trip("IPV6_UNICAST_HOPS", IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, 50);
    s.exchange();
    s.round_trip("IPV6_UNICAST_HOPS", IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, -1);
    s.round_trip("IPV6_UNICAST_HOPS", IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, 256);
    s.round_trip("IPV6_TCLASS", IPPROTO_IPV6, libc::IPV6_TCLASS, 0x10);
    s.exchange();
    s.round_trip("IPV6_TCLASS", IPPROTO_IPV6, libc::IPV6_TCLASS, 256);
    s.round_trip("IPV6_V6ONLY", IPPROTO_IPV6, libc::IPV6_V6ONLY, 1);
    s.exchange();
}

fn unknown(s: &mut Session) {
    s.ret("get", sock::get_int(s.fd, IPPROTO_IPV6, 9999));
    s.ret("set", sock::set_int(s.fd, IPPROTO_IPV6, 9999, 1));
    s.exchange();
}

fn received_beside(s: &mut Session) {
    for name in [libc::IPV6_RECVTCLASS, libc::IPV6_RECVPKTINFO, libc::IPV6_RECVHOPLIMIT] {
        s.round_trip("wanted", IPPROTO_IPV6, name, 1);
        s.exchange();
        s.round_trip("not wanted", IPPROTO_IPV6, name, 0);
    }
    s.exchange();
}

fn flow_labels(s: &mut Session) {
    for (name, value) in [(IPV6_AUTOFLOWLABEL, 0), (IPV6_AUTOFLOWLABEL, 1), (IPV6_FLOWINFO_SEND, 1)] {
        s.round_trip("label", IPPROTO_IPV6, name, value);
        s.exchange();
    }
    s.say("peer", format!("{:?}", sock::getpeername(s.fd)));
}
