//! Pages that cannot be written go to a device, out of their area and aside first.

use shuttle::thread;
use uhmm::{
    Attachment, StayCause,
    mm::model::Model,
    units::{BLOCK_PAGES, PageRange},
};

use crate::{
    device::{TestDevice, Worker},
    explore::explore,
    world::{READ_ONLY, World, bytes, load, map, pages, store, word},
};

/// Pages in two blocks, each with a word of its own, that can be read alone.
fn read_only(range: PageRange) -> World {
    let world = World::with(range);
    for page in range.pages() {
        store(&world.model, word(page, 0), page.0 as u64);
    }
    world.model.protect(range, READ_ONLY).unwrap();
    world
}

/// They go, come back and go again, as they are read, by another device too, and as others change the
/// address space elsewhere.
fn goes_and_is_read(
    attach: impl Fn(&World) -> Attachment<TestDevice, Model>,
) -> uhmm::CounterValues {
    let range = pages(BLOCK_PAGES - 1, BLOCK_PAGES + 2);
    let world = read_only(range);
    let elsewhere = pages(3 * BLOCK_PAGES, 3 * BLOCK_PAGES + 1);
    let (device, other) = (attach(&world), world.attach(2, 1));
    thread::scope(|scope| {
        let (world, device, other) = (&world, &device, &other);
        scope.spawn(move || {
            for _ in 0..2 {
                // SAFETY: nobody changes anything there.
                let there = unsafe { device.migrate_undisturbed(bytes(range)) }.unwrap();
                assert_eq!(there.moved() + there.already() + there.stayed(), range.len());
                drop(device.bring_back(bytes(pages(BLOCK_PAGES, BLOCK_PAGES + 1))).unwrap());
            }
        });
        scope.spawn(move || {
            for page in range.pages() {
                assert_eq!(load(&world.model, word(page, 0)), page.0 as u64);
            }
        });
        scope.spawn(move || {
            let mut worker = Worker::new(other, 0);
            for page in range.pages() {
                match worker.load(word(page, 0)) {
                    Ok(content) => assert_eq!(content, page.0 as u64),
                    Err(error) => assert_eq!(error.cause, StayCause::Protection),
                }
            }
        });
        scope.spawn(move || {
            map(&world.model, elsewhere);
            world.space.adopt(bytes(elsewhere)).unwrap();
            store(&world.model, word(elsewhere.start(), 0), 1);
            world.model.unmap(elsewhere).unwrap();
        });
    });
    // However it went, nobody writes there.
    let mut worker = Worker::new(&device, 0);
    for page in range.pages() {
        let refused = worker.add(word(page, 0), 1).map_err(|error| error.cause);
        assert_eq!(refused, Err(StayCause::Protection));
        assert_eq!(load(&world.model, word(page, 0)), page.0 as u64);
    }
    drop(worker);
    drop((device, other));
    world.end()
}

#[test]
fn what_cannot_be_written_goes_while_it_is_read() {
    explore("aside", &["to_device_request", "cpu_faults", "commits_retried"], || {
        goes_and_is_read(|world| world.attach(2, 1))
    });
}

#[test]
fn what_cannot_be_written_goes_to_coherent_memory_while_it_is_read() {
    explore("aside, coherent", &["to_device_request", "cpu_faults", "copied_in"], || {
        goes_and_is_read(|world| world.attach_coherent(2))
    });
}

#[test]
fn two_devices_take_what_cannot_be_written_from_each_other() {
    explore("aside, two devices", &["between_devices"], || {
        let range = pages(0, 2);
        let world = read_only(range);
        let devices = [world.attach(2, 1), world.attach(1, 1)];
        thread::scope(|scope| {
            for device in &devices {
                scope.spawn(move || {
                    // SAFETY: nobody changes anything there.
                    let there = unsafe { device.migrate_undisturbed(bytes(range)) }.unwrap();
                    assert_eq!(there.moved() + there.already() + there.stayed(), 2);
                });
            }
        });
        for page in range.pages() {
            assert_eq!(load(&world.model, word(page, 0)), page.0 as u64);
        }
        drop(devices);
        world.end()
    });
}
