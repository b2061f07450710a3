//! First come, first served; nobody is forgotten; one holder at a time.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use core::{cell::UnsafeCell, ptr::NonNull};
use std::sync::Arc;

use super::{Fault, Left, Next, Turn, TurnQueue, Whose};
use crate::{
    clock::Began,
    counters::Counters,
    mm::Access,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    testing::{explore, spawn},
    units::PageNumber,
};

/// A fault that can be told from others, of a thread that is not known.
fn fault(number: usize) -> Fault {
    let began = Began::default();
    Fault { page: PageNumber(number), access: Access::Read, thread: 0, read: 0, began }
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
        /// A fault of a thread, or of one that is not known, read so long before.
        Fault {
            thread: u32,
            earlier: u32,
            page: usize,
        },
        PassOn,
    }

    /// Whose a turn is.
    fn of(asked: Option<Fault>) -> Whose {
        asked.map_or(Whose::Thread, |_| Whose::Fault)
    }

    /// Who waits, as it is to be.
    #[derive(Clone, Copy)]
    struct Waiter {
        turn: NonNull<Turn>,
        asked: Option<Fault>,
        before: [u64; 2],
    }

    /// Has who arrived stand in line. Answers who got no place, and whom to wake.
    fn line_up(
        arrived: &mut Vec<Waiter>,
        line: &mut VecDeque<Waiter>,
    ) -> Vec<(NonNull<Turn>, Option<Fault>)> {
        let mut left = Vec::new();
        for waiter in arrived.drain(..) {
            let thread = waiter.asked.map_or(0, |fault| fault.thread);
            let same =
                |other: &&mut Waiter| other.asked.is_some_and(|fault| fault.thread == thread);
            match line.iter_mut().find(same).filter(|_| thread != 0) {
                None => line.push_back(waiter),
                Some(place) => {
                    let [older, newer] = if place.asked.unwrap().read < waiter.asked.unwrap().read {
                        [place.asked, waiter.asked]
                    } else {
                        [waiter.asked, place.asked]
                    };
                    place.asked = newer;
                    let over = older.filter(|older| older.page != newer.unwrap().page);
                    left.push((waiter.turn, over));
                }
            }
        }
        left
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn it_is_that_of_arrival(
            steps in proptest::collection::vec(
                prop_oneof![
                    Just(Step::Thread),
                    (0..4_u32, 0..40_u32, 0..4_usize)
                        .prop_map(|(thread, earlier, page)| Step::Fault { thread, earlier, page }),
                    Just(Step::PassOn),
                ],
                1..if cfg!(miri) { 30 } else { 200 },
            ),
        ) {
            let turns = Turns::new(steps.len());
            let queue = TurnQueue::new();
            let mut held = false;
            let (mut arrived, mut line) = (Vec::new(), VecDeque::new());
            let counters = Counters::default();
            // Who holds it, and the turns that passed: all, and those of threads.
            let mut whose = Whose::Thread;
            let (mut passed, mut most) = ([0, 0], [0, 0]);
            for (place, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Thread | Step::Fault { .. } => {
                        let asked = match step {
                            Step::Fault { thread, earlier, page } => {
                                // No two were read at the same time.
                                let read = 1000 * (u32::try_from(place).unwrap() + 50) - 1024 * earlier;
                                Some(Fault { thread, read, ..fault(page) })
                            }
                            _ => None,
                        };
                        let turn = turns.get(place, asked);
                        // SAFETY: the turn lives until the end of the test and is used once.
                        let got = unsafe { queue.acquire_or_queue(turn) };
                        assert_eq!(got, !held);
                        held = true;
                        if got {
                            whose = of(asked);
                        } else {
                            arrived.push(Waiter { turn, asked, before: passed });
                        }
                    }
                    Step::PassOn if held => {
                        let mut left = Vec::new();
                        let note = |gone: Left| left.push((gone.turn, gone.fault));
                        // SAFETY: the lock is held.
                        let next = unsafe { queue.pass_on(whose, &counters, note) };
                        assert_eq!(left, line_up(&mut arrived, &mut line));
                        passed = [passed[0] + 1, passed[1] + u64::from(whose == Whose::Thread)];
                        let first = line.pop_front();
                        if let Some(first) = &first {
                            whose = of(first.asked);
                            let waited = [0, 1].map(|kind| passed[kind] - first.before[kind]);
                            most = [0, 1].map(|kind| most[kind].max(waited[kind]));
                        }
                        assert_eq!(waited(&counters), most);
                        match (first.map(|first| (first.turn, first.asked)), next) {
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
                        (held, whose) = (true, Whose::Thread);
                    }
                }
            }
        }
    }

    #[test]
    fn the_order_of_reading_goes_round() {
        let read = |read| Fault { read, ..fault(0) };
        assert!(read(1).is_newer_than(&read(0)) && !read(0).is_newer_than(&read(1)));
        assert!(read(2).is_newer_than(&read(u32::MAX)) && !read(u32::MAX).is_newer_than(&read(2)));
    }
}

/// What the lock protects, and what is counted beside it.
struct Shared {
    queue: TurnQueue,
    turns: Turns,
    inside: UnsafeCell<usize>,
    served: AtomicUsize,
    /// Faults that got no place, and the newest that was served.
    left: AtomicUsize,
    newest: AtomicUsize,
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
        let left = |left: Left| {
            let over = left.fault.expect("the faults are of different pages");
            assert_eq!(over.thread, FAULTING);
            self.left.fetch_add(1, Relaxed);
        };
        loop {
            // SAFETY: the lock is held until the answer is not a fault.
            let next = unsafe { self.queue.pass_on(whose, &self.counters, left) };
            let Next::Fault(_, fault) = next else { return };
            // SAFETY: the lock is held still.
            unsafe { *self.inside.get() += 1 };
            self.serve(fault);
            whose = Whose::Fault;
        }
    }

    /// Serves a fault, of whose thread none older is served any more.
    fn serve(&self, fault: Fault) {
        self.served.fetch_add(1, Relaxed);
        let read = fault.read as usize;
        let before = self.newest.fetch_max(read, Relaxed);
        assert!(fault.thread == 0 || before < read, "a fault that was over is served last");
    }
}

/// The thread that faults again and again.
const FAULTING: u32 = 7;

#[test]
fn threads_and_faults_take_turns() {
    take_turns(2, 3, 0);
}

#[test]
fn of_each_other_thread_one_turn_passes() {
    take_turns(3, 0, 0);
}

#[test]
fn a_thread_that_faults_has_one_place() {
    take_turns(2, 4, FAULTING);
}

/// Threads take so many turns one after the other, and so many faults are parked meanwhile: of threads
/// that are not known, or of one, each but the last over.
fn take_turns(threads: usize, faults: usize, faulting: u32) {
    const ROUNDS: usize = 3;
    explore(move || {
        let shared = Arc::new(Shared {
            queue: TurnQueue::new(),
            turns: Turns::new(threads * ROUNDS + faults),
            inside: UnsafeCell::new(0),
            served: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            newest: AtomicUsize::new(0),
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
                let read = u32::try_from(number).unwrap() + 1;
                let asked = Fault { thread: faulting, read, ..fault(number) };
                let turn = handler.turns.get(threads * ROUNDS + number, Some(asked));
                // SAFETY: the turn lives until the end of the test and is used once.
                if unsafe { handler.queue.acquire_or_queue(turn) } {
                    handler.serve(asked);
                    // SAFETY: the lock was taken.
                    unsafe { handler.work(Whose::Fault) };
                }
            }
        }));
        for thread in started {
            thread.join().unwrap();
        }
        let (served, left) = (shared.served.load(Relaxed), shared.left.load(Relaxed));
        assert_eq!(served + left, faults, "each fault is served, or has no place, once");
        assert_eq!(shared.newest.load(Relaxed), faults, "the last is served");
        assert!(shared.queue.try_acquire(), "it is free at the end");
        let [all, of_threads] = waited(&shared.counters);
        // A thread stands in the queue once at a time, and so do the faults of one thread; those of
        // others stand there all at once. Where one that is over has its turn, its thread is in line
        // again meanwhile.
        let most = if faulting == 0 { threads + faults - 1 } else { threads + 1 };
        assert!(all <= most as u64, "{all} turns passed");
        let others = if faults > 0 { threads } else { threads - 1 };
        assert!(of_threads <= others as u64, "{of_threads} turns of threads passed");
        // SAFETY: the lock is held.
        assert_eq!(unsafe { *shared.inside.get() }, threads * ROUNDS + served);
    });
}
