//! What holds of a connection after every step, whatever its peer says.

use underpass_stack::tcp::image::{Image, flag};
use underpass_stack::tcp::{Instant, State};
use underpass_stack::testkit::Host;

/// Largest congestion window, bytes.
const CWND_MAX: u32 = 1 << 30;

/// The connection as it was.
pub struct Watch {
    before: Image,
    /// What the rings may grow to.
    largest: usize,
    /// Sizes of the rings at first.
    rings: (usize, usize),
    /// Most records of what was sent and pieces of what arrived out of order, so far.
    most: (usize, usize),
    /// What the peer's window allowed when it was largest.
    edge: u32,
    ended: bool,
}

impl Watch {
    pub fn new(host: &Host, now: Instant, largest: usize) -> Self {
        let before = host.export(now).0;
        let edge = before.snd_una.wrapping_add(before.snd_wnd);
        // At least one unit of the window's scale, so that there is a window to tell.
        let largest = largest.max(1 << before.rcv_wscale);
        Self { before, largest, rings: host.rings(), most: (0, 0), edge, ended: false }
    }

    /// The connection was given away and taken back: an image does not say that TIME-WAIT is over, nor who closed first.
    pub fn changed_hands(&mut self) {
        self.ended = false;
    }

    /// Most records of what was sent and pieces of what arrived out of order at any time.
    pub fn most(&self) -> (usize, usize) {
        self.most
    }

    /// Did the receive ring grow, did the send ring?
    pub fn grown(&self, host: &Host) -> [bool; 2] {
        let (rcv, snd) = host.rings();
        [rcv > self.rings.0, snd > self.rings.1]
    }

    /// `[seq, end)` went out when the connection was as `image` says: within what the program wrote and what the peer's window ever
    /// allowed.
    pub fn sent(&mut self, image: &Image, seq: u32, end: u32) {
        self.take_edge(image);
        let closes = image.flags & (flag::FIN_QUEUED | flag::FIN_SENT | flag::FIN_ACKED) != 0;
        let last = image.snd_end.wrapping_add(u32::from(closes));
        assert!(is_at_most(end, last), "{end} was never written: {image:?}");
        assert!(is_at_most(image.snd_una.wrapping_sub(1), seq), "{seq} is long acknowledged: {image:?}");
        // A probe of a closed window is one byte.
        let allowed = if is_at_most(self.edge, image.snd_nxt) { image.snd_nxt.wrapping_add(1) } else { self.edge };
        assert!(is_at_most(end, allowed), "{end} is beyond the peer's window {}: {image:?}", self.edge);
    }

    /// Looks at the connection.
    pub fn check(&mut self, host: &mut Host, now: Instant) {
        // Panics if the image is unsound: the order of the sequence numbers, what waits within its ring.
        let image = host.export(now).0;
        self.take_edge(&image);
        self.forwards(&image);
        self.promises(host, &image);
        let (unread, queued) = (image.unread(), image.unacknowledged());
        assert_eq!(host.tcb.readable(), unread as usize);
        assert_eq!(host.tcb.unsent() + host.tcb.unacked(), queued as usize, "{image:?}");
        let (space, limit) = (host.connection().send_space(), host.connection().send_limit());
        assert!(limit <= host.rings().1 && space <= limit.saturating_sub(queued as usize), "{space} {image:?}");
        let (cwnd, _) = host.tcb.congestion();
        assert!((1..=CWND_MAX).contains(&cwnd), "a congestion window of {cwnd} bytes");
        self.held_back(host, &image);
        host.assert_bounded();
        self.most = (self.most.0.max(host.sent_records()), self.most.1.max(host.out_of_order()));
        let (rcv, snd) = host.rings();
        assert!(rcv.max(snd) <= self.largest, "rings of {rcv} and {snd} bytes, {} is the most", self.largest);
        self.timers(host);
        let ended = host.tcb.state() == State::Closed;
        assert!(ended || !self.ended, "a connection that has ended lives again");
        self.ended = ended;
        self.before = image;
    }

    /// Numbers that only grow.
    fn forwards(&self, image: &Image) {
        let before = &self.before;
        for (name, old, new) in [
            ("snd_una", before.snd_una, image.snd_una),
            ("snd_nxt", before.snd_nxt, image.snd_nxt),
            ("snd_end", before.snd_end, image.snd_end),
            ("rcv_nxt", before.rcv_nxt, image.rcv_nxt),
            ("rcv_read", before.rcv_read, image.rcv_read),
        ] {
            assert!(is_at_most(old, new), "{name} went back from {old} to {new}");
        }
    }

    /// The window that we promised is never taken back, fits into the ring, and nothing beyond it is accepted.
    fn promises(&self, host: &Host, image: &Image) {
        let edge = |image: &Image| image.rcv_wup.wrapping_add(image.rcv_wnd);
        let fin = u32::from(image.flags & flag::FIN_RECEIVED != 0);
        assert!(is_at_most(edge(&self.before), edge(image)), "the window shrank: {:?} {image:?}", self.before);
        assert!(is_at_most(image.rcv_nxt, edge(image)), "accepted what was not allowed: {image:?}");
        let (room, (ring, _)) = (edge(image).wrapping_sub(image.rcv_read), host.rings());
        assert!(room <= ring as u32 + fin + 1, "{room} bytes promised, the ring has {ring}");
    }

    /// Data that arrived out of order lies in the ring, apart and in order.
    fn held_back(&self, host: &Host, image: &Image) {
        let mut last = image.rcv_nxt;
        for (start, end) in host.ahead() {
            assert!(is_at_most(last, start) && last != start && is_at_most(start, end) && start != end);
            last = end;
        }
    }

    /// What is on its way or waits to be sent has a timer, once everything was sent that may be.
    fn timers(&self, host: &mut Host) {
        let pending = host.tcb.unacked() > 0;
        let over = matches!(host.tcb.state(), State::Closed | State::TimeWait);
        assert!(!pending || over || host.tcb.deadline().is_some(), "data in flight and no timer: {:?}", host.tcb);
    }

    fn take_edge(&mut self, image: &Image) {
        let edge = image.snd_una.wrapping_add(image.snd_wnd);
        if is_at_most(self.edge, edge) {
            self.edge = edge;
        }
    }
}

/// Is sequence number `a` at or before `b`?
fn is_at_most(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) < 1 << 31
}
