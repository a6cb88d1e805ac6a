//! DCTCP (RFC 8257): the window is reduced by how much is marked, not by whether something is.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::newreno::NewReno;
use super::{Ack, Window};
use crate::tcp::seq::SeqNr;

/// DCTCP.Alpha is counted in parts of this.
const ONE: u32 = 1 << 20;
/// g = 1/16, the weight of the newest window (RFC 8257, section 4.2).
const GAIN_SHIFT: u32 = 4;

/// What DCTCP remembers beside the window. Names are the RFC's (section 3.3).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Dctcp {
    reno: NewReno,
    /// DCTCP.Alpha: how much of the data is marked, in parts of [`ONE`].
    alpha: u32,
    /// DCTCP.BytesAcked and DCTCP.BytesMarked in this window of data.
    acked: u32,
    marked: u32,
    /// DCTCP.WindowEnd.
    window_end: SeqNr,
    /// Has a window begun?
    begun: u32,
    /// Always zero.
    pad: u32,
}

impl Default for Dctcp {
    /// The first mark halves the window: nothing is known yet (RFC 8257, section 3.3).
    fn default() -> Self {
        let (reno, window_end) = (NewReno::default(), SeqNr(0));
        Self { reno, alpha: ONE, acked: 0, marked: 0, window_end, begun: 0, pad: 0 }
    }
}

impl Dctcp {
    /// Goes on with an Alpha in parts of 1024.
    pub fn learn(&mut self, alpha: u32) {
        self.alpha = (alpha.min(1 << 10) << 10).min(ONE);
    }

    /// Every acknowledgement counts: `acked` bytes up to `una`, with or without an echo (RFC 8257, section 3.3).
    pub fn on_feedback(&mut self, acked: u32, echo: bool, una: SeqNr, nxt: SeqNr) {
        if self.begun == 0 {
            (self.begun, self.window_end) = (1, nxt);
        }
        self.acked = self.acked.saturating_add(acked);
        if echo {
            self.marked = self.marked.saturating_add(acked);
        }
        if una.le(self.window_end) || self.acked == 0 {
            return;
        }
        let share = u64::from(self.marked) * u64::from(ONE) / u64::from(self.acked);
        let alpha = self.alpha.min(ONE);
        self.alpha = alpha - (alpha >> GAIN_SHIFT) + (share.min(ONE.into()) as u32 >> GAIN_SHIFT);
        (self.acked, self.marked, self.window_end) = (0, 0, nxt);
    }

    pub fn on_ack(&mut self, window: &mut Window, ack: &Ack) {
        self.reno.on_ack(window, ack);
    }

    /// cwnd = cwnd * (1 - DCTCP.Alpha / 2) (RFC 8257, section 3.3, step 9).
    pub fn on_mark(&mut self, window: &mut Window, mss: u32) {
        let cut = u64::from(window.cwnd) * u64::from(self.alpha.min(ONE)) / u64::from(2 * ONE);
        window.ssthresh = window.cwnd.saturating_sub(cut as u32).max(2 * mss);
    }

    /// RFC 8257, section 3.5: a loss is a loss.
    pub fn on_loss(&mut self, window: &mut Window, mss: u32) {
        self.reno.on_loss(window, mss);
    }

    pub fn on_timeout(&mut self, window: &mut Window, mss: u32, first: bool) {
        self.reno.on_timeout(window, mss, first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    /// `windows` windows of a hundred segments each, of which `marked` are.
    fn play(dctcp: &mut Dctcp, windows: u32, marked: u32) {
        let mut una = dctcp.window_end;
        for _ in 0..windows {
            for segment in 0..100 {
                una = una.plus(MSS);
                dctcp.on_feedback(MSS, segment < marked, una, una.plus(99 * MSS));
            }
        }
    }

    #[test]
    fn alpha_follows_the_share_of_marks() {
        let mut dctcp = Dctcp::default();
        for (marked, expected) in [(0, 0.0), (30, 0.3), (100, 1.0), (1, 0.01)] {
            play(&mut dctcp, 120, marked);
            let alpha = f64::from(dctcp.alpha) / f64::from(ONE);
            assert!((alpha - expected).abs() < 0.015, "{marked} {alpha}");
        }
    }

    #[test]
    fn one_window_counts_a_sixteenth() {
        let mut dctcp = Dctcp::default();
        play(&mut dctcp, 3, 0);
        // The first window began with nothing acknowledged: two or three have ended.
        let expected = |n: i32| (15.0f64 / 16.0).powi(n);
        let alpha = f64::from(dctcp.alpha) / f64::from(ONE);
        assert!((expected(3)..=expected(2)).contains(&alpha), "{alpha}");
    }

    #[test]
    fn the_cut_is_half_of_alpha() {
        for (alpha, left) in [(ONE, 50), (ONE / 2, 75), (0, 100), (u32::MAX, 50)] {
            let mut window = Window { cwnd: 100 * MSS, ssthresh: u32::MAX };
            Dctcp { alpha, ..Dctcp::default() }.on_mark(&mut window, MSS);
            assert_eq!(window.ssthresh, left * MSS, "{alpha}");
        }
        let mut window = Window { cwnd: MSS, ssthresh: u32::MAX };
        Dctcp::default().on_mark(&mut window, MSS);
        assert_eq!(window.ssthresh, 2 * MSS);
    }
}
