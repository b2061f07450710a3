//! The bulk calls and staging, with no other thread.

use super::{super::*, *};
use crate::{
    mm::{Access, Done, Look, Mm as _, Stop},
    units::BlockNumber,
};

/// A model with eight trapped pages, all there, and as many of staging.
fn prepared() -> (Model, PageNumber) {
    let model = model();
    map_trapped(&model, range(0, 8));
    let staging = model.map_staging(8).unwrap();
    (model, staging.start())
}

fn done(done: Done) -> (usize, Option<Stop>) {
    (done.pages, done.stop)
}

fn looks(model: &Model, start: PageNumber, pages: usize) -> Vec<Look> {
    let mut looks = vec![Look::Hole; pages];
    model.look(start, &mut looks).unwrap();
    looks
}

fn staged(model: &Model, page: PageNumber) -> u8 {
    // SAFETY: the page is there, and nobody else uses it.
    unsafe { model.staging_pointer(page).read() }
}

#[test]
fn pages_leave_and_come_back() {
    let (model, staging) = prepared();
    let used = model.memory_used();
    assert_eq!(done(model.take(PageNumber(1), staging, 4)), (4, None));
    assert_eq!(model.memory_used(), used);
    assert_eq!(looks(&model, PageNumber(0), 3), [Look::Present, Look::Hole, Look::Hole]);
    assert_eq!(staged(&model, staging.plus(1)), 2);
    // SAFETY: the page is there, and nobody else uses it.
    unsafe { model.staging_pointer(staging.plus(1)).write_bytes(77, 64) };
    assert_eq!(done(model.give(staging, PageNumber(1), 2)), (2, None));
    assert_eq!(done(model.copy(staging.plus(2), PageNumber(3), 2)), (2, None));
    let now: Vec<_> = range(0, 8).pages().map(|page| load(&model, page)).collect();
    assert_eq!(now, [0, 1, 77, 3, 4, 5, 6, 7]);
    assert_eq!(model.memory_used(), used + 2);
    // SAFETY: nobody uses the memory.
    unsafe { model.empty_staging(PageRange::of(staging, 8)) }.unwrap();
    assert_eq!(model.memory_used(), used);
    assert_eq!(model.violations(), []);
}

#[test]
fn moves_stop_at_what_cannot_move() {
    let (model, staging) = prepared();
    let take = |page: usize, pages| done(model.take(PageNumber(page), staging.plus(page), pages));
    model.pin(PageNumber(1)).unwrap();
    assert_eq!(take(0, 2), (1, Some(Stop::Busy)));
    assert_eq!(take(0, 1), (0, Some(Stop::Present)));
    model.unpin(PageNumber(1));
    assert_eq!(take(1, 1), (1, None));
    let free = staging.plus(7);
    assert_eq!(done(model.take(PageNumber(1), free, 1)), (0, Some(Stop::Hole)));
    model.share_by_fork(range(2, 4));
    assert_eq!(take(2, 1), (0, Some(Stop::Busy)));
    model.unshare(range(2, 3)).unwrap();
    assert_eq!(take(2, 2), (1, Some(Stop::Busy)));
    store(&model, PageNumber(3), 9);
    assert_eq!(take(3, 1), (1, None));
    model.protect(range(4, 5), READ_ONLY).unwrap();
    assert_eq!(take(4, 1), (0, Some(Stop::Refused)));
    model.protect(range(4, 5), READ_WRITE).unwrap();
    model.lock(range(4, 5)).unwrap();
    assert_eq!(take(4, 1), (0, Some(Stop::Refused)));
    assert_eq!(done(model.take(PageNumber(9), free, 1)), (0, Some(Stop::NoArea)));
    assert_eq!(done(model.take(PageNumber(5), staging.plus(600), 1)), (0, Some(Stop::NoArea)));
}

#[test]
fn fills_work_where_moves_refuse() {
    let (model, staging) = prepared();
    assert_eq!(done(model.take(PageNumber(0), staging, 4)), (4, None));
    model.protect(range(0, 4), READ_ONLY).unwrap();
    assert_eq!(done(model.give(staging, PageNumber(0), 1)), (0, Some(Stop::Refused)));
    assert_eq!(done(model.copy(staging, PageNumber(0), 1)), (1, None));
    assert_eq!(done(model.zero(PageNumber(1), 1, Access::Read)), (1, None));
    assert_eq!(done(model.poison(PageNumber(2), 2)), (2, None));
    assert_eq!(done(model.zero(PageNumber(2), 1, Access::Read)), (0, Some(Stop::Present)));
    assert_eq!(done(model.poison(PageNumber(2), 1)), (0, Some(Stop::Present)));
    assert_eq!(done(model.copy(staging.plus(2), PageNumber(2), 1)), (1, None));
    let expected = [Look::Present, Look::Zero, Look::Present, Look::Poisoned];
    assert_eq!(looks(&model, PageNumber(0), 4), expected);
    assert_eq!(done(model.copy(staging, PageNumber(0), 1)), (0, Some(Stop::Present)));
    model.untrap(range(0, 8)).unwrap();
    assert_eq!(done(model.copy(staging, PageNumber(0), 1)), (0, Some(Stop::NoArea)));
    assert_eq!(done(model.zero(PageNumber(0), 1, Access::Read)), (0, Some(Stop::NoArea)));
    assert_eq!(done(model.poison(PageNumber(20), 1)), (0, Some(Stop::NoArea)));
    assert_eq!(done(model.zero(staging.plus(6), 1, Access::Write)), (1, None));
    assert_eq!(staged(&model, staging.plus(6)), 0);
}

#[test]
fn what_the_core_must_not_do_is_recorded() {
    let (model, staging) = prepared();
    model.untrap(range(0, 8)).unwrap();
    assert_eq!(done(model.take(PageNumber(3), staging, 1)), (1, None));
    assert_eq!(load(&model, PageNumber(3)), 0, "the content is not where the program looks");
    model.trap(range(0, 8)).unwrap();
    assert_eq!(done(model.copy(staging.plus(1), PageNumber(3), 1)), (0, Some(Stop::Present)));
    assert_eq!(done(model.give(staging, PageNumber(3), 1)), (0, Some(Stop::Present)));
    assert_eq!(done(model.take(PageNumber(3), staging.plus(1), 1)), (1, None));
    assert_eq!(done(model.copy(staging.plus(2), PageNumber(3), 1)), (0, Some(Stop::Hole)));
    assert_eq!(done(model.poison(PageNumber(3), 1)), (1, None));
    assert_eq!(done(model.take(PageNumber(3), staging.plus(2), 1)), (0, Some(Stop::Refused)));
    assert_eq!(done(model.zero(PageNumber(3), 1, Access::Write)), (1, None));
    let expected = [
        Violation::TakenUntrapped(PageNumber(3)),
        Violation::CopiedHole(staging.plus(2)),
        Violation::ZeroedPoison(PageNumber(3)),
    ];
    assert_eq!(model.violations(), expected);
}

#[test]
fn zero_and_swapped_pages_move_as_what_they_are() {
    let (model, staging) = prepared();
    map(&model, range(10, 12));
    assert_eq!(load(&model, PageNumber(10)), 0);
    model.trap(range(10, 12)).unwrap();
    assert!(model.swap_out(PageNumber(2)));
    assert_eq!(done(model.take(PageNumber(10), staging, 1)), (1, None));
    assert_eq!(done(model.take(PageNumber(2), staging.plus(1), 1)), (1, None));
    assert_eq!(looks(&model, staging, 2), [Look::Zero, Look::Swapped]);
    assert_eq!(staged(&model, staging.plus(1)), 2);
    assert_eq!(done(model.give(staging, PageNumber(10), 1)), (1, None));
    assert_eq!(done(model.give(staging.plus(1), PageNumber(2), 1)), (1, None));
    assert_eq!(looks(&model, PageNumber(2), 1), [Look::Swapped]);
    assert_eq!((load(&model, PageNumber(2)), load(&model, PageNumber(10))), (2, 0));
}

#[test]
fn a_written_zero_page_of_staging_is_a_page() {
    let (model, staging) = prepared();
    assert_eq!(done(model.take(PageNumber(0), staging.plus(7), 1)), (1, None));
    assert_eq!(done(model.zero(staging, 2, Access::Read)), (2, None));
    // SAFETY: the page is there, and nobody else uses it.
    unsafe { model.staging_pointer(staging).write_bytes(5, 64) };
    assert_eq!(done(model.give(staging, PageNumber(0), 1)), (1, None));
    assert_eq!(looks(&model, PageNumber(0), 1), [Look::Present]);
    assert_eq!(load(&model, PageNumber(0)), 5);
}

#[test]
fn huge_pages_move_whole_or_split() {
    let model = model();
    let block = BlockNumber(2).pages();
    map_trapped(&model, block);
    let staging = model.map_staging(block.len()).unwrap().start();
    assert!(model.make_huge(BlockNumber(2)));
    assert_eq!(done(model.take(block.start(), staging, block.len())), (block.len(), None));
    assert_eq!(looks(&model, staging, 1), [Look::PresentHuge]);
    assert_eq!(done(model.give(staging, block.start(), block.len())), (block.len(), None));
    assert_eq!(looks(&model, block.start(), 1), [Look::PresentHuge]);
    assert_eq!(done(model.take(block.start().plus(1), staging.plus(1), 1)), (1, None));
    let expected = [Look::Present, Look::Hole, Look::Present];
    assert_eq!(looks(&model, block.start(), 3), expected);
    assert_eq!(load(&model, block.start().plus(2)), number(block.start().plus(2)));
    assert_eq!(model.memory_used(), block.len());
}

#[test]
fn memory_ends_for_copies_and_zeros_not_for_moves() {
    let (model, staging) = prepared();
    assert_eq!(done(model.take(PageNumber(0), staging, 3)), (3, None));
    model.set_memory_limit(Some(8));
    assert_eq!(done(model.copy(staging, PageNumber(0), 1)), (0, Some(Stop::NoMemory)));
    assert_eq!(done(model.zero(PageNumber(0), 1, Access::Write)), (0, Some(Stop::NoMemory)));
    assert_eq!(done(model.zero(PageNumber(0), 1, Access::Read)), (1, None));
    assert_eq!(done(model.give(staging.plus(1), PageNumber(1), 2)), (2, None));
}

#[test]
fn staging_is_given_out_in_blocks_and_reused() {
    let model = model();
    let first = model.map_staging(1).unwrap();
    let second = model.map_staging(2).unwrap();
    assert_eq!(second.start(), first.start().plus(BLOCK_PAGES));
    assert_eq!(done(model.zero(first.start(), 1, Access::Write)), (1, None));
    // SAFETY: mapped above, and nobody uses its memory.
    unsafe { model.unmap_staging(first) };
    assert_eq!(model.memory_used(), 0);
    assert_eq!(done(model.zero(first.start(), 1, Access::Write)), (0, Some(Stop::NoArea)));
    assert_eq!(model.map_staging(1), Ok(first));
    assert_eq!(model.map_staging(1_000_000), Err(NO_MEMORY));
    // SAFETY: nobody uses the memory.
    let unmapped = unsafe { model.empty_staging(PageRange::of(second.end(), 1)) };
    assert_eq!(unmapped, Err(NO_MEMORY));
}
