//! Over a bad link: the kernel as peer and as rival.

pub mod fairness;
pub mod goodput;
pub mod tail_loss;

use underpass_stack::testkit::LinkSpec;

/// Bits that the link carries in a second: so few that neither emulator nor CPUs are the bottleneck.
const RATE: u64 = 100_000_000;
/// A queue has room for what the link carries in a round trip, and at least for this many bytes.
const QUEUE_MIN: u64 = 64 << 10;
const MS: u64 = 1_000_000;

/// A link with a round trip of so many milliseconds that loses so many of a thousand frames, either way.
fn link(rtt_ms: u64, loss: u64) -> LinkSpec {
    let queue = (RATE / 8 * rtt_ms / 1000).max(QUEUE_MIN);
    LinkSpec { delay: rtt_ms * MS / 2, loss, rate: RATE, queue, ..LinkSpec::CLEAN }
}
