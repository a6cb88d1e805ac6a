//! The shared-memory protocols of the `shm` lane under loom: every order of events, and every value that the memory model lets
//! a load see. Only with `--cfg loom`, see `scripts/test.sh`.
//!
//! What loom does not show: loads that see stores of the future (load buffering), and sequentially consistent fences that
//! order less than loom's, which also order what lies around them. A waiting loop that looks again and again yields, so that
//! its rounds are not counted as different events.
#![cfg(loom)]

mod arms;
mod bell;
mod channel;
mod notices;
mod ring;
mod turns;
mod turns_reader;
mod wakes;

/// Runs `model` for every order of events with at most `preemptions` switches away from a thread that could go on. Fewer than
/// all keep a large model short; nearly every known mistake of this kind shows with two.
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 10_000;
    builder.preemption_bound = Some(builder.preemption_bound.unwrap_or(preemptions));
    builder.check(model);
}
