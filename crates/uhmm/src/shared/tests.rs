//! A value lives as long as its references, wherever they go.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use std::sync::Arc;

use super::Shared;
use crate::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    testing::{alone, explore, memory, spawn},
};

struct Value {
    content: AtomicUsize,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Value {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
    }
}

#[test]
fn the_last_reference_drops_the_value() {
    explore(|| {
        let memory = memory();
        let before = memory.used();
        let dropped = Arc::new(AtomicUsize::new(0));
        let value = Value { content: AtomicUsize::new(0), dropped: Arc::clone(&dropped) };
        let shared = Shared::try_new(value, &memory).unwrap();
        let threads = (0..3)
            .map(|_| {
                let (shared, dropped) = (shared.clone(), Arc::clone(&dropped));
                spawn(move || {
                    shared.clone().content.fetch_add(1, SeqCst);
                    assert_eq!(dropped.load(SeqCst), 0);
                })
            })
            .collect::<Vec<_>>();
        drop(shared);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(dropped.load(SeqCst), 1);
        assert_eq!(memory.used(), before, "its memory is free");
    });
}

#[test]
fn the_value_can_hold_the_last_handle_to_its_memory() {
    alone(|| {
        let memory = memory();
        let shared = Shared::try_new(memory.clone(), &memory).unwrap();
        drop(memory);
        assert!(shared.used() > 0);
        drop(shared);
    });
}
