//! Frames that came to us and are the kernel's.

use underpass_stack::control::{Done, FrameRef, Inject, MAX_INJECT};
use underpass_stack::stack::Leftover;
use underpass_stack::stats::Counter;

use crate::{engine, session, sys};

/// Has the daemon put frames into the kernel's receive path.
pub fn inject(leftovers: Vec<Leftover>) {
    for chunk in leftovers.chunk_by(|a, b| a.port == b.port).flat_map(|same| same.chunks(MAX_INJECT)) {
        let mut frames = [FrameRef { addr: 0, len: 0 }; MAX_INJECT];
        for (to, from) in frames.iter_mut().zip(chunk) {
            *to = from.frame;
        }
        let request = Inject { port: chunk[0].port, count: chunk.len() as u32, frames };
        let done = session::ask(&request, &[]).and_then(|answer| answer.expect::<Done>()).map_or(0, |done| done.count);
        engine::count(Counter::Injected, u64::from(done));
        engine::count(Counter::InjectFailed, (chunk.len() as u64).saturating_sub(u64::from(done)));
        if let Some(mut engine) = engine::get() {
            chunk.iter().for_each(|leftover| engine.stack.recycle(*leftover));
        }
    }
}

/// Frames that XDP had already taken when the flow left its map arrive within microseconds: the kernel gets them at once.
pub(super) fn collect_stragglers() {
    let until = sys::now().after(30_000);
    while sys::now() < until {
        let leftovers = engine::try_get().map(|mut engine| {
            engine.pass(sys::now());
            engine.stack.take_leftovers()
        });
        inject(leftovers.unwrap_or_default());
    }
}
