//! What every algorithm decides: the window and the threshold, in bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Ack, CWND_MAX, INITIAL_SEGMENTS};
use crate::tcp::time::Instant;

/// What every algorithm decides, bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Window {
    /// Congestion window.
    pub cwnd: u32,
    /// Slow-start threshold; `u32::MAX` when not set.
    pub ssthresh: u32,
}

impl Window {
    pub fn is_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Was the threshold never set: is this the first slow start?
    pub fn is_first_slow_start(&self) -> bool {
        self.ssthresh == u32::MAX
    }

    /// Is the window what keeps the sender from sending more? One that is not used must not grow (RFC 9438, section 5.8;
    /// RFC 7661): in slow start, half of it counts as used, since it doubles in one round trip.
    pub fn is_the_limit(&self, ack: &Ack) -> bool {
        if self.is_slow_start() {
            ack.flight.saturating_mul(2) >= self.cwnd
        } else {
            ack.flight.saturating_add(ack.mss) >= self.cwnd
        }
    }

    /// Between so many bytes and [`CWND_MAX`].
    #[inline(always)]
    pub fn bound(&mut self, least: u32) {
        self.cwnd = self.cwnd.clamp(least, CWND_MAX);
    }

    pub fn grow(&mut self, bytes: u32) {
        self.cwnd = self.cwnd.saturating_add(bytes).min(CWND_MAX);
    }

    /// Grows by so many bytes in slow start. Acknowledgements that were taken for one let it grow no further than they would have one by one: until
    /// it is no longer the limit, or the threshold is reached.
    #[inline(always)]
    pub fn grow_in_slow_start(&mut self, ack: &Ack, bytes: u32) {
        let bytes = if ack.acks > 1 { bytes.min(self.room_to_grow(ack, bytes / ack.acks)) } else { bytes };
        self.grow(bytes);
    }

    /// How far it may grow so in steps of so many bytes.
    #[inline(never)]
    fn room_to_grow(&self, ack: &Ack, step: u32) -> u32 {
        let end = ack.flight.saturating_mul(2).min(self.ssthresh);
        end.saturating_sub(self.cwnd).saturating_add(step)
    }

    /// The threshold after a congestion event: `tenths` of the window, at least two segments. The window as in Linux, not what was in flight
    /// (RFC 5681, equation 4): a small message that is lost on a path that has carried large ones says little of it. RFC 9438, section 4.6,
    /// allows that to who lets no window grow that is not used ([`Window::is_the_limit`]) and forgets what was not used for long ([`Usage`]).
    pub fn reduce(&mut self, tenths: u32, mss: u32) {
        let kept = u64::from(self.cwnd.min(CWND_MAX)) * u64::from(tenths) / 10;
        self.ssthresh = (kept as u32).max(2 * mss);
    }

    /// A window that will not be used as it is shall be remembered: three quarters of it as threshold (RFC 2861, section 3.1),
    /// unless none was ever needed.
    fn remember(&mut self) {
        self.ssthresh = self.ssthresh.max(self.cwnd.min(CWND_MAX) / 4 * 3);
    }

    /// Halves the window for each timeout that the silence lasted (RFC 2861, section 3.1), down to the initial one. True if it
    /// changed.
    pub fn decay(&mut self, timeouts: u64, mss: u32) -> bool {
        let initial = INITIAL_SEGMENTS * mss;
        if self.cwnd <= initial || timeouts == 0 {
            return false;
        }
        self.remember();
        self.cwnd = self.cwnd.checked_shr(timeouts.min(32) as u32).unwrap_or(0).max(initial);
        true
    }

    /// Of a window of which no more than `used` was needed, half of the rest goes (RFC 2861, section 3.1). True if it changed.
    #[inline(never)]
    fn validate(&mut self, used: u32, mss: u32) -> bool {
        let used = used.max(INITIAL_SEGMENTS * mss);
        if used >= self.cwnd {
            return false;
        }
        self.remember();
        self.cwnd = used + (self.cwnd - used) / 2;
        true
    }
}

/// How much of the window does the program use? (RFC 2861, section 3.1, with Linux's choices)
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Since when the window is not the limit; never: it is.
    pub since: Instant,
    /// Most bytes in flight since then.
    pub used: u32,
}

impl Usage {
    /// An acknowledgement came; `limited`: the window is the limit. True if the window was used too little for a timeout, `rto` ns, and
    /// shrank.
    #[inline(always)]
    pub fn on_ack(&mut self, window: &mut Window, ack: &Ack, limited: bool, rto: u64) -> bool {
        if limited {
            self.since = Instant::NEVER;
            return false;
        }
        if !self.since.is_set() {
            *self = Self { since: ack.now, ..Self::default() };
        }
        self.used = self.used.max(ack.flight);
        if ack.now.nanos_since(self.since) < rto {
            return false;
        }
        let used = std::mem::take(&mut self.used);
        self.since = ack.now;
        window.validate(used, ack.mss)
    }
}
