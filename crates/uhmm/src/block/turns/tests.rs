//! First come, first served; nobody is forgotten; one holder at a time.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use core::{cell::UnsafeCell, ptr::NonNull};
use std::sync::Arc;

use super::{Fault, Next, Turn, TurnQueue, Whose};
use crate::{
    counters::Counters,
    events::Began,
    mm::Access,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    testing::{explore, spawn},
    units::PageNumber,
};

/// A fault that can be told from others.
fn fault(number: usize) -> Fault {
    Fault { page: PageNumber(number), access: Access::Read, began: Began::default() }
}

/// The most turns of others that were waited for, and of those the most that were of threads.
fn waited(counters: &Counters) -> [u64; 2] {
    [counters.most_turns_waited.get(), counters.most_thread_turns_waited.get()]
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

    /// Whose a turn is.
    fn of(asked: Option<Fault>) -> Whose {
        asked.map_or(Whose::Thread, |_| Whose::Fault)
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
            let counters = Counters::default();
            // Who holds it, and the turns that passed: all, and those of threads.
            let mut whose = Whose::Thread;
            let (mut passed, mut most) = ([0, 0], [0, 0]);
            for (place, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Thread | Step::Fault => {
                        let asked = matches!(step, Step::Fault).then(|| fault(place));
                        let turn = turns.get(place, asked);
                        // SAFETY: the turn lives until the end of the test and is used once.
                        let got = unsafe { queue.acquire_or_queue(turn) };
                        assert_eq!(got, !held);
                        held = true;
                        if got {
                            whose = of(asked);
                        } else {
                            waiting.push_back((turn, asked, passed));
                        }
                    }
                    Step::PassOn if held => {
                        // SAFETY: the lock is held.
                        let next = unsafe { queue.pass_on(whose, &counters) };
                        passed = [passed[0] + 1, passed[1] + u64::from(whose == Whose::Thread)];
                        let first = waiting.pop_front();
                        if let Some((_, asked, before)) = first {
                            whose = of(asked);
                            let waited = [0, 1].map(|kind| passed[kind] - before[kind]);
                            most = [0, 1].map(|kind| most[kind].max(waited[kind]));
                        }
                        assert_eq!(waited(&counters), most);
                        match (first, next) {
                            (None, Next::Nobody) => held = false,
                            (Some((turn, None, _)), Next::Thread) => {
                                // SAFETY: the turns live until the end of the test.
                                assert_eq!(unsafe { turn.as_ref() }.come.word().load(Relaxed), 1);
                            }
                            (Some((turn, Some(asked), _)), Next::Fault(served, fault)) => {
                                assert_eq!((served, fault), (turn, asked));
                            }
                            (expected, next) => panic!("{next:?}, not {expected:?}"),
                        }
                    }
                    Step::PassOn => {
                        assert!(queue.try_acquire(), "nobody holds it");
                        (held, whose) = (true, Whose::Thread);
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
    counters: Counters,
}

// SAFETY: `inside` is reached by the holder of the lock alone.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    /// Works under the lock, in a turn of `whose`, and lets it go.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn work(&self, mut whose: Whose) {
        // SAFETY: the lock is held.
        unsafe { *self.inside.get() += 1 };
        // SAFETY: the lock is held until the answer is not a fault.
        while let Next::Fault(_, fault) = unsafe { self.queue.pass_on(whose, &self.counters) } {
            // SAFETY: the lock is held still.
            unsafe { *self.inside.get() += 1 };
            self.served.fetch_add(fault.page.0, Relaxed);
            whose = Whose::Fault;
        }
    }
}

#[test]
fn threads_and_faults_take_turns() {
    take_turns(2, 3);
}

#[test]
fn of_each_other_thread_one_turn_passes() {
    take_turns(3, 0);
}

/// Threads take so many turns one after the other, and so many faults are parked meanwhile.
fn take_turns(threads: usize, faults: usize) {
    const ROUNDS: usize = 3;
    explore(move || {
        let shared = Arc::new(Shared {
            queue: TurnQueue::new(),
            turns: Turns::new(threads * ROUNDS + faults),
            inside: UnsafeCell::new(0),
            served: AtomicUsize::new(0),
            counters: Counters::default(),
        });
        let mut started: Vec<_> = (0..threads)
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
                        unsafe { shared.work(Whose::Thread) };
                    }
                })
            })
            .collect();
        let handler = Arc::clone(&shared);
        started.push(spawn(move || {
            for number in 0..faults {
                let turn = handler.turns.get(threads * ROUNDS + number, Some(fault(1)));
                // SAFETY: the turn lives until the end of the test and is used once.
                if unsafe { handler.queue.acquire_or_queue(turn) } {
                    handler.served.fetch_add(1, Relaxed);
                    // SAFETY: the lock was taken.
                    unsafe { handler.work(Whose::Fault) };
                }
            }
        }));
        for thread in started {
            thread.join().unwrap();
        }
        assert_eq!(shared.served.load(Relaxed), faults, "each fault is served once");
        assert!(shared.queue.try_acquire(), "it is free at the end");
        // A thread stands in the queue once at a time, the faults all at once.
        let [all, of_threads] = waited(&shared.counters);
        assert!(all < (threads + faults) as u64, "{all} turns passed");
        let others = if faults > 0 { threads } else { threads - 1 };
        assert!(of_threads <= others as u64, "{of_threads} turns of threads passed");
        // SAFETY: the lock is held.
        assert_eq!(unsafe { *shared.inside.get() }, threads * ROUNDS + faults);
    });
}
