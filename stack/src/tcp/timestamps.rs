//! What time is it for the peer? (RFC 7323)

use super::image::flag;
use super::input::Stop;
use super::outcome::Outcome;
use super::segment::{Flags, Segment, Timestamps};
use super::seq::SeqNr;
use super::tcb::Tcb;
use super::time::Instant;
use crate::stats::Counter;

/// TS.Recent becomes invalid after this long a silence, ns: half of what it takes a clock in microseconds to wrap, since nobody knows what the
/// peer's ticks are (RFC 7323, section 5.5, says 24 days, half of what it takes one in milliseconds; Linux: TCP_PAWS_WRAP).
const RECENT_LIFE: u64 = 2_147 * 1_000_000_000;
/// Round trips beyond this are not believed, ms.
const ECHO_MAX: u32 = 120_000;

impl Tcb {
    /// Our timestamp clock, milliseconds.
    pub(crate) fn ts_clock(&self, now: Instant) -> u32 {
        now.millis().wrapping_add(self.ts_offset)
    }

    /// The option for a segment that goes out now.
    pub(crate) fn timestamps(&self, now: Instant) -> Option<Timestamps> {
        self.has(flag::TIMESTAMPS).then(|| Timestamps { val: self.ts_clock(now), ecr: self.ts_recent })
    }

    /// Our clock as a segment with these timestamps echoes it, ms, without the connection's offset.
    #[inline]
    pub(crate) fn echo_of(&self, timestamps: Option<Timestamps>) -> Option<u32> {
        let echo = timestamps.filter(|ts| ts.ecr != 0 && self.has(flag::TIMESTAMPS));
        echo.map(|ts| ts.ecr.wrapping_sub(self.ts_offset))
    }

    /// Protection against wrapped sequence numbers (RFC 7323, section 5.3, R1). Resets are exempt, and like in Linux so are
    /// segments without the option.
    pub(crate) fn check_paws(&mut self, now: Instant, segment: &Segment<'_>, out: &mut Outcome) -> Result<(), Stop> {
        let Some(ts) = segment.timestamps.filter(|_| self.has(flag::TIMESTAMPS)) else { return Ok(()) };
        let is_old = self.has(flag::TS_RECENT) && (ts.val.wrapping_sub(self.ts_recent) as i32) < 0;
        if !is_old || self.recent_expired(now) || segment.flags.has(Flags::RST) {
            return Ok(());
        }
        out.count(Counter::RxPaws);
        self.answer_stray(now, segment);
        Err(Stop)
    }

    /// Is TS.Recent too old to compare with?
    fn recent_expired(&self, now: Instant) -> bool {
        now.nanos_since(self.ts_recent_at) > RECENT_LIFE
    }

    /// Takes TS.Recent from a segment that reaches back to our last acknowledgement (RFC 7323, section 4.3).
    #[inline(always)]
    pub(crate) fn take_timestamp(&mut self, now: Instant, seq: SeqNr, timestamps: Option<Timestamps>) {
        let Some(ts) = timestamps.filter(|_| self.has(flag::TIMESTAMPS)) else { return };
        let newer = !self.has(flag::TS_RECENT) || (ts.val.wrapping_sub(self.ts_recent) as i32) >= 0;
        if (newer || self.recent_expired(now)) && seq.le(self.rcv_wup) {
            self.ts_recent = ts.val;
            self.ts_recent_at = now;
            self.set(flag::TS_RECENT);
        }
    }

    /// A round trip measured by the echo of our clock, for when retransmissions made the precise clock ambiguous.
    /// Says whether it gave one.
    pub(crate) fn sample_echo(&mut self, now: Instant, timestamps: Option<Timestamps>) -> bool {
        let Some(ts) = timestamps.filter(|ts| ts.ecr != 0 && self.has(flag::TIMESTAMPS)) else { return false };
        let millis = self.ts_clock(now).wrapping_sub(ts.ecr);
        if millis <= ECHO_MAX {
            // Zero means "less than a millisecond", which the estimate may know better.
            let below = self.rtt.smoothed().map_or(1_000_000, |srtt| srtt.min(1_000_000));
            self.rtt.sample(if millis == 0 { below } else { u64::from(millis) * 1_000_000 });
        }
        millis <= ECHO_MAX
    }
}
