//! Against a list of the ranges.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use core::{cell::Cell, ops::ControlFlow};
use std::rc::Rc;

use proptest::prelude::*;

use super::{
    CHILDREN, ENTRIES, IntervalTree, REGION_LOG, Region, ends, in_region, page_at, region_of,
};
use crate::{
    engine_memory::{EngineBox, EngineMemory, EngineMemoryError},
    testing::{cases, memory},
    units::{PageNumber, PageRange},
};

/// Pages of a row of [`page`].
const ROW: usize = 16;

/// Pages that proptest chooses from: four rows, each of the first and the last pages of a region.
const PAGES: usize = 4 * ROW;

/// The `number`th of the pages that tests use: they are few, in order, and at the ends of regions.
fn page(number: usize) -> PageNumber {
    let (region, place) = (number / ROW, number % ROW);
    let place = if place < ROW / 2 { place } else { (1 << REGION_LOG) - ROW + place };
    PageNumber((region << REGION_LOG) + place)
}

/// The pages from the `start`th to the `last`th of those.
fn from_to(start: usize, last: usize) -> PageRange {
    PageRange::new(page(start), page(last).plus(1))
}

/// Memory for the most that a test has.
fn much_memory() -> EngineMemory {
    if cfg!(miri) { memory() } else { EngineMemory::map(8 << 20).unwrap() }
}

/// A value that counts those that live.
#[derive(Debug)]
struct Counted {
    number: u64,
    alive: Rc<Cell<usize>>,
}

impl Counted {
    fn new(number: u64, alive: &Rc<Cell<usize>>) -> Self {
        alive.set(alive.get() + 1);
        Self { number, alive: Rc::clone(alive) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

/// A tree, and a list of what is in it. A range's value is its id.
struct Both<const INNER: usize, const LEAF: usize> {
    memory: EngineMemory,
    alive: Rc<Cell<usize>>,
    tree: IntervalTree<Counted, INNER, LEAF>,
    list: Vec<(PageRange, u64)>,
    next: u64,
}

impl<const INNER: usize, const LEAF: usize> Both<INNER, LEAF> {
    fn new(memory: EngineMemory) -> Self {
        let tree = IntervalTree::new(&memory);
        Self { memory, alive: Rc::default(), tree, list: Vec::new(), next: 0 }
    }

    fn insert(&mut self, pages: PageRange) {
        self.try_insert(pages).unwrap();
    }

    fn try_insert(&mut self, pages: PageRange) -> Result<(), EngineMemoryError> {
        // Ids come in no order.
        let id = self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.tree.try_insert(pages, id, Counted::new(id, &self.alive))?;
        self.next += 1;
        self.list.push((pages, id));
        Ok(())
    }

    fn remove(&mut self, which: usize) {
        let (pages, id) = self.list.swap_remove(which);
        let value = self.tree.remove(pages, id).expect("it is there");
        assert_eq!(value.number, id);
        assert!(self.tree.remove(pages, id).is_none(), "it is there once");
    }

    /// What a search finds, in its order.
    fn found(&self, asked: PageRange) -> Vec<(PageRange, u64)> {
        // As who searches does; it changes nothing.
        self.tree.prefetch(asked.start());
        let mut found = Vec::new();
        let flow = self.tree.for_each_overlapping(asked, |pages, value| {
            found.push((pages, value.number));
            ControlFlow::<()>::Continue(())
        });
        assert!(flow.is_continue());
        found
    }

    fn check_search(&self, asked: PageRange) {
        let overlapping = self.list.iter().copied().filter(|(pages, _)| pages.overlaps(asked));
        let mut expected = overlapping.collect::<Vec<_>>();
        let is_narrow = |pages| {
            let (first, last) = ends(pages).unwrap();
            region_of(first) == region_of(last)
        };
        expected.sort_by_key(|&(pages, id)| (is_narrow(pages), pages.start(), id));
        assert_eq!(self.found(asked), expected, "{asked}");
        let mut left = expected.len() / 2;
        let flow = self.tree.for_each_overlapping(asked, |pages, value| {
            if left == 0 {
                return ControlFlow::Break((pages, value.number));
            }
            left -= 1;
            ControlFlow::Continue(())
        });
        assert_eq!(flow.break_value(), expected.get(expected.len() / 2).copied());
        self.check_cost(asked, expected.len());
    }

    /// A search looks at one node a level, and at one more a level for each range that it finds.
    fn check_cost(&self, asked: PageRange, found: usize) {
        let Some((first, last)) = ends(asked) else { return };
        let wide = &self.tree.wide;
        let most = |levels: usize| levels * (1 + found);
        assert!(wide.looked_at(first.0, last.0) <= most(wide.check().height + 1));
        for region in &*self.tree.regions {
            let part = asked.intersection(region_pages(region.number));
            if let Some((first, last)) = ends(part) {
                let looked_at = region.tree.looked_at(in_region(first), in_region(last));
                assert!(looked_at <= most(region.tree.check().height + 1), "{looked_at} nodes");
            }
        }
    }

    fn check(&self) {
        let mut list = self.list.clone();
        list.sort_by_key(|&(pages, id)| (pages.start(), id));
        let range = |first, last| PageRange::new(first, PageNumber::plus(last, 1));
        let mut entries = Vec::new();
        for &(first, last, id) in &self.tree.wide.check().entries {
            let pages = range(PageNumber(first), PageNumber(last));
            assert_ne!(region_of(PageNumber(first)), region_of(PageNumber(last)));
            entries.push((pages, id));
        }
        assert!(self.tree.regions.is_sorted_by(|a, b| a.number < b.number));
        for region in &*self.tree.regions {
            assert!(!region.tree.is_empty());
            for &(first, last, id) in &region.tree.check().entries {
                entries
                    .push((range(page_at(region.number, first), page_at(region.number, last)), id));
            }
        }
        entries.sort_by_key(|&(pages, id)| (pages.start(), id));
        assert_eq!(entries, list);
        assert_eq!((self.tree.len(), self.tree.is_empty()), (list.len(), list.is_empty()));
        assert_eq!(self.alive.get(), list.len(), "values are dropped once");
    }

    /// Ends the tree, which leaves nothing behind.
    fn end(self) {
        let Self { memory, alive, tree, .. } = self;
        drop(tree);
        assert_eq!((alive.get(), memory.used()), (0, 0));
    }
}

fn region_pages(number: usize) -> PageRange {
    PageRange::new(page_at(number, i32::MIN), page_at(number, i32::MAX).plus(1))
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(PageRange),
    /// Several of the same bounds.
    InsertAgain {
        which: usize,
        times: usize,
    },
    Remove {
        which: usize,
    },
    /// Many of those that are next to each other.
    RemoveMany {
        which: usize,
        count: usize,
    },
}

fn range() -> impl Strategy<Value = PageRange> {
    let short = (0..PAGES, 0..3_usize);
    let any = (0..PAGES, 0..PAGES);
    let of_region = (0..PAGES / ROW).prop_map(region_pages);
    let everything = Just(PageRange::new(PageNumber(0), PageNumber(usize::MAX)));
    prop_oneof![
        8 => short.prop_map(|(start, len)| from_to(start, (start + len).min(PAGES - 1))),
        3 => any.prop_map(|(a, b)| from_to(a.min(b), a.max(b))),
        1 => of_region,
        1 => everything,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => range().prop_map(Step::Insert),
        1 => (any::<usize>(), 1..9_usize).prop_map(|(which, times)| Step::InsertAgain { which, times }),
        5 => any::<usize>().prop_map(|which| Step::Remove { which }),
        1 => (any::<usize>(), 1..40_usize).prop_map(|(which, count)| Step::RemoveMany { which, count }),
    ]
}

fn play<const INNER: usize, const LEAF: usize>(steps: &[(Step, PageRange)]) {
    let mut both = Both::<INNER, LEAF>::new(memory());
    for &(step, asked) in steps {
        let len = both.list.len();
        match step {
            Step::Insert(pages) => both.insert(pages),
            Step::InsertAgain { which, times } if len > 0 => {
                for _ in 0..times {
                    both.insert(both.list[which % len].0);
                }
            }
            Step::Remove { which } if len > 0 => both.remove(which % len),
            Step::RemoveMany { which, count } if len > 0 => {
                both.list.sort_by_key(|&(pages, id)| (pages.start(), id));
                for _ in 0..count.min(len) {
                    both.remove(which % len % both.list.len());
                }
            }
            _ => {}
        }
        both.check();
        both.check_search(asked);
        both.check_search(PageRange::of(asked.start(), 0));
    }
    both.end();
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn it_finds_what_a_list_has(
        steps in proptest::collection::vec((step(), range()), 1..if cfg!(miri) { 24 } else { 120 }),
    ) {
        play::<CHILDREN, ENTRIES>(&steps);
        if !cfg!(miri) {
            play::<4, 4>(&steps);
            play::<8, 4>(&steps);
        }
    }
}

/// Numbers below `count`, all of them, in no order.
fn shuffled(count: usize) -> Vec<usize> {
    let mut numbers = (0..count).collect::<Vec<_>>();
    let mut random = 1_usize;
    for at in (1..count).rev() {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        numbers.swap(at, (random >> 33) % (at + 1));
    }
    numbers
}

/// Adds `count` ranges in one order and removes them in another, for all such pairs, or some under
/// the interpreter.
fn in_all_orders<const INNER: usize, const LEAF: usize>(
    count: usize,
    pages: impl Fn(usize) -> PageRange,
) {
    let ascending = (0..count).collect::<Vec<_>>();
    let descending = (0..count).rev().collect::<Vec<_>>();
    let orders = [ascending, descending, shuffled(count)];
    for (one, added) in orders.iter().enumerate() {
        for (other, removed) in orders.iter().enumerate() {
            if cfg!(miri) && other != (one + 1) % 3 {
                continue;
            }
            let mut both = Both::<INNER, LEAF>::new(much_memory());
            for &number in added {
                both.insert(pages(number));
            }
            both.check();
            for at in (0..count).step_by(count / 7) {
                both.check_search(pages(at));
            }
            // Places in the list, by number.
            let mut ids =
                core::iter::repeat_n((PageRange::default(), 0), count).collect::<Vec<_>>();
            for (&number, &entry) in added.iter().zip(&both.list) {
                ids[number] = entry;
            }
            for (step, &number) in removed.iter().enumerate() {
                let (pages, id) = ids[number];
                assert_eq!(both.tree.remove(pages, id).map(|value| value.number), Some(id));
                if step % (count / 5) == 0 {
                    let gone = &removed[..=step];
                    let left = (0..count).filter(|number| !gone.contains(number));
                    both.list = left.map(|number| ids[number]).collect();
                    both.check();
                    both.check_search(pages);
                }
            }
            both.list.clear();
            both.check();
            let room = both.tree.regions.capacity() * size_of::<Region<Counted, INNER, LEAF>>();
            assert_eq!(both.memory.used(), room, "no node is left");
            both.end();
        }
    }
}

const MANY: usize = if cfg!(miri) { 14 } else { 1500 };

fn in_all_orders_and_sizes(pages: impl Fn(usize) -> PageRange) {
    in_all_orders::<CHILDREN, ENTRIES>(MANY, &pages);
    if !cfg!(miri) {
        in_all_orders::<4, 4>(MANY, &pages);
    }
}

#[test]
fn disjoint_ranges_come_and_go_in_any_order() {
    in_all_orders_and_sizes(|number| PageRange::of(PageNumber(10 + number * 8), 5));
}

#[test]
fn equal_ranges_come_and_go_in_any_order() {
    in_all_orders_and_sizes(|_| from_to(3, 5));
}

#[test]
fn nested_ranges_come_and_go_in_any_order() {
    in_all_orders_and_sizes(|number| {
        PageRange::new(PageNumber(number), PageNumber(3 * MANY - number))
    });
}

#[test]
fn ranges_across_regions_come_and_go_in_any_order() {
    in_all_orders_and_sizes(|number| from_to(number % PAGES, number % PAGES + ROW));
}

#[test]
fn ranges_over_everything_cost_a_search_little() {
    let small = if cfg!(miri) { 24 } else { 20_000 };
    let mut both = Both::<CHILDREN, ENTRIES>::new(much_memory());
    let everything = PageRange::new(PageNumber(0), PageNumber(usize::MAX));
    for number in shuffled(small) {
        both.insert(PageRange::of(PageNumber(number * 4), 2));
        if number % (small / 4) == 0 {
            both.insert(everything);
            both.insert(region_pages(0));
        }
    }
    both.check();
    for number in (0..small).step_by(small / 12) {
        let asked = PageRange::of(PageNumber(number * 4), 1);
        both.check_search(asked);
        assert_eq!(both.found(asked).len(), 9);
    }
    both.check_search(everything);
    both.end();
}

#[test]
fn what_is_not_there_cannot_be_removed() {
    let mut both = Both::<CHILDREN, ENTRIES>::new(memory());
    let (narrow, wide) = (from_to(1, 4), from_to(1, ROW));
    assert!(both.tree.remove(narrow, 0).is_none());
    assert!(both.tree.remove(wide, 0).is_none());
    both.insert(narrow);
    both.insert(wide);
    for &(pages, id) in &both.list.clone() {
        let (start, end) = (pages.start(), pages.end());
        for other in [
            PageRange::new(start.plus(1), end),
            PageRange::new(start, end.plus(1)),
            PageRange::new(start, PageNumber(end.0 - 1)),
            PageRange::of(start, 0),
        ] {
            assert!(both.tree.remove(other, id).is_none());
        }
        assert!(both.tree.remove(pages, id ^ 1).is_none());
    }
    both.check();
    both.remove(1);
    both.remove(0);
    both.check();
}

#[test]
fn ranges_that_come_in_order_fill_the_leaves() {
    let count = 5 * ENTRIES * CHILDREN;
    for descending in [false, true] {
        let mut both = Both::<CHILDREN, ENTRIES>::new(much_memory());
        for number in 0..count {
            let number = if descending { count - 1 - number } else { number };
            both.insert(PageRange::of(PageNumber(number), 1));
        }
        let seen = both.tree.regions[0].tree.check();
        assert!(seen.leaves <= count / ENTRIES + 1, "{seen:?}");
        assert!(seen.inner <= count / ENTRIES / CHILDREN + 3, "{seen:?}");
    }
}

/// What is left of a memory, taken in pieces of the sizes that nodes are allocated in.
#[derive(Default)]
struct Rest {
    pages: Vec<EngineBox<[u8; 4096]>>,
    nodes: Vec<EngineBox<[u8; 128]>>,
    ids: Vec<EngineBox<[u8; 32]>>,
}

impl Rest {
    fn take(&mut self, memory: &EngineMemory) {
        fn all<const N: usize>(memory: &EngineMemory) -> impl Iterator<Item = EngineBox<[u8; N]>> {
            core::iter::from_fn(|| EngineBox::try_new(memory, [0; N]).ok())
        }
        self.pages.extend(all(memory));
        self.nodes.extend(all(memory));
        self.ids.extend(all(memory));
    }

    /// Gives a piece back that has room for `bytes`.
    fn give(&mut self, bytes: usize) {
        let given = match bytes {
            0..=32 => self.ids.pop().is_some(),
            33..=128 => self.nodes.pop().is_some(),
            _ => false,
        };
        assert!(given || self.pages.pop().is_some());
    }
}

#[test]
fn without_memory_it_stays_as_it_was() {
    let count = if cfg!(miri) { 16 } else { 300 };
    for spread in [1, 97] {
        let mut both = Both::<4, 4>::new(memory());
        let mut rest = Rest::default();
        let mut refused = 0;
        for number in 0..count {
            let start = number * spread % PAGES;
            let pages = from_to(start, (start + number % 21).min(PAGES - 1));
            // Of all that it takes each piece is refused once.
            rest.take(&both.memory);
            while let Err(error) = both.try_insert(pages) {
                both.check();
                both.check_search(pages);
                let EngineMemoryError::Exhausted { asked, .. } = error else { panic!("{error}") };
                rest.give(asked);
                refused += 1;
            }
            if number % 3 == 2 {
                rest.take(&both.memory);
                both.remove(number * spread % both.list.len());
            }
            both.check();
        }
        // A leaf has two pieces, and some of them have come with inner nodes.
        assert!(refused > 2 * both.list.len() / 4, "{refused}");
        drop(rest);
        both.end();
    }
}
