//! The lock of a block: what is done under it is seen by its next holder, and what is queued by who serves it.

use core::ptr::NonNull;

use loom::{sync::Arc, thread};

use super::Owned;
use crate::{
    block::{Fault, Next, Turn, TurnQueue, Whose},
    counters::Counters,
    events::Began,
    mm::Access,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    units::PageNumber,
};

struct Shared {
    queue: TurnQueue,
    turns: Vec<Turn>,
    /// Changed under the lock.
    inside: Owned,
    /// What a turn's owner writes before it is queued, and a fault's server reads.
    asked: Vec<Owned>,
    served: AtomicUsize,
    counters: Counters,
}

impl Shared {
    fn new(turns: usize) -> Arc<Self> {
        Arc::new(Self {
            queue: TurnQueue::new(),
            turns: (0..turns).map(|_| Turn::new()).collect(),
            inside: Owned::new(0),
            asked: (0..turns).map(|_| Owned::new(0)).collect(),
            served: AtomicUsize::new(0),
            counters: Counters::default(),
        })
    }

    /// Works under the lock in a turn of `whose`, serves the faults whose turn comes, and passes the lock on.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn work(&self, mut whose: Whose) {
        self.inside.replace(|count| count + 1);
        // SAFETY: the lock is held until the answer is not a fault.
        while let Next::Fault(turn, fault) = unsafe { self.queue.pass_on(whose, &self.counters) } {
            self.inside.replace(|count| count + 1);
            assert_eq!(self.asked[fault.page.0].replace(|_| 0), 1);
            assert_eq!(turn, NonNull::from(&self.turns[fault.page.0]));
            self.served.fetch_add(1, Relaxed);
            whose = Whose::Fault;
        }
    }

    /// A thread's stay under the lock.
    fn thread(&self, place: usize) {
        let turn = &self.turns[place];
        // SAFETY: the turn is this thread's, used once at a time, and lives until the end.
        let taken = unsafe {
            turn.prepare(None);
            self.queue.acquire_or_queue(NonNull::from(turn))
        };
        if !taken {
            turn.wait();
        }
        // SAFETY: the lock was taken, or handed over.
        unsafe { self.work(Whose::Thread) };
    }

    /// A fault, as who reads messages parks it.
    fn fault(&self, place: usize) {
        let turn = &self.turns[place];
        self.asked[place].replace(|_| 1);
        // SAFETY: the turn is this thread's, used once, and lives until the end.
        let taken = unsafe {
            let began = Began::default();
            let fault = Fault { page: PageNumber(place), access: Access::Read, began };
            turn.prepare(Some(fault));
            self.queue.acquire_or_queue(NonNull::from(turn))
        };
        if taken {
            // SAFETY: the lock was taken.
            unsafe { self.work(Whose::Fault) };
        }
    }

    /// What is true when all is done, of so many stays.
    fn end(&self, stays: usize) {
        assert!(self.queue.try_acquire(), "it is free at the end");
        assert_eq!(self.inside.replace(|count| count), stays);
        // There are no more turns than can be in the queue, or hold the lock, at once.
        assert!(
            self.counters.most_turns_waited.get() < self.turns.len() as u64,
            "nobody is overtaken"
        );
    }
}

#[test]
fn threads_hold_it_one_after_the_other() {
    loom::model(|| {
        let shared = Shared::new(3);
        let others = [1, 2].map(|place| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.thread(place))
        });
        shared.thread(0);
        for other in others {
            other.join().unwrap();
        }
        shared.end(3);
    });
}

#[test]
fn a_turn_is_used_again() {
    loom::model(|| {
        let shared = Shared::new(2);
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.thread(1);
                shared.thread(1);
            })
        };
        shared.thread(0);
        shared.thread(0);
        other.join().unwrap();
        shared.end(4);
    });
}

#[test]
fn a_fault_is_served_by_who_holds_it() {
    loom::model(|| {
        let shared = Shared::new(3);
        let thread = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.thread(0))
        };
        let reader = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.fault(1))
        };
        shared.fault(2);
        thread.join().unwrap();
        reader.join().unwrap();
        let served = shared.served.load(Relaxed);
        assert!(served <= 2);
        shared.end(3);
    });
}

#[test]
fn nobody_waits_where_it_is_tried() {
    loom::model(|| {
        // A turn for who tries, too.
        let shared = Shared::new(2);
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.thread(0))
        };
        let tried = shared.queue.try_acquire();
        if tried {
            // SAFETY: the lock was taken.
            unsafe { shared.work(Whose::Thread) };
        }
        other.join().unwrap();
        shared.end(1 + usize::from(tried));
    });
}
