//! Times of many rounds.

use std::time::Duration;

use hdrhistogram::Histogram;
use underpass_bench::PingPong;

const LONGEST_NS: u64 = 60_000_000_000;

/// Recorded times, to three significant digits, up to a minute.
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Latency {
    /// Nothing recorded.
    pub fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self { histogram: Histogram::new_with_bounds(1, LONGEST_NS, 3)? })
    }

    /// Records one time.
    #[inline]
    pub fn record(&mut self, time: Duration) {
        self.histogram.saturating_record(time.as_nanos() as u64);
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The time that a part of all did not exceed, ns.
    pub fn quantile_ns(&self, part: f64) -> u64 {
        self.histogram.value_at_quantile(part)
    }

    /// As figures of a ping-pong.
    pub fn ping_pong(&self, size: usize, retransmits: Option<u32>) -> PingPong {
        PingPong {
            size,
            count: self.count(),
            min_ns: self.histogram.min(),
            median_ns: self.quantile_ns(0.5),
            p99_ns: self.quantile_ns(0.99),
            p999_ns: self.quantile_ns(0.999),
            max_ns: self.histogram.max(),
            retransmits,
        }
    }
}
