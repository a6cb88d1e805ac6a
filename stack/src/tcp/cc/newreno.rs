//! NewReno congestion control (RFC 5681), with byte counting (RFC 3465) so that stretch ACKs grow the window too, and a peer
//! that splits its acknowledgements gains nothing.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Ack, Window};

/// What NewReno remembers beside the window.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct NewReno {
    /// Bytes acknowledged since the window last grew in congestion avoidance.
    credit: u32,
    /// Always zero.
    pad: u32,
}

impl NewReno {
    /// Slow start and congestion avoidance (RFC 5681, section 3.1).
    pub fn on_ack(&mut self, window: &mut Window, ack: &Ack) {
        if !window.is_the_limit(ack) {
            return;
        }
        if window.is_slow_start() {
            window.grow_in_slow_start(ack, ack.acked);
            return;
        }
        self.credit = self.credit.saturating_add(ack.acked);
        if self.credit >= window.cwnd {
            self.credit -= window.cwnd;
            window.grow(ack.mss);
        }
    }

    /// RFC 5681, section 3.2.
    pub fn on_loss(&mut self, window: &mut Window, mss: u32) {
        window.reduce(5, mss);
        self.credit = 0;
    }

    /// RFC 5681, section 3.1.
    pub fn on_timeout(&mut self, window: &mut Window, mss: u32, first: bool) {
        if first {
            window.reduce(5, mss);
        }
        self.credit = 0;
    }
}
