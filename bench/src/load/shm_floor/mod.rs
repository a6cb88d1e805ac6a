//! The floor of loopback: what shared memory alone can do between two processes, with no sockets on top. Both sides spin.

mod page;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use self::page::{Mailbox, Message, Page, WORDS};
use crate::latency::Latency;
use crate::{Outcome, print_json};

/// Looks between two looks at the clock; the CPU is offered then, should both sides have only one.
const LOOKS: u32 = 1 << 12;
/// The echo ends when nothing came for so long: it burns a CPU, and whoever started it may be dead.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes a page, prints where it is, and sends messages back until ended.
#[derive(Args)]
pub struct Echo {}

/// Times round trips.
#[derive(Args)]
pub struct Ping {
    /// The echo's page.
    #[arg(long)]
    page: PathBuf,
    /// Round trips before the clock counts.
    #[arg(long, default_value_t = 2000)]
    warmup: u64,
    /// Seconds at most.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

impl Echo {
    /// Runs until ended.
    pub fn run(&self) -> Outcome {
        let page = Page::create()?;
        println!("page {}", page.path());
        for number in 1.. {
            let message = await_message(&page.there, number, PATIENCE)?;
            page.back.put(number, &message);
        }
        Ok(())
    }
}

impl Ping {
    /// Runs to its end and prints [`underpass_bench::PingPong`]. The clock is read once a round trip, as over TCP.
    pub fn run(&self) -> Outcome {
        let page = Page::open(&self.page).map_err(|error| format!("{}: {error}", self.page.display()))?;
        let limit = Duration::from_secs_f64(self.seconds);
        let deadline = Instant::now() + limit;
        let round_trip = |number| -> Outcome {
            let message: Message = std::array::from_fn(|index| number + index as u64);
            page.there.put(number, &message);
            match await_message(&page.back, number, limit)? == message {
                true => Ok(()),
                false => Err(format!("round trip {number} brought back other bytes").into()),
            }
        };
        (1..=self.warmup).try_for_each(round_trip)?;
        let mut latency = Latency::new()?;
        let mut begin = Instant::now();
        while begin < deadline {
            round_trip(self.warmup + 1 + latency.count())?;
            let end = Instant::now();
            latency.record(end - begin);
            begin = end;
        }
        print_json(&latency.ping_pong(WORDS * size_of::<u64>(), None))
    }
}

/// Spins until message `number` is there.
#[inline]
fn await_message(from: &Mailbox, number: u64, patience: Duration) -> Result<Message, String> {
    let mut since = None;
    loop {
        for _ in 0..LOOKS {
            if let Some(message) = from.take(number) {
                return Ok(message);
            }
            std::hint::spin_loop();
        }
        let now = Instant::now();
        if now - *since.get_or_insert(now) > patience {
            return Err(format!("message {number} did not come within {patience:?}"));
        }
        std::thread::yield_now();
    }
}
