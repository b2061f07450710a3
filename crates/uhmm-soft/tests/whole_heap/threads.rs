//! Threads that start and end, with stacks of all sizes that the C library keeps for the next, deep
//! calls, and values of each thread's own that are destroyed as it ends.

use std::{cell::RefCell, hint::black_box, thread};

use crate::{
    random::{Random, check, fill, lost},
    work::Job,
};

/// Calls itself, with something on the stack at every step that must be there on the way back.
fn descend(depth: usize, seed: u64) -> u64 {
    let mut local = [0_u8; 200];
    fill(&mut local, seed, 0);
    let local = black_box(local);
    let below = if depth == 0 { 0 } else { descend(depth - 1, seed.wrapping_add(1)) };
    check("a local variable", &local, seed, 0);
    below.wrapping_add(1)
}

/// Threads by the dozen.
pub(crate) fn storms(mut job: Job) {
    while job.goes_on() {
        let threads: Vec<_> = (0..12)
            .map(|_| {
                let seed = job.random.next();
                let depth = job.random.below(300);
                let stack = (256 << 10) << job.random.below(4);
                let mut bytes = vec![0; 1 + job.random.below(20_000)];
                fill(&mut bytes, seed, 0);
                let run = move || {
                    check("what a thread was given", &bytes, seed, 0);
                    let steps = descend(depth, seed);
                    (bytes, steps)
                };
                let started = thread::Builder::new().stack_size(stack).spawn(run);
                (started.expect("a thread starts"), seed, depth)
            })
            .collect();
        for (thread, seed, depth) in threads {
            let (bytes, steps) = thread.join().expect("no panic");
            check("what a thread gave back", &bytes, seed, 0);
            if steps != depth as u64 + 1 {
                lost("a count of calls", (&raw const steps).addr(), steps);
            }
        }
        // Scoped ones, that borrow.
        let mut parts = vec![0_u8; 12_000];
        thread::scope(|scope| {
            for (number, part) in parts.chunks_mut(3000).enumerate() {
                scope.spawn(move || fill(part, 5, number * 3000));
            }
        });
        check("what threads wrote", &parts, 5, 0);
    }
}

/// What a thread has of its own, checked as it is destroyed.
struct Own {
    bytes: Vec<u8>,
    seed: u64,
}

impl Drop for Own {
    fn drop(&mut self) {
        check("a thread's own value as the thread ends", &self.bytes, self.seed, 0);
    }
}

thread_local! {
    static FIRST: RefCell<Vec<Own>> = const { RefCell::new(Vec::new()) };
    static SECOND: RefCell<Option<Own>> = const { RefCell::new(None) };
}

fn own(random: &mut Random) -> Own {
    let seed = random.next();
    let mut bytes = vec![0; 1 + random.below(5000)];
    fill(&mut bytes, seed, 0);
    Own { bytes, seed }
}

/// Threads with values of their own, detached ones among them.
pub(crate) fn locals(mut job: Job) {
    while job.goes_on() {
        let threads: Vec<_> = (0..6)
            .map(|_| {
                let mut random = Random::new(job.random.next());
                thread::spawn(move || {
                    for _ in 0..30 {
                        let value = own(&mut random);
                        FIRST.with_borrow_mut(|values| values.push(value));
                        let value = own(&mut random);
                        SECOND.set(Some(value));
                        if random.one_in(4) {
                            thread::yield_now();
                        }
                        FIRST.with_borrow(|values| {
                            let some = &values[random.below(values.len())];
                            check("a thread's own value", &some.bytes, some.seed, 0);
                        });
                    }
                })
            })
            .collect();
        for (number, thread) in threads.into_iter().enumerate() {
            if number % 3 == 0 {
                // It ends when it likes; its stack is kept for another by itself.
                drop(thread);
            } else {
                thread.join().expect("no panic");
            }
        }
    }
}
