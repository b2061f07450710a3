//! Devices go and address spaces close while others go on.

use shuttle::thread;
use std::sync::{
    Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
};
use uhmm::{
    CounterValues, StayCause,
    units::{BLOCK_PAGES, PageNumber},
};

use crate::{
    device::Worker,
    explore::explore,
    world::{World, bytes, check, load, map, pages, store, word},
};

#[test]
fn a_space_closes_under_faults() {
    explore("close under faults", &["cpu_faults"], || {
        let range = pages(BLOCK_PAGES - 1, BLOCK_PAGES + 2);
        let World { model, space } = World::with(range);
        let world = World { model: model.clone(), space };
        let device = world.attach(2, 1);
        let done = AtomicU64::new(0);
        let space = world.space;
        let counters = Mutex::new(CounterValues::default());
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut worker = Worker::new(&device, 0);
                for page in range.pages() {
                    match worker.add(word(page, 0), 1) {
                        Ok(_) => _ = done.fetch_add(1, SeqCst),
                        Err(error) => assert_eq!(error.cause, StayCause::Closed),
                    }
                }
            });
            scope.spawn(|| {
                for page in range.pages() {
                    model.fetch_add(word(page, 1), 1).unwrap();
                }
            });
            scope.spawn(|| {
                *counters.lock().unwrap() = space.counters();
                space.close().unwrap();
            });
        });
        for page in range.pages() {
            assert_eq!(load(&model, word(page, 1)), 1);
        }
        let sum: u64 = range.pages().map(|page| load(&model, word(page, 0))).sum();
        assert_eq!(sum, done.load(SeqCst));
        assert!(Worker::new(&device, 0).load(word(range.start(), 0)).is_err());
        drop(device);
        check(&model);
        counters.into_inner().unwrap()
    });
}

#[test]
fn a_space_closes_while_pages_are_moved() {
    explore("close while pages are moved", &[], || {
        let from = pages(2 * BLOCK_PAGES + 1, 2 * BLOCK_PAGES + 4);
        let to = pages(1, 4);
        let World { model, space } = World::with(from);
        map(&model, pages(0, BLOCK_PAGES));
        let world = World { model: model.clone(), space };
        let device = world.attach(4, 1);
        for page in from.pages() {
            store(&model, word(page, 0), 7);
        }
        assert_eq!(device.migrate(bytes(from)).unwrap().moved(), 3);
        let counters = world.space.counters();
        let space = world.space;
        thread::scope(|scope| {
            scope.spawn(|| model.remap(from, Some(to.start()), false).unwrap());
            scope.spawn(|| space.close().unwrap());
        });
        drop(device);
        for page in to.pages() {
            assert_eq!(load(&model, word(page, 0)), 7);
        }
        check(&model);
        counters
    });
}

#[test]
fn a_device_goes_while_another_faults() {
    explore("detach", &["between_devices"], || {
        let range = pages(BLOCK_PAGES - 2, BLOCK_PAGES + 2);
        let world = World::with(range);
        let [going, staying] = [world.attach(4, 1), world.attach(2, 1)];
        for page in range.pages() {
            Worker::new(&going, 0).add(word(page, 0), 1).unwrap();
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut worker = Worker::new(&staying, 0);
                for page in range.pages() {
                    worker.add(word(page, 0), 1).unwrap();
                }
            });
            scope.spawn(move || drop(going));
            scope.spawn(|| world.model.fetch_add(word(range.start(), 0), 1).unwrap());
        });
        // The next device takes the place of the one that went, and has room for less than it uses.
        let next = world.attach(1, 1);
        for page in range.pages() {
            Worker::new(&next, 0).add(word(page, 0), 1).unwrap();
        }
        for page in range.pages() {
            let more = u64::from(page == range.start());
            assert_eq!(load(&world.model, word(page, 0)), 3 + more);
        }
        drop((staying, next));
        world.end()
    });
}

#[test]
fn a_device_goes_while_its_pages_are_moved() {
    explore("detach while pages are moved", &[], || {
        let from = pages(2 * BLOCK_PAGES + 1, 2 * BLOCK_PAGES + 4);
        let to = pages(1, 4);
        let world = World::with(from);
        let device = world.attach(4, 1);
        for page in from.pages() {
            Worker::new(&device, 0).add(word(page, 0), 7).unwrap();
        }
        thread::scope(|scope| {
            scope.spawn(|| world.model.remap(from, Some(to.start()), false).unwrap());
            scope.spawn(move || drop(device));
        });
        for page in to.pages() {
            assert_eq!(load(&world.model, word(page, 0)), 7);
        }
        world.end()
    });
}

#[test]
fn a_space_closes_before_an_area_is_trapped() {
    explore("close before trapping", &[], || {
        let range = pages(0, 2);
        let World { model, space } = World::with(range);
        let world = World { model: model.clone(), space };
        let device = world.attach(2, 1);
        let counters = world.space.counters();
        let space = world.space;
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = Worker::new(&device, 0).add(word(PageNumber(0), 0), 1);
            });
            scope.spawn(|| space.close().unwrap());
        });
        // Nobody would answer a fault any more.
        assert!(load(&model, word(PageNumber(0), 0)) <= 1);
        assert_eq!(load(&model, word(PageNumber(1), 0)), 0);
        drop(device);
        check(&model);
        counters
    });
}

#[test]
fn a_space_closes_while_areas_change() {
    explore("close while areas change", &[], || {
        let range = pages(0, 4);
        let World { model, space } = World::with(range);
        let world = World { model: model.clone(), space };
        let device = world.attach(2, 1);
        let counters = world.space.counters();
        let space = world.space;
        let grown = pages(0, 6);
        let moved = pages(BLOCK_PAGES + 1, BLOCK_PAGES + 3);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut worker = Worker::new(&device, 0);
                for page in [0, 3].map(PageNumber) {
                    let _ = worker.add(word(page, 0), 1);
                }
            });
            scope.spawn(|| {
                assert_eq!(model.grow(range, grown.len()), Ok(grown));
                assert_eq!(model.remap(pages(0, 2), Some(moved.start()), false), Ok(moved));
                map(&model, pages(2, 3));
            });
            scope.spawn(|| space.close().unwrap());
        });
        // Nobody would answer a fault any more.
        for page in pages(2, grown.len()).pages().chain(moved.pages()) {
            store(&model, word(page, 1), 1);
        }
        drop(device);
        check(&model);
        counters
    });
}

#[test]
fn a_device_is_lost_under_faults() {
    explore("lose a device", &["poisoned", "cpu_faults"], || {
        let range = pages(BLOCK_PAGES - 2, BLOCK_PAGES + 2);
        let world = World::with(range);
        let device = world.attach(4, 1);
        let other = world.attach(4, 1);
        for page in range.pages() {
            store(&world.model, word(page, 0), 7);
        }
        assert_eq!(device.migrate(bytes(range)).unwrap().moved(), 4);
        let seen = |page| {
            let mut bytes = [0; 8];
            let loaded = world.model.load(word(page, 0), &mut bytes);
            loaded.map(|()| u64::from_ne_bytes(bytes)).ok()
        };
        let lost = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                // Here, or marked: never anything else.
                assert!([Some(7), None].contains(&seen(range.start())));
            });
            scope.spawn(|| {
                let page = range.start().plus(3);
                match Worker::new(&other, 0).load(word(page, 0)) {
                    Ok(value) => assert_eq!(value, 7),
                    Err(error) => assert_eq!(error.cause, StayCause::Poisoned),
                }
            });
            scope.spawn(|| lost.store(device.lose(), SeqCst));
        });
        let left = range.pages().filter(|&page| seen(page).is_none()).count();
        assert_eq!(left, lost.load(SeqCst), "each that is lost is marked, and no other");
        drop((device, other));
        world.end()
    });
}
