//! How much may be in flight? One file an algorithm; this one dispatches, and holds what all of them share: the window
//! and the threshold, which are also all that crosses between tiers.
//!
//! The record lies in the arena, where anything may scribble: every function takes any bytes, and leaves a window within
//! bounds.

mod cubic;
mod hystart;
mod newreno;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use self::cubic::Cubic;
use self::newreno::NewReno;
use super::rate::RateSample;
use super::seq::SeqNr;
use super::time::Instant;

/// Initial window in segments (RFC 6928).
const INITIAL_SEGMENTS: u32 = 10;
/// Keeps the arithmetic far from overflow; no ring holds more.
const CWND_MAX: u32 = 1 << 30;
/// Largest segment that the arithmetic believes in, bytes.
const MSS_MAX: u32 = 1 << 16;

/// The algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// CUBIC (RFC 9438) with HyStart++ (RFC 9406).
    #[default]
    Cubic,
    /// NewReno (RFC 5681, RFC 6582).
    Reno,
}

impl Algorithm {
    /// Any number stands for an algorithm: zero, and what nobody wrote, for the default.
    fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Reno,
            _ => Self::Cubic,
        }
    }
}

/// What an acknowledgement of new data tells congestion control.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    pub now: Instant,
    /// Bytes that it acknowledges.
    pub acked: u32,
    /// Bytes that were in the network before it came.
    pub flight: u32,
    pub mss: u32,
    /// Smoothed round-trip time, ns, if known.
    pub srtt: Option<u64>,
    /// Everything before this is acknowledged.
    pub una: SeqNr,
    /// The next number that was never sent.
    pub nxt: SeqNr,
    /// What it says of the path; only for [`Congestion::on_delivery`].
    pub rate: RateSample,
}

/// What every algorithm decides, bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Window {
    /// Congestion window.
    cwnd: u32,
    /// Slow-start threshold; `u32::MAX` when not set.
    ssthresh: u32,
}

impl Window {
    fn is_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Was the threshold never set: is this the first slow start?
    fn is_first_slow_start(&self) -> bool {
        self.ssthresh == u32::MAX
    }

    /// Is the window what keeps the sender from sending more? One that is not used must not grow (RFC 9438, section 5.8;
    /// RFC 7661): in slow start, half of it counts as used, since it doubles in one round trip.
    fn is_the_limit(&self, ack: &Ack) -> bool {
        if self.is_slow_start() {
            ack.flight.saturating_mul(2) >= self.cwnd
        } else {
            ack.flight.saturating_add(ack.mss) >= self.cwnd
        }
    }

    fn grow(&mut self, bytes: u32) {
        self.cwnd = self.cwnd.saturating_add(bytes).min(CWND_MAX);
    }

    /// The threshold after a congestion event: `tenths` of what was in flight, at least two segments (RFC 5681, equation 4;
    /// RFC 9438, section 4.6). More than the window may lie between `snd_una` and `snd_nxt`, since data that was selectively
    /// acknowledged counts there; then the window is what caused the event, and no event may raise it.
    fn reduce(&mut self, flight: u32, tenths: u32, mss: u32) {
        let used = flight.min(self.cwnd).min(CWND_MAX);
        let kept = u64::from(used) * u64::from(tenths) / 10;
        self.ssthresh = (kept as u32).max(2 * mss);
    }
}

/// Congestion state of one connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Congestion {
    window: Window,
    /// As it was before the last reduction.
    saved: Window,
    /// An [`Algorithm`].
    algorithm: u32,
    /// Always zero.
    pad: u32,
    reno: NewReno,
    cubic: Cubic,
}

impl Congestion {
    /// Takes over windows counted in segments of `mss` bytes; never starts below the initial window.
    pub fn new(cwnd_segments: u32, ssthresh_segments: u32, mss: u32) -> Self {
        let mss = sane(mss);
        let bytes = |segments: u32| segments.saturating_mul(mss).min(CWND_MAX);
        let ssthresh = if ssthresh_segments >= i32::MAX as u32 { u32::MAX } else { bytes(ssthresh_segments) };
        let window = Window { cwnd: bytes(cwnd_segments.max(INITIAL_SEGMENTS)), ssthresh };
        let (reno, cubic) = (NewReno::default(), Cubic::new(&window));
        Self { window, saved: window, algorithm: 0, pad: 0, reno, cubic }
    }

    /// Which algorithm to go on with; window and threshold stay.
    pub fn choose(&mut self, algorithm: Algorithm) {
        self.algorithm = algorithm as u32;
        self.saved = self.window;
        self.reno = NewReno::default();
        self.cubic = Cubic::new(&self.window);
    }

    /// Congestion window, bytes.
    pub fn cwnd(&self) -> u32 {
        self.window.cwnd
    }

    /// Slow-start threshold, bytes; `u32::MAX` when not set.
    pub fn ssthresh(&self) -> u32 {
        self.window.ssthresh
    }

    /// Window and threshold in segments.
    pub fn segments(&self, mss: u32) -> (u32, u32) {
        let mss = mss.max(1);
        let Window { cwnd, ssthresh } = self.window;
        (cwnd / mss, if ssthresh == u32::MAX { u32::MAX } else { ssthresh / mss })
    }

    fn algorithm(&self) -> Algorithm {
        Algorithm::from_raw(self.algorithm)
    }

    /// New data `[start, end)` goes out.
    pub fn on_sent(&mut self, now: Instant, start: SeqNr, end: SeqNr) {
        match self.algorithm() {
            Algorithm::Cubic => self.cubic.on_sent(&self.window, now, start, end),
            Algorithm::Reno => (),
        }
    }

    /// New data was acknowledged, outside fast recovery.
    pub fn on_ack(&mut self, ack: Ack) {
        let ack = Ack { mss: sane(ack.mss), ..ack };
        match self.algorithm() {
            Algorithm::Cubic => self.cubic.on_ack(&mut self.window, &ack),
            Algorithm::Reno => self.reno.on_ack(&mut self.window, &ack),
        }
        self.bound(ack.mss);
    }

    /// The peer has taken something, in order or not, or something was found lost; in any phase, after everything else that the
    /// acknowledgement brings about. For algorithms that go by rates.
    pub fn on_delivery(&mut self, ack: &Ack) {
        debug_assert!(ack.rate.delivered <= ack.rate.total_delivered, "{ack:?}");
        match self.algorithm() {
            Algorithm::Cubic | Algorithm::Reno => (),
        }
    }

    /// Loss was seen with `flight` bytes out; recovery begins.
    pub fn on_loss(&mut self, flight: u32, mss: u32) {
        let mss = sane(mss);
        match self.algorithm() {
            Algorithm::Cubic => self.cubic.on_loss(&mut self.window, flight, mss),
            Algorithm::Reno => self.reno.on_loss(&mut self.window, flight, mss),
        }
        self.window.cwnd = self.window.ssthresh;
        self.bound(mss);
    }

    /// The retransmission timer ran out: one segment is left (RFC 5681, section 3.1). Only the first of a series sets the
    /// threshold.
    pub fn on_timeout(&mut self, flight: u32, mss: u32, first: bool) {
        let mss = sane(mss);
        match self.algorithm() {
            Algorithm::Cubic => self.cubic.on_timeout(&mut self.window, flight, mss, first),
            Algorithm::Reno => self.reno.on_timeout(&mut self.window, flight, mss, first),
        }
        self.window.cwnd = mss;
    }

    /// A reduction follows that may turn out to be a mistake.
    pub fn save(&mut self) {
        self.saved = self.window;
        match self.algorithm() {
            Algorithm::Cubic => self.cubic.save(),
            Algorithm::Reno => (),
        }
    }

    /// The reduction after the last [`Congestion::save`] was a mistake: neither window nor threshold is less than before it (RFC 4015,
    /// section 3.2).
    pub fn undo(&mut self) {
        self.window.cwnd = self.window.cwnd.max(self.saved.cwnd).min(CWND_MAX);
        self.window.ssthresh = self.window.ssthresh.max(self.saved.ssthresh);
        match self.algorithm() {
            Algorithm::Cubic => self.cubic.undo(),
            Algorithm::Reno => (),
        }
    }

    /// Does proportional rate reduction say what goes out in fast recovery (RFC 9937)? Else the window does.
    pub fn recovers_by_prr(&self) -> bool {
        match self.algorithm() {
            Algorithm::Cubic | Algorithm::Reno => true,
        }
    }

    /// Data goes out again after everything was acknowledged.
    pub fn on_restart(&mut self, now: Instant) {
        match self.algorithm() {
            Algorithm::Cubic => self.cubic.on_restart(now),
            Algorithm::Reno => (),
        }
    }

    /// The connection was silent for longer than a timeout: the window says little now, and is no larger than the initial one
    /// (RFC 5681, section 4.1).
    pub fn on_idle(&mut self, mss: u32) {
        let mss = sane(mss);
        let initial = INITIAL_SEGMENTS * mss;
        if self.window.cwnd > initial {
            match self.algorithm() {
                Algorithm::Cubic => self.cubic.on_idle(&mut self.window),
                Algorithm::Reno => (),
            }
            self.window.cwnd = initial;
        }
    }

    /// Segments have another size now.
    pub fn rescale(&mut self, mss: u32) {
        self.bound(sane(mss));
    }

    /// Between two segments and [`CWND_MAX`].
    fn bound(&mut self, mss: u32) {
        self.window.cwnd = self.window.cwnd.clamp(2 * mss, CWND_MAX);
    }
}

fn sane(mss: u32) -> u32 {
    mss.clamp(1, MSS_MAX)
}

#[cfg(test)]
mod tests;
