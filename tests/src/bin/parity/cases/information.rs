//! TCP_INFO.

use libc::IPPROTO_TCP;

use super::group;
use crate::session::{Session, until};
use crate::sys::sock;

group!("options":
    information totals;
);

/// `struct tcp_info` of linux/tcp.h.
pub fn tcp_info(s: &Session) -> Vec<u8> {
    sock::getsockopt(s.fd, IPPROTO_TCP, libc::TCP_INFO, 248).1
}

/// The `u32` at an offset.
pub fn word(info: &[u8], at: usize) -> u32 {
    info.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// The `u64` at an offset.
fn long(info: &[u8], at: usize) -> u64 {
    info.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

/// What an exchange changes in TCP_INFO, and what it leaves.
fn information(s: &mut Session) {
    s.exchange();
    let unacked = |s: &Session| word(&tcp_info(s), 24);
    until("the acknowledgement", || unacked(s) == 0);
    let before = tcp_info(s);
    for _ in 0..3 {
        s.exchange();
    }
    until("the acknowledgement", || unacked(s) == 0);
    let after = tcp_info(s);
    let more = |at| long(&after, at).wrapping_sub(long(&before, at));
    s.say("bytes acknowledged, received, sent, sent again", format!("{:?}", [120, 128, 200, 208].map(more)));
    let more = |at| word(&after, at).wrapping_sub(word(&before, at));
    // How many segments carry them, the two ends' timing decides.
    s.say("segments out, in, with data in, out", format!("{:?}", [136, 140, 152, 156].map(|at| more(at) > 0)));
    s.say("total retransmissions", more(100));
    s.say("state, congestion state, retransmits, probes, backoff", format!("{:?}", &after[..5]));
    s.say("options, shifts", format!("{:?}", &after[5..7]));
    s.say("sacked, lost, sent again", format!("{:?}", [28, 32, 36].map(|at| word(&after, at))));
    s.say("MSS for sending", word(&after, 16));
    s.say("path MTU", word(&after, 60));
    s.say("not sent", word(&after, 144));
    let young = |at| word(&after, at) < 5_000;
    s.say("times since the last data and acknowledgement", format!("{:?}", [44, 52, 56].map(young)));
    s.say("an RTO of 200 ms or more", word(&after, 8) >= 200_000);
    s.say("windows", format!("{:?}", [228, 232, 80].map(|at| word(&after, at) > 0)));
}

/// Counts of TCP_INFO over the connection's life, by their size in bytes.
const TOTALS: [(usize, usize); 17] = [
    (8, 120), // tcpi_bytes_acked and received, bytes_sent and retrans
    (8, 128),
    (8, 200),
    (8, 208),
    (4, 100), // tcpi_total_retrans
    (4, 136), // tcpi_segs_out and in, data_segs_in and out
    (4, 140),
    (4, 152),
    (4, 156),
    (4, 192), // tcpi_delivered, delivered_ce
    (4, 196),
    (4, 216), // tcpi_dsack_dups, reord_seen, rcv_ooopack
    (4, 220),
    (4, 224),
    (2, 240), // tcpi_total_rto, total_rto_recoveries, total_rto_time
    (2, 242),
    (4, 244),
];

fn total(info: &[u8], (size, at): (usize, usize)) -> u64 {
    let bytes = info.get(at..at + size).unwrap_or_default();
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Totals of a connection's whole life, the handshake included, and whether one is less than `before`.
fn say_totals(s: &Session, label: &str, before: &[u8]) -> Vec<u8> {
    until("the acknowledgement", || word(&tcp_info(s), 24) == 0);
    let info = tcp_info(s);
    let fell: Vec<_> = TOTALS.into_iter().filter(|&field| total(&info, field) < total(before, field)).collect();
    s.say(label, format!("less than before: {fell:?}"));
    s.say(
        "bytes acknowledged, received, sent, sent again",
        format!("{:?}", [120, 128, 200, 208].map(|at| long(&info, at))),
    );
    // What carries them, the ends' timing decides; the handshake is no data.
    s.say("delivered beyond the data sent", word(&info, 192).wrapping_sub(word(&info, 156)));
    s.say(
        "lost, marked, duplicate, out of order",
        format!("{:?}", [100, 196, 216, 220, 224].map(|at| word(&info, at))),
    );
    s.say("timeouts", format!("{:?}", TOTALS[14..].iter().map(|&field| total(&info, field)).collect::<Vec<_>>()));
    s.say("reordering", word(&info, 88));
    s.say("a shortest round trip", (1..1_000_000).contains(&word(&info, 148)));
    info
}

/// The totals of TCP_INFO go on where they were when the connection changes its tier: a call that no lane carries takes it to the kernel,
/// with something to read, and with little more it comes to the lane again.
fn totals(s: &mut Session) {
    s.exchange();
    let mut before = say_totals(s, "at first", &[]);
    for _ in 0..3 {
        s.exchange();
        before = say_totals(s, "after an exchange", &before);
        s.tell("send 10 3");
        s.arrived(10);
        s.ret("another name", sock::connect(s.fd));
        before = say_totals(s, "after a call for the kernel", &before);
        s.recv("recv", 10, libc::MSG_WAITALL);
        before = say_totals(s, "when that was read", &before);
        for _ in 0..8 {
            s.exchange();
        }
    }
    say_totals(s, "in the end", &before);
}
