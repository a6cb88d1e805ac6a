//! NewReno congestion control (RFC 5681), with byte counting (RFC 3465) so that stretch ACKs grow the window too.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Initial window in segments (RFC 6928).
const INITIAL_SEGMENTS: u32 = 10;
/// Keeps the arithmetic far from overflow; no ring holds more.
const CWND_MAX: u32 = 1 << 30;

/// Congestion state of one connection, bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct NewReno {
    /// Congestion window.
    pub cwnd: u32,
    /// Slow-start threshold; `u32::MAX` when not set.
    pub ssthresh: u32,
    /// Bytes acknowledged since the window last grew in congestion avoidance.
    credit: u32,
    /// Always zero.
    pad: u32,
}

impl NewReno {
    /// Takes over windows counted in segments of `mss` bytes; never starts below the initial window.
    pub fn new(cwnd_segments: u32, ssthresh_segments: u32, mss: u32) -> Self {
        let bytes = |segments: u32| segments.saturating_mul(mss).min(CWND_MAX);
        Self {
            cwnd: bytes(cwnd_segments.max(INITIAL_SEGMENTS)),
            ssthresh: if ssthresh_segments >= i32::MAX as u32 { u32::MAX } else { bytes(ssthresh_segments) },
            credit: 0,
            pad: 0,
        }
    }

    /// Window and threshold in segments.
    pub fn segments(&self, mss: u32) -> (u32, u32) {
        let mss = mss.max(1);
        (self.cwnd / mss, if self.ssthresh == u32::MAX { u32::MAX } else { self.ssthresh / mss })
    }

    /// `acked` new bytes were acknowledged while `flight` were out, outside recovery. The window only grows when it was the limit.
    pub fn on_ack(&mut self, acked: u32, flight: u32, mss: u32) {
        if self.cwnd < self.ssthresh {
            if flight.saturating_mul(2) >= self.cwnd {
                self.cwnd = self.cwnd.saturating_add(acked).min(CWND_MAX);
            }
        } else if flight.saturating_add(mss) >= self.cwnd {
            self.credit = self.credit.saturating_add(acked);
            if self.credit >= self.cwnd {
                self.credit -= self.cwnd;
                self.cwnd = self.cwnd.saturating_add(mss).min(CWND_MAX);
            }
        }
    }

    /// Loss was seen with `flight` bytes out; recovery begins (RFC 5681, section 3.2).
    pub fn on_loss(&mut self, flight: u32, mss: u32) {
        self.ssthresh = (flight / 2).max(2 * mss);
        self.cwnd = self.ssthresh;
        self.credit = 0;
    }

    /// The retransmission timer ran out (RFC 5681, section 3.1). Only the first of a series sets the threshold.
    pub fn on_timeout(&mut self, flight: u32, mss: u32, first: bool) {
        if first {
            self.ssthresh = (flight / 2).max(2 * mss);
        }
        self.cwnd = mss;
        self.credit = 0;
    }

    /// The connection was silent for longer than a timeout (RFC 5681, section 4.1).
    pub fn on_idle(&mut self, mss: u32) {
        self.cwnd = self.cwnd.min(INITIAL_SEGMENTS * mss);
    }

    /// Segments have another size now.
    pub fn rescale(&mut self, mss: u32) {
        self.cwnd = self.cwnd.max(2 * mss);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MSS: u32 = 1448;

    #[test]
    fn slow_start_doubles_and_a_stretch_ack_counts_in_full() {
        let mut cc = NewReno::new(10, u32::MAX, MSS);
        cc.on_ack(10 * MSS, 10 * MSS, MSS);
        assert_eq!(cc.cwnd, 20 * MSS);
    }

    #[test]
    fn an_idle_window_does_not_grow() {
        let mut cc = NewReno::new(10, u32::MAX, MSS);
        cc.on_ack(100, 100, MSS);
        assert_eq!(cc.cwnd, 10 * MSS);
    }

    #[test]
    fn congestion_avoidance_adds_one_segment_a_window() {
        let mut cc = NewReno::new(20, 20, MSS);
        for _ in 0..20 {
            cc.on_ack(MSS, 20 * MSS, MSS);
        }
        assert_eq!(cc.cwnd, 21 * MSS);
    }

    #[test]
    fn loss_halves_and_a_timeout_leaves_one_segment() {
        let mut cc = NewReno::new(40, u32::MAX, MSS);
        cc.on_loss(40 * MSS, MSS);
        assert_eq!((cc.cwnd, cc.ssthresh), (20 * MSS, 20 * MSS));
        cc.on_timeout(20 * MSS, MSS, true);
        assert_eq!((cc.cwnd, cc.ssthresh), (MSS, 10 * MSS));
        cc.on_timeout(MSS, MSS, false);
        assert_eq!(cc.ssthresh, 10 * MSS);
    }

    proptest! {
        #[test]
        fn the_window_stays_in_bounds(events in proptest::collection::vec((0u8..4, any::<u32>(), any::<u32>()), 0..100)) {
            let mut cc = NewReno::new(10, u32::MAX, MSS);
            for (event, a, b) in events {
                match event {
                    0 => cc.on_ack(a, b, MSS),
                    1 => cc.on_loss(a, MSS),
                    2 => cc.on_timeout(a, MSS, b % 2 == 0),
                    _ => cc.on_idle(MSS),
                }
                prop_assert!(cc.cwnd >= MSS && cc.cwnd <= u32::MAX / 2 + 1);
            }
        }
    }
}
