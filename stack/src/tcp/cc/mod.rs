//! How much may be in flight? One file an algorithm; this one dispatches, and holds what all of them share: the window
//! and the threshold. Beside those, only what the kernel tells ([`Learnt`]) crosses between tiers.
//!
//! The record lies in the arena, where anything may scribble: every function takes any bytes, and leaves a window within
//! bounds.

mod algorithm;
mod bbr;
mod cubic;
mod dctcp;
mod hystart;
mod learnt;
mod newreno;
mod state;
mod window;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use self::algorithm::Algorithm;
use self::bbr::Bbr;
use self::cubic::{Before, Cubic};
use self::dctcp::Dctcp;
pub(crate) use self::hystart::Departures;
pub use self::learnt::Learnt;
use self::newreno::NewReno;
use self::state::State;
use self::window::{Usage, Window};
use super::loss::Phase;
use super::rate::RateSample;
use super::seq::SeqNr;
use super::time::Instant;

/// Initial window in segments (RFC 6928).
const INITIAL_SEGMENTS: u32 = 10;
/// Keeps the arithmetic far from overflow; no ring holds more.
const CWND_MAX: u32 = 1 << 30;
/// Largest segment that the arithmetic believes in, bytes.
const MSS_MAX: u32 = 1 << 16;

/// What an acknowledgement of new data tells congestion control.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    pub now: Instant,
    /// Bytes that it acknowledges.
    pub acked: u32,
    /// The segments that did, if several were taken for one.
    pub acks: u32,
    /// Bytes that were in the network: when new data last went out, for whether the window is the limit; before the acknowledgement came, for
    /// those who go by rates.
    pub flight: u32,
    pub mss: u32,
    /// Smoothed round-trip time, ns, if known.
    pub srtt: Option<u64>,
    /// Everything before this is acknowledged.
    pub una: SeqNr,
    /// The next number that was never sent.
    pub nxt: SeqNr,
}

/// What an acknowledgement tells those that go by rates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub ack: Ack,
    /// What it says of the path.
    pub rate: RateSample,
}

impl std::ops::Deref for Told {
    type Target = Ack;

    fn deref(&self) -> &Ack {
        &self.ack
    }
}

/// Congestion state of one connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Congestion {
    window: Window,
    state: State,
    /// [`Usage::since`] ...
    unused_since: Instant,
    /// ... and [`Usage::used`].
    used: u32,
    /// An [`Algorithm`].
    algorithm: u32,
}

/// What a mistaken reduction has to bring back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Saved {
    window: Window,
    cubic: Before,
}

/// Does something with the window and the state of the algorithm in use: one arm each.
macro_rules! with {
    ($congestion:expr, $window:ident, { $($algorithm:ident: $state:ident => $act:expr),* $(,)? }) => {{
        let Congestion { window: $window, state, algorithm, .. } = $congestion;
        match Algorithm::from_raw(*algorithm) {
            $(Algorithm::$algorithm => if let Some($state) = state.get::<with!(@ $algorithm)>() { $act },)*
            #[allow(unreachable_patterns, reason = "not every event concerns every algorithm")]
            _ => (),
        }
    }};
    (@ Cubic) => { Cubic };
    (@ Reno) => { NewReno };
    (@ Dctcp) => { Dctcp };
    (@ Bbr) => { Bbr };
}

impl Congestion {
    /// Takes over windows counted in segments of `mss` bytes. A window below the initial one is what congestion has left of it: it is
    /// not for a change of tier to raise it.
    pub fn new(cwnd_segments: u32, ssthresh_segments: u32, mss: u32) -> Self {
        let mss = sane(mss);
        let bytes = |segments: u32| segments.saturating_mul(mss).min(CWND_MAX);
        let ssthresh = if ssthresh_segments >= i32::MAX as u32 { u32::MAX } else { bytes(ssthresh_segments) };
        let window = Window { cwnd: bytes(cwnd_segments.max(1)), ssthresh };
        let state = State::of(&Cubic::new(&window));
        Self { window, unused_since: Instant::NEVER, used: 0, algorithm: Algorithm::Cubic as u32, state }
    }

    #[inline(always)]
    fn usage(&self) -> Usage {
        Usage { since: self.unused_since, used: self.used }
    }

    #[inline(always)]
    fn set_usage(&mut self, usage: Usage) {
        (self.unused_since, self.used) = (usage.since, usage.used);
    }

    /// Which algorithm to go on with; window and threshold stay. `srtt` is the smoothed round-trip time, ns, if known.
    pub fn choose(&mut self, algorithm: Algorithm, mss: u32, srtt: Option<u64>) {
        self.set_usage(Usage::default());
        self.algorithm = algorithm as u32;
        self.state = match algorithm {
            Algorithm::Cubic => State::of(&Cubic::new(&self.window)),
            Algorithm::Reno => State::of(&NewReno::default()),
            Algorithm::Dctcp => State::of(&Dctcp::default()),
            Algorithm::Bbr => State::of(&Bbr::new(&self.window, srtt)),
        };
        self.keep_one_segment(mss);
    }

    /// Takes over what the same algorithm has learnt of the path elsewhere; what another has is ignored.
    pub fn learn(&mut self, learnt: &Learnt, now: Instant) {
        match *learnt {
            Learnt::Nothing => {}
            Learnt::Bbr { bandwidth, min_rtt_us, full } => with!(self, _window, {
                Bbr: bbr => bbr.learn(bandwidth, min_rtt_us, full, now),
            }),
            Learnt::Dctcp { alpha } => with!(self, _window, { Dctcp: dctcp => dctcp.learn(alpha) }),
        }
    }

    /// Congestion window, bytes.
    pub fn cwnd(&self) -> u32 {
        self.window.cwnd
    }

    /// Slow-start threshold, bytes; `u32::MAX` when not set.
    pub fn ssthresh(&self) -> u32 {
        self.window.ssthresh
    }

    /// The window in segments for whoever goes on without what the algorithm knows beside it.
    pub fn plain_segments(&self, mss: u32) -> u32 {
        let mss = mss.max(1);
        let bbr = self.state.look::<Bbr>().filter(|_| self.algorithm() == Algorithm::Bbr);
        bbr.map_or(self.window.cwnd, |bbr| bbr.without_model(&self.window, mss)) / mss
    }

    /// Window and threshold in segments.
    pub fn segments(&self, mss: u32) -> (u32, u32) {
        let mss = mss.max(1);
        let Window { cwnd, ssthresh } = self.window;
        (cwnd / mss, if ssthresh == u32::MAX { u32::MAX } else { ssthresh / mss })
    }

    /// The algorithm in use.
    pub fn algorithm(&self) -> Algorithm {
        Algorithm::from_raw(self.algorithm)
    }

    /// New data `[start, end)` goes out.
    pub fn on_sent(&mut self, now: Instant, start: SeqNr, end: SeqNr, departures: &mut Departures) {
        with!(self, window, { Cubic: cubic => cubic.on_sent(window, now, start, end, departures) });
    }

    /// The same of `count` segments of `each` bytes from `start` on.
    pub fn on_train_sent(
        &mut self,
        now: Instant,
        start: SeqNr,
        (each, count): (u32, u32),
        departures: &mut Departures,
    ) {
        with!(self, window, { Cubic: cubic => cubic.on_train_sent(window, now, start, (each, count), departures) });
    }

    /// New data was acknowledged, outside fast recovery; `rto` is the retransmission timeout, ns.
    pub fn on_ack(&mut self, ack: &Ack, rto: u64, departures: &mut Departures) {
        match self.algorithm() {
            Algorithm::Cubic => self.on_cubic_ack(ack, rto, departures),
            _ => self.on_other_ack(&Ack { mss: sane(ack.mss), ..*ack }, rto),
        }
    }

    /// The same of [`Algorithm::Cubic`].
    #[inline(always)]
    pub fn on_cubic_ack(&mut self, ack: &Ack, rto: u64, departures: &mut Departures) {
        let ack = &Ack { mss: sane(ack.mss), ..*ack };
        let mut limited = self.window.is_the_limit(ack);
        if limited {
            self.unused_since = Instant::NEVER;
        } else if !self.knows_use(ack, rto) {
            // A copy for who needs it in memory.
            let ack = *ack;
            limited = self.note_use(&ack, rto);
        }
        if let Some(cubic) = self.state.get::<Cubic>() {
            cubic.on_ack(&mut self.window, ack, limited, departures);
        }
        self.window.bound(2 * ack.mss);
    }

    /// The window is not the limit: would [`Usage::on_ack`] change nothing?
    #[inline(always)]
    fn knows_use(&self, ack: &Ack, rto: u64) -> bool {
        let since = self.unused_since;
        since.is_set() && ack.flight <= self.used && ack.now.nanos_since(since) < rto
    }

    /// It would, perhaps. Says whether the window is the limit after all, because it shrank.
    #[inline(never)]
    fn note_use(&mut self, ack: &Ack, rto: u64) -> bool {
        let mut usage = self.usage();
        let is_unused = usage.on_ack(&mut self.window, ack, false, rto);
        self.set_usage(usage);
        if is_unused && let Some(cubic) = self.state.get::<Cubic>() {
            cubic.on_validation();
        }
        is_unused && self.window.is_the_limit(ack)
    }

    /// The same of algorithms that are not the default.
    #[inline(never)]
    fn on_other_ack(&mut self, ack: &Ack, rto: u64) {
        if self.goes_by_rate() {
            return self.bound(ack.mss);
        }
        let limited = self.window.is_the_limit(ack);
        let mut usage = self.usage();
        usage.on_ack(&mut self.window, ack, limited, rto);
        self.set_usage(usage);
        with!(self, window, {
            Reno: reno => reno.on_ack(window, ack),
            Dctcp: dctcp => dctcp.on_ack(window, ack),
        });
        self.bound(ack.mss);
    }

    /// The peer has taken something, in order or not, or something was found lost; in any phase, after everything else that the
    /// acknowledgement brings about. For algorithms that go by rates: `phase` is where recovery stands now.
    pub fn on_delivery(&mut self, told: &Told, phase: Phase) {
        if self.goes_by_rate() {
            let ack = Told { ack: Ack { mss: sane(told.mss), ..told.ack }, rate: told.rate };
            with!(self, window, { Bbr: bbr => bbr.on_delivery(window, &ack, phase) });
            self.bound(ack.mss);
        }
    }

    /// Does the algorithm go by rates: does it pace, and decide on the window in recovery too?
    pub fn goes_by_rate(&self) -> bool {
        self.algorithm() == Algorithm::Bbr
    }

    /// The rate at which to send, bytes a second; 0: the window is all that counts.
    pub fn pacing_rate(&self) -> u64 {
        if self.goes_by_rate() { self.state.look::<Bbr>().map_or(0, |bbr| bbr.pacing_rate()) } else { 0 }
    }

    /// Is little sent on purpose, so that what is measured is not the path's rate?
    pub fn is_probing_rtt(&self) -> bool {
        self.goes_by_rate() && self.state.look::<Bbr>().is_some_and(|bbr| bbr.is_probing_rtt())
    }

    /// An acknowledgement of a connection with ECN: `acked` new bytes, up to `una`, with or without an echo of a mark.
    pub fn on_feedback(&mut self, acked: u32, echo: bool, una: SeqNr, nxt: SeqNr) {
        with!(self, _window, { Dctcp: dctcp => dctcp.on_feedback(acked, echo, una, nxt) });
    }

    /// The peer echoed a mark, the first in this window of data (RFC 3168, section 6.1.2): a loss without
    /// anything to be sent again.
    pub fn on_mark(&mut self, mss: u32) {
        let mss = sane(mss);
        if self.goes_by_rate() {
            // Version 1 does not listen to marks, in Linux neither.
            return self.bound(mss);
        }
        with!(self, window, {
            Cubic: cubic => cubic.on_loss(window, mss),
            Reno: reno => reno.on_loss(window, mss),
            Dctcp: dctcp => dctcp.on_mark(window, mss),
        });
        self.window.cwnd = self.window.ssthresh;
        self.bound(mss);
    }

    /// Loss was seen; recovery begins.
    pub fn on_loss(&mut self, mss: u32) {
        let mss = sane(mss);
        if self.goes_by_rate() {
            with!(self, window, { Bbr: bbr => bbr.on_loss(window) });
            return self.bound(mss);
        }
        with!(self, window, {
            Cubic: cubic => cubic.on_loss(window, mss),
            Reno: reno => reno.on_loss(window, mss),
            Dctcp: dctcp => dctcp.on_loss(window, mss),
        });
        self.window.cwnd = self.window.ssthresh;
        self.bound(mss);
    }

    /// The retransmission timer ran out: one segment is left (RFC 5681, section 3.1). Only the first of a series sets the
    /// threshold.
    pub fn on_timeout(&mut self, mss: u32, first: bool) {
        let mss = sane(mss);
        with!(self, window, {
            Cubic: cubic => cubic.on_timeout(window, mss, first),
            Reno: reno => reno.on_timeout(window, mss, first),
            Dctcp: dctcp => dctcp.on_timeout(window, mss, first),
            Bbr: bbr => bbr.on_timeout(window),
        });
        self.window.cwnd = mss;
    }

    /// A reduction follows that may turn out to be a mistake: what that would have to bring back.
    pub fn save(&self) -> Saved {
        let cubic = self.state.look::<Cubic>().filter(|_| self.algorithm() == Algorithm::Cubic);
        Saved { window: self.window, cubic: cubic.map(Cubic::save).unwrap_or_default() }
    }

    /// The same where no reduction was seen: there is no more to bring back than the window.
    pub fn unsaved(&self) -> Saved {
        Saved { window: self.window, cubic: Before::default() }
    }

    /// The reduction after the last [`Congestion::save`] was a mistake: neither window nor threshold is less than before it (RFC 4015,
    /// section 3.2).
    pub fn undo(&mut self, saved: &Saved) {
        self.window.cwnd = self.window.cwnd.max(saved.window.cwnd).min(CWND_MAX);
        self.window.ssthresh = self.window.ssthresh.max(saved.window.ssthresh);
        with!(self, _window, {
            Cubic: cubic => cubic.undo(&saved.cubic),
            Bbr: bbr => bbr.on_undo(),
        });
    }

    /// Does proportional rate reduction say what goes out in fast recovery (RFC 9937)? Else the window does.
    pub fn recovers_by_prr(&self) -> bool {
        !self.goes_by_rate()
    }

    /// Data goes out again after everything was acknowledged; `app_limited`: because the program had nothing to say.
    pub fn on_restart(&mut self, now: Instant, app_limited: bool) {
        with!(self, window, {
            Cubic: cubic => cubic.on_restart(now),
            Bbr: bbr => if app_limited { bbr.on_restart(window, now) },
        });
    }

    /// The connection was silent for so many timeouts: the window says less and less (RFC 2861).
    pub fn on_idle(&mut self, timeouts: u64, mss: u32) {
        if !self.goes_by_rate() && self.window.decay(timeouts, sane(mss)) {
            self.set_usage(Usage::default());
            with!(self, _window, { Cubic: cubic => cubic.on_idle() });
        }
    }

    /// Segments have another size now.
    pub fn rescale(&mut self, mss: u32) {
        self.keep_one_segment(mss);
    }

    /// Neither is a reason to have more in flight: after a timeout, a single segment is all there may be.
    fn keep_one_segment(&mut self, mss: u32) {
        self.window.cwnd = self.window.cwnd.clamp(sane(mss), CWND_MAX);
    }

    /// Between two segments and [`CWND_MAX`]. What goes by rates may want a single one for a while.
    #[inline(always)]
    fn bound(&mut self, mss: u32) {
        self.window.bound(if self.goes_by_rate() { mss } else { 2 * mss });
    }
}

fn sane(mss: u32) -> u32 {
    mss.clamp(1, MSS_MAX)
}

#[cfg(test)]
mod tests;
