//! Against a map of the entries, and with threads that make the same entry.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use std::sync::Arc;

use super::{MIDDLE, SparseTable};
use crate::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    testing::{alone, explore, memory, spawn},
};

/// An entry that counts itself while it lives.
struct Counted {
    number: usize,
    alive: Arc<AtomicUsize>,
}

impl Counted {
    fn new(number: usize, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, SeqCst);
        Self { number, alive: Arc::clone(alive) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, SeqCst);
    }
}

#[test]
fn threads_that_make_the_same_entry_get_one() {
    explore(|| {
        let memory = memory();
        let table = Arc::new(SparseTable::try_new(&memory, 2 * MIDDLE).unwrap());
        let alive = Arc::new(AtomicUsize::new(0));
        let threads = (0..3)
            .map(|thread| {
                let (table, alive) = (Arc::clone(&table), Arc::clone(&alive));
                spawn(move || {
                    let index = MIDDLE + 1;
                    let make = || Ok(Counted::new(thread, &alive));
                    let made = table.get_or_make(index, make).unwrap().unwrap();
                    let found = table.get(index).unwrap();
                    assert!(core::ptr::eq(made, found), "an entry never moves");
                    made.number
                })
            })
            .collect::<Vec<_>>();
        let numbers = threads.into_iter().map(|thread| thread.join().unwrap());
        let numbers = numbers.collect::<Vec<_>>();
        assert!(numbers.iter().all(|&number| number == numbers[0]), "{numbers:?}");
        assert_eq!(alive.load(SeqCst), 1, "those that lost are gone");
        drop(table);
        assert_eq!(alive.load(SeqCst), 0, "nothing is left");
        assert_eq!(memory.used(), crate::testing::memory().used(), "no memory is left in use");
    });
}

#[cfg(not(shuttle))]
mod property {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::cases;

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn it_is_a_map(
            limit in 1..4 * MIDDLE,
            made in proptest::collection::vec(0..4 * MIDDLE + 2, 0..12),
            (first, end) in (0..5 * MIDDLE, 0..5 * MIDDLE),
        ) {
            let memory = memory();
            let alive = Arc::new(AtomicUsize::new(0));
            let table = SparseTable::try_new(&memory, limit).unwrap();
            let mut oracle = BTreeMap::new();
            for (number, index) in made.into_iter().enumerate() {
                let entry = table.get_or_make(index, || Ok(Counted::new(number, &alive))).unwrap();
                // The limit is rounded up to whole directories.
                if index < limit.next_multiple_of(MIDDLE) {
                    let expected = *oracle.entry(index).or_insert(number);
                    assert_eq!(entry.map(|entry| entry.number), Some(expected));
                } else {
                    assert!(entry.is_none());
                }
            }
            for index in 0..5 * MIDDLE {
                let number = table.get(index).map(|entry| entry.number);
                assert_eq!(number, oracle.get(&index).copied());
            }
            let found = table.existing(first, end).map(|(index, entry)| (index, entry.number));
            let expected = oracle.iter().filter(|&(index, _)| (first..end).contains(index));
            let expected = expected.map(|(&index, &number)| (index, number));
            assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
            assert_eq!(alive.load(SeqCst), oracle.len());
        }
    }
}

#[test]
fn an_entry_that_cannot_be_made_is_not_there() {
    alone(|| {
        let memory = memory();
        let table = SparseTable::<[u8; 64]>::try_new(&memory, MIDDLE).unwrap();
        let error = crate::engine_memory::EngineMemory::map(0).map(drop).unwrap_err();
        assert!(table.get_or_make(0, || Err(error)).is_err());
        assert!(table.get(0).is_none());
        assert!(table.get_or_make(0, || Ok([1; 64])).unwrap().is_some());
        assert_eq!(table.existing(0, MIDDLE).count(), 1);
    });
}
