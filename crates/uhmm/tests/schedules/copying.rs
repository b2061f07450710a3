//! Devices with memory of their own, which pages are copied into and out of.

use shuttle::thread;
use uhmm::{
    StayCause,
    units::{BLOCK_PAGES, PageNumber},
};

use crate::{
    device::Worker,
    explore::explore,
    faults::all_add,
    world::{World, bytes, load, map, pages, store, word},
};

#[test]
fn a_copying_device_another_and_the_cpu_add_to_the_same_words() {
    let met = ["cpu_faults", "between_devices", "to_system_eviction", "copied_in", "copied_out"];
    all_add("a copying device, another and the CPU add", &met, |world| {
        [world.attach_copying(2, 1, 0), world.attach(3, 1)]
    });
}

#[test]
fn two_copying_devices_take_pages_from_each_other() {
    let met = ["between_devices", "copied_in", "copied_out"];
    explore("two copying devices", &met, || {
        let range = pages(0, 4);
        let world = World::with(range);
        for page in range.pages() {
            store(&world.model, word(page, 0), page.0 as u64);
        }
        let devices = [world.attach_copying(4, 1, 0), world.attach_copying(2, 1, 0)];
        thread::scope(|scope| {
            for device in &devices {
                scope.spawn(move || {
                    let mut worker = Worker::new(device, 0);
                    for page in range.pages().chain(range.pages()) {
                        worker.add(word(page, 1), 1).unwrap();
                    }
                });
            }
            scope.spawn(|| world.space.bring_back(bytes(range)).unwrap());
        });
        for page in range.pages() {
            assert_eq!(load(&world.model, word(page, 0)), page.0 as u64);
            assert_eq!(load(&world.model, word(page, 1)), 4);
        }
        drop(devices);
        world.end()
    });
}

/// A device reads pages and now and then writes one, while the CPU does, and they are asked for and given up:
/// each goes back as a copy, or as what was copied in where nothing was written since.
#[test]
fn what_a_device_writes_or_only_reads_goes_back() {
    let met = ["copied_in", "copied_out", "returned_clean", "to_system_eviction"];
    explore("what a device writes or only reads", &met, || {
        let range = pages(0, 4);
        let world = World::with(range);
        for page in range.pages() {
            store(&world.model, word(page, 0), page.0 as u64);
        }
        let device = world.attach_copying(3, 1, 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut worker = Worker::new(&device, 0);
                for round in 0..3 {
                    for page in range.pages() {
                        assert_eq!(worker.load(word(page, 0)).unwrap(), page.0 as u64);
                        if page.0 % 3 == round {
                            worker.add(word(page, 1), 1).unwrap();
                        }
                    }
                }
            });
            scope.spawn(|| {
                for page in [1, 2, 0].map(PageNumber) {
                    world.model.fetch_add(word(page, 1), 1).unwrap();
                }
            });
            scope.spawn(|| {
                for _ in 0..2 {
                    device.bring_back(bytes(range)).unwrap();
                }
            });
        });
        for page in range.pages() {
            assert_eq!(load(&world.model, word(page, 0)), page.0 as u64);
            let added = [2, 2, 2, 1][page.0];
            assert_eq!(load(&world.model, word(page, 1)), added, "page {page:?}");
        }
        drop(device);
        world.end()
    });
}

/// Transfers fail now and then, while pages are unmapped, moved and touched: what fails is reported, and
/// content is where it was.
#[test]
fn transfers_fail_while_the_address_space_changes() {
    let met = ["transfers_failed", "changes", "copied_in"];
    explore("transfers fail", &met, || {
        let range = pages(0, 4);
        let world = World::with(range);
        for page in range.pages() {
            store(&world.model, word(page, 0), page.0 as u64 + 7);
        }
        // One of three: to replace a mark takes two transfers.
        let device = world.attach_copying(3, 1, 3);
        let to = PageNumber(2 * BLOCK_PAGES);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2 {
                    for page in range.pages() {
                        let report = device.migrate(bytes(pages(page.0, page.0 + 1))).unwrap();
                        for stayed in report.causes() {
                            let known = matches!(
                                stayed.cause,
                                StayCause::DeviceFails(1)
                                    | StayCause::NoArea
                                    | StayCause::NotAdopted
                                    | StayCause::NoFrames
                            );
                            assert!(known, "{stayed:?}");
                        }
                    }
                }
            });
            scope.spawn(|| {
                world.model.remap(pages(2, 4), Some(to), false).unwrap();
                world.model.unmap(pages(1, 2)).unwrap();
                map(&world.model, pages(1, 2));
                // It can be on the device again, and not come back as the copy fails.
                let one = 1_u64.to_ne_bytes();
                let mut tries = 0;
                while world.model.store(word(PageNumber(1), 0), &one).is_err() {
                    world.space.bring_back(bytes(pages(1, 2))).unwrap();
                    tries += 1;
                    assert!(tries < 10, "a transfer fails again and again");
                }
            });
        });
        // What could not be copied out as it was touched is marked; it comes back when it is asked for.
        let mut tries = 0;
        while world.space.bring_all_back().stayed() > 0 {
            tries += 1;
            assert!(tries < 10, "a transfer fails again and again");
        }
        let contents = [(0, 7), (1, 1), (to.0, 9), (to.0 + 1, 10)];
        for (page, content) in contents {
            assert_eq!(load(&world.model, word(PageNumber(page), 0)), content, "page {page}");
        }
        drop(device);
        world.end()
    });
}

/// A block goes as a whole, through transit that has room for little more.
#[test]
fn whole_blocks_share_transit() {
    explore("whole blocks share transit", &["copied_in", "returned_clean"], || {
        let range = pages(0, 3 * BLOCK_PAGES);
        let world = World::with(range);
        for page in range.pages().step_by(100) {
            store(&world.model, word(page, 0), page.0 as u64);
        }
        let device = world.attach_copying(3 * BLOCK_PAGES, 1, 0);
        thread::scope(|scope| {
            for block in 0..3 {
                let device = &device;
                scope.spawn(move || {
                    let part = pages(block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES);
                    assert_eq!(device.migrate(bytes(part)).unwrap().stayed(), 0);
                    assert_eq!(device.bring_back(bytes(part)).unwrap().stayed(), 0);
                });
            }
        });
        for page in range.pages().step_by(100) {
            assert_eq!(load(&world.model, word(page, 0)), page.0 as u64);
        }
        drop(device);
        world.end()
    });
}

/// A device of twice as many pages as it has frames gives some up ahead of need, while the CPU and the
/// program's requests meet the same pages, and is detached while it may do so still.
#[test]
fn memory_is_given_up_ahead_of_need() {
    let met = ["evicted_ahead", "cpu_faults", "copied_in", "copied_out"];
    explore("memory is given up ahead of need", &met, || {
        let range = pages(0, 2 * BLOCK_PAGES);
        let world = World::with(range);
        for page in range.pages() {
            store(&world.model, word(page, 0), page.0 as u64);
        }
        let device = world.attach_copying(BLOCK_PAGES, 1, 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut worker = Worker::new(&device, 0);
                for page in range.pages().chain(range.pages()) {
                    worker.add(word(page, 1), 1).unwrap();
                }
            });
            scope.spawn(|| {
                for page in [1, BLOCK_PAGES, 2].map(PageNumber) {
                    world.model.fetch_add(word(page, 2), 1).unwrap();
                }
            });
        });
        drop(device);
        for page in range.pages() {
            assert_eq!(load(&world.model, word(page, 0)), page.0 as u64);
            assert_eq!(load(&world.model, word(page, 1)), 2);
        }
        world.end()
    });
}
