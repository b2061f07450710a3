//! First come, first served; nobody is forgotten; one holder at a time.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use core::{cell::UnsafeCell, ptr::NonNull};
use std::sync::Arc;

use super::{Fault, Next, Turn, TurnQueue};
use crate::{
    mm::Access,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    testing::{explore, spawn},
    units::PageNumber,
};

/// A fault that can be told from others.
fn fault(number: usize) -> Fault {
    Fault { page: PageNumber(number), access: Access::Read }
}

/// Turns that live until the end.
struct Turns(Box<[Turn]>);

impl Turns {
    fn new(count: usize) -> Self {
        Self((0..count).map(|_| Turn::new()).collect())
    }

    fn get(&self, place: usize, fault: Option<Fault>) -> NonNull<Turn> {
        let turn = &self.0[place];
        // SAFETY: the tests use a turn that is in no queue.
        unsafe { turn.prepare(fault) };
        NonNull::from(turn)
    }
}

#[cfg(not(shuttle))]
mod order {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::cases;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Thread,
        Fault,
        PassOn,
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn it_is_that_of_arrival(
            steps in proptest::collection::vec(
                prop_oneof![Just(Step::Thread), Just(Step::Fault), Just(Step::PassOn)],
                1..if cfg!(miri) { 30 } else { 200 },
            ),
        ) {
            let turns = Turns::new(steps.len());
            let queue = TurnQueue::new();
            let mut held = false;
            let mut waiting = VecDeque::new();
            for (place, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Thread | Step::Fault => {
                        let asked = matches!(step, Step::Fault).then(|| fault(place));
                        let turn = turns.get(place, asked);
                        // SAFETY: the turn lives until the end of the test and is used once.
                        let got = unsafe { queue.acquire_or_queue(turn) };
                        assert_eq!(got, !held);
                        held = true;
                        if !got {
                            waiting.push_back((turn, asked));
                        }
                    }
                    Step::PassOn if held => {
                        // SAFETY: the lock is held.
                        let next = unsafe { queue.pass_on() };
                        match (waiting.pop_front(), next) {
                            (None, Next::Nobody) => held = false,
                            (Some((turn, None)), Next::Thread) => {
                                // SAFETY: the turns live until the end of the test.
                                assert_eq!(unsafe { turn.as_ref() }.come.word().load(Relaxed), 1);
                            }
                            (Some((turn, Some(asked))), Next::Fault(served, fault)) => {
                                assert_eq!((served, fault), (turn, asked));
                            }
                            (expected, next) => panic!("{next:?}, not {expected:?}"),
                        }
                    }
                    Step::PassOn => {
                        assert!(queue.try_acquire(), "nobody holds it");
                        held = true;
                    }
                }
            }
        }
    }
}

/// What the lock protects, and what is counted beside it.
struct Shared {
    queue: TurnQueue,
    turns: Turns,
    inside: UnsafeCell<usize>,
    served: AtomicUsize,
}

// SAFETY: `inside` is reached by the holder of the lock alone.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    /// Works under the lock, and lets it go.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn work(&self) {
        // SAFETY: the lock is held.
        unsafe { *self.inside.get() += 1 };
        // SAFETY: the lock is held until the answer is not a fault.
        while let Next::Fault(_, fault) = unsafe { self.queue.pass_on() } {
            // SAFETY: the lock is held still.
            unsafe { *self.inside.get() += 1 };
            self.served.fetch_add(fault.page.0, Relaxed);
        }
    }
}

#[test]
fn threads_and_faults_take_turns() {
    const THREADS: usize = 2;
    const ROUNDS: usize = 3;
    explore(|| {
        let shared = Arc::new(Shared {
            queue: TurnQueue::new(),
            turns: Turns::new((THREADS + 1) * ROUNDS),
            inside: UnsafeCell::new(0),
            served: AtomicUsize::new(0),
        });
        let mut threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    for round in 0..ROUNDS {
                        let turn = shared.turns.get(thread * ROUNDS + round, None);
                        // SAFETY: the turn lives until the end of the test and is used once.
                        if !unsafe { shared.queue.acquire_or_queue(turn) } {
                            // SAFETY: as above.
                            unsafe { turn.as_ref() }.wait();
                        }
                        // SAFETY: the lock was taken, or handed over.
                        unsafe { shared.work() };
                    }
                })
            })
            .collect();
        let handler = Arc::clone(&shared);
        threads.push(spawn(move || {
            for round in 0..ROUNDS {
                let turn = handler.turns.get(THREADS * ROUNDS + round, Some(fault(1)));
                // SAFETY: the turn lives until the end of the test and is used once.
                if unsafe { handler.queue.acquire_or_queue(turn) } {
                    handler.served.fetch_add(1, Relaxed);
                    // SAFETY: the lock was taken.
                    unsafe { handler.work() };
                }
            }
        }));
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(shared.served.load(Relaxed), ROUNDS, "each fault is served once");
        assert!(shared.queue.try_acquire(), "it is free at the end");
        // SAFETY: the lock is held.
        assert_eq!(unsafe { *shared.inside.get() }, (THREADS + 1) * ROUNDS);
    });
}
