//! An entry of a table is there as a whole or not at all, is made once, and is freed once.

use loom::{sync::Arc, thread};

use super::Owned;
use crate::{
    engine_memory::EngineMemory,
    sparse::SparseTable,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Indices in two parts of the directory.
const LIMIT: usize = 8;
const FAR: usize = 5;

/// An entry that says when it is dropped.
struct Entry {
    maker: Owned,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        // It is nobody else's now.
        assert_ne!(self.maker.replace(|_| 0), 0, "dropped once");
        self.dropped.fetch_add(1, Relaxed);
    }
}

struct Shared {
    table: SparseTable<Entry>,
    made: AtomicUsize,
    dropped: Arc<AtomicUsize>,
}

impl Shared {
    fn new() -> Arc<Self> {
        let Ok(table) = SparseTable::try_new(&EngineMemory, LIMIT);
        let dropped = Arc::new(AtomicUsize::new(0));
        Arc::new(Self { table, made: AtomicUsize::new(0), dropped })
    }

    /// The maker of the entry at an index, made by `maker` if there was none.
    fn get_or_make(&self, index: usize, maker: usize) -> usize {
        let made = self.table.get_or_make(index, || {
            self.made.fetch_add(1, Relaxed);
            Ok(Entry { maker: Owned::new(maker), dropped: Arc::clone(&self.dropped) })
        });
        let Ok(entry) = made;
        entry.expect("within the limit").maker.look()
    }

    fn get(&self, index: usize) -> Option<usize> {
        self.table.get(index).map(|entry| entry.maker.look())
    }

    /// Drops the table, and checks that so many entries were left.
    fn end(this: Arc<Self>, left: usize) {
        let this = Arc::try_unwrap(this).ok().expect("all others are done");
        let Self { table, made, dropped } = this;
        let made = made.load(Relaxed);
        assert_eq!(dropped.load(Relaxed), made - left, "what was made in vain is dropped at once");
        drop(table);
        assert_eq!(dropped.load(Relaxed), made);
    }
}

#[test]
fn two_threads_make_the_same_entry() {
    loom::model(|| {
        let shared = Shared::new();
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.get_or_make(FAR, 1))
        };
        let here = shared.get_or_make(FAR, 2);
        let there = other.join().unwrap();
        assert_eq!(here, there, "both have the one that is kept");
        assert_eq!(shared.get(FAR), Some(here));
        Shared::end(shared, 1);
    });
}

#[test]
fn a_reader_sees_nothing_or_a_whole_entry() {
    loom::model(|| {
        let shared = Shared::new();
        let maker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.get_or_make(FAR, 1))
        };
        let walker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut all = shared.table.existing(0, LIMIT);
                all.next().map(|(index, entry)| (index, entry.maker.look()))
            })
        };
        let seen = shared.get(FAR);
        assert!(matches!(seen, None | Some(1)));
        assert!(seen.is_none() || shared.get(FAR) == Some(1), "what was seen stays");
        assert_eq!(maker.join().unwrap(), 1);
        assert!(matches!(walker.join().unwrap(), None | Some((FAR, 1))));
        Shared::end(shared, 1);
    });
}

#[test]
fn two_entries_share_a_part_of_the_directory() {
    loom::model(|| {
        let shared = Shared::new();
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.get_or_make(FAR, 1))
        };
        assert_eq!(shared.get_or_make(FAR + 1, 2), 2);
        assert_eq!(other.join().unwrap(), 1);
        let indices = shared.table.existing(0, LIMIT).map(|(index, _)| index);
        assert!(indices.eq([FAR, FAR + 1]));
        Shared::end(shared, 2);
    });
}
