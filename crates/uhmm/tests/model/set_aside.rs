//! Coherent memory on the model: it is set aside, and what becomes of it where memory is short.

use uhmm::{AttachError, StayCause, Stayed, units::PageNumber};

use crate::{
    device::TestDevice,
    world::{World, bytes, load, pages, store, word},
};

const FRAMES: usize = 4;

#[test]
fn it_is_there_or_the_device_is_not_attached() {
    let range = pages(1, 1 + FRAMES);
    let world = World::with(range);
    for page in range.pages() {
        store(&world.model, word(page, 0), page.0 as u64);
    }
    let used = range.len();
    for had in 0..FRAMES {
        world.model.set_memory_limit(Some(used + had));
        let (space, memory) = (&world.space, world.space.engine_memory());
        let device = TestDevice::new(memory, space.page_size(), space.page_limit(), 1, None);
        let error = space.attach_coherent(device, FRAMES).unwrap_err();
        assert_eq!(error, AttachError::SetAside { frames: FRAMES, had });
    }
    // Nothing was left behind: there is just enough.
    world.model.set_memory_limit(Some(used + FRAMES));
    drop(world.attach_coherent(FRAMES));
    world.model.set_memory_limit(None);
    world.end();
}

#[test]
fn pages_go_there_though_memory_is_short() {
    let range = pages(1, 1 + FRAMES);
    let world = World::with(range);
    let device = world.attach_coherent(FRAMES);
    for page in range.pages().skip(1) {
        store(&world.model, word(page, 0), page.0 as u64);
    }
    // One of them was never touched.
    world.model.set_memory_limit(Some(0));
    assert_eq!(device.migrate(bytes(range)).unwrap().moved(), FRAMES);
    for page in range.pages() {
        let stored = if page == range.start() { 0 } else { page.0 as u64 };
        assert_eq!(load(&world.model, word(page, 0)), stored);
    }
    assert_eq!(world.space.counters().cpu_faults, 0);

    // The program has discarded some: without memory there are no others in their place.
    let gone = pages(1, 3);
    world.model.discard(gone).unwrap();
    let report = device.migrate(bytes(gone)).unwrap();
    assert_eq!((report.moved(), report.stayed(), device.frames_used()), (0, 2, FRAMES - 2));
    let causes: Vec<_> = report.causes().collect();
    assert_eq!(causes, [Stayed { pages: gone, cause: StayCause::NoMemory }]);
    world.model.set_memory_limit(None);
    assert_eq!(device.migrate(bytes(gone)).unwrap().moved(), 2);
    assert_eq!(device.frames_used(), FRAMES);
    assert_eq!(load(&world.model, word(gone.start(), 0)), 0);
    assert_eq!(load(&world.model, word(PageNumber(3), 0)), 3);
    assert_eq!(device.bring_all_back().stayed(), 0);
    drop(device);
    world.end();
}
