//! Readiness by poll(2), ppoll(2), select(2), pselect(2), alone and mixed with other descriptors.

use libc::{POLLIN, POLLOUT, POLLPRI, POLLRDHUP, POLLRDNORM, POLLWRNORM};

use super::group;
use crate::session::{Session, named};
use crate::sys::ready::{ALL, READ, Sets, poll, ppoll, pselect, select};
use crate::sys::{fds, io, shown};

group!("poll":
    at_once times_out wakes_up peculiar_entries with_pipe with_eventfd with_timerfd the_same_twice ppoll_waits writable
    select_at_once select_times_out select_wakes_up select_with_pipe pselect_waits ends_seen no_entries;
    first_call_polls first_call_selects
);

fn show(s: &Session, label: &str, (got, revents): (i64, Vec<i16>)) {
    let words: Vec<String> = revents.iter().map(|&events| named(events)).collect();
    s.say(label, format!("{} {}", shown(got), words.join(" ")));
}

fn show_select(s: &Session, label: &str, (got, letters): (i64, Vec<String>)) {
    // What a failed select leaves in the sets is unspecified.
    s.say(label, if got < 0 { shown(got) } else { format!("{} {letters:?}", shown(got)) });
}

fn at_once(s: &mut Session) {
    for events in [0, POLLIN, POLLOUT, POLLIN | POLLOUT, POLLPRI, POLLRDNORM | POLLWRNORM, POLLRDHUP] {
        show(s, "empty", poll(&[(s.fd, events)], 0));
    }
    s.tell("send 10 1");
    s.arrived(10);
    for events in [0, POLLIN, POLLOUT, POLLIN | POLLOUT, POLLPRI, POLLRDNORM | POLLWRNORM, POLLRDHUP] {
        show(s, "ten bytes", poll(&[(s.fd, events)], 0));
    }
    s.recv("recv", 100, 0);
    show(s, "empty again", poll(&[(s.fd, POLLIN)], 0));
}

fn times_out(s: &mut Session) {
    let entry = [(s.fd, POLLIN)];
    s.timed("poll", 40, || show(s, "poll", poll(&entry, 40)));
    s.timed("poll", 1, || show(s, "poll", poll(&entry, 1)));
    s.timed("no entries", 20, || show(s, "poll", poll(&[], 20)));
}

fn wakes_up(s: &mut Session) {
    for timeout in [-1, 5000] {
        s.later("send 10 1");
        show(s, "poll", poll(&[(s.fd, POLLIN | POLLRDHUP)], timeout));
        s.recv("recv", 10, 0);
    }
    s.later("shut 1");
    show(s, "poll", poll(&[(s.fd, POLLIN | POLLRDHUP)], 5000));
}

fn peculiar_entries(s: &mut Session) {
    show(s, "negative", poll(&[(-1, POLLIN), (s.fd, POLLOUT)], 0));
    show(s, "closed", poll(&[(900, POLLIN), (s.fd, POLLIN)], 0));
    show(s, "closed ends the wait", poll(&[(s.fd, POLLIN), (900, 0)], 5000));
}

fn with_pipe(s: &mut Session) {
    let [out, into] = fds::pipe(0);
    let entries = [(out, POLLIN), (s.fd, POLLIN), (into, POLLOUT)];
    show(s, "pipe writable", poll(&entries, 0));
    let entries = &entries[..2];
    s.timed("neither", 30, || show(s, "poll", poll(entries, 30)));
    io::write(into, b"x");
    show(s, "pipe", poll(entries, 5000));
    io::read(out, &mut [0]);
    s.later("send 10 1");
    show(s, "socket", poll(entries, 5000));
    io::write(into, b"x");
    show(s, "both", poll(entries, 5000));
    s.recv("recv", 10, 0);
    fds::close(into);
    io::read(out, &mut [0]);
    show(s, "pipe hung up", poll(entries, 5000));
}

fn with_eventfd(s: &mut Session) {
    let event = fds::eventfd();
    let entries = [(s.fd, POLLIN), (event, POLLIN)];
    s.timed("neither", 30, || show(s, "poll", poll(&entries, 30)));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(30));
            io::write(event, &1u64.to_ne_bytes());
        });
        show(s, "another thread rings", poll(&entries, 5000));
    });
}

fn with_timerfd(s: &mut Session) {
    let timer = fds::timerfd(30);
    s.timed("timer", 20, || show(s, "poll", poll(&[(s.fd, POLLIN), (timer, POLLIN)], 5000)));
    let timer = fds::timerfd(30);
    let sets = [(s.fd, READ), (timer, READ)];
    s.timed("timer", 20, || show_select(s, "select", select(&sets, 5000)));
}

fn the_same_twice(s: &mut Session) {
    s.tell("send 10 1");
    s.arrived(10);
    show(s, "poll", poll(&[(s.fd, POLLIN), (s.fd, POLLOUT), (s.fd, POLLIN | POLLOUT)], 0));
}

fn ppoll_waits(s: &mut Session) {
    let entry = [(s.fd, POLLIN)];
    s.timed("ppoll", 40, || show(s, "ppoll", ppoll(&entry, 40, None)));
    show(s, "at once", ppoll(&entry, 0, None));
    s.later("send 10 1");
    show(s, "wakes up", ppoll(&entry, -1, Some(libc::SIGUSR1)));
}

fn writable(s: &mut Session) {
    show(s, "poll", poll(&[(s.fd, POLLOUT)], -1));
    show_select(s, "select", select(&[(s.fd, Sets { read: false, write: true, except: false })], -1));
    io::send(s.fd, &[1; 1000], 0);
    show(s, "poll", poll(&[(s.fd, POLLOUT | POLLWRNORM)], -1));
    s.tell("recv 1000");
}

fn select_at_once(s: &mut Session) {
    show_select(s, "empty", select(&[(s.fd, ALL)], 0));
    s.tell("send 10 1");
    s.arrived(10);
    show_select(s, "ten bytes", select(&[(s.fd, ALL)], 0));
    show_select(s, "reading", select(&[(s.fd, READ)], 0));
    s.recv("recv", 100, 0);
    show_select(s, "empty again", select(&[(s.fd, READ)], 0));
    show_select(s, "closed", select(&[(s.fd, READ), (50, READ)], 0));
}

fn select_times_out(s: &mut Session) {
    s.timed("select", 40, || show_select(s, "select", select(&[(s.fd, READ)], 40)));
    s.timed("no sets", 20, || show_select(s, "select", select(&[], 20)));
}

fn select_wakes_up(s: &mut Session) {
    s.later("send 10 1");
    show_select(s, "select", select(&[(s.fd, READ)], -1));
    s.recv("recv", 10, 0);
    s.later("shut 1");
    show_select(s, "end", select(&[(s.fd, Sets { read: true, write: false, except: true })], -1));
}

fn select_with_pipe(s: &mut Session) {
    let [out, into] = fds::pipe(0);
    let sets = [(s.fd, READ), (out, READ)];
    s.timed("neither", 30, || show_select(s, "select", select(&sets, 30)));
    io::write(into, b"x");
    show_select(s, "pipe", select(&sets, -1));
    s.tell("send 10 1");
    s.arrived(10);
    show_select(s, "both", select(&sets, -1));
    io::read(out, &mut [0]);
    show_select(s, "socket", select(&sets, -1));
}

fn pselect_waits(s: &mut Session) {
    s.timed("pselect", 40, || show_select(s, "pselect", pselect(&[(s.fd, READ)], 40, None)));
    s.later("send 10 1");
    show_select(s, "wakes up", pselect(&[(s.fd, READ)], -1, Some(libc::SIGUSR1)));
}

fn ends_seen(s: &mut Session) {
    let all = POLLIN | POLLOUT | POLLRDHUP | POLLPRI;
    s.tell("shut 1");
    s.await_events(POLLRDHUP);
    show(s, "peer shut", poll(&[(s.fd, all)], 0));
    show(s, "nothing asked", poll(&[(s.fd, 0)], 0));
    show_select(s, "select", select(&[(s.fd, ALL)], 0));
    crate::sys::sock::shutdown(s.fd, libc::SHUT_WR);
    s.await_events(libc::POLLHUP);
    show(s, "both shut", poll(&[(s.fd, all)], 0));
    show(s, "nothing asked", poll(&[(s.fd, 0)], 0));
    show_select(s, "select", select(&[(s.fd, ALL)], 0));
}

fn no_entries(s: &mut Session) {
    s.timed("poll", 20, || show(s, "poll", poll(&[], 20)));
    s.timed("ppoll", 20, || show(s, "ppoll", ppoll(&[], 20, None)));
    s.timed("pselect", 20, || show_select(s, "pselect", pselect(&[], 20, None)));
}

fn first_call_polls(s: &mut Session) {
    s.later("send 10 1");
    show(s, "poll", poll(&[(s.fd, POLLIN)], -1));
    s.recv("recv", 10, 0);
    s.later("send 10 1");
    show(s, "poll", poll(&[(s.fd, POLLIN)], -1));
    s.recv("recv", 10, 0);
}

fn first_call_selects(s: &mut Session) {
    s.later("send 10 1");
    show_select(s, "select", select(&[(s.fd, READ)], -1));
    s.recv("recv", 10, 0);
    s.later("send 10 1");
    show_select(s, "select", select(&[(s.fd, READ)], -1));
    s.recv("recv", 10, 0);
}
