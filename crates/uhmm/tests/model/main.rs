//! An address space on the model, from its opening to its closing, with threads of the program and a
//! device: small enough for the interpreter, which finds undefined behaviour and data races in it.
#![cfg(not(shuttle))]
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "tests are off the fault path"
)]

mod batches;
#[path = "../schedules/device.rs"]
mod device;
mod forks;
#[path = "../support/random_numbers.rs"]
mod random_numbers;
mod set_aside;
mod shared;
#[path = "../schedules/world.rs"]
mod world;

use std::thread;

use device::{TestDevice, Worker};
use uhmm::{
    Options, PageLocation, StayCause, Stayed,
    engine_memory::EngineBox,
    mm::{
        Exclusion, Stop,
        injected::{Call, Failure, Injected},
        model::{Model, ModelOptions, Signal},
    },
    units::{BLOCK_PAGES, PageNumber},
};
use world::{NO_ACCESS, READ_ONLY, READ_WRITE, World, bytes, load, map, pages, store, word};

#[test]
fn pages_go_to_a_device_and_come_back_on_faults() {
    let range = pages(BLOCK_PAGES - 3, BLOCK_PAGES + 3);
    let world = World::with(range);
    let device = world.attach(BLOCK_PAGES, 1);
    for page in range.pages().skip(2) {
        store(&world.model, word(page, 0), page.0 as u64);
    }
    let report = device.migrate(bytes(range)).unwrap();
    assert_eq!((report.moved(), report.stayed()), (6, 0));
    assert_eq!(world.space.locate(word(range.start(), 0)), PageLocation::Device(device.index()));
    let mut worker = Worker::new(&device, 0);
    for page in range.pages() {
        worker.add(word(page, 1), 5).unwrap();
    }
    for page in range.pages() {
        let stored = if page.since(range.start()) < 2 { 0 } else { page.0 as u64 };
        assert_eq!(load(&world.model, word(page, 0)), stored);
        assert_eq!(load(&world.model, word(page, 1)), 5);
    }
    assert!(world.space.counters().cpu_faults > 0);
    drop(worker);
    drop(device);
    world.end();
}

#[test]
fn pages_are_copied_to_a_device_and_come_back_on_faults() {
    let range = pages(BLOCK_PAGES - 3, BLOCK_PAGES + 3);
    let world = World::with(range);
    // One of four transfers fails; whoever asked asks again.
    for fails_every in [0, 4] {
        let device = world.attach_copying(4, 1, fails_every);
        let mut worker = Worker::new(&device, 0);
        for page in range.pages() {
            store(&world.model, word(page, 0), page.0 as u64);
            while worker.add(word(page, 1), 5).is_err() {}
        }
        drop(worker);
        let mut tries = 0;
        while device.bring_all_back().stayed() > 0 {
            tries += 1;
            assert!(tries < 10, "a transfer fails again and again");
        }
        for page in range.pages() {
            let added = if fails_every == 0 { 5 } else { 10 };
            assert_eq!(load(&world.model, word(page, 0)), page.0 as u64);
            assert_eq!(load(&world.model, word(page, 1)), added);
        }
        drop(device);
    }
    assert!(world.space.counters().copied_out > 0);
    world.end();
}

#[test]
fn pages_go_to_coherent_memory_and_the_program_goes_on() {
    let range = pages(BLOCK_PAGES - 3, BLOCK_PAGES + 3);
    let world = World::with(range);
    let device = world.attach_coherent(4);
    for page in range.pages().skip(2) {
        store(&world.model, word(page, 0), page.0 as u64);
    }
    let report = device.migrate(bytes(range)).unwrap();
    assert_eq!((report.moved(), report.stayed()), (6, 0));
    // The later ones took frames of the earlier ones, and room may have been made for one more.
    let used = device.frames_used();
    assert!((3..=4).contains(&used), "{used} frames are used");
    let last = PageNumber(range.end().0 - 1);
    assert_eq!(world.space.locate(word(last, 0)), PageLocation::Device(device.index()));
    for page in range.pages() {
        let stored = if page.since(range.start()) < 2 { 0 } else { page.0 as u64 };
        assert_eq!(load(&world.model, word(page, 0)), stored);
        store(&world.model, word(page, 1), 5);
    }
    assert_eq!(world.space.counters().cpu_faults, 0);
    assert_eq!(device.bring_all_back().moved(), used);
    for page in range.pages() {
        assert_eq!(load(&world.model, word(page, 1)), 5);
    }
    drop(device);
    world.end();
}

#[test]
fn a_small_device_evicts() {
    let range = pages(0, 2 * BLOCK_PAGES);
    let world = World::with(range);
    let device = world.attach(2, 1);
    let places = [0, 1, 2, BLOCK_PAGES, BLOCK_PAGES + 1, 2 * BLOCK_PAGES - 1].map(PageNumber);
    let mut worker = Worker::new(&device, 0);
    for round in 1..3 {
        for page in places {
            assert_eq!(worker.add(word(page, 0), 1), Ok(round - 1));
        }
    }
    assert!(world.space.counters().to_system_eviction >= 10);
    for page in places {
        assert_eq!(load(&world.model, word(page, 0)), 2);
    }
    drop(worker);
    drop(device);
    world.end();
}

#[test]
fn a_whole_block_goes_from_device_to_device_and_back() {
    let range = pages(BLOCK_PAGES, 2 * BLOCK_PAGES);
    let world = World::with(range);
    let [first, second] = [world.attach(BLOCK_PAGES, 1), world.attach(BLOCK_PAGES, 1)];
    for page in range.pages().step_by(3) {
        store(&world.model, word(page, 0), page.0 as u64);
    }
    assert_eq!(first.migrate(bytes(range)).unwrap().moved(), BLOCK_PAGES);
    assert_eq!(second.migrate(bytes(range)).unwrap().moved(), BLOCK_PAGES);
    assert_eq!(Worker::new(&second, 0).load(word(range.start(), 0)), Ok(range.start().0 as u64));
    assert_eq!(world.space.bring_back(bytes(range)).unwrap().moved(), BLOCK_PAGES);
    for page in range.pages().step_by(3) {
        assert_eq!(load(&world.model, word(page, 0)), page.0 as u64);
    }
    drop((first, second));
    world.end();
}

#[test]
fn what_cannot_be_written_goes_where_the_program_has_one_thread() {
    let range = pages(BLOCK_PAGES - 4, BLOCK_PAGES + 4);
    let (first, last) = (range.start(), PageNumber(range.end().0 - 1));
    for protection in [READ_ONLY, NO_ACCESS] {
        let world = World::with(range);
        let device = world.attach(BLOCK_PAGES, 1);
        let mut worker = Worker::new(&device, 0);
        for page in range.pages() {
            store(&world.model, word(page, 0), page.0 as u64);
        }
        world.model.share_by_fork(pages(first.0, first.0 + 2));
        world.model.pin(last).unwrap();
        world.model.protect(range, protection).unwrap();
        assert_eq!(device.migrate(bytes(range)).unwrap().stayed(), range.len());
        world.model.set_alone(true);
        let report = device.migrate(bytes(range)).unwrap();
        assert_eq!((report.moved(), report.stayed()), (range.len() - 1, 1));
        let stayed: Vec<_> = report.causes().collect();
        let pinned = pages(last.0, last.0 + 1);
        assert_eq!(stayed, [Stayed { pages: pinned, cause: StayCause::Busy }]);
        let there = world.space.locate(word(first, 0));
        assert_eq!(there, PageLocation::Device(device.index()));
        assert_eq!(worker.add(word(first, 0), 1).unwrap_err().cause, StayCause::Protection);
        let read = worker.load(word(first, 0)).map_err(|error| error.cause);
        let may_read = protection == READ_ONLY;
        assert_eq!(read, if may_read { Ok(first.0 as u64) } else { Err(StayCause::Protection) });
        world.model.protect(range, READ_WRITE).unwrap();
        for page in range.pages() {
            assert_eq!(load(&world.model, word(page, 0)), page.0 as u64);
        }
        drop(worker);
        drop(device);
        world.end();
    }
}

#[test]
fn what_a_device_could_not_write_goes_back_as_it_came() {
    let range = pages(BLOCK_PAGES - 2, BLOCK_PAGES + 2);
    let world = World::with(range);
    world.model.set_alone(true);
    for tells in [true, false] {
        let device = world.attach_copying(4, 1, 0);
        if !tells {
            device.device().hide_writes();
        }
        for protection in [READ_ONLY, READ_WRITE] {
            for page in range.pages() {
                store(&world.model, word(page, 0), page.0 as u64);
            }
            world.model.protect(range, protection).unwrap();
            world.space.protection_changed(bytes(range)).unwrap();
            let report = device.migrate(bytes(range)).unwrap();
            assert_eq!((report.moved(), report.stayed()), (4, 0));
            let mut worker = Worker::new(&device, 0);
            for page in range.pages() {
                assert_eq!(worker.load(word(page, 0)), Ok(page.0 as u64));
            }
            drop(worker);
            let before = world.space.counters();
            assert_eq!(device.bring_back(bytes(range)).unwrap().moved(), 4);
            let after = world.space.counters();
            let copied = after.copied_out - before.copied_out;
            assert_eq!(copied, if tells || protection == READ_ONLY { 0 } else { 4 });
            assert_eq!(after.returned_clean - before.returned_clean, 4 - copied);
            world.model.protect(range, READ_WRITE).unwrap();
            for page in range.pages() {
                assert_eq!(load(&world.model, word(page, 0)), page.0 as u64);
            }
        }
        drop(device);
    }
    world.end();
}

#[test]
fn what_may_not_be_done_is_refused_from_when_it_is_told_or_met() {
    let range = pages(BLOCK_PAGES - 2, BLOCK_PAGES + 2);
    let (first, last) = (range.start(), PageNumber(range.end().0 - 1));
    let world = World::with(range);
    let device = world.attach(BLOCK_PAGES, 1);
    let mut worker = Worker::new(&device, 0);
    let mut expected = 0;
    for protection in [READ_ONLY, NO_ACCESS] {
        for told in [true, false] {
            world.model.protect(range, READ_WRITE).unwrap();
            assert_eq!(worker.add(word(first, 0), 1), Ok(expected));
            store(&world.model, word(last, 0), 3);
            world.model.protect(range, protection).unwrap();
            if told {
                world.space.protection_changed(bytes(range)).unwrap();
            } else {
                // Nobody knows.
                assert_eq!(worker.add(word(first, 1), 0), Ok(0));
                let one = pages(last.0, last.0 + 1);
                let stayed: Vec<_> = device.migrate(bytes(one)).unwrap().causes().collect();
                assert_eq!(stayed, [Stayed { pages: one, cause: StayCause::Protection }]);
            }
            expected += 1;
            let refused = worker.add(word(first, 0), 1).unwrap_err();
            assert_eq!(refused.cause, StayCause::Protection);
            let read = worker.load(word(first, 0)).map_err(|error| error.cause);
            let may_read = protection == READ_ONLY;
            assert_eq!(read, if may_read { Ok(expected) } else { Err(StayCause::Protection) });
            let there = world.space.locate(word(first, 0));
            assert_eq!(there, PageLocation::Device(device.index()));
        }
    }
    world.model.protect(range, READ_WRITE).unwrap();
    assert_eq!(load(&world.model, word(first, 0)), expected);
    drop(worker);
    drop(device);
    world.end();
}

#[test]
fn what_is_unmapped_moved_or_discarded_goes_with_it() {
    let range = pages(0, BLOCK_PAGES + 4);
    let world = World::with(range);
    let model = &world.model;
    let device = world.attach(2 * BLOCK_PAGES, 1);
    for page in range.pages() {
        store(model, word(page, 0), 7);
    }
    assert_eq!(device.migrate(bytes(range)).unwrap().stayed(), 0);
    model.unmap(pages(0, 1)).unwrap();
    map(model, pages(1, 2));
    model.discard(pages(2, 3)).unwrap();
    let to = pages(2 * BLOCK_PAGES + 1, 2 * BLOCK_PAGES + 3);
    assert_eq!(model.remap(pages(3, 5), Some(to.start()), false), Ok(to));
    device.settle();
    let mut worker = Worker::new(&device, 0);
    assert_eq!(worker.load(word(PageNumber(0), 0)).unwrap_err().cause, StayCause::NoArea);
    for page in [1, 2].map(PageNumber) {
        assert_eq!(worker.load(word(page, 0)), Ok(0));
        assert_eq!(load(model, word(page, 0)), 0);
    }
    for page in [to.start().0, to.start().0 + 1, 5, BLOCK_PAGES + 3].map(PageNumber) {
        assert_eq!(worker.add(word(page, 0), 1), Ok(7));
        assert_eq!(load(model, word(page, 0)), 8);
    }
    let counters = world.space.counters();
    assert!(counters.ended_by_unmap > 0 && counters.ended_by_discard > 0 && counters.remapped > 0);
    drop(worker);
    drop(device);
    world.end();
}

#[test]
fn threads_and_devices_share_words() {
    const ROUNDS: u64 = if cfg!(miri) { 2 } else { 200 };
    let range = pages(BLOCK_PAGES - 2, BLOCK_PAGES + 2);
    let world = World::with(range);
    let devices = [world.attach(2, 1), world.attach(3, 1)];
    thread::scope(|scope| {
        for device in &devices {
            scope.spawn(move || {
                let mut worker = Worker::new(device, 0);
                for _ in 0..ROUNDS {
                    for page in range.pages() {
                        worker.add(word(page, 0), 1).unwrap();
                    }
                }
            });
        }
        for _ in 0..ROUNDS {
            for page in range.pages() {
                world.model.fetch_add(word(page, 0), 1).unwrap();
            }
        }
    });
    for page in range.pages() {
        assert_eq!(load(&world.model, word(page, 0)), 3 * ROUNDS);
    }
    drop(devices);
    world.end();
}

#[test]
fn a_space_closes_with_pages_away() {
    let range = pages(1, BLOCK_PAGES);
    let World { model, space } = World::with(range);
    let world = World { model: model.clone(), space };
    let device = world.attach(BLOCK_PAGES, 1);
    Worker::new(&device, 0).add(word(PageNumber(2), 0), 9).unwrap();
    world.end();
    assert_eq!(load(&model, word(PageNumber(2), 0)), 9);
    assert_eq!(load(&model, word(PageNumber(3), 0)), 0, "nobody traps it any more");
    let refused = Worker::new(&device, 0).load(word(PageNumber(2), 0)).unwrap_err();
    assert_eq!(refused.cause, StayCause::Closed);
}

#[test]
fn without_engine_memory_a_page_comes_back_with_those_before_it() {
    const HALF: usize = BLOCK_PAGES / 2;
    let range = pages(0, BLOCK_PAGES);
    let world = World::with(range);
    let device = world.attach(BLOCK_PAGES, 1);
    for page in range.pages() {
        store(&world.model, word(page, 0), page.0 as u64);
    }
    assert_eq!(device.migrate(bytes(range)).unwrap().moved(), BLOCK_PAGES);
    let memory = world.space.engine_memory().clone();
    // There is room for what a report lists: this one does.
    let listed = device.migrate(bytes(pages(2 * BLOCK_PAGES, 2 * BLOCK_PAGES + 1))).unwrap();
    assert_eq!(listed.causes().count(), 1);
    let mut taken = Vec::new();
    // None is left for the record of two runs.
    for size in [4096, 16] {
        while let Ok(one) = EngineBox::<[u8]>::try_zeroed(&memory, size) {
            taken.push(one);
        }
    }
    let touched = HALF + 2;
    assert_eq!(load(&world.model, word(PageNumber(touched), 0)), touched as u64);
    for page in range.pages() {
        let back = (HALF..=touched).contains(&page.0);
        let at = world.space.locate(word(page, 0));
        let expected =
            if back { PageLocation::System } else { PageLocation::Device(device.index()) };
        assert_eq!(at, expected, "page {page:?}");
    }
    // A part of a block that cannot be recorded stays.
    let part = bytes(pages(HALF, HALF + 1));
    let report = device.migrate(part).unwrap();
    assert_eq!((report.moved(), report.stayed()), (0, 1));
    assert_eq!(report.causes().next().unwrap().cause, StayCause::NoMemory);
    drop(taken);
    assert_eq!(device.migrate(part).unwrap().moved(), 1);
    for page in range.pages() {
        assert_eq!(load(&world.model, word(page, 0)), page.0 as u64);
    }
    drop(device);
    world.end();
}

#[test]
fn a_page_whose_access_failed_for_memory_keeps_its_content() {
    let range = pages(0, 2);
    let model = Model::new(ModelOptions::default());
    let mm = Injected::new(model.clone());
    let injections = mm.injections();
    let options = Options::new().engine_memory(Options::LEAST_ENGINE_MEMORY);
    let space = options.open_on(mm).unwrap();
    map(&model, range);
    space.adopt(bytes(range)).unwrap();
    let memory = space.engine_memory();
    let device = TestDevice::new(memory, space.page_size(), space.page_limit(), 1, None);
    let device = space.attach(device, BLOCK_PAGES).unwrap();
    store(&model, word(range.start(), 0), 7);
    assert_eq!(device.migrate(bytes(range)).unwrap().moved(), 2);
    let no_memory = Failure::Stop { after: 0, stop: Stop::NoMemory };
    injections.inject(Call::Copy, 1, no_memory);
    injections.inject(Call::Give, 1, no_memory);
    let mut word_there = [0; 8];
    let failed = model.load(word(range.start(), 0), &mut word_there);
    assert!(matches!(failed, Err(Signal::Bus(_))), "{failed:?}");
    assert_eq!(space.counters().failed_for_memory, 1);
    assert_eq!(space.bring_back(bytes(range)).unwrap().moved(), 2);
    assert_eq!(load(&model, word(range.start(), 0)), 7);
    drop(device);
    space.close().unwrap();
    assert_eq!(model.violations(), []);
}

#[test]
fn a_control_block_stays_while_its_thread_lives() {
    let range = pages(0, 4);
    let world = World::open();
    let device = world.attach(4, 1);
    map(&world.model, range);
    world.model.exclude(pages(1, 2), Exclusion::ThreadControlBlock);
    world.space.adopt(bytes(range)).unwrap();
    let first = device.migrate(bytes(range)).unwrap();
    assert_eq!(first.moved(), 3);
    let stayed = Stayed { pages: pages(1, 2), cause: StayCause::Kept };
    assert!(first.causes().eq([stayed]));

    // The thread ends, and other memory gets the addresses.
    world.model.end_exclusions();
    world.model.unmap(range).unwrap();
    map(&world.model, range);
    let second = device.migrate(bytes(range)).unwrap();
    assert_eq!(second.moved(), 4);

    drop(device);
    world.end();
}
