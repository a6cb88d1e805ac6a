//! What the load programs print and the benchmark reads; and the engines that are compared.

pub mod engine;

use serde::{Deserialize, Serialize};

/// Figures of one ping-pong run. Times in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PingPong {
    /// Bytes each way.
    pub size: usize,
    /// Round trips measured.
    pub count: u64,
    /// Fastest round trip.
    pub min_ns: u64,
    /// Half of all were as fast.
    pub median_ns: u64,
    /// 99 % were as fast.
    pub p99_ns: u64,
    /// 99.9 % were as fast.
    pub p999_ns: u64,
    /// Slowest round trip.
    pub max_ns: u64,
    /// Segments that the client's side sent again (TCP_INFO, tcpi_total_retrans), where that is known.
    pub retransmits: Option<u32>,
}

/// Figures of one bulk transfer, as the receiver saw it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stream {
    /// Payload bytes received.
    pub bytes: u64,
    /// From the first byte to the end.
    pub seconds: f64,
    /// Payload bits per second, in 10^9.
    pub gbit_per_s: f64,
    /// Every byte was compared with what was sent.
    pub verified: bool,
    /// As in [`PingPong::retransmits`].
    pub retransmits: Option<u32>,
}

/// Figures of connect, request, response, close in a loop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connect {
    /// Conversations.
    pub count: u64,
    /// Conversations per second.
    pub per_second: f64,
    /// Half of all took no longer, ns.
    pub median_ns: u64,
    /// 99 % took no longer, ns.
    pub p99_ns: u64,
}

/// Figures of messages there and back on many connections, one connection after the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Many {
    /// Connections.
    pub connections: usize,
    /// Messages there and back that were timed.
    pub exchanges: u64,
    /// Time of a message there and back with no other under way, ns: the median of the rounds' means. A round is one message on
    /// every connection.
    pub single_ns: f64,
    /// The same with [`Many::batch`] messages under way on as many connections: from the first sent to the last answered, by their number.
    pub batch_ns: f64,
    /// See [`Many::batch_ns`].
    pub batch: usize,
}

/// Cost of one system call, made in batches.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Calls {
    /// Calls made.
    pub count: u64,
    /// Time of a call in the batch in the middle (the median of the batches' means), ns: a batch during which the CPU did something
    /// else says nothing.
    pub ns_per_call: f64,
}

/// The value in the middle, or the mean of the two there; `None` if there is none.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values[low] + values[high]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), Some(3.0));
        assert_eq!(median(Vec::new()), None);
    }
}
