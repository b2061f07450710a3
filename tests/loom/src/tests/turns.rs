//! The lock of a block: what is done under it is seen by its next holder, and what is queued by who serves it.

use core::ptr::NonNull;

use loom::{sync::Arc, thread};

use super::Owned;
use crate::{
    block::{Fault, Left, Next, Turn, TurnQueue, Whose},
    clock::Began,
    counters::Counters,
    mm::Access,
    sync::atomic::{
        AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
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
    /// How many faults got no place, and the place of a turn that one had, and one on.
    left: AtomicUsize,
    free: AtomicUsize,
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
            left: AtomicUsize::new(0),
            free: AtomicUsize::new(0),
            counters: Counters::default(),
        })
    }

    /// Works under the lock in a turn of `whose`, serves the faults whose turn comes, and passes the lock on.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn work(&self, mut whose: Whose) {
        self.inside.replace(|count| count + 1);
        let left = |left: Left| {
            let fault = left.fault.expect("the faults are of different pages");
            assert_eq!(self.asked[fault.page.0].replace(|_| 0), 1);
            self.left.fetch_add(1, Relaxed);
            let place = self.turns.iter().position(|turn| NonNull::from(turn) == left.turn);
            self.free.store(place.expect("a turn of the test") + 1, Release);
        };
        loop {
            // SAFETY: the lock is held until the answer is not a fault.
            let next = unsafe { self.queue.pass_on(whose, &self.counters, left) };
            let Next::Fault(turn, fault) = next else { return };
            self.inside.replace(|count| count + 1);
            assert_eq!(self.asked[fault.page.0].replace(|_| 0), 1);
            let known = fault.thread != 0;
            assert!(known || turn == NonNull::from(&self.turns[fault.page.0]));
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

    /// A fault of a thread that is not known, as who reads messages parks it.
    fn fault(&self, place: usize) {
        self.fault_of(0, place, place);
    }

    /// A fault of a thread on a page, which is the newer the higher its number, in the turn at a place.
    fn fault_of(&self, thread: u32, page: usize, place: usize) {
        let turn = &self.turns[place];
        self.asked[page].replace(|_| 1);
        let read = u32::try_from(page).unwrap();
        let began = Began::default();
        let fault = Fault { page: PageNumber(page), access: Access::Read, thread, read, began };
        // SAFETY: the turn is this thread's, in no queue, and lives until the end.
        let taken = unsafe {
            turn.prepare(Some(fault));
            self.queue.acquire_or_queue(NonNull::from(turn))
        };
        if taken {
            assert_eq!(self.asked[page].replace(|_| 0), 1);
            self.served.fetch_add(1, Relaxed);
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
        assert_eq!(shared.served.load(Relaxed), 2);
        shared.end(3);
    });
}

// Of all orders, so none of their steps.
static MOST_LEFT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

#[test]
fn a_later_fault_of_a_thread_takes_the_place_of_an_earlier_one() {
    loom::model(|| {
        let shared = Shared::new(4);
        let thread = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.thread(0))
        };
        // As two who read messages may park them.
        shared.fault_of(7, 2, 2);
        shared.fault_of(7, 1, 1);
        // A turn that got no place is used again.
        let free = shared.free.load(Acquire);
        shared.fault_of(7, 3, if free > 0 { free - 1 } else { 3 });
        thread.join().unwrap();
        let (served, left) = (shared.served.load(Relaxed), shared.left.load(Relaxed));
        assert_eq!(served + left, 3);
        MOST_LEFT.fetch_max(left, Relaxed);
        shared.end(1 + served);
    });
    assert_eq!(MOST_LEFT.load(Relaxed), 2, "in some order all are in line at once");
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
