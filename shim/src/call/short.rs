//! Short connections: sockets made, connected and closed of which nothing else is known yet. What `conn` does about them comes down to a
//! few stores. Here nothing is allocated, locked or asked of the kernel, so that signal handlers may come at any moment; in every other
//! case nothing is done at all, and `conn` does it.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use libc::c_int;
use underpass_stack::lane::Reason;

use super::conn::{blocking_of, forget_taken};
use crate::fd::{self, Glance, Ref};
use crate::socket::{Blocking, Socket};
use crate::{engine, guard, unusual};

/// socket(2) gave a new descriptor. False: nothing was done about it.
#[inline(always)]
pub fn made(fd: RawFd, domain: c_int, kind: c_int, proto: c_int) -> bool {
    may_open(fd)
        && blocking_of(domain, kind, proto)
            .is_some_and(|blocking| Socket::open_spare(fd, blocking, Reason::NotConnected))
}

/// accept4(2) gave a new descriptor. False: nothing was done about it.
#[inline(always)]
pub fn accepted(listener: RawFd, fd: RawFd, flags: c_int) -> bool {
    let Some((listener, glimpse)) = fd::glimpse(listener) else { return false };
    let blocking = Blocking::accepted(listener, flags & libc::SOCK_NONBLOCK != 0);
    let is_known = listener.foreign.load(Relaxed) == 0 && glimpse.holds();
    is_known && may_open(fd) && Socket::open_spare(fd, blocking, Reason::NotYetBusy)
}

#[inline(always)]
fn may_open(fd: RawFd) -> bool {
    !unusual::any() && engine::is_prepared() && fd::is_vacant(fd) && !guard::inside()
}

/// connect(2) on a socket that is in the kernel: a connection will be there, unless it fails. False: nothing was done about it.
#[inline(always)]
pub fn connects(fd: RawFd) -> bool {
    match fd::glance(fd) {
        Glance::Plain => true,
        Glance::Socket(socket, glimpse) if !unusual::any() && socket.is_untouched() && glimpse.holds() => {
            // Closed at this moment, it is another's record: a reason that is told a call too early.
            if socket.reason.load(Relaxed) == Reason::NotConnected as u16 {
                socket.reason.store(Reason::NotYetBusy as u16, Relaxed);
            }
            true
        }
        Glance::Socket(..) | Glance::Other => false,
    }
}

/// What close(2) finds.
pub enum Closing {
    /// There is nothing left to do.
    Done,
    /// The entry is gone, and this is left to do.
    Rest(Rest),
    /// Nothing was done about it.
    Other,
}

/// A socket that is in the table no more.
#[must_use]
pub struct Rest {
    fd: RawFd,
    socket: &'static Socket,
    is_ours: bool,
}

impl Rest {
    /// What takes locks.
    pub fn finish(self) {
        if self.is_ours {
            self.socket.give_back();
        } else {
            forget_taken(self.fd, Ref::adopt(self.socket));
        }
    }
}

/// close(2).
#[inline(always)]
pub fn close(fd: RawFd) -> Closing {
    let Some((socket, glimpse)) = fd::glimpse(fd) else { return Closing::Other };
    if unusual::any() || guard::inside() || !socket.is_untouched() || !glimpse.take() {
        return Closing::Other;
    }
    // From here on nobody finds it, but somebody may have, and even be done with it by now.
    let is_ours = socket.is_untouched() && socket.end();
    if is_ours && socket.give_back_spare() { Closing::Done } else { Closing::Rest(Rest { fd, socket, is_ours }) }
}

#[cfg(test)]
mod tests {
    //! The hooks stand in front of libc's functions in the test program, too.

    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::call::socket_of;
    use crate::fd::{Entry, Record, lookup};

    fn fresh() -> OwnedFd {
        // SAFETY: scalars; the descriptor is nobody else's.
        unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)) }
    }

    fn record(fd: &impl AsRawFd) -> &'static Socket {
        socket_of(fd.as_raw_fd()).expect("a TCP socket").record()
    }

    /// Makes what the first socket of a process makes, and leaves a record behind.
    fn warm_up() {
        drop(fresh());
        assert!(engine::is_prepared() && !unusual::any());
    }

    #[test]
    fn a_young_connection_leaves_no_trace_in_its_record() {
        warm_up();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for _ in 0..3 {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let mut server = listener.accept().unwrap().0;
            for end in [&client, &server] {
                assert_eq!(record(end).score.load(Relaxed), 0);
                assert_eq!(record(end).reason(), Reason::NotYetBusy);
                assert!(!record(end).nonblocking.load(Relaxed));
            }
            client.write_all(b"request").unwrap();
            server.read_exact(&mut [0; 7]).unwrap();
            assert!(record(&client).score.load(Relaxed) > 0 && record(&server).score.load(Relaxed) > 0);
            server.set_nonblocking(true).unwrap();
            client.set_read_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
            assert!(record(&server).nonblocking.load(Relaxed));
            assert_ne!(record(&client).recv_timeout.load(Relaxed), 0);
            let before = record(&client);
            drop(client);
            // Other tests may be at work in this process.
            let mut others = (0..1000).map(|_| fresh());
            let next = others.find(|next| std::ptr::eq(record(next), before)).expect("the record is used again");
            assert_eq!(record(&next).reason(), Reason::NotConnected);
            assert_eq!((before.score.load(Relaxed), before.recv_timeout.load(Relaxed)), (0, 0));
            server.set_nonblocking(false).unwrap();
            assert_eq!(server.read(&mut [0; 8]).unwrap(), 0);
        }
    }

    #[test]
    fn what_is_accepted_blocks_as_the_listening_socket_says() {
        warm_up();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        record(&listener).recv_timeout.store(77, Relaxed);
        record(&listener).recv_low.store(5, Relaxed);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accept = |flags| {
            // SAFETY: no address is asked for.
            unsafe { libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) }
        };
        drop(fresh());
        let fd = accept(libc::SOCK_NONBLOCK);
        // SAFETY: just made, nobody else's.
        let server = unsafe { OwnedFd::from_raw_fd(fd) };
        let server = record(&server);
        assert_eq!((server.recv_timeout.load(Relaxed), server.recv_low.load(Relaxed)), (77, 5));
        assert!(server.nonblocking.load(Relaxed));
    }

    #[test]
    fn a_duplicate_outlives_its_original() {
        warm_up();
        let original = fresh();
        let copy = original.try_clone().unwrap();
        let kept = record(&original);
        assert_eq!(kept.fds().load(Relaxed), 2);
        drop(original);
        assert!(std::ptr::eq(record(&copy), kept));
        assert_eq!((kept.fds().load(Relaxed), kept.fd.load(Relaxed)), (1, copy.as_raw_fd()));
        let another = fresh();
        assert!(!std::ptr::eq(record(&another), kept));
    }

    #[test]
    fn whoever_is_at_work_on_a_socket_keeps_its_record() {
        warm_up();
        let socket = fresh();
        let number = socket.as_raw_fd();
        let held = socket_of(number).unwrap();
        drop(socket);
        assert!(held.closing.load(Relaxed), "it must not change its tier any more");
        assert_eq!((held.refs().load(Relaxed), held.fds().load(Relaxed)), (1, 0));
        assert!(!matches!(lookup(number), Entry::Socket(found) if held.is(&found)));
        let next = fresh();
        assert!(!held.is(record(&next)));
    }

    #[test]
    fn a_watched_socket_leaves_its_set() {
        warm_up();
        let socket = fresh();
        // SAFETY: scalars.
        let set = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: a live event.
        let added =
            unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &raw mut event) };
        assert_eq!(added, 0);
        let Entry::Epoll(members) = lookup(set.as_raw_fd()) else { panic!("an epoll set") };
        assert_eq!(members.sockets.load(Relaxed), 1);
        drop(socket);
        assert_eq!(members.sockets.load(Relaxed), 0);
    }

    #[test]
    fn no_record_is_lost_or_given_out_twice() {
        warm_up();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Looks at every socket while it is made and closed, which sends some closes the long way.
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    (0..64).for_each(|fd| drop(lookup(fd)));
                }
            });
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for n in 0..3000 {
                            let (one, other) = (fresh(), fresh());
                            assert!(!std::ptr::eq(record(&one), record(&other)));
                            record(&one).score.store(7, Relaxed);
                            if n % 2 == 0 { drop(one) } else { drop(other) }
                        }
                    })
                })
                .collect();
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            over.store(true, Relaxed);
        });
        let sockets: Vec<_> = (0..32).map(|_| fresh()).collect();
        let mut records: Vec<_> = sockets.iter().map(record).collect();
        for record in &records {
            assert_eq!((record.refs().load(Relaxed), record.fds().load(Relaxed)), (1, 1));
            assert_eq!(record.score.load(Relaxed), 0);
        }
        records.sort_by_key(|record| std::ptr::from_ref(*record));
        records.dedup_by_key(|record| std::ptr::from_ref(*record));
        assert_eq!(records.len(), sockets.len());
    }
}
