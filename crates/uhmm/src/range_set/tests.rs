//! Against a set of page numbers.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::RangeSet;
use crate::{
    testing::{cases, memory},
    units::{PageNumber, PageRange},
};

const LIMIT: usize = 40;

#[derive(Clone, Copy, Debug)]
enum Step {
    Add(PageRange),
    Remove(PageRange),
}

fn range() -> impl Strategy<Value = PageRange> {
    (0..LIMIT, 0..12_usize).prop_map(|(start, len)| PageRange::of(PageNumber(start), len))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![range().prop_map(Step::Add), range().prop_map(Step::Remove)]
}

/// The oracle's pages as maximal runs.
fn runs(pages: &BTreeSet<usize>) -> Vec<PageRange> {
    let mut runs = Vec::<PageRange>::new();
    for &page in pages {
        let page = PageNumber(page);
        match runs.last_mut() {
            Some(last) if last.end() == page => *last = PageRange::new(last.start(), page.plus(1)),
            _ => runs.push(PageRange::of(page, 1)),
        }
    }
    runs
}

fn check(set: &RangeSet, oracle: &BTreeSet<usize>, asked: PageRange) {
    assert_eq!(set.iter().collect::<Vec<_>>(), runs(oracle));
    let is_in = |page: &PageNumber| oracle.contains(&page.0);
    assert_eq!(set.covers(asked), asked.pages().all(|page| is_in(&page)), "covers {asked}");
    assert_eq!(set.overlaps(asked), asked.pages().any(|page| is_in(&page)), "overlaps {asked}");
    let (leading, inside) = set.leading(asked);
    assert_eq!(leading.start(), asked.start());
    assert!(asked.covers(leading));
    if !asked.is_empty() {
        let same = asked.pages().take_while(|page| is_in(page) == is_in(&asked.start())).count();
        assert_eq!((leading.len(), inside), (same, is_in(&asked.start())), "leading {asked}");
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn it_is_the_set_of_its_pages(
        steps in proptest::collection::vec((step(), range()), 1..if cfg!(miri) { 12 } else { 60 }),
    ) {
        let memory = memory();
        let mut set = RangeSet::new(&memory);
        let mut oracle = BTreeSet::new();
        for (step, asked) in steps {
            match step {
                Step::Add(pages) => {
                    set.add(pages).unwrap();
                    oracle.extend(pages.pages().map(|page| page.0));
                }
                Step::Remove(pages) => {
                    set.remove(pages).unwrap();
                    oracle.retain(|&page| !pages.contains(PageNumber(page)));
                }
            }
            check(&set, &oracle, asked);
        }
    }
}

#[cfg(not(miri))]
#[test]
fn without_memory_it_stays_as_it_was() {
    let memory = memory();
    let mut set = RangeSet::new(&memory);
    let range = |number: usize| PageRange::of(PageNumber(number * 4), 3);
    let mut added = 0;
    while set.add(range(added)).is_ok() {
        added += 1;
    }
    let before = set.iter().collect::<Vec<_>>();
    assert_eq!(before.len(), added);
    // Without its middle a range is two.
    let middle = PageRange::of(range(added / 2).start().plus(1), 1);
    assert!(set.remove(middle).is_err());
    assert_eq!(set.iter().collect::<Vec<_>>(), before);
    // What makes it shorter needs no room.
    set.remove(range(added / 2)).unwrap();
    set.remove(PageRange::of(range(0).start(), 1)).unwrap();
    assert_eq!(set.iter().count(), added - 1);
    assert!(!set.overlaps(middle));
}
