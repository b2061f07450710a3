//! Both sides fault on the same pages.

use shuttle::thread;
use uhmm::{
    Attachment,
    mm::model::Model,
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

use crate::{
    device::{TestDevice, Worker},
    explore::explore,
    world::{World, bytes, load, pages, store, word},
};

/// Two devices and the CPU add to the same words, again and again, across the edge between two blocks.
pub(crate) fn all_add(
    name: &'static str,
    met: &[&'static str],
    attach: fn(&World) -> [Attachment<TestDevice, Model>; 2],
) {
    const ROUNDS: u64 = 2;
    explore(name, met, move || {
        let range = pages(BLOCK_PAGES - 2, BLOCK_PAGES + 2);
        let world = World::with(range);
        let devices = attach(&world);
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
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    for page in range.pages() {
                        world.model.fetch_add(word(page, 0), 1).unwrap();
                    }
                }
            });
        });
        for page in range.pages() {
            assert_eq!(load(&world.model, word(page, 0)), 3 * ROUNDS, "{page:?}");
        }
        drop(devices);
        world.end()
    });
}

#[test]
fn two_devices_and_the_cpu_add_to_the_same_words() {
    let met = ["cpu_faults", "between_devices", "to_system_eviction"];
    // Neither device has frames for all.
    all_add("two devices and the CPU add", &met, |world| [world.attach(2, 1), world.attach(3, 1)]);
}

#[test]
fn faults_are_parked_while_a_device_migrates() {
    let met = ["cpu_faults_parked", "cpu_first_touches"];
    explore("faults are parked", &met, || {
        let range = pages(0, BLOCK_PAGES + 1);
        let world = World::with(range);
        let device = world.attach(BLOCK_PAGES, 1);
        thread::scope(|scope| {
            for thread in 1..3 {
                let model = &world.model;
                scope.spawn(move || {
                    for page in [0, 5, BLOCK_PAGES].map(PageNumber) {
                        store(model, word(page, thread), 7);
                        assert_eq!(load(model, word(page, thread)), 7);
                        model.fetch_add(word(page, 0), 1).unwrap();
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..2 {
                    let report = device.migrate(bytes(range)).unwrap();
                    assert_eq!(report.stayed(), 0, "{:?}", report.causes().collect::<Vec<_>>());
                }
            });
        });
        for page in [0, 5, BLOCK_PAGES].map(PageNumber) {
            assert_eq!([0, 1, 2].map(|place| load(&world.model, word(page, place))), [2, 7, 7]);
        }
        drop(device);
        world.end()
    });
}

#[test]
fn whole_blocks_go_between_two_devices() {
    let met = ["between_devices", "to_device_request", "to_system_request"];
    explore("whole blocks", &met, || {
        let range = pages(0, 2 * BLOCK_PAGES);
        let world = World::with(range);
        let first = world.attach(BLOCK_PAGES, 1);
        let second = world.attach(2 * BLOCK_PAGES, 1);
        for page in range.pages() {
            store(&world.model, word(page, 0), page.0 as u64);
        }
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(first.migrate(bytes(range)).unwrap().stayed(), 0));
            scope.spawn(|| assert_eq!(second.migrate(bytes(range)).unwrap().stayed(), 0));
            scope.spawn(|| world.space.bring_back(bytes(range)).unwrap());
            scope.spawn(|| {
                for page in [1, 2 * BLOCK_PAGES - 1].map(PageNumber) {
                    world.model.fetch_add(word(page, 1), 1).unwrap();
                }
            });
        });
        for page in range.pages() {
            assert_eq!(load(&world.model, word(page, 0)), page.0 as u64);
        }
        drop((first, second));
        world.end()
    });
}

#[test]
fn two_evictors_share_a_device() {
    explore("two evictors", &["to_system_eviction"], || {
        let range = pages(0, 3 * BLOCK_PAGES);
        let world = World::with(range);
        let device = world.attach(2, 2);
        let places = [0, 1, BLOCK_PAGES, 2 * BLOCK_PAGES].map(PageNumber);
        thread::scope(|scope| {
            for number in 0..2 {
                let device = &device;
                scope.spawn(move || {
                    let mut worker = Worker::new(device, number);
                    for page in places.iter().chain(&places) {
                        worker.add(word(*page, number), 1).unwrap();
                    }
                });
            }
            scope.spawn(|| world.model.fetch_add(word(places[1], 2), 1).unwrap());
        });
        for page in places {
            assert_eq!([0, 1].map(|place| load(&world.model, word(page, place))), [2, 2]);
        }
        drop(device);
        world.end()
    });
}

#[test]
fn an_evictor_meets_a_migration_of_the_same_block() {
    explore("an evictor meets a migration", &["to_system_eviction"], || {
        let range = pages(0, 2 * BLOCK_PAGES);
        let world = World::with(range);
        let device = world.attach(BLOCK_PAGES, 2);
        thread::scope(|scope| {
            scope.spawn(|| {
                let report = device.migrate(bytes(range)).unwrap();
                assert_eq!(report.stayed(), 0, "{:?}", report.causes().collect::<Vec<_>>());
            });
            scope.spawn(|| {
                let mut worker = Worker::new(&device, 1);
                for page in [0, BLOCK_PAGES, 1].map(PageNumber) {
                    worker.add(word(page, 0), 1).unwrap();
                }
            });
        });
        for page in [0, BLOCK_PAGES, 1].map(PageNumber) {
            assert_eq!(load(&world.model, word(page, 0)), 1);
        }
        drop(device);
        world.end()
    });
}

/// A block of pages that hold their numbers, and devices with so many workers each, the first of which has
/// all.
fn away_with(workers: &[usize]) -> (World, PageRange, Vec<Attachment<TestDevice, Model>>) {
    let range = pages(0, BLOCK_PAGES);
    let world = World::with(range);
    for page in range.pages() {
        store(&world.model, word(page, 0), page.0 as u64);
    }
    let devices: Vec<_> =
        workers.iter().map(|&workers| world.attach(BLOCK_PAGES, workers)).collect();
    devices[0].migrate(bytes(range)).unwrap();
    (world, range, devices)
}

/// Devices with so many workers each and threads of the CPU want pages of one block. All that can
/// stand in its queue at once is one entry for each worker, and one for each thread, which touches one
/// page, once: nothing brings that page back but its own turn.
fn turns_are_taken(name: &'static str, workers: &'static [usize], threads: usize) {
    explore(name, &["most_turns_waited", "cpu_faults", "between_devices"], move || {
        let (world, range, devices) = away_with(workers);
        thread::scope(|scope| {
            for (device, &workers) in devices.iter().zip(workers) {
                for number in 0..workers {
                    scope.spawn(move || {
                        let mut worker = Worker::new(device, number);
                        for page in range.pages().chain(range.pages()) {
                            worker.load(word(page, 0)).unwrap();
                        }
                    });
                }
            }
            for page in range.pages().step_by(2).take(threads) {
                let model = &world.model;
                scope.spawn(move || assert_eq!(load(model, word(page, 0)), page.0 as u64));
            }
        });
        let workers = workers.iter().sum::<usize>() as u64;
        let counters = world.space.counters();
        let all = counters.most_turns_waited;
        assert!(all < workers + threads as u64, "{all} turns");
        let of_workers = counters.most_thread_turns_waited;
        assert!(of_workers <= workers, "{of_workers} turns of {workers} workers");
        drop(devices);
        world.end()
    });
}

#[test]
fn of_each_other_side_one_turn_passes() {
    turns_are_taken("turns of sides", &[1, 1], 2);
}

#[test]
fn of_a_device_a_turn_passes_for_each_of_its_workers() {
    turns_are_taken("turns of workers", &[2, 1], 1);
}

/// Devices with so many workers each and threads of the CPU walk through one block, again and again; each
/// thread begins so many pages behind the one before. Where all want the same page at a time most faults
/// on it are over before their turn.
fn pages_are_walked(name: &'static str, workers: &'static [usize], threads: usize, behind: usize) {
    let met = ["most_turns_waited", "cpu_faults_over", "to_system_neighbour", "between_devices"];
    explore(name, &met, move || {
        let (world, range, devices) = away_with(workers);
        thread::scope(|scope| {
            for (device, &workers) in devices.iter().zip(workers) {
                for number in 0..workers {
                    scope.spawn(move || {
                        let mut worker = Worker::new(device, number);
                        for page in range.pages().chain(range.pages()) {
                            assert_eq!(worker.load(word(page, 0)), Ok(page.0 as u64));
                        }
                    });
                }
            }
            for thread in 0..threads {
                let model = &world.model;
                scope.spawn(move || {
                    let walk = range.pages().chain(range.pages());
                    for page in walk.skip(thread * behind) {
                        assert_eq!(load(model, word(page, 0)), page.0 as u64);
                    }
                });
            }
        });
        // One of each other side, and one more of who has the turn as one arrives, where its thread goes
        // on before it ends.
        let sides = (workers.iter().sum::<usize>() + threads) as u64;
        let counters = world.space.counters();
        let all = counters.most_turns_waited;
        assert!(all <= sides, "{all} turns of {sides} sides");
        let (of_workers, workers) = (counters.most_thread_turns_waited, sides - threads as u64);
        assert!(of_workers <= workers, "{of_workers} turns of {workers} workers");
        drop(devices);
        world.end()
    });
}

#[test]
fn a_thread_whose_faults_are_over_has_one_turn() {
    pages_are_walked("turns of threads whose faults are over", &[1, 1], 3, 0);
}

#[test]
fn a_thread_whose_faults_are_over_is_served() {
    pages_are_walked("threads whose faults are over", &[1, 1], 3, 3);
}

#[test]
fn threads_whose_faults_are_over_have_one_turn_each() {
    pages_are_walked("turns of many threads whose faults are over", &[1, 1], 5, 0);
}
