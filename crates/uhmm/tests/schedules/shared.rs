//! Shared memory goes and comes back while others touch it, and while it changes.

use shuttle::thread;

use crate::{
    device::Worker,
    explore::explore,
    world::{World, bytes, load, map, map_pool, map_shared, pages, store, word},
};

use uhmm::{
    DeviceFaultError, StayCause,
    mm::Backing,
    units::{BLOCK_PAGES, PageNumber},
};

#[test]
fn a_processor_and_two_devices_share_it() {
    explore("shared memory", &["cpu_faults", "to_device_fault", "between_devices"], || {
        let range = pages(BLOCK_PAGES - 1, BLOCK_PAGES + 1);
        let world = World::open();
        map_shared(&world.model, range);
        world.space.adopt(bytes(range)).unwrap();
        let devices = [world.attach(1, 1), world.attach(1, 1)];
        thread::scope(|scope| {
            for device in &devices {
                scope.spawn(move || {
                    for _ in 0..2 {
                        for page in range.pages() {
                            Worker::new(device, 0).add(word(page, 0), 1).unwrap();
                        }
                    }
                });
            }
            scope.spawn(|| {
                for page in range.pages() {
                    world.model.fetch_add(word(page, 0), 1).unwrap();
                    world.model.fetch_add(word(page, 0), 1).unwrap();
                }
            });
        });
        for page in range.pages() {
            assert_eq!(load(&world.model, word(page, 0)), 6);
        }
        drop(devices);
        world.end()
    });
}

#[test]
fn it_is_unmapped_and_mapped_again() {
    explore("shared memory is unmapped", &["changes"], || {
        let range = pages(0, 4);
        let world = World::open();
        map_shared(&world.model, range);
        world.space.adopt(bytes(range)).unwrap();
        let device = world.attach(2, 1);
        let (mine, theirs) = (word(PageNumber(1), 0), word(PageNumber(1), 1));
        store(&world.model, mine, 7);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..3 {
                    match Worker::new(&device, 0).add(theirs, 1) {
                        Ok(_) | Err(DeviceFaultError { cause: StayCause::NoArea, .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            scope.spawn(|| {
                world.model.unmap(range).unwrap();
                map_shared(&world.model, range);
                assert_eq!(load(&world.model, mine), 0, "what was unmapped is gone");
                store(&world.model, mine, 9);
            });
        });
        assert_eq!(load(&world.model, mine), 9);
        assert!(load(&world.model, theirs) <= 3);
        drop(device);
        world.end()
    });
}

#[test]
fn it_moves_away_from_a_device() {
    explore("shared memory moves", &["changes"], || {
        let range = pages(2, 6);
        let to = PageNumber(BLOCK_PAGES - 2);
        let world = World::open();
        map_shared(&world.model, range);
        world.space.adopt(bytes(range)).unwrap();
        let device = world.attach(2, 1);
        device.migrate(bytes(range)).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                for page in range.pages() {
                    let _ = Worker::new(&device, 0).add(word(page, 0), 1);
                }
            });
            scope.spawn(|| {
                world.model.fetch_add(word(range.start(), 1), 1).unwrap();
                world.model.remap(range, Some(to), false).unwrap();
                world.model.fetch_add(word(to, 1), 1).unwrap();
            });
        });
        assert_eq!(load(&world.model, word(to, 1)), 2);
        for index in 0..4 {
            let address = word(to.plus(index), 2);
            Worker::new(&device, 0).add(address, 3).unwrap();
            assert_eq!(load(&world.model, address), 3);
            assert!(load(&world.model, word(to.plus(index), 0)) <= 1);
        }
        drop(device);
        world.end()
    });
}

#[test]
fn a_page_of_a_pool_goes_whole_while_it_is_used() {
    let counters = ["to_device_request", "cpu_faults", "between_devices", "commits_retried"];
    explore("a page of a pool", &counters, || {
        let range = pages(0, BLOCK_PAGES);
        let elsewhere = pages(3 * BLOCK_PAGES, 3 * BLOCK_PAGES + 1);
        let world = World::open();
        map_pool(&world.model, range);
        world.space.adopt(bytes(range)).unwrap();
        let devices = [world.attach(1, 1), world.attach(1, 1)];
        let used = [PageNumber(0), PageNumber(BLOCK_PAGES - 1)];
        let of_pool = StayCause::Backing(Backing::SharedHugetlb);
        thread::scope(|scope| {
            for device in &devices {
                let world = &world;
                scope.spawn(move || {
                    // SAFETY: nobody changes what is mapped there.
                    let went = unsafe { device.migrate_undisturbed(bytes(range)) }.unwrap();
                    assert_eq!(went.stayed(), 0, "{went:?}");
                    for page in used {
                        // Where it is back by then, it does not go by a fault.
                        match Worker::new(device, 0).add(word(page, 0), 1) {
                            Ok(_) => drop(world.model.fetch_add(word(page, 1), 1)),
                            Err(DeviceFaultError { cause, .. }) => assert_eq!(cause, of_pool),
                        }
                    }
                    drop(world.space.bring_back(bytes(pages(3, 4))).unwrap());
                });
            }
            scope.spawn(|| {
                for page in [used, used, used].concat() {
                    world.model.fetch_add(word(page, 0), 1).unwrap();
                }
            });
            scope.spawn(|| {
                map(&world.model, elsewhere);
                world.model.unmap(elsewhere).unwrap();
            });
        });
        for page in used {
            let added = load(&world.model, word(page, 1));
            assert_eq!(load(&world.model, word(page, 0)), 3 + added);
        }
        drop(devices);
        world.end()
    });
}
