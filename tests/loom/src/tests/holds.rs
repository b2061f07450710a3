//! What a mirror knows that it has, against invalidations: what is noted as held is in the device's
//! table, and no invalidation that comes after misses it.

use loom::{sync::Arc, thread};

use super::under_lock;
use crate::{
    block::{Block, Turn},
    engine_memory::EngineMemory,
    holds::Holds,
    sync::atomic::{
        AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    units::{BlockNumber, PageNumber, PageRange},
};

const NUMBER: BlockNumber = BlockNumber(0);

/// The states of a table's entry: never made, there, ended.
const NEVER: usize = 0;
const THERE: usize = 1;
const ENDED: usize = 2;

/// A block, and a mirror with a table of one entry.
struct Shared {
    block: Block,
    turns: [Turn; 2],
    holds: Holds,
    entry: AtomicUsize,
    /// Whether the invalidation is over, and whether the mirror was told.
    over: AtomicUsize,
}

impl Shared {
    fn new() -> Arc<Self> {
        let Ok(holds) = Holds::new(&EngineMemory, PageRange::of(PageNumber(0), 8));
        Arc::new(Self {
            block: Block::new(),
            turns: [Turn::new(), Turn::new()],
            holds,
            entry: AtomicUsize::new(NEVER),
            over: AtomicUsize::new(NEVER),
        })
    }

    /// Whether the mirror believes to have a page, for writing if `write`.
    fn has(&self, write: bool) -> bool {
        self.holds.covers(NUMBER, &(2..3), write, || self.block.hint().generation)
    }

    /// A commit of pages, `complete` or with some that failed.
    fn commit(&self, turn: usize, write: bool, complete: bool) {
        under_lock(&self.block.turns, &self.turns[turn], || {
            self.block.note_translated(true);
            self.holds.touch(NUMBER, write);
            self.entry.store(THERE, Release);
            if complete {
                self.holds.record(NUMBER, &(0..4), write, self.block.hint().generation);
            }
        });
    }

    /// An invalidation of pages of the block. Answers whether the mirror was told.
    fn invalidate(&self, turn: usize, whole: bool) -> bool {
        let told = under_lock(&self.block.turns, &self.turns[turn], || {
            let there = self.entry.load(Relaxed) == THERE;
            if !self.block.is_translated() {
                assert!(!there, "the block does not know of a translation");
                return false;
            }
            self.block.changed(0, 0);
            let told = self.holds.is_touched(NUMBER);
            assert_eq!(told, there, "what the mirror was given is known");
            if told {
                if whole {
                    self.holds.clear(NUMBER);
                }
                self.entry.store(ENDED, Release);
            }
            if whole {
                self.block.note_translated(false);
            }
            told
        });
        self.over.store(if told { ENDED } else { THERE }, Release);
        told
    }
}

fn commit_against_invalidation(complete: bool, whole: bool) {
    loom::model(move || {
        let shared = Shared::new();
        let committer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.commit(0, false, complete))
        };
        let asker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (over, entry) = (shared.over.load(Acquire), shared.entry.load(Acquire));
                let has = shared.has(false);
                let gone = over == ENDED || entry == ENDED;
                assert!(!(gone && has), "it believes to have what it was told has ended");
                assert!(!has || shared.entry.load(Relaxed) != NEVER, "it believes before it has");
            })
        };
        let told = shared.invalidate(1, whole);
        committer.join().unwrap();
        asker.join().unwrap();
        let there = shared.entry.load(Relaxed) == THERE;
        assert_eq!(there, !told, "an invalidation that comes after misses nothing");
        assert_eq!(shared.has(false), there && complete);
    });
}

#[test]
fn an_invalidation_of_the_block_ends_what_is_held() {
    commit_against_invalidation(true, true);
}

#[test]
fn an_invalidation_of_a_part_ends_what_is_held() {
    commit_against_invalidation(true, false);
}

#[test]
fn an_invalidation_ends_what_was_given_and_is_not_held() {
    commit_against_invalidation(false, true);
}

#[test]
fn what_is_held_is_given() {
    loom::model(|| {
        let shared = Shared::new();
        let others = [(0, false), (1, true)].map(|(turn, write)| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.commit(turn, write, true))
        });
        for write in [true, false] {
            assert!(!shared.has(write) || shared.entry.load(Relaxed) == THERE);
        }
        for other in others {
            other.join().unwrap();
        }
        assert!(shared.has(false), "the last commit is remembered");
    });
}
