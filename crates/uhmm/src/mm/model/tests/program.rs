//! The program alone: areas, accesses, page states.

use core::ops::ControlFlow;

use super::{super::*, *};
use crate::{
    mm::{Area, Look, Mm as _, TrapError},
    units::BlockNumber,
};

fn areas(model: &Model) -> Vec<Area> {
    let mut all = Vec::new();
    model
        .areas(model.program(), &mut |area| {
            all.push(*area);
            ControlFlow::Continue(())
        })
        .unwrap();
    all
}

fn ranges(model: &Model) -> Vec<PageRange> {
    areas(model).iter().map(|area| area.pages).collect()
}

fn look(model: &Model, page: usize) -> Look {
    let mut look = [Look::Hole];
    model.look(PageNumber(page), &mut look).unwrap();
    look[0]
}

#[test]
fn areas_split_and_merge() {
    let model = model();
    map(&model, range(2, 6));
    map(&model, range(6, 8));
    assert_eq!(ranges(&model), [range(2, 8)]);
    model.protect(range(4, 5), READ_ONLY).unwrap();
    assert_eq!(ranges(&model), [range(2, 4), range(4, 5), range(5, 8)]);
    model.protect(range(4, 5), READ_WRITE).unwrap();
    assert_eq!(ranges(&model), [range(2, 8)]);
    model.unmap(range(3, 4)).unwrap();
    assert_eq!(ranges(&model), [range(2, 3), range(4, 8)]);
    map(&model, range(3, 4));
    assert_eq!(ranges(&model), [range(2, 8)]);
    model.trap(range(2, 8)).unwrap();
    map(&model, range(8, 9));
    assert_eq!(ranges(&model), [range(2, 8), range(8, 9)]);
    assert!(areas(&model)[0].registered && !areas(&model)[1].registered);
}

#[test]
fn mappings_of_objects_merge_with_their_own_rest_only() {
    let model = model();
    for start in [0, 4] {
        model.map(Some(PageNumber(start)), 4, READ_WRITE, Backing::SharedAnonymous).unwrap();
    }
    assert_eq!(ranges(&model), [range(0, 4), range(4, 8)]);
    model.protect(range(1, 2), READ_ONLY).unwrap();
    model.protect(range(1, 2), READ_WRITE).unwrap();
    assert_eq!(ranges(&model), [range(0, 4), range(4, 8)]);
    assert_eq!(model.remap(range(2, 4), Some(PageNumber(10)), false), Ok(range(10, 12)));
    assert_eq!(model.remap(range(10, 12), Some(PageNumber(2)), false), Ok(range(2, 4)));
    assert_eq!(ranges(&model), [range(0, 4), range(4, 8)]);
}

#[test]
fn places_are_the_lowest_free() {
    let model = model();
    map(&model, range(1, 3));
    let map = |pages| model.map(None, pages, READ_WRITE, Backing::PrivateAnonymous);
    assert_eq!(map(2), Ok(range(3, 5)));
    assert_eq!(map(1), Ok(range(0, 1)));
    assert_eq!(map(model.program().len()), Err(NO_MEMORY));
    assert_eq!(map(0), Err(INVALID));
    let end = model.page_limit();
    let beyond = model.map(Some(end), 1, READ_WRITE, Backing::PrivateAnonymous);
    assert_eq!(beyond, Err(INVALID));
}

#[test]
fn zero_initialised_data_is_recognised() {
    let model = model();
    model.map(Some(PageNumber(0)), 1, READ_ONLY, Backing::PrivateFile).unwrap();
    map(&model, range(1, 2));
    model.map(Some(PageNumber(2)), 1, READ_WRITE, Backing::PrivateFile).unwrap();
    map(&model, range(3, 4));
    let flags: Vec<_> = areas(&model).iter().map(|area| area.object_data).collect();
    assert_eq!(flags, [false, false, false, true]);
}

#[test]
fn accesses_get_the_signals_of_linux() {
    let model = model();
    map(&model, range(0, 2));
    let page = model.page_size().bytes();
    let mut two = vec![1; 2];
    assert_eq!(model.load(2 * page - 1, &mut two), Err(Signal::Segv(2 * page)));
    assert_eq!(two[0], 0, "what precedes is loaded");
    model.protect(range(1, 2), READ_ONLY).unwrap();
    assert_eq!(model.store(page - 1, &[7, 7]), Err(Signal::Segv(page)));
    model.protect(range(0, 1), NONE).unwrap();
    assert_eq!(model.load(page - 1, &mut two), Err(Signal::Segv(page - 1)));
    model.trap(range(1, 2)).unwrap();
    model.discard_unread(range(1, 2));
    assert_eq!(model.poison(PageNumber(1), 1).stop, None);
    assert_eq!(model.load(page + 3, &mut two), Err(Signal::Bus(page + 3)));
    assert_eq!(look(&model, 1), Look::Poisoned);
}

impl Model {
    /// Makes pages holes without a message, as they are where they were taken.
    fn discard_unread(&self, pages: PageRange) {
        for page in pages.pages() {
            self.held().pages.drop_page(page);
        }
    }
}

#[test]
fn first_touches_fill_with_zeros_within_the_limit() {
    let model = Model::new(ModelOptions { memory_limit_pages: Some(1), ..Default::default() });
    map(&model, range(0, 3));
    assert_eq!(load(&model, PageNumber(0)), 0);
    assert_eq!((look(&model, 0), model.memory_used()), (Look::Zero, 0));
    store(&model, PageNumber(0), 5);
    assert_eq!((look(&model, 0), model.memory_used()), (Look::Present, 1));
    let at = address(&model, PageNumber(1));
    assert_eq!(model.store(at, &[1]), Err(Signal::OutOfMemory(at)));
    assert!(model.swap_out(PageNumber(0)));
    assert_eq!((look(&model, 0), model.memory_used()), (Look::Swapped, 0));
    model.set_memory_limit(Some(0));
    assert_eq!(model.store(0, &[1]), Err(Signal::OutOfMemory(0)));
    model.set_memory_limit(None);
    assert_eq!(load(&model, PageNumber(0)), 5);
}

#[test]
fn moves_keep_content_and_map_over() {
    let model = model();
    map(&model, range(0, 8));
    for page in range(0, 8).pages() {
        store(&model, page, number(page) + 1);
    }
    assert_eq!(model.remap(range(1, 3), Some(PageNumber(5)), false), Ok(range(5, 7)));
    assert_eq!(ranges(&model), [range(0, 1), range(3, 8)]);
    assert_eq!(load(&model, PageNumber(5)), 2);
    assert_eq!(model.remap(range(5, 6), None, true), Ok(range(1, 2)));
    assert_eq!((load(&model, PageNumber(1)), load(&model, PageNumber(5))), (2, 0));
    assert_eq!(model.remap(range(0, 3), None, false), Err(BAD_ADDRESS));
    assert_eq!(model.remap(range(3, 5), Some(PageNumber(4)), false), Err(INVALID));
    assert_eq!(model.remap_and_grow(range(7, 8), 3, None), Ok(range(8, 11)));
    assert_eq!((load(&model, PageNumber(8)), load(&model, PageNumber(10))), (8, 0));
    assert_eq!(model.grow(range(9, 11), 4), Ok(range(9, 13)));
    assert_eq!(model.grow(range(3, 4), 4), Err(BAD_ADDRESS));
    assert_eq!(model.content(PageNumber(6)), Ok(Some(vec![3; model.page_size().bytes()])));
}

#[test]
fn discards_are_of_private_unlocked_memory() {
    let model = model();
    map(&model, range(0, 2));
    model.map(Some(PageNumber(2)), 1, READ_WRITE, Backing::SharedAnonymous).unwrap();
    map(&model, range(4, 5));
    for page in [0, 1, 2, 4] {
        store(&model, PageNumber(page), 9);
    }
    assert_eq!(model.discard(range(1, 5)), Err(NO_MEMORY));
    let now = [0, 1, 2, 4].map(|page| load(&model, PageNumber(page)));
    assert_eq!(now, [9, 0, 9, 0]);
    model.lock(range(0, 1)).unwrap();
    assert_eq!(model.discard(range(0, 1)), Err(INVALID));
    assert!(!model.swap_out(PageNumber(0)), "locked");
    model.unlock(range(0, 1)).unwrap();
    assert_eq!(model.discard(range(0, 1)), Ok(()));
}

#[test]
fn atomics_and_accesses_in_place() {
    let model = model();
    map(&model, range(0, 1));
    let mut out = [1; 8];
    assert!(!model.try_load(0, &mut out), "a hole");
    assert_eq!(model.fetch_add(8, 3), Ok(0));
    assert_eq!(model.fetch_add(8, 3), Ok(3));
    assert!(model.try_load(8, &mut out) && u64::from_ne_bytes(out) == 6);
    assert!(model.try_store(8, &1_u64.to_ne_bytes()));
    model.share_by_fork(range(0, 1));
    assert!(!model.try_store(8, &[0]), "shared");
    assert_eq!(model.fetch_add(8, 1), Ok(1));
    assert!(model.try_store(8, &[0]));
}

#[test]
fn huge_pages_split_with_their_first_change() {
    let model = model();
    let block = BlockNumber(1).pages();
    map(&model, block);
    assert!(!model.make_huge(BlockNumber(1)));
    for page in block.pages() {
        store(&model, page, 1);
    }
    assert!(model.make_huge(BlockNumber(1)));
    assert_eq!(look(&model, block.start().0), Look::PresentHuge);
    model.discard(PageRange::of(block.start(), 1)).unwrap();
    assert_eq!(look(&model, block.start().0 + 1), Look::Present);
    store(&model, block.start(), 1);
    assert!(model.make_huge(BlockNumber(1)));
    model.protect(PageRange::of(block.start(), 1), READ_ONLY).unwrap();
    assert_eq!(look(&model, block.start().0), Look::Present);
}

#[test]
fn trapping_refuses_what_the_system_refuses() {
    let model = model();
    map(&model, range(0, 4));
    assert_eq!(model.trap(range(2, 6)), Err(TrapError::NoArea(range(4, 6))));
    model.map(Some(PageNumber(4)), 1, READ_WRITE, Backing::PrivateFile).unwrap();
    assert_eq!(model.trap(range(0, 5)), Err(TrapError::Unsupported(range(4, 5))));
    model.mark(range(1, 2), Mark::Foreign, true).unwrap();
    assert_eq!(model.trap(range(0, 4)), Err(TrapError::Foreign(range(1, 2))));
    assert!(areas(&model)[1].registered);
    assert_eq!(model.untrap(range(0, 4)), Err(INVALID));
    model.mark(range(1, 2), Mark::Foreign, false).unwrap();
    model.mark(range(3, 4), Mark::Stack, true).unwrap();
    assert!(areas(&model)[1].stack);
    assert_eq!(model.trap(range(0, 4)), Ok(()));
    assert_eq!(model.trap(range(0, 4)), Ok(()));
    assert_eq!(model.untrap(range(0, 4)), Ok(()));
    assert_eq!(model.mark(range(4, 6), Mark::Stack, true), Err(NO_MEMORY));
}

#[test]
fn exclusions_are_told() {
    let model = model();
    map(&model, range(0, 4));
    model.exclude(range(0, 1), Exclusion::ThreadControlBlock);
    model.exclude(range(2, 3), Exclusion::ObjectData);
    let mut seen = Vec::new();
    model.exclusions(false, &mut |pages, _| seen.push(pages)).unwrap();
    assert_eq!(seen, [range(0, 1)]);
    model.exclusions(true, &mut |pages, _| seen.push(pages)).unwrap();
    assert_eq!(seen.len(), 3);
}
