//! Whose end a change is, by what the model has as it is told.

use super::{Arrivals, Found};
use crate::{
    engine::Occupant::{self, Earlier, Last, Only, Unknown},
    mm::{
        Backing, Protection,
        model::{Model, ModelOptions},
    },
    testing::memory,
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

const READ_WRITE: Protection = Protection { read: true, write: true, execute: false };
const READ_ONLY: Protection = Protection { write: false, ..READ_WRITE };

/// Arrivals at pages of a model that has what the test says.
struct World {
    model: Model,
    arrivals: Arrivals,
}

fn range(start: usize, end: usize) -> PageRange {
    PageRange::new(PageNumber(start), PageNumber(end))
}

impl World {
    /// Pages 4 to 8 have arrived, by a remapping that is to be applied yet.
    fn new() -> Self {
        let options = ModelOptions {
            pages: BLOCK_PAGES,
            staging_pages: BLOCK_PAGES,
            ..ModelOptions::default()
        };
        let mut world = Self { model: Model::new(options), arrivals: Arrivals::new(&memory()) };
        world.map(range(4, 8), READ_WRITE);
        world.expect(range(4, 8));
        world
    }

    fn map(&self, pages: PageRange, protection: Protection) {
        let (start, kind) = (Some(pages.start()), Backing::PrivateAnonymous);
        assert_eq!(self.model.map(start, pages.len(), protection, kind), Ok(pages));
    }

    fn expect(&mut self, pages: PageRange) {
        self.arrivals.expect(pages, &self.model).unwrap();
    }

    fn apply(&mut self, pages: PageRange) {
        self.arrivals.arrived(pages, true).unwrap();
    }

    /// Whose end an unmapping is that is told now.
    fn unmapping(&mut self, pages: PageRange) -> Vec<(PageRange, Occupant)> {
        self.arrivals.look(&self.model).unwrap();
        parts(pages, |rest| self.arrivals.unmapping_of(rest, pages).unwrap())
    }

    /// Whose end a remapping is.
    fn remapping(&mut self, pages: PageRange) -> Vec<(PageRange, Occupant)> {
        self.arrivals.look(&self.model).unwrap();
        parts(pages, |rest| self.arrivals.remapping_of(rest, pages).unwrap())
    }

    /// Whose end an unmapping was, by what is there later.
    fn found(&mut self, pages: PageRange, found: Found) -> Vec<(PageRange, Occupant)> {
        parts(pages, |rest| self.arrivals.unmapping_found(rest, found).unwrap())
    }
}

fn parts(
    pages: PageRange,
    mut part: impl FnMut(PageRange) -> (PageRange, Occupant),
) -> Vec<(PageRange, Occupant)> {
    let mut rest = pages;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (next, of) = part(rest);
        assert!(!next.is_empty() && next.start() == rest.start(), "{next:?} of {rest:?}");
        rest = PageRange::new(next.end(), rest.end());
        parts.push((next, of));
    }
    parts
}

#[test]
fn where_nothing_arrived_there_is_one_occupant() {
    let mut world = World::new();
    assert_eq!(world.unmapping(range(0, 4)), [(range(0, 4), Only)]);
    assert_eq!(world.remapping(range(8, 9)), [(range(8, 9), Only)]);
    assert_eq!(world.found(range(8, 9), Found::Told), [(range(8, 9), Only)]);
}

#[test]
fn what_is_awaited_and_gone_ends_first_and_then_what_was_there_before() {
    let mut world = World::new();
    world.model.unmap(range(4, 8)).unwrap();
    assert_eq!(world.unmapping(range(4, 8)), [(range(4, 8), Last)]);
    assert_eq!(world.unmapping(range(4, 8)), [(range(4, 8), Earlier)]);
    assert_eq!(world.remapping(range(4, 8)), [(range(4, 8), Earlier)]);
}

#[test]
fn what_is_awaited_and_moved_on_is_so_told() {
    let mut world = World::new();
    world.model.unmap(range(4, 8)).unwrap();
    assert_eq!(world.remapping(range(4, 8)), [(range(4, 8), Last)]);
    assert_eq!(world.unmapping(range(4, 8)), [(range(4, 8), Last)], "nothing is left there");
    world.arrivals.left(range(4, 8));
    assert_eq!(world.unmapping(range(4, 8)), [(range(4, 8), Earlier)]);
}

#[test]
fn of_what_is_cut_short_the_end_is_told_of_the_part() {
    let mut world = World::new();
    world.model.unmap(range(6, 8)).unwrap();
    // Were it all of what arrived, nothing would be left.
    let unknown = [(range(4, 6), Unknown), (range(6, 8), Unknown)];
    assert_eq!(world.remapping(range(4, 8)), unknown);
    assert_eq!(world.unmapping(range(4, 8)), unknown);
    assert_eq!(world.unmapping(range(6, 8)), [(range(6, 8), Last)]);
}

#[test]
fn an_area_that_is_there_is_looked_at() {
    let mut world = World::new();
    assert_eq!(world.unmapping(range(2, 8)), [(range(2, 4), Only), (range(4, 8), Unknown)]);
    assert_eq!(world.found(range(4, 5), Found::Told), [(range(4, 5), Earlier)]);
    assert_eq!(world.found(range(5, 6), Found::Nothing), [(range(5, 6), Earlier)]);
    assert_eq!(world.found(range(6, 7), Found::Other), [(range(6, 7), Last)]);
    assert_eq!(world.found(range(6, 7), Found::Other), [(range(6, 7), Earlier)]);
    world.apply(range(4, 8));
    assert_eq!(world.unmapping(range(4, 8)), [(range(4, 8), Unknown)]);
    assert_eq!(world.found(range(4, 5), Found::Told), [(range(4, 5), Earlier)]);
    assert_eq!(world.found(range(5, 6), Found::Nothing), [(range(5, 6), Only)]);
    assert_eq!(world.found(range(6, 7), Found::Other), [(range(6, 7), Only)]);
}

#[test]
fn what_has_arrived_and_is_gone_has_ended() {
    let mut world = World::new();
    world.apply(range(4, 8));
    world.model.unmap(range(5, 8)).unwrap();
    let expected = [(range(4, 5), Unknown), (range(5, 8), Only)];
    assert_eq!(world.unmapping(range(4, 8)), expected);
    assert_eq!(world.unmapping(range(4, 8)), expected, "however often it is told");
    world.arrivals.ended(range(5, 8));
    assert!(!world.arrivals.is_empty(), "a part is left");
    world.arrivals.ended(range(3, 8));
    assert!(world.arrivals.is_empty());
}

#[test]
fn what_was_there_before_has_not_grown_over_what_arrived_apart() {
    let mut world = World::new();
    world.map(range(2, 4), READ_ONLY);
    world.apply(range(4, 8));
    assert_eq!(world.remapping(range(4, 8)), [(range(4, 8), Unknown)]);
    let expected = [(range(2, 4), Only), (range(4, 8), Earlier)];
    assert_eq!(world.remapping(range(2, 8)), expected, "it grew before they arrived");
    world.model.unmap(range(4, 8)).unwrap();
    world.model.grow(range(2, 4), 6).unwrap();
    assert_eq!(world.unmapping(range(4, 8)), [(range(4, 8), Only)], "it has grown since");
    assert_eq!(world.remapping(range(2, 8)), [(range(2, 4), Only), (range(4, 8), Unknown)]);
}

#[test]
fn what_ended_was_there_before_the_next_arrival() {
    let mut world = World::new();
    world.model.unmap(range(4, 8)).unwrap();
    assert_eq!(world.unmapping(range(4, 8)), [(range(4, 8), Last)]);
    world.map(range(4, 8), READ_WRITE);
    world.expect(range(4, 8));
    world.model.unmap(range(4, 8)).unwrap();
    assert_eq!(world.unmapping(range(4, 8)), [(range(4, 8), Last)]);
    world.apply(range(4, 8));
    assert!(world.arrivals.awaits(range(4, 5)), "the second");
    world.apply(range(4, 8));
    assert!(!world.arrivals.awaits(range(4, 8)));
}

#[test]
fn of_several_arrivals_the_last_is_looked_for() {
    let mut world = World::new();
    world.apply(range(4, 8));
    world.model.unmap(range(4, 8)).unwrap();
    world.map(range(3, 8), READ_ONLY);
    world.expect(range(3, 8));
    // It has not grown over the first, and does not move away as what was there before that.
    assert_eq!(world.unmapping(range(4, 8)), [(range(4, 8), Unknown)]);
    assert_eq!(world.remapping(range(3, 8)), [(range(3, 4), Unknown), (range(4, 8), Unknown)]);
    world.apply(range(3, 8));
    world.arrivals.ended(range(4, 8));
    assert_eq!(world.unmapping(range(4, 8)), [(range(4, 8), Unknown)], "of the second");
}
