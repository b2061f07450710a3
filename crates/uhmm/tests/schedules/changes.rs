//! The program changes its address space under devices that use it.

use shuttle::thread;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use uhmm::{
    Attachment, DeviceFaultError, StayCause,
    mm::{Protection, model::Model},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

use crate::{
    device::{TestDevice, Worker},
    explore::explore,
    world::{READ_WRITE, World, bytes, load, map, pages, store, word},
};

/// Additions of a device, and which of them must be seen at the end.
#[derive(Default)]
struct Additions {
    /// Whether the content from before has ended.
    over: AtomicBool,
    all: AtomicU64,
    after: AtomicU64,
}

impl Additions {
    /// Adds once where there is an area. An addition that begins after the old content ended must
    /// survive. One to a page that is being discarded may be refused.
    fn add(&self, device: &Attachment<TestDevice, Model>, address: usize) {
        let over = self.over.load(SeqCst);
        self.all.fetch_add(1, SeqCst);
        match Worker::new(device, 0).add(address, 1) {
            Ok(_) => _ = self.after.fetch_add(u64::from(over), SeqCst),
            Err(DeviceFaultError { cause: StayCause::NoArea, .. }) => {
                assert!(!over, "an area is there and the device was told otherwise");
            }
            Err(DeviceFaultError { cause: StayCause::Discarded, .. }) => (),
            Err(error) => panic!("{error}"),
        }
    }

    fn check(&self, value: u64) {
        let bounds = self.after.load(SeqCst)..=self.all.load(SeqCst);
        assert!(bounds.contains(&value), "{value} additions are left, not {bounds:?}");
    }
}

#[test]
fn an_area_is_unmapped_and_mapped_again() {
    explore("unmap and map again", &["ended_by_unmap", "changes"], || {
        let range = pages(BLOCK_PAGES - 2, BLOCK_PAGES + 2);
        let world = World::with(range);
        let devices = [world.attach(2, 1), world.attach(4, 1)];
        let mine = word(range.start(), 0);
        let theirs = word(range.start(), 1);
        let additions = Additions::default();
        store(&world.model, mine, 7);
        thread::scope(|scope| {
            for device in &devices {
                let additions = &additions;
                scope.spawn(move || {
                    for _ in 0..3 {
                        additions.add(device, theirs);
                    }
                });
            }
            scope.spawn(|| {
                world.model.unmap(range).unwrap();
                map(&world.model, range);
                additions.over.store(true, SeqCst);
                assert_eq!(load(&world.model, mine), 0, "what was unmapped is gone");
                store(&world.model, mine, 9);
            });
        });
        assert_eq!(load(&world.model, mine), 9);
        additions.check(load(&world.model, theirs));
        drop(devices);
        world.end()
    });
}

#[test]
fn an_area_is_mapped_over() {
    explore("map over", &["changes"], || {
        let range = pages(0, BLOCK_PAGES);
        let part = pages(2, 5);
        let world = World::with(range);
        let device = world.attach(4, 1);
        let additions = Additions::default();
        let kept = word(PageNumber(1), 0);
        let theirs = word(PageNumber(3), 0);
        store(&world.model, kept, 7);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..3 {
                    additions.add(&device, theirs);
                    Worker::new(&device, 0).add(kept, 1).unwrap();
                }
            });
            scope.spawn(|| {
                map(&world.model, part);
                additions.over.store(true, SeqCst);
                world.model.fetch_add(kept, 1).unwrap();
            });
        });
        assert_eq!(load(&world.model, kept), 11);
        additions.check(load(&world.model, theirs));
        drop(device);
        world.end()
    });
}

#[test]
fn pages_are_discarded() {
    explore("discard", &["ended_by_discard", "changes"], || {
        let range = pages(0, BLOCK_PAGES + 2);
        let part = pages(1, BLOCK_PAGES + 1);
        let world = World::with(range);
        let device = world.attach(3, 1);
        let additions = Additions::default();
        let kept = word(PageNumber(0), 0);
        let mine = word(PageNumber(2), 0);
        let theirs = word(PageNumber(BLOCK_PAGES), 0);
        store(&world.model, mine, 7);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..3 {
                    additions.add(&device, theirs);
                    let mut worker = Worker::new(&device, 0);
                    if let Err(error) = worker.load(mine) {
                        assert_eq!(error.cause, StayCause::Discarded);
                    }
                    worker.add(kept, 1).unwrap();
                }
            });
            scope.spawn(|| device.migrate(bytes(range)).unwrap());
            scope.spawn(|| {
                world.model.discard(part).unwrap();
                additions.over.store(true, SeqCst);
                assert_eq!(load(&world.model, mine), 0, "what was discarded is gone");
                store(&world.model, mine, 9);
            });
        });
        assert_eq!(load(&world.model, mine), 9);
        assert_eq!(load(&world.model, kept), 3);
        additions.check(load(&world.model, theirs));
        drop(device);
        world.end()
    });
}

/// Additions at an address whose pages move to another: all are found, here or there.
fn remapped(keep: bool) -> uhmm::CounterValues {
    let from = pages(BLOCK_PAGES + 3, BLOCK_PAGES + 7);
    let to = pages(6, 10);
    let world = World::with(from);
    let device = world.attach(4, 2);
    let done = AtomicU64::new(0);
    let place = from.start().plus(2);
    store(&world.model, word(place, 1), 7);
    // From here on the area is trapped, and its adoption goes with it.
    Worker::new(&device, 0).load(word(place, 0)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut worker = Worker::new(&device, 0);
            for _ in 0..3 {
                match worker.add(word(place, 0), 1) {
                    Ok(_) => _ = done.fetch_add(1, SeqCst),
                    Err(error) => assert!(!keep && error.cause == StayCause::NoArea, "{error}"),
                }
            }
        });
        scope.spawn(|| device.migrate(bytes(from)).unwrap());
        scope.spawn(|| {
            assert_eq!(world.model.remap(from, Some(to.start()), keep), Ok(to));
            Worker::new(&device, 1).add(word(to.start(), 0), 1).unwrap();
        });
    });
    let now = to.start().plus(2);
    assert_eq!(load(&world.model, word(now, 1)), 7, "content follows its page");
    let left = if keep { load(&world.model, word(place, 0)) } else { 0 };
    assert_eq!(load(&world.model, word(now, 0)) + left, done.load(SeqCst));
    assert_eq!(load(&world.model, word(to.start(), 0)), 1);
    drop(device);
    world.end()
}

#[test]
fn pages_are_moved_to_another_address() {
    explore("remap", &["remapped", "changes"], || remapped(false));
}

#[test]
fn pages_are_moved_and_their_area_is_kept() {
    explore("remap and keep", &["remapped", "changes"], || remapped(true));
}

#[test]
fn pages_are_moved_onto_others() {
    explore("remap onto others", &["remapped", "ended_by_unmap"], || {
        let from = pages(BLOCK_PAGES + 1, BLOCK_PAGES + 3);
        let to = pages(1, 3);
        let world = World::with(pages(0, 2 * BLOCK_PAGES));
        let device = world.attach(8, 1);
        let sum = AtomicU64::new(0);
        store(&world.model, word(from.start(), 0), 7);
        store(&world.model, word(to.start(), 0), 1);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut worker = Worker::new(&device, 0);
                worker.load(word(to.start(), 0)).unwrap();
                match worker.add(word(from.start(), 0), 1) {
                    Ok(_) => _ = sum.fetch_add(1, SeqCst),
                    Err(error) => assert_eq!(error.cause, StayCause::NoArea),
                }
                let seen = worker.load(word(to.start(), 0)).unwrap();
                assert!([1, 7, 8].contains(&seen), "{seen}");
            });
            scope.spawn(|| {
                assert_eq!(world.model.remap(from, Some(to.start()), false), Ok(to));
                assert!([7, 8].contains(&load(&world.model, word(to.start(), 0))));
            });
        });
        assert_eq!(load(&world.model, word(to.start(), 0)), 7 + sum.load(SeqCst));
        drop(device);
        world.end()
    });
}

#[test]
fn adopting_and_migrating_meet_other_memory_at_the_same_address() {
    explore("other memory at the same address", &["changes"], || {
        let range = pages(2, BLOCK_PAGES + 2);
        let world = World::open();
        let device = world.attach(BLOCK_PAGES, 1);
        map(&world.model, range);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..3 {
                    // Where the area is just not there it is an error, and nothing is adopted.
                    let _ = world.space.adopt(bytes(range));
                    device.migrate(bytes(range)).unwrap();
                }
            });
            scope.spawn(|| {
                for round in 0..2 {
                    for page in [2, 7, BLOCK_PAGES].map(PageNumber) {
                        store(&world.model, word(page, 0), round + 1);
                        assert_eq!(load(&world.model, word(page, 0)), round + 1);
                    }
                    world.model.unmap(range).unwrap();
                    map(&world.model, range);
                    for page in [3, 7].map(PageNumber) {
                        assert_eq!(load(&world.model, word(page, 0)), 0, "new memory is zeros");
                    }
                }
                store(&world.model, word(range.start(), 1), 5);
            });
        });
        assert_eq!(load(&world.model, word(range.start(), 1)), 5);
        drop(device);
        world.end()
    });
}

#[test]
fn an_area_is_another_once_it_was_looked_at() {
    explore("another area once it was looked at", &["to_device_fault"], || {
        let range = pages(1, 3);
        let world = World::with(range);
        let device = world.attach(4, 1);
        thread::scope(|scope| {
            scope.spawn(|| match Worker::new(&device, 0).add(word(range.start(), 0), 1) {
                Ok(_) => {}
                Err(error) => assert!([StayCause::NoArea, StayCause::Stack].contains(&error.cause)),
            });
            scope.spawn(|| {
                world.model.unmap(range).unwrap();
                world.model.map_stack(range).unwrap();
            });
        });
        assert_eq!(load(&world.model, word(range.start(), 0)), 0, "new memory is zeros");
        let error = Worker::new(&device, 0).load(word(range.start(), 0)).unwrap_err();
        assert_eq!(error.cause, StayCause::Stack);
        drop(device);
        world.end()
    });
}

/// The system gives the addresses that one thread leaves to another that moves its pages, and tells
/// of the two in any order. What moved there may be cut short at once, and grow again.
fn moved_to_where_others_were(moves_away: bool, is_cut: bool) -> uhmm::CounterValues {
    let (left, from) = (pages(0, 3), pages(BLOCK_PAGES, BLOCK_PAGES + 3));
    let world = World::with(from);
    map(&world.model, left);
    world.space.adopt(bytes(left)).unwrap();
    // What is free else is too small.
    map(&world.model, pages(3, BLOCK_PAGES));
    map(&world.model, pages(BLOCK_PAGES + 4, 3 * BLOCK_PAGES));
    let device = world.attach(2 * BLOCK_PAGES, 1);
    let content = |page: PageNumber| page.0 as u64 + 100;
    for page in left.pages().chain(from.pages()) {
        store(&world.model, word(page, 0), content(page));
    }
    device.migrate(bytes(left)).unwrap();
    device.migrate(bytes(from)).unwrap();
    let to = pages(3 * BLOCK_PAGES, 3 * BLOCK_PAGES + 3);
    map(&world.model, to);
    let mut arrived = None;
    thread::scope(|scope| {
        scope.spawn(|| {
            if moves_away {
                assert_eq!(world.model.remap(left, Some(to.start()), false), Ok(to));
            } else {
                world.model.unmap(left).unwrap();
            }
        });
        scope.spawn(|| {
            arrived = world.model.remap(from, None, false).ok();
            let Some(at) = arrived else { return };
            if is_cut {
                let (kept, cut) = (PageRange::of(at.start(), 1), at.start().plus(1));
                world.model.unmap(PageRange::new(cut, at.end())).unwrap();
                if world.model.grow(kept, at.len()).is_ok() {
                    assert_eq!(load(&world.model, word(cut, 0)), 0, "what grew is zeros");
                }
                arrived = Some(kept);
            } else {
                assert_eq!(load(&world.model, word(at.start(), 0)), content(from.start()));
                device.migrate(bytes(PageRange::of(at.start().plus(2), 1))).unwrap();
            }
        });
    });
    let at = arrived.unwrap_or(from);
    for (page, old) in at.pages().zip(from.pages()) {
        assert_eq!(load(&world.model, word(page, 0)), content(old), "what moved is as it was");
    }
    if moves_away {
        for (page, old) in to.pages().zip(left.pages()) {
            assert_eq!(load(&world.model, word(page, 0)), content(old), "what moved away too");
        }
    }
    drop(device);
    world.end()
}

#[test]
fn pages_are_moved_to_where_others_were_unmapped() {
    explore("remap to where others were unmapped", &["remapped", "changes_waited"], || {
        moved_to_where_others_were(false, false)
    });
}

#[test]
fn pages_are_moved_to_where_others_moved_away() {
    explore("remap to where others moved away", &["remapped", "changes_waited"], || {
        moved_to_where_others_were(true, false)
    });
}

#[test]
fn pages_are_moved_to_where_others_were_unmapped_and_cut_short() {
    explore("remap to where others were, and cut", &["remapped", "changes_waited"], || {
        moved_to_where_others_were(false, true)
    });
}

#[test]
fn pages_are_moved_to_where_others_moved_away_and_cut_short() {
    explore("remap to where others moved from, and cut", &["remapped", "changes_waited"], || {
        moved_to_where_others_were(true, true)
    });
}

/// The unmapping that makes room for the second move finds a registered area, as does one that is told
/// late: that of the second move itself.
#[test]
fn pages_are_moved_onto_ones_that_just_moved_there_and_their_area_grows() {
    explore("remap and grow onto what was just moved", &["remapped", "changes_outdated"], || {
        let (first, second) = (pages(0, 4), pages(BLOCK_PAGES, BLOCK_PAGES + 2));
        let (to, onto) = (PageNumber(3 * BLOCK_PAGES), PageNumber(3 * BLOCK_PAGES + 1));
        let world = World::with(first);
        map(&world.model, second);
        world.space.adopt(bytes(second)).unwrap();
        let device = world.attach(2 * BLOCK_PAGES, 1);
        let content = |page: PageNumber| page.0 as u64 + 100;
        for page in first.pages().chain(second.pages()) {
            store(&world.model, word(page, 0), content(page));
        }
        device.migrate(bytes(first)).unwrap();
        device.migrate(bytes(second)).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                // Where a change is not told yet there is neither of the two to be found.
                let _ = Worker::new(&device, 0).load(word(to, 0));
            });
            scope.spawn(|| {
                world.model.remap(first, Some(to), false).unwrap();
                let grown = world.model.remap_and_grow(second, 3, Some(onto)).unwrap();
                for (place, page) in grown.pages().enumerate() {
                    let old = second.pages().nth(place).map_or(0, content);
                    assert_eq!(
                        load(&world.model, word(page, 0)),
                        old,
                        "page {place} of what moved"
                    );
                }
            });
        });
        assert_eq!(load(&world.model, word(to, 0)), content(first.start()));
        drop(device);
        world.end()
    });
}

/// The unmapping makes room for less than it ends, and what moves there moves on at once.
#[test]
fn pages_are_moved_to_a_part_of_what_was_unmapped_and_on() {
    explore("remap to a part and on", &["remapped", "ended_by_unmap"], || {
        let (first, second) = (pages(0, 4), pages(BLOCK_PAGES, BLOCK_PAGES + 2));
        let room = pages(3 * BLOCK_PAGES, 3 * BLOCK_PAGES + 4);
        let world = World::with(first);
        map(&world.model, second);
        world.space.adopt(bytes(second)).unwrap();
        let device = world.attach(2 * BLOCK_PAGES, 1);
        let content = |page: PageNumber| page.0 as u64 + 100;
        for page in second.pages() {
            store(&world.model, word(page, 0), content(page));
        }
        device.migrate(bytes(first)).unwrap();
        device.migrate(bytes(second)).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = Worker::new(&device, 0).load(word(room.start(), 0));
            });
            scope.spawn(|| {
                world.model.remap(first, Some(room.start()), false).unwrap();
                world.model.unmap(room).unwrap();
                let there = world.model.remap(second, Some(room.start()), false).unwrap();
                let on = world.model.remap(there, Some(PageNumber(0)), true).unwrap();
                world.model.unmap(there).unwrap();
                for (page, old) in on.pages().zip(second.pages()) {
                    assert_eq!(load(&world.model, word(page, 0)), content(old), "what moved");
                }
            });
        });
        drop(device);
        world.end()
    });
}

/// What moved ends at once, in part or whole, and an area grows over where it was, with nothing told of
/// that: as the unmapping is looked at there may be an area again.
fn ended_and_grown_over(whole: bool) -> uhmm::CounterValues {
    let (below, from) = (pages(BLOCK_PAGES, BLOCK_PAGES + 2), pages(0, 4));
    let to = PageRange::of(below.end(), from.len());
    let world = World::with(from);
    map(&world.model, below);
    let apart = Protection { execute: true, ..READ_WRITE };
    world.model.protect(below, apart).unwrap();
    world.space.adopt(bytes(below)).unwrap();
    let device = world.attach(2 * BLOCK_PAGES, 1);
    let content = |page: PageNumber| page.0 as u64 + 100;
    for page in from.pages().chain(below.pages()) {
        store(&world.model, word(page, 0), content(page));
    }
    device.migrate(bytes(from)).unwrap();
    device.migrate(bytes(below)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = Worker::new(&device, 0).load(word(below.start(), 0));
        });
        scope.spawn(|| {
            world.model.remap(from, Some(to.start()), false).unwrap();
            let left = if whole { 0 } else { 1 };
            world.model.unmap(PageRange::new(to.start().plus(left), to.end())).unwrap();
            let grown = if whole { below } else { PageRange::of(to.start(), left) };
            world.model.grow(grown, grown.len() + to.len() - left).unwrap();
            for (page, old) in to.pages().zip(from.pages()) {
                let kept = page.since(to.start()) < left;
                let expected = if kept { content(old) } else { 0 };
                assert_eq!(load(&world.model, word(page, 0)), expected, "{page:?}");
            }
        });
    });
    for page in below.pages() {
        assert_eq!(load(&world.model, word(page, 0)), content(page));
    }
    drop(device);
    world.end()
}

#[test]
fn what_moved_is_cut_short_and_grows_again() {
    explore("cut short and grown again", &["remapped", "ended_by_unmap"], || {
        ended_and_grown_over(false)
    });
}

#[test]
fn what_moved_is_unmapped_and_others_grow_over_it() {
    explore("others grow over what moved", &["remapped", "ended_by_unmap"], || {
        ended_and_grown_over(true)
    });
}

#[test]
fn pages_that_were_touched_again_after_a_discard_migrate() {
    explore("discards by two threads", &["changes"], || {
        let areas = [pages(0, 3), pages(BLOCK_PAGES, BLOCK_PAGES + 3)];
        let world = World::with(areas[0]);
        map(&world.model, areas[1]);
        world.space.adopt(bytes(areas[1])).unwrap();
        let device = world.attach(2 * BLOCK_PAGES, 1);
        for area in areas {
            device.migrate(bytes(area)).unwrap();
        }
        thread::scope(|scope| {
            for area in areas {
                let world = &world;
                scope.spawn(move || {
                    for _ in 0..2 {
                        world.model.discard(area).unwrap();
                        store(&world.model, word(area.start(), 0), 7);
                    }
                });
            }
        });
        for area in areas {
            let migration = device.migrate(bytes(area)).unwrap();
            assert_eq!((migration.moved(), migration.stayed()), (area.len(), 0));
        }
        drop(device);
        world.end()
    });
}
