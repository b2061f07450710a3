//! The process forks under devices and faults.

use shuttle::thread;
use uhmm::{
    mm::model::{ForkedChild, Model, Signal},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

use crate::{
    device::Worker,
    explore::explore,
    world::{World, bytes, load, map, pages, store, word},
};

/// The word of a page as a child reads it.
fn child_word(child: &ForkedChild, page: PageNumber, number: usize) -> Result<u64, Signal> {
    let content = child.content(page)?;
    let (words, _) = content.as_chunks::<8>();
    Ok(u64::from_ne_bytes(words[number]))
}

/// What the program writes to a page before it forks.
fn content(page: PageNumber) -> u64 {
    page.0 as u64 + 1
}

fn fill(model: &Model, range: PageRange) {
    for page in range.pages() {
        store(model, word(page, 0), content(page));
    }
}

#[test]
fn a_told_child_has_what_was_away() {
    explore("told fork", &["copied_to_children", "children"], || {
        let range = pages(BLOCK_PAGES - 2, BLOCK_PAGES + 2);
        let world = World::with(range);
        let device = world.attach(4, 1);
        fill(&world.model, range);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut worker = Worker::new(&device, 0);
                for page in range.pages() {
                    worker.add(word(page, 1), 1).unwrap();
                }
            });
            scope.spawn(|| {
                for page in range.pages() {
                    world.model.fetch_add(word(page, 2), 1).unwrap();
                }
            });
            scope.spawn(|| {
                let child = world.model.fork();
                // What the parent writes from now on is not the child's.
                for page in range.pages() {
                    store(&world.model, word(page, 0), 0);
                }
                for page in range.pages() {
                    assert_eq!(child_word(&child, page, 0), Ok(content(page)));
                }
            });
        });
        for page in range.pages() {
            assert_eq!(load(&world.model, word(page, 0)), 0);
            assert_eq!(load(&world.model, word(page, 1)), 1);
            assert_eq!(load(&world.model, word(page, 2)), 1);
        }
        drop(device);
        world.end()
    });
}

#[test]
fn a_child_forks_as_an_area_is_unmapped() {
    explore("fork and unmap", &["children"], || {
        let range = pages(BLOCK_PAGES - 2, BLOCK_PAGES + 2);
        let world = World::with(range);
        let device = world.attach(4, 1);
        fill(&world.model, range);
        let moved = device.migrate(bytes(range)).unwrap().moved();
        assert_eq!(moved, range.len());
        thread::scope(|scope| {
            scope.spawn(|| {
                world.model.unmap(range).unwrap();
                map(&world.model, range);
            });
            scope.spawn(|| {
                let child = world.model.fork();
                for page in range.pages() {
                    let read = child_word(&child, page, 0);
                    let before = read == Ok(content(page));
                    let ended = matches!(read, Err(Signal::Segv(_) | Signal::Bus(_)));
                    assert!(before || ended || read == Ok(0), "{read:?}");
                    // Zeros are what the program mapped anew.
                    assert!(read != Ok(0) || !child.had_trapped(page), "zeros for what was away");
                }
            });
        });
        drop(device);
        world.end()
    });
}

#[test]
fn a_child_forks_as_an_area_is_moved() {
    explore("fork and move", &["children"], || {
        let range = pages(BLOCK_PAGES - 2, BLOCK_PAGES + 2);
        let to = pages(2 * BLOCK_PAGES - 1, 2 * BLOCK_PAGES + 3);
        let world = World::with(range);
        let device = world.attach(4, 1);
        fill(&world.model, range);
        let moved = device.migrate(bytes(range)).unwrap().moved();
        assert_eq!(moved, range.len());
        thread::scope(|scope| {
            scope.spawn(|| {
                world.model.remap(range, Some(to.start()), false).unwrap();
            });
            scope.spawn(|| {
                let child = world.model.fork();
                let here = !child.lacks(range);
                assert!(here == child.lacks(to), "it has one of both");
                for (old, new) in range.pages().zip(to.pages()) {
                    let read = child_word(&child, if here { old } else { new }, 0);
                    let marked = matches!(read, Err(Signal::Bus(_)));
                    assert!(marked || read == Ok(content(old)), "{read:?}");
                }
            });
        });
        for (old, new) in range.pages().zip(to.pages()) {
            assert_eq!(load(&world.model, word(new, 0)), content(old));
        }
        drop(device);
        world.end()
    });
}

#[test]
fn an_untold_child_lacks_what_could_be_away() {
    explore("untold fork", &["cpu_faults"], || {
        let range = pages(BLOCK_PAGES - 2, BLOCK_PAGES + 2);
        let world = World::open_as(false);
        map(&world.model, range);
        world.space.adopt(bytes(range)).unwrap();
        let device = world.attach(4, 1);
        fill(&world.model, range);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2 {
                    device.migrate(bytes(range)).unwrap();
                }
            });
            scope.spawn(|| {
                for page in range.pages() {
                    world.model.fetch_add(word(page, 1), 1).unwrap();
                }
            });
            scope.spawn(|| {
                let child = world.model.fork();
                for page in range.pages() {
                    let read = child_word(&child, page, 0);
                    assert!(matches!(read, Ok(_) | Err(Signal::Segv(_))), "{read:?}");
                    assert!(read.is_err() || read == Ok(content(page)), "{read:?}");
                }
            });
        });
        for page in range.pages() {
            assert_eq!(load(&world.model, word(page, 0)), content(page));
            assert_eq!(load(&world.model, word(page, 1)), 1);
        }
        drop(device);
        let child = world.model.clone();
        let counters = world.end();
        assert!(!child.fork().lacks(range), "all is given to children in the end");
        counters
    });
}
