//! Against a queue whose first block is the one under the hand.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use core::ops::Range;
use std::collections::VecDeque;

use proptest::prelude::*;

use super::Clock;
use crate::{
    testing::{cases, memory},
    units::{BLOCK_PAGES, BlockNumber},
};

#[derive(Clone, Copy, Debug)]
enum Step {
    Add,
    Advance {
        pages: usize,
    },
    /// Resumes what the last advance passed.
    Resume,
    /// Skips the block of the last advance.
    Skip,
    Remove {
        which: usize,
    },
    /// Takes out every block whose number is a multiple of that.
    Sweep {
        every: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let pages = prop_oneof![Just(1_usize), Just(4), Just(BLOCK_PAGES / 2), Just(BLOCK_PAGES)];
    prop_oneof![
        3 => Just(Step::Add),
        6 => pages.prop_map(|pages| Step::Advance { pages }),
        1 => Just(Step::Resume),
        1 => Just(Step::Skip),
        2 => any::<usize>().prop_map(|which| Step::Remove { which }),
        1 => (1_usize..4).prop_map(|every| Step::Sweep { every }),
    ]
}

#[derive(Default)]
struct Oracle {
    blocks: VecDeque<BlockNumber>,
    place: usize,
}

impl Oracle {
    fn pass(&mut self) {
        self.blocks.rotate_left(1);
        self.place = 0;
    }

    fn advance(&mut self, pages: usize) -> Option<(BlockNumber, Range<usize>)> {
        let block = *self.blocks.front()?;
        let places = self.place..((self.place / pages + 1) * pages).min(BLOCK_PAGES);
        self.place = places.end;
        if places.end == BLOCK_PAGES {
            self.pass();
        }
        Some((block, places))
    }

    fn resume(&mut self, block: BlockNumber, place: usize) {
        if self.blocks.front() == Some(&block) {
            self.place = place;
        } else if self.place == 0 && self.blocks.back() == Some(&block) {
            self.blocks.rotate_right(1);
            self.place = place;
        }
    }

    fn remove(&mut self, which: usize) -> BlockNumber {
        if which == 0 {
            self.place = 0;
        }
        self.blocks.remove(which).unwrap()
    }

    fn sweep(&mut self, is_over: impl Fn(BlockNumber) -> bool) {
        if self.blocks.front().copied().is_some_and(&is_over) {
            self.place = 0;
        }
        self.blocks.retain(|&block| !is_over(block));
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_hand_goes_round(
        steps in proptest::collection::vec(step(), 1..if cfg!(miri) { 20 } else { 120 }),
    ) {
        let memory = memory();
        let mut clock = Clock::new(&memory);
        let mut oracle = Oracle::default();
        let mut blocks = 0;
        let mut last = None;
        for step in steps {
            match step {
                Step::Add => {
                    clock.reserve(1).unwrap();
                    clock.add(BlockNumber(blocks));
                    oracle.blocks.push_back(BlockNumber(blocks));
                    blocks += 1;
                    last = None;
                }
                Step::Advance { pages } => {
                    last = oracle.advance(pages);
                    assert_eq!(clock.advance(pages), last.clone());
                }
                Step::Resume => {
                    if let Some((block, places)) = last.take() {
                        clock.resume(block, places.start);
                        oracle.resume(block, places.start);
                    }
                }
                Step::Skip => {
                    if let Some((block, _)) = last.take() {
                        clock.skip(block);
                        if oracle.place > 0 && oracle.blocks.front() == Some(&block) {
                            oracle.pass();
                        }
                    }
                }
                Step::Remove { which } if !oracle.blocks.is_empty() => {
                    clock.remove(oracle.remove(which % oracle.blocks.len()));
                    last = None;
                }
                Step::Remove { .. } => {}
                Step::Sweep { every } => {
                    let is_over = |block: BlockNumber| block.0.is_multiple_of(every);
                    clock.sweep(is_over);
                    oracle.sweep(is_over);
                    last = None;
                }
            }
            assert_eq!(clock.len(), oracle.blocks.len());
        }
    }
}

#[test]
fn a_round_sees_every_place_once_and_the_newest_block_last() {
    let memory = memory();
    let mut clock = Clock::new(&memory);
    for block in 0..5 {
        clock.reserve(1).unwrap();
        clock.add(BlockNumber(block));
    }
    let half = BLOCK_PAGES / 2;
    assert_eq!(clock.advance(half), Some((BlockNumber(0), 0..half)));
    clock.add(BlockNumber(5));
    let mut seen = Vec::new();
    for _ in 0..12 {
        seen.push(clock.advance(half).unwrap());
    }
    let mut expected = Vec::from([(BlockNumber(0), half..BLOCK_PAGES)]);
    for block in 1..=5 {
        expected.extend([0..half, half..BLOCK_PAGES].map(|places| (BlockNumber(block), places)));
    }
    expected.push((BlockNumber(0), 0..half));
    assert_eq!(seen, expected);
    clock.remove(BlockNumber(9));
    assert_eq!(clock.len(), 6, "what is not there cannot go");
}

#[test]
fn a_ring_that_emptied_keeps_little_memory() {
    let memory = memory();
    let mut clock = Clock::new(&memory);
    for number in 0..10_000 {
        clock.reserve(1).unwrap();
        clock.add(BlockNumber(number));
    }
    let full = memory.used();
    clock.sweep(|block| block.0 >= 3);
    assert_eq!(clock.len(), 3);
    assert!(memory.used() * 10 < full, "{} bytes are left of {full}", memory.used());
}

#[test]
fn a_sweep_is_worth_it_when_every_second_block_may_have_gone() {
    let memory = memory();
    let mut clock = Clock::new(&memory);
    for number in 0..1000 {
        clock.reserve(1).unwrap();
        clock.add(BlockNumber(number));
    }
    assert!((0..500).all(|_| !clock.note_quiet()));
    assert!(clock.note_quiet());
    clock.sweep(|_| false);
    assert!(!clock.note_quiet());
}
