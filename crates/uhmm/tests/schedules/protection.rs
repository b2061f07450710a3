//! What may be done with an area changes while devices work on it.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use shuttle::thread;
use uhmm::{StayCause, units::BLOCK_PAGES};

use crate::{
    device::Worker,
    explore::explore,
    world::{NO_ACCESS, READ_ONLY, READ_WRITE, World, bytes, load, pages, word},
};

/// How the core comes to know that an area is read-only by now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The program tells.
    Told,
    /// Another page of the area is asked for.
    Met,
}

fn no_store_after(known: Known) -> impl Fn() -> uhmm::CounterValues + Send + Sync + 'static {
    move || {
        let range = pages(BLOCK_PAGES - 1, BLOCK_PAGES + 2);
        let first = pages(range.start().0, range.start().0 + 1);
        // One a worker, in two blocks.
        let at = [word(range.start(), 0), word(range.start().plus(1), 0)];
        let world = World::with(range);
        let device = world.attach(3, 2);
        let other = world.attach(2, 1);
        let over = AtomicBool::new(false);
        let added = AtomicU64::new(0);
        thread::scope(|scope| {
            for (number, at) in at.into_iter().enumerate() {
                let (device, over, added) = (&device, &over, &added);
                scope.spawn(move || {
                    let mut worker = Worker::new(device, number);
                    for _ in 0..2 {
                        let was_over = over.load(SeqCst);
                        match worker.add(at, 1) {
                            Ok(_) => {
                                assert!(!was_over, "a device writes what is read-only");
                                added.fetch_add(1, Relaxed);
                            }
                            Err(error) => assert_eq!(error.cause, StayCause::Protection),
                        }
                        worker.load(at).ok();
                    }
                });
            }
            // Another that a page goes to meanwhile, or does not.
            scope.spawn(|| drop(other.migrate(bytes(first)).unwrap()));
            scope.spawn(|| {
                world.model.protect(range, READ_ONLY).unwrap();
                match known {
                    Known::Told => world.space.protection_changed(bytes(range)).unwrap(),
                    Known::Met => {
                        let last = pages(range.end().0 - 1, range.end().0);
                        device.migrate(bytes(last)).unwrap();
                    }
                }
                over.store(true, SeqCst);
            });
        });
        world.model.protect(range, READ_WRITE).unwrap();
        let sum: u64 = at.iter().map(|&at| load(&world.model, at)).sum();
        assert_eq!(sum, added.load(Relaxed), "what was added is there");
        drop((device, other));
        world.end()
    }
}

#[test]
fn no_device_writes_after_protection_was_told() {
    explore("protection told", &["invalidations"], no_store_after(Known::Told));
}

#[test]
fn no_device_writes_after_protection_was_met() {
    explore("protection met", &["invalidations"], no_store_after(Known::Met));
}

#[test]
fn what_is_away_keeps_its_content_and_its_device_whatever_is_permitted() {
    explore("protection and back", &["to_device_fault", "cpu_faults"], || {
        let range = pages(0, 2);
        let world = World::with(range);
        let device = world.attach(2, 1);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut worker = Worker::new(&device, 0);
                for _ in 0..3 {
                    // It is refused while nothing is permitted, or not everything.
                    while let Err(error) = worker.add(word(range.start(), 0), 1) {
                        assert_eq!(error.cause, StayCause::Protection);
                        thread::yield_now();
                    }
                }
            });
            scope.spawn(|| {
                for protection in [READ_ONLY, NO_ACCESS, READ_WRITE] {
                    world.model.protect(range, protection).unwrap();
                    world.space.protection_changed(bytes(range)).unwrap();
                }
            });
        });
        // The last page is exclusive where it may be written, and is not where it may not.
        let last = bytes(pages(1, 2));
        assert_eq!(device.migrate(last).unwrap().stayed(), 0);
        world.model.protect(range, READ_ONLY).unwrap();
        let refused = device.make_exclusive(last).unwrap();
        assert_eq!(refused.causes().next().unwrap().cause, StayCause::Protection);
        world.model.protect(range, READ_WRITE).unwrap();
        assert_eq!(device.make_exclusive(last).unwrap().stayed(), 0);
        assert_eq!(load(&world.model, word(range.start(), 0)), 3);
        drop(device);
        world.end()
    });
}
