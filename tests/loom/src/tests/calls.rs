//! Whoever drops a subscription does so after all its callbacks.

use loom::{
    sync::{Arc, Mutex},
    thread,
};

use super::Owned;
use crate::calls::{Calls, Due, Ended};

struct Shared {
    /// Whether the subscription can be found.
    found: Mutex<bool>,
    calls: Calls,
    ended: Ended,
    /// What each invalidation's callback touches of the subscription.
    parts: [Owned; 2],
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            found: Mutex::new(true),
            calls: Calls::new(),
            ended: Ended::new(),
            parts: [Owned::new(0), Owned::new(0)],
        })
    }

    fn take_out(&self) {
        *self.found.lock().unwrap() = false;
    }

    /// Drops the subscription.
    fn dropped(&self) {
        for part in &self.parts {
            assert_ne!(part.replace(|_| usize::MAX), usize::MAX, "dropped once");
        }
    }

    /// An invalidation that calls back, if it finds the subscription. Answers whether it dropped it.
    fn invalidate(&self, part: usize, callback: impl FnOnce()) -> bool {
        {
            let found = self.found.lock().unwrap();
            if !*found {
                return false;
            }
            self.calls.begin();
        }
        let before = self.parts[part].replace(|count| count + 1);
        assert_ne!(before, usize::MAX, "called back after the end");
        callback();
        match self.calls.end() {
            Due::Nothing => return false,
            Due::Tell => self.ended.tell(),
            Due::LayAside => {
                self.dropped();
                return true;
            }
        }
        false
    }
}

#[test]
fn its_owner_waits_for_them() {
    loom::model(|| {
        let shared = Shared::new();
        let others = [0, 1].map(|part| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.invalidate(part, || ()))
        });
        shared.take_out();
        shared.calls.wait(&shared.ended);
        shared.dropped();
        for other in others {
            assert!(!other.join().unwrap(), "it is the owner's");
        }
    });
}

#[test]
fn the_last_drops_what_one_of_them_ended() {
    loom::model(|| {
        let shared = Shared::new();
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.invalidate(1, || ()))
        };
        let here = shared.invalidate(0, || {
            shared.take_out();
            shared.calls.defer();
        });
        let there = other.join().unwrap();
        assert!(here != there, "one of them drops it");
    });
}

#[test]
fn two_owners_that_wait_are_both_told() {
    loom::model(|| {
        let ended = Arc::new(Ended::new());
        let calls = [0, 1].map(|_| Arc::new((Calls::new(), Owned::new(0))));
        let callbacks = calls.clone().map(|of| {
            of.0.begin();
            let ended = Arc::clone(&ended);
            thread::spawn(move || {
                of.1.replace(|count| count + 1);
                if of.0.end() == Due::Tell {
                    ended.tell();
                }
            })
        });
        for of in &calls {
            of.0.wait(&ended);
            assert_eq!(of.1.replace(|count| count), 1);
        }
        for callback in callbacks {
            callback.join().unwrap();
        }
    });
}
