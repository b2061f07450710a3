//! On the model, with room for eight blocks of full pages and eight more.

use super::*;
use crate::{
    mm::model::{Model, ModelOptions},
    testing::memory,
};

#[test]
fn full_pages_are_kept_for_all_of_a_device_that_is_no_large_part_of_the_memory() {
    let blocks = |frames, memory| Transit::pages_for(frames, memory) / BLOCK_PAGES;
    let memory = 1600 * BLOCK_PAGES;
    assert_eq!(blocks(1, memory), 2 * BLOCKS);
    assert_eq!(blocks(50 * BLOCK_PAGES, memory), 50 + BLOCKS);
    assert_eq!(blocks(50 * BLOCK_PAGES + 1, memory), 51 + BLOCKS);
    assert_eq!(blocks(200 * BLOCK_PAGES, memory), 100 + BLOCKS);
    assert_eq!(blocks(200 * BLOCK_PAGES, 0), 2 * BLOCKS);
}

struct Way {
    transit: Transit,
    model: Model,
    signals: SignalsBlocked,
}

impl Way {
    /// Transit for a device of so many blocks.
    fn for_blocks(blocks: usize) -> Self {
        let pages = Transit::pages_for(blocks * BLOCK_PAGES, 0);
        let model = Model::new(ModelOptions {
            staging_pages: pages + BLOCK_PAGES,
            ..ModelOptions::default()
        });
        let staging = model.map_staging(pages).unwrap();
        let transit = Transit::new(staging, blocks * BLOCK_PAGES, &memory()).unwrap();
        Self { transit, model, signals: SignalsBlocked::new() }
    }

    fn holes(&self, want: usize) -> FrameRun {
        self.transit.holes(want, &self.model, &self.signals).unwrap()
    }

    /// Fills holes, as if pages had come into them.
    fn come(&self, want: usize) -> FrameRun {
        let run = self.holes(want);
        let filled = self.model.zero(self.transit.page(run.first), run.frames, Access::Write);
        assert_eq!((filled.pages, filled.stop), (run.frames, None));
        run
    }

    /// A block goes to a block of frames.
    fn go(&self, block: usize) {
        self.go_as(block, false);
    }

    /// A huge page does.
    fn go_huge(&self, block: usize) {
        self.go_as(block, true);
    }

    fn go_as(&self, block: usize, is_huge: bool) {
        let run = self.come(BLOCK_PAGES);
        assert_eq!(run.frames, BLOCK_PAGES, "as a whole");
        let first = frames(block, 0, 1).first;
        self.transit.give_back_twins(run, first, is_huge, &self.model, &self.signals);
    }

    /// How many of the frames of a block have twins, up to the first that has none.
    fn twins(&self, block: usize) -> usize {
        let mut have = 0;
        let pool = self.transit.pool.lock(&self.signals);
        while have < BLOCK_PAGES
            && let Ok(TwinRun { pages, .. }) =
                pool.twins.leading(frames(block, have, BLOCK_PAGES - have))
        {
            have += pages.frames;
        }
        have
    }

    fn end(self) {
        assert_eq!(self.model.violations(), []);
    }
}

/// Frames of a block of frames.
fn frames(block: usize, place: usize, count: usize) -> FrameRun {
    let first = FrameNumber(0).plus(block * BLOCK_PAGES + place);
    FrameRun { first, frames: count }
}

#[test]
fn a_huge_page_moves_as_a_whole_and_else_is_copied_from() {
    let way = Way::for_blocks(2);
    way.transit.fill_reserve(&way.model, &way.signals);
    (0..2).for_each(|block| way.go_huge(block));
    let lent = way.transit.borrow_twins(frames(0, 0, BLOCK_PAGES), &way.signals).unwrap();
    assert_eq!((lent.run.frames, lent.may_move, lent.had(BLOCK_PAGES)), (512, true, 512));
    // A part of it goes, and the rest stays what it was.
    way.transit.end_loan(&lent, 100, false, &way.model, &way.signals);
    assert_eq!(way.transit.borrow_twins(frames(0, 0, 512), &way.signals).unwrap_err(), 100);
    // Of what was written nothing is taken, as a copy more would be made of it.
    way.transit.note_writable(frames(0, 100, 3), &way.signals);
    way.transit.note_written(frames(0, 101, 2), &way.signals);
    let lent = way.transit.borrow_twins(frames(0, 100, 50), &way.signals).unwrap();
    assert_eq!((lent.run.frames, lent.may_move, lent.had(1)), (1, false, 1));
    way.transit.end_loan(&lent, 1, false, &way.model, &way.signals);
    assert_eq!(way.transit.borrow_twins(frames(0, 101, 50), &way.signals).unwrap_err(), 2);
    // Once a page of it has moved all the same, it is none.
    let lent = way.transit.borrow_twins(frames(0, 103, 1), &way.signals).unwrap();
    assert!(!lent.may_move);
    way.transit.end_loan(&lent, 1, true, &way.model, &way.signals);
    let lent = way.transit.borrow_twins(frames(0, 104, 50), &way.signals).unwrap();
    assert_eq!((lent.run.frames, lent.may_move), (50, true));
    way.transit.end_loan(&lent, 0, true, &way.model, &way.signals);
    assert_eq!((way.twins(0), way.twins(1)), (0, 512));
    // Small pages move as they are wanted.
    way.transit.part_twins(frames(0, 0, 512), &way.signals);
    way.go(0);
    let lent = way.transit.borrow_twins(frames(0, 7, 3), &way.signals).unwrap();
    assert_eq!((lent.run.frames, lent.may_move), (3, true));
    way.transit.end_loan(&lent, 3, true, &way.model, &way.signals);
    // A frame that is free has none.
    way.transit.part_twins(frames(1, 100, 50), &way.signals);
    assert_eq!(way.twins(1), 100);
    way.end();
}

#[test]
fn a_huge_page_is_lent_where_no_twins_are_as_good() {
    let way = Way::for_blocks(4);
    let borrow =
        |block| way.transit.borrow_huge(frames(block, 0, BLOCK_PAGES), &way.model, &way.signals);
    let is_huge = |lent: &Borrowed| way.model.is_huge(way.transit.page(lent.run.first));
    way.transit.fill_reserve(&way.model, &way.signals);
    way.go_huge(0);
    assert!(borrow(0).is_none(), "it has twins");
    // Without a part of those it is given another, which is made.
    way.transit.part_twins(frames(0, 0, 1), &way.signals);
    let made = borrow(0).unwrap();
    assert_eq!((made.run.frames, made.may_move, made.had(BLOCK_PAGES)), (BLOCK_PAGES, true, 0));
    assert!(is_huge(&made));
    assert_eq!(way.twins(0), 0, "the first page");
    // What was not used is nobody's, and is lent again.
    way.transit.end_loan(&made, 0, true, &way.model, &way.signals);
    let again = borrow(1).unwrap();
    assert_eq!(again.run, made.run);
    way.transit.end_loan(&again, BLOCK_PAGES, true, &way.model, &way.signals);
    way.end();
}

#[test]
fn where_no_huge_page_can_be_made_none_is_lent() {
    let way = Way::for_blocks(1);
    let all = frames(0, 0, BLOCK_PAGES);
    // All blocks have a page in use.
    let in_use: [_; 2 * BLOCKS] = core::array::from_fn(|_| way.holes(BLOCK_PAGES));
    for run in &in_use {
        way.transit.give_back(run.behind(1), false, &way.model, &way.signals);
    }
    assert!(way.transit.borrow_huge(all, &way.model, &way.signals).is_none());
    for run in &in_use {
        way.transit.give_back(run.split(1).0, false, &way.model, &way.signals);
    }
    let free = way.transit.pool.lock(&way.signals).free();
    assert_eq!(free, 2 * BLOCKS * BLOCK_PAGES);
    assert!(way.transit.borrow_huge(all, &way.model, &way.signals).is_some());
    way.end();
}

#[test]
fn what_is_more_than_is_kept_goes_and_twins_go_last() {
    let way = Way::for_blocks(16);
    // Seven blocks of twins, and one of nobody's.
    (0..7).for_each(|block| way.go(block));
    let nobodys = way.come(BLOCK_PAGES);
    way.transit.give_back(nobodys, true, &way.model, &way.signals);
    way.go(7);
    let all = |way: &Way| -> [usize; 9] { core::array::from_fn(|block| way.twins(block)) };
    assert_eq!(all(&way), [512, 512, 512, 512, 512, 512, 512, 512, 0], "nobody's were emptied");
    way.go(8);
    assert_eq!(all(&way).iter().sum::<usize>(), 8 * 512, "{:?}", all(&way));
    way.end();
}

#[test]
fn a_huge_page_gets_the_place_of_the_fewest_twins() {
    let way = Way::for_blocks(16);
    (0..8).for_each(|block| way.go(block));
    // All of one but a few are nobody's.
    way.transit.part_twins(frames(3, 0, 500), &way.signals);
    // The other places are in use.
    let in_use: [_; 8] = core::array::from_fn(|_| way.come(BLOCK_PAGES));
    assert_eq!(way.holes(BLOCK_PAGES).frames, BLOCK_PAGES);
    for block in 0..8 {
        assert_eq!(way.twins(block), if block == 3 { 0 } else { 512 });
    }
    assert!(way.transit.borrow_twins(frames(3, 500, 12), &way.signals).is_err());
    assert!(in_use.iter().all(|run| run.frames == BLOCK_PAGES));
    way.end();
}
