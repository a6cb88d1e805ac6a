//! What the kernel tells beside the bytes: ancillary data and the error queue.

use libc::{IPPROTO_TCP, MSG_DONTWAIT, MSG_ERRQUEUE, SOL_SOCKET};

use super::group;
use crate::session::{Session, digest, pattern, until};
use crate::sys::{io, shown, sock};

group!("told":
    times nanosecond_times stamps_of_what_came stamps_of_what_went bytes_left zero_copy peek_offset
    set_back_to_nothing;
    times_from_the_start zero_copy_from_the_start
);

/// linux/net_tstamp.h.
const TX_SOFTWARE: i32 = 1 << 1;
const RX_SOFTWARE: i32 = 1 << 3;
const SOFTWARE: i32 = 1 << 4;
const OPT_ID: i32 = 1 << 7;
const OPT_TSONLY: i32 = 1 << 11;

fn switch_on(s: &Session, label: &str, level: i32, name: i32, value: i32) {
    s.ret(label, sock::set_int(s.fd, level, name, value));
}

/// Has ten bytes sent, receives them in one message, and shows which ancillary data came along; `show` picks what of a piece is no
/// matter of time.
fn receive(s: &mut Session, show: impl Fn(&[u8]) -> String) {
    receive_of(s, 10, show);
}

/// As [`receive`], of `queued` bytes with those ten.
fn receive_of(s: &mut Session, queued: i32, show: impl Fn(&[u8]) -> String) {
    s.tell("send 10 3");
    s.arrived(queued);
    let message = io::recvmsg(s.fd, &[20], 0);
    let told: Vec<_> = message.told.iter().map(|(level, kind, body)| (*level, *kind, body.len(), show(body))).collect();
    let bytes = digest(&message.bytes[..message.got.clamp(0, 20) as usize]);
    s.say("recvmsg", format!("{} {bytes} flags {:#x} told {told:?}", shown(message.got), message.flags));
}

/// The kernel begins to note when packets come a while after it was asked to (net_enable_timestamp()).
fn await_times(s: &mut Session) {
    until("a time", || {
        s.ask("send 10 3");
        s.arrived(10);
        !io::recvmsg(s.fd, &[20], 0).told.is_empty()
    });
}

fn no_value(_: &[u8]) -> String {
    String::new()
}

/// Is the first number of a time since the epoch, seconds, one of these years?
fn is_now(body: &[u8]) -> String {
    let seconds = body.get(..8).map_or(0, |word| i64::from_ne_bytes(word.try_into().unwrap()));
    (if seconds > 1_700_000_000 { "now" } else { "no time" }).to_owned()
}

fn times(s: &mut Session) {
    switch_on(s, "SO_TIMESTAMP", SOL_SOCKET, libc::SO_TIMESTAMP, 1);
    await_times(s);
    receive(s, is_now);
    receive(s, is_now);
}

fn times_from_the_start(s: &mut Session) {
    times(s);
}

fn nanosecond_times(s: &mut Session) {
    switch_on(s, "SO_TIMESTAMPNS", SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
    await_times(s);
    receive(s, is_now);
}

fn stamps_of_what_came(s: &mut Session) {
    switch_on(s, "SO_TIMESTAMPING", SOL_SOCKET, libc::SO_TIMESTAMPING, RX_SOFTWARE | SOFTWARE);
    await_times(s);
    receive(s, is_now);
    receive(s, is_now);
}

/// The error queue's next message, once there is one.
fn report(s: &Session) -> io::Message {
    let mut message = io::recvmsg(s.fd, &[64], MSG_ERRQUEUE | MSG_DONTWAIT);
    until("a report", || {
        if message.got < 0 {
            message = io::recvmsg(s.fd, &[64], MSG_ERRQUEUE | MSG_DONTWAIT);
        }
        message.got >= 0
    });
    message
}

/// `struct sock_extended_err` of linux/errqueue.h, which comes as IP_RECVERR or IPV6_RECVERR.
fn extended(message: &io::Message) -> Option<&[u8]> {
    let is_error = |level: i32, kind: i32| {
        (level, kind) == (libc::IPPROTO_IP, libc::IP_RECVERR)
            || (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    };
    message.told.iter().find(|(level, kind, _)| is_error(*level, *kind)).map(|(_, _, body)| body.as_slice())
}

fn word(body: &[u8], at: usize) -> u32 {
    body.get(at..at + 4).map_or(u32::MAX, |bytes| u32::from_ne_bytes(bytes.try_into().unwrap()))
}

fn stamps_of_what_went(s: &mut Session) {
    let flags = TX_SOFTWARE | SOFTWARE | OPT_ID | OPT_TSONLY;
    // The kernel numbers bytes from the oldest that is not acknowledged when the option is set.
    s.acknowledged();
    switch_on(s, "SO_TIMESTAMPING", SOL_SOCKET, libc::SO_TIMESTAMPING, flags);
    for len in [10, 20] {
        s.ret("send", io::send(s.fd, &pattern(1, len), 0));
        s.tell(&format!("recv {len}"));
        let message = report(s);
        // The error number, the origin, and which byte it is about.
        let about = extended(&message).map(|error| (word(error, 0), error[4], word(error, 12)));
        let has_time =
            message.told.iter().any(|(level, kind, _)| (*level, *kind) == (SOL_SOCKET, libc::SO_TIMESTAMPING));
        s.say("report", format!("{} {about:?}, a time: {has_time}", shown(message.got)));
    }
    receive(s, no_value);
}

fn bytes_left(s: &mut Session) {
    switch_on(s, "TCP_INQ", IPPROTO_TCP, libc::TCP_INQ, 1);
    s.tell("send 50 3");
    for queued in [60, 50] {
        receive_of(s, queued, |body| word(body, 0).to_string());
    }
}

/// Sends without a copy until everything sent so is reported as done.
fn zero_copy(s: &mut Session) {
    switch_on(s, "SO_ZEROCOPY", SOL_SOCKET, libc::SO_ZEROCOPY, 1);
    // The kernel may look at them until it has reported that it is done with them.
    let buffers = [10, 20_000].map(|len| pattern(1, len));
    for bytes in &buffers {
        s.ret("send", io::send(s.fd, bytes, libc::MSG_ZEROCOPY));
        s.tell(&format!("recv {}", bytes.len()));
    }
    // One report may be about several calls.
    let (mut next, mut origins) = (0, Vec::new());
    while next < 2 {
        let message = report(s);
        let error = extended(&message).expect("a report is about something");
        assert_eq!(word(error, 8), next, "calls are reported in order");
        next = word(error, 12) + 1;
        origins.push((word(error, 0), error[4]));
    }
    drop(buffers);
    origins.dedup();
    s.say("reported", format!("{next} calls, errors and origins {origins:?}"));
    receive(s, no_value);
}

fn zero_copy_from_the_start(s: &mut Session) {
    zero_copy(s);
}

fn peek_offset(s: &mut Session) {
    s.tell("send 30 3");
    s.arrived(30);
    switch_on(s, "SO_PEEK_OFF", SOL_SOCKET, libc::SO_PEEK_OFF, 0);
    for _ in 0..3 {
        s.recv("peek", 8, libc::MSG_PEEK);
    }
    s.recv("recv", 30, 0);
}

fn set_back_to_nothing(s: &mut Session) {
    switch_on(s, "SO_TIMESTAMP", SOL_SOCKET, libc::SO_TIMESTAMP, 1);
    await_times(s);
    switch_on(s, "SO_TIMESTAMP", SOL_SOCKET, libc::SO_TIMESTAMP, 0);
    receive(s, is_now);
}
