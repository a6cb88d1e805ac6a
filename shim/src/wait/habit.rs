//! Does spinning pay? What a thread has learnt of its waits, and of who else wants its processor.

use std::cell::Cell;

use underpass_stack::tcp::Instant;

/// Spin budget while spinning pays, ns. A wait that ended sooner was a short one.
pub const BUDGET: u64 = 200_000;
/// Wasted spins in a row after which a thread sleeps at once.
const GIVE_UP: u32 = 16;
/// Short waits in a row after which it tries spinning again; doubled each time that did not pay.
const TRY_AGAIN: u32 = 4;
/// No more than so many.
const TRY_AGAIN_MAX: u32 = 4096;
/// Spins that paid, in a row, and the time without losing the processor, ns, after which earlier failures are forgotten.
const PROVEN: u32 = 256;
const UNDISTURBED: u64 = 100_000_000;
/// Two looks so far apart, ns: somebody else has had the processor for a time slice, not for the answer that is waited for.
const PREEMPTED: u64 = 300_000;
/// A yield that lasted longer let somebody else run, ns.
const TAKEN: u64 = 1_500;

/// What a thread has learnt about its waits.
#[derive(Clone, Copy)]
struct Habit {
    spins: bool,
    wasted: u32,
    short: u32,
    try_again: u32,
    /// When it last began to spin anew.
    resumed: Instant,
    /// Others want this processor: when the thread offered it, somebody took it.
    contended: bool,
}

impl Habit {
    const NEW: Self =
        Self { spins: true, wasted: 0, short: 0, try_again: TRY_AGAIN, resumed: Instant(0), contended: false };

    fn paid(&mut self, now: Instant) {
        self.wasted = 0;
        self.short = self.short.saturating_add(1);
        if self.short > PROVEN && now.nanos_since(self.resumed) > UNDISTURBED {
            self.try_again = TRY_AGAIN;
        }
    }

    fn wasted(&mut self) {
        self.wasted += 1;
        self.short = 0;
        if self.wasted >= GIVE_UP {
            self.give_up();
        }
    }

    /// The scheduler makes a thread that has spun its time slice away wait for a whole slice of whoever else wants to run; one that
    /// sleeps runs as soon as it is woken.
    fn preempted(&mut self, now: Instant) {
        if now.nanos_since(self.resumed) > UNDISTURBED {
            self.try_again = TRY_AGAIN;
        }
        self.give_up();
    }

    fn give_up(&mut self) {
        self.spins = false;
        self.wasted = 0;
        self.short = 0;
        self.try_again = (self.try_again * 2).min(TRY_AGAIN_MAX);
    }

    fn slept(&mut self, waited: u64, now: Instant) {
        if waited >= BUDGET {
            self.short = 0;
            return;
        }
        self.short += 1;
        if !self.spins && self.short >= self.try_again {
            self.spins = true;
            self.short = 0;
            self.resumed = now;
        }
    }
}

thread_local! {
    static HABIT: Cell<Habit> = const { Cell::new(Habit::NEW) };
}

fn change(how: impl FnOnce(&mut Habit)) {
    HABIT.with(|cell| {
        let mut habit = cell.get();
        how(&mut habit);
        cell.set(habit);
    });
}

/// Has spinning paid lately?
pub fn spins() -> bool {
    HABIT.with(Cell::get).spins
}

/// Was the processor taken when it was last offered?
pub fn is_contended() -> bool {
    HABIT.with(Cell::get).contended
}

/// The processor was offered from `before` to `now`: did somebody take it?
pub fn offered(before: Instant, now: Instant) -> bool {
    let contended = now.nanos_since(before) > TAKEN;
    change(|habit| habit.contended = contended);
    contended
}

/// Did the thread lose its processor between two looks? Then it does not spin next time.
pub fn lost_processor(before: Instant, now: Instant) -> bool {
    let lost = now.nanos_since(before) >= PREEMPTED;
    if lost {
        change(|habit| habit.preempted(now));
    }
    lost
}

/// A spin found what was waited for.
pub fn paid(now: Instant) {
    change(|habit| habit.paid(now));
}

/// A spin found nothing within its budget.
pub fn wasted() {
    change(Habit::wasted);
}

/// A wait without spinning took so many ns.
pub fn slept(waited: u64, now: Instant) {
    change(|habit| habit.slept(waited, now));
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Short waits, asleep, until the thread spins again.
    fn until_it_spins(habit: &mut Habit, now: Instant) -> u32 {
        (1..)
            .find(|_| {
                habit.slept(20_000, now);
                habit.spins
            })
            .unwrap()
    }

    #[test]
    fn a_thread_that_loses_its_processor_sleeps_for_longer_and_longer() {
        let mut habit = Habit::NEW;
        let mut now = Instant(1_000 * MS);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            habit.preempted(now);
            assert!(!habit.spins);
            pauses.push(until_it_spins(&mut habit, now));
            // A slice's worth of spins that pay proves nothing.
            for _ in 0..1_000 {
                habit.paid(now);
            }
            now = now.after(4 * MS);
        }
        assert_eq!(pauses, [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4096, 4096]);
    }

    #[test]
    fn a_quiet_while_makes_good_again() {
        let mut habit = Habit::NEW;
        let mut now = Instant(1_000 * MS);
        for _ in 0..8 {
            habit.preempted(now);
            until_it_spins(&mut habit, now);
        }
        now = now.after(UNDISTURBED + 1);
        (0..=PROVEN).for_each(|_| habit.paid(now));
        habit.preempted(now);
        assert_eq!(until_it_spins(&mut habit, now), 2 * TRY_AGAIN);
    }

    #[test]
    fn sixteen_wasted_spins_in_a_row_are_enough() {
        let mut habit = Habit::NEW;
        (1..GIVE_UP).for_each(|_| habit.wasted());
        habit.paid(Instant(1));
        (1..GIVE_UP).for_each(|_| habit.wasted());
        assert!(habit.spins);
        habit.wasted();
        assert!(!habit.spins);
        // Long waits do not count.
        (0..100).for_each(|_| habit.slept(BUDGET, Instant(1)));
        assert!(!habit.spins);
    }

    #[test]
    fn a_short_gap_is_somebody_who_answers() {
        let now = Instant(MS);
        assert!(offered(now, now.after(TAKEN + 1)) && !lost_processor(now, now.after(TAKEN + 1)));
        assert!(spins());
        assert!(lost_processor(now, now.after(PREEMPTED)));
        assert!(!spins());
    }
}
