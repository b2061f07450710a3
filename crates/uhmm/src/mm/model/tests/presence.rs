//! What devices need that map memory where it lies: watching, populating, looking; ends of files.

use super::{super::*, *};
use crate::mm::{Access, Look, Mapping, Mm as _, PopulateFailure, Presence, Stop, TrapError};

const EVERY_BACKING: [Backing; 7] = [
    Backing::PrivateAnonymous,
    Backing::SharedAnonymous,
    Backing::PrivateFile,
    Backing::SharedFile,
    Backing::PrivateHugetlb,
    Backing::SharedHugetlb,
    Backing::Special,
];

fn populate(model: &Model, pages: PageRange, access: Access) -> (usize, Option<PopulateFailure>) {
    let populated = model.populate(pages, access);
    (populated.pages, populated.failure)
}

/// The runs of a scan: where each ends, and what is there.
fn runs(model: &Model, pages: PageRange) -> Vec<(usize, Presence)> {
    let mut next = pages.start();
    let mut runs = Vec::new();
    model
        .scan(pages, &mut |run, presence| {
            assert!(run.start() == next && !run.is_empty());
            next = run.end();
            runs.push((next.0, presence));
        })
        .unwrap();
    assert_eq!(next, pages.end());
    runs
}

fn may_write(model: &Model, pages: PageRange) -> Vec<bool> {
    let mut all = Vec::new();
    model
        .may_write(pages.start(), pages.len(), &mut |place, may| {
            assert_eq!(place, all.len());
            all.push(may);
        })
        .unwrap();
    all
}

const fn own(look: Look) -> Presence {
    Presence { look, file: false }
}

const HOLE: Presence = own(Look::Hole);
const PRESENT: Presence = own(Look::Present);
const CACHED: Presence = Presence { look: Look::Present, file: true };

#[test]
fn a_lookup_tells_an_area() {
    let model = model();
    let backings = EVERY_BACKING.into_iter().enumerate();
    for (place, backing) in backings {
        let at = PageNumber(place * BLOCK_PAGES);
        model.map(Some(at), BLOCK_PAGES, READ_ONLY, backing).unwrap();
        let page_order = if backing.is_of_pool() { BLOCK_PAGES.ilog2() } else { 0 };
        let expected = Mapping {
            pages: PageRange::of(at, BLOCK_PAGES),
            protection: READ_ONLY,
            backing,
            page_order: u8::try_from(page_order).unwrap(),
        };
        assert_eq!(model.mapping_at(at.plus(3)), Ok(Some(expected)));
    }
    assert_eq!(model.mapping_at(PageNumber(7 * BLOCK_PAGES)), Ok(None));
    assert_eq!(model.mapping_at(model.page_limit()), Ok(None));
}

#[test]
fn each_kind_but_special_is_watched() {
    let model = model();
    for (place, backing) in EVERY_BACKING.into_iter().enumerate() {
        let pages = model.map(None, BLOCK_PAGES, READ_WRITE, backing).unwrap();
        let result = model.watch(pages);
        if backing == Backing::Special {
            assert_eq!(result, Err(TrapError::Unsupported(pages)));
            continue;
        }
        assert_eq!(result, Ok(()), "{place}");
        // A touch is the system's to serve, or this would wait.
        store(&model, pages.start(), 7);
        assert_eq!(load(&model, pages.start()), 7);
        model.untrap(pages).unwrap();
        // No longer told, or this would wait for a reader.
        model.unmap(pages).unwrap();
    }
}

#[test]
fn watching_and_trapping_one_after_the_other() {
    let model = model();
    let trapped = |page: usize| {
        let area = model.held().areas.at(PageNumber(page)).unwrap().attributes;
        assert!(!(area.trapped && area.watched));
        (area.registered(), area.trapped)
    };
    map(&model, range(0, 8));
    model.trap(range(2, 4)).unwrap();
    model.watch(range(0, 6)).unwrap();
    assert_eq!(
        [0, 2, 4, 6].map(trapped),
        [(true, false), (true, true), (true, false), (false, false)]
    );
    model.trap(range(0, 6)).unwrap();
    assert_eq!([0, 2, 4].map(trapped), [(true, true); 3]);
    assert_eq!(
        model.mapping_at(PageNumber(0)).unwrap().unwrap().pages,
        range(0, 6),
        "one area again"
    );
    model.untrap(range(0, 8)).unwrap();
    model.watch(range(0, 8)).unwrap();
    assert_eq!(trapped(7), (true, false));
    model.mark(range(3, 4), Mark::Foreign, true).unwrap();
    assert_eq!(model.watch(range(0, 8)), Err(TrapError::Foreign(range(3, 4))));
    assert_eq!(model.watch(range(6, 10)), Err(TrapError::NoArea(range(8, 10))));
}

#[test]
fn watched_holes_can_be_filled() {
    let model = model();
    map(&model, range(0, 4));
    model.watch(range(0, 4)).unwrap();
    let staging = model.map_staging(4).unwrap().start();
    assert_eq!(model.zero(PageNumber(0), 2, Access::Write).stop, None);
    assert_eq!(model.take(PageNumber(0), staging, 2).stop, None);
    assert_eq!(
        model.violations(),
        [Violation::TakenUntrapped(PageNumber(0)), Violation::TakenUntrapped(PageNumber(1))]
    );
    assert_eq!(model.give(staging, PageNumber(0), 2).stop, None);
    assert_eq!(model.poison(PageNumber(3), 1).stop, None);
    let file = model.map(None, 4, READ_WRITE, Backing::PrivateFile).unwrap();
    model.watch(file).unwrap();
    assert_eq!(model.zero(file.start(), 1, Access::Write).stop, Some(Stop::Refused));
}

#[test]
fn populating_says_how_far_it_came_and_why() {
    let model = Model::new(ModelOptions { memory_limit_pages: Some(6), ..Default::default() });
    map(&model, range(0, 4));
    assert_eq!(populate(&model, range(0, 6), Access::Write), (4, Some(PopulateFailure::NoArea)));
    assert_eq!(model.memory_used(), 4);
    model.protect(range(1, 2), READ_ONLY).unwrap();
    model.protect(range(2, 3), NONE).unwrap();
    let protection = Some(PopulateFailure::Protection);
    assert_eq!(model.unshare(range(1, 2)), Err(INVALID));
    assert_eq!(populate(&model, range(0, 4), Access::Write), (1, protection));
    assert_eq!(populate(&model, range(0, 4), Access::Read), (2, protection));
    // A load is refused where the processor would let it pass.
    model.protect(range(0, 1), Protection { read: false, ..READ_WRITE }).unwrap();
    assert_eq!(populate(&model, range(0, 1), Access::Read), (0, protection));
    assert_eq!(model.load(0, &mut [0]), Ok(()));
    map(&model, range(4, 8));
    assert_eq!(populate(&model, range(4, 8), Access::Read), (4, None), "zeros need no memory");
    assert_eq!(populate(&model, range(4, 8), Access::Write), (2, Some(PopulateFailure::NoMemory)));
    model.watch(range(4, 8)).unwrap();
    model.discard_page(PageNumber(7));
    assert_eq!(model.poison(PageNumber(7), 1).stop, None);
    assert_eq!(populate(&model, range(6, 8), Access::Read), (1, Some(PopulateFailure::Poisoned)));
    let special = model.map(None, 1, READ_WRITE, Backing::Special).unwrap();
    assert_eq!(populate(&model, special, Access::Read), (0, Some(PopulateFailure::Special)));
}

impl Model {
    /// Makes a page a hole without a message.
    fn discard_page(&self, page: PageNumber) {
        self.held().pages.drop_page(page);
    }
}

#[test]
fn a_scan_tells_what_is_there_and_whose() {
    let model = model();
    map(&model, range(0, 8));
    store(&model, PageNumber(1), 1);
    store(&model, PageNumber(2), 1);
    load(&model, PageNumber(3));
    assert!(model.swap_out(PageNumber(2)));
    let expected =
        [(1, HOLE), (2, PRESENT), (3, own(Look::Swapped)), (4, own(Look::Zero)), (8, HOLE)];
    assert_eq!(runs(&model, range(0, 8)), expected);
    assert_eq!(runs(&model, range(4, 4)), []);
    let private = model.map(Some(PageNumber(8)), 4, READ_WRITE, Backing::PrivateFile).unwrap();
    assert_eq!(populate(&model, private, Access::Read), (4, None));
    assert_eq!(runs(&model, private), [(12, CACHED)]);
    assert_eq!((model.memory_used(), may_write(&model, private)), (1, vec![false; 4]));
    store(&model, PageNumber(9), 5);
    assert_eq!(runs(&model, private), [(9, CACHED), (10, PRESENT), (12, CACHED)]);
    assert_eq!(may_write(&model, private), [false, true, false, false]);
    assert_eq!((load(&model, PageNumber(9)), load(&model, PageNumber(10))), (5, 0));
    model.discard(private).unwrap();
    assert_eq!((runs(&model, private), load(&model, PageNumber(9))), (vec![(12, HOLE)], 0));
    for backing in [Backing::SharedFile, Backing::SharedAnonymous] {
        let shared = model.map(None, 2, READ_WRITE, backing).unwrap();
        store(&model, shared.start(), 1);
        let ends = [shared.start().0 + 1, shared.end().0];
        assert_eq!(runs(&model, shared), [(ends[0], CACHED), (ends[1], HOLE)]);
        assert_eq!(may_write(&model, shared), [false; 2]);
    }
}

#[test]
fn what_a_child_shares_may_not_be_written() {
    let model = model();
    map(&model, range(0, 4));
    store(&model, PageNumber(0), 1);
    store(&model, PageNumber(1), 1);
    load(&model, PageNumber(2));
    assert_eq!(may_write(&model, range(0, 4)), [true, true, false, false]);
    model.share_by_fork(range(0, 4));
    assert_eq!(may_write(&model, range(0, 4)), [false; 4]);
    assert_eq!(populate(&model, range(0, 1), Access::Read), (1, None));
    assert!(!may_write(&model, range(0, 1))[0]);
    assert_eq!(populate(&model, range(0, 1), Access::Write), (1, None));
    assert_eq!(may_write(&model, range(0, 4)), [true, false, false, false]);
}

#[test]
fn files_end_where_they_are_truncated() {
    let model = model();
    for backing in [Backing::SharedFile, Backing::PrivateFile, Backing::SharedAnonymous] {
        let file = model.map(None, 8, READ_WRITE, backing).unwrap();
        let page = |place: usize| file.start().plus(place);
        for place in 0..8 {
            store(&model, page(place), 9);
        }
        let part = PageRange::of(page(2), 2);
        model.protect(part, READ_ONLY).unwrap();
        // By any of its mappings; what was moved ends with the rest.
        let moved = model.remap(PageRange::of(page(6), 2), None, false).unwrap();
        model.truncate(page(1), 3).unwrap();
        let bus = |page| Err(Signal::Bus(address(&model, page)));
        for page in [page(3), page(5), moved.start()] {
            assert_eq!(model.load(address(&model, page), &mut [0]), bus(page));
            assert_eq!(model.content(page), Ok(None));
        }
        let beyond = Some(PopulateFailure::BeyondEnd);
        assert_eq!(populate(&model, PageRange::of(page(0), 6), Access::Read), (3, beyond));
        assert_eq!(populate(&model, moved, Access::Write), (0, beyond));
        assert_eq!(model.pin(moved.start()), Err(BAD_ADDRESS));
        assert_eq!(load(&model, page(2)), 9);
        model.truncate(moved.start(), 7).unwrap();
        assert_eq!((load(&model, page(5)), load(&model, moved.start())), (0, 0));
        assert_eq!(
            model.load(address(&model, moved.start().plus(1)), &mut [0]),
            bus(moved.start().plus(1))
        );
        model.unmap(file).unwrap();
        model.unmap(moved).unwrap();
    }
    map(&model, range(0, 1));
    assert_eq!(model.truncate(PageNumber(0), 1), Err(INVALID));
}

#[test]
fn truncating_is_not_told_and_ends_filling() {
    let model = model();
    let shared = model.map(None, 4, READ_WRITE, Backing::SharedAnonymous).unwrap();
    model.trap(shared).unwrap();
    // The thread would wait here if a message were raised.
    model.truncate(shared.start(), 1).unwrap();
    let second = shared.start().plus(1);
    assert_eq!(model.zero(second, 1, Access::Write).stop, Some(Stop::Other(BAD_ADDRESS)));
    let at = address(&model, second);
    assert_eq!(model.load(at, &mut [0]), Err(Signal::Bus(at)), "no fault for us");
    assert_eq!(model.zero(shared.start(), 1, Access::Write).stop, None);
}
