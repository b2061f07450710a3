//! Devices whose memory the program maps too.

use shuttle::thread;
use uhmm::{
    PageLocation, StayCause,
    units::{BLOCK_PAGES, PageNumber},
};

use crate::{
    device::Worker,
    explore::explore,
    world::{World, bytes, load, map, pages, store, word},
};

#[test]
fn threads_add_while_pages_go_to_coherent_memory_and_elsewhere() {
    let met = ["copied_in", "copied_back", "to_system_coherence"];
    explore("threads add to coherent memory", &met, || {
        let range = pages(0, 3);
        let world = World::with(range);
        for page in range.pages() {
            store(&world.model, word(page, 0), page.0 as u64);
        }
        let (coherent, private) = (world.attach_coherent(2), world.attach(2, 1));
        thread::scope(|scope| {
            let (world, coherent, private) = (&world, &coherent, &private);
            scope.spawn(move || {
                for page in range.pages().chain(range.pages()) {
                    world.model.fetch_add(word(page, 1), 1).unwrap();
                }
            });
            scope.spawn(move || {
                for _ in 0..2 {
                    let there = coherent.migrate(bytes(range)).unwrap();
                    assert_eq!(there.stayed(), 0, "{there:?}");
                }
                assert_eq!(coherent.bring_back(bytes(range)).unwrap().stayed(), 0);
            });
            scope.spawn(move || {
                let mut worker = Worker::new(private, 0);
                for page in range.pages() {
                    worker.add(word(page, 2), 1).unwrap();
                }
            });
        });
        for page in range.pages() {
            assert_eq!(load(&world.model, word(page, 0)), page.0 as u64);
            assert_eq!(load(&world.model, word(page, 1)), 2);
            assert_eq!(load(&world.model, word(page, 2)), 1);
        }
        drop((coherent, private));
        world.end()
    });
}

/// What is there is unmapped, moved and shared with a child.
#[test]
fn the_address_space_changes_under_coherent_memory() {
    let met = ["changes", "copied_in", "left_in_place", "remapped"];
    explore("coherent memory changes", &met, || {
        let range = pages(0, 4);
        let world = World::with(range);
        for page in range.pages() {
            store(&world.model, word(page, 0), page.0 as u64 + 7);
        }
        let device = world.attach_coherent(3);
        let to = PageNumber(2 * BLOCK_PAGES);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2 {
                    for page in range.pages() {
                        let report = device.migrate(bytes(pages(page.0, page.0 + 1))).unwrap();
                        for stayed in report.causes() {
                            let known = [StayCause::NoArea, StayCause::NotAdopted];
                            assert!(known.contains(&stayed.cause), "{stayed:?}");
                        }
                    }
                }
            });
            scope.spawn(|| {
                let child = world.model.fork();
                for page in range.pages() {
                    let content = child.content(page).unwrap();
                    assert_eq!(content[..8], (page.0 as u64 + 7).to_ne_bytes());
                }
                world.model.remap(pages(2, 4), Some(to), false).unwrap();
                world.model.unmap(pages(1, 2)).unwrap();
                map(&world.model, pages(1, 2));
                store(&world.model, word(PageNumber(1), 0), 1);
            });
        });
        for (page, content) in [(0, 7), (1, 1), (to.0, 9), (to.0 + 1, 10)] {
            assert_eq!(load(&world.model, word(PageNumber(page), 0)), content, "page {page}");
        }
        drop(device);
        assert_eq!(world.space.locate(word(to, 0)), PageLocation::System);
        world.end()
    });
}
