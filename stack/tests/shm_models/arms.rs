//! Two places wait on one channel: either is told itself, or the general place is, whose owner tells everybody.

use loom::sync::Arc;
use loom::sync::atomic::Ordering::{Acquire, Release};
use loom::thread;
use underpass_stack::lane::shm::{Word, notice};

use super::bell::Bell;
use super::check;

const GENERAL: usize = 0;

/// One want, and a bell for each place (inboxes have their own models).
struct Waiters {
    want: Word,
    progress: Word,
    bells: [Bell; 3],
}

impl Waiters {
    fn new() -> Self {
        Self { want: Word::new(0), progress: Word::new(0), bells: Default::default() }
    }

    fn send(&self, changes: u64) {
        for n in 1..=changes {
            self.progress.store(n, Release);
            match notice::claim(&self.want) {
                // What the general place's owner does when it is told.
                Some(GENERAL) => self.bells.iter().for_each(Bell::ring),
                Some(place) => self.bells[place].ring(),
                None => {}
            }
        }
    }

    fn wait(&self, place: usize, changes: u64) {
        loop {
            notice::arm(&self.want, place, GENERAL);
            if self.progress.load(Acquire) == changes {
                return;
            }
            self.bells[place].wait();
        }
    }
}

fn both_come_to_the_end(places: [usize; 2], changes: u64, preemptions: usize) {
    check(preemptions, move || {
        let waiters = Arc::new(Waiters::new());
        let threads = places.map(|place| {
            let waiters = waiters.clone();
            thread::spawn(move || waiters.wait(place, changes))
        });
        waiters.send(changes);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn two_places_wait_for_the_same() {
    both_come_to_the_end([1, 2], 2, 3);
}

#[test]
fn a_place_and_the_general_one_wait_for_the_same() {
    both_come_to_the_end([GENERAL, 1], 2, 3);
}
