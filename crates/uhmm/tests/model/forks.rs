//! Children on the model: where something fails.

use std::sync::Arc;

use uhmm::{
    AddressSpace, Attachment, OpenError, Options, StayCause,
    mm::{
        Errno, Mm, Stop,
        injected::{Call, Failure, Injected, Injections},
        linux::OpenError as SystemError,
        model::{ForkedChild, Model, ModelOptions, Signal},
    },
    units::{BLOCK_PAGES, PageNumber},
};

use crate::{
    device::{Lent, TestDevice, TestMemory},
    world::{bytes, check, map, pages, store, word},
};

/// An address space on a model whose calls can be made to fail.
struct World {
    model: Model,
    injections: Injections,
    space: AddressSpace<Injected<Model>>,
}

impl World {
    fn open_as(tells_forks: bool) -> Self {
        let staging_pages = 20 * BLOCK_PAGES;
        let model = Model::new(ModelOptions { tells_forks, staging_pages, ..Default::default() });
        let mm = Injected::new(model.clone());
        let injections = mm.injections();
        let options = Options::new().engine_memory(Options::LEAST_ENGINE_MEMORY);
        Self { model, injections, space: options.open_on(mm).unwrap() }
    }

    fn attach(&self, copying: bool) -> Attachment<TestDevice, Injected<Model>> {
        let space = &self.space;
        let (memory, size) = (space.engine_memory(), space.page_size());
        if copying {
            let own = Arc::new(TestMemory::new(8, size, 0));
            let lent = Lent(Arc::clone(&own));
            let device = TestDevice::new(memory, size, space.page_limit(), 1, Some(own));
            space.attach_copying(device, lent, 8).unwrap()
        } else {
            let device = TestDevice::new(memory, size, space.page_limit(), 1, None);
            space.attach(device, 8).unwrap()
        }
    }

    fn end(self) {
        self.space.close().unwrap();
        check(&self.model);
    }
}

/// The first word of a page as a child reads it.
fn read(child: &ForkedChild, page: usize) -> Result<u64, Signal> {
    let content = child.content(PageNumber(page))?;
    Ok(u64::from_ne_bytes(*content.first_chunk().unwrap()))
}

/// Four pages with content, all of them on a device, whose memory is of either kind.
fn away(tells_forks: bool, mut then: impl FnMut(&World)) {
    for copying in [false, true] {
        away_on(copying, tells_forks, &mut then);
    }
}

fn away_on(copying: bool, tells_forks: bool, then: impl FnOnce(&World)) {
    let world = World::open_as(tells_forks);
    let range = pages(0, 4);
    map(&world.model, range);
    world.space.adopt(bytes(range)).unwrap();
    for page in range.pages() {
        store(&world.model, word(page, 0), page.0 as u64 + 10);
    }
    let device = world.attach(copying);
    let moved = device.migrate(bytes(range)).unwrap().moved();
    assert_eq!(moved, 4);
    then(&world);
    drop(device);
    world.end();
}

#[test]
fn a_page_that_cannot_be_copied_is_marked_in_the_child_alone() {
    away(true, |world| {
        let failure = Failure::Stop { after: 1, stop: Stop::NoMemory };
        world.injections.inject(Call::FillChild, 1, failure);
        let child = world.model.fork();
        assert_eq!(read(&child, 0), Ok(10));
        assert_eq!(read(&child, 1), Err(Signal::Bus(word(PageNumber(1), 0))));
        assert_eq!((read(&child, 2), read(&child, 3)), (Ok(12), Ok(13)));
        assert_eq!(crate::world::load(&world.model, word(PageNumber(1), 0)), 11);
    });
}

#[test]
fn a_fork_that_was_given_up_holds_nobody_up() {
    away(true, |world| {
        let failure = Failure::Stop { after: 1, stop: Stop::Other(Errno(libc::ESRCH)) };
        world.injections.inject(Call::FillChild, 1, failure);
        world.model.fork();
        assert_eq!(crate::world::load(&world.model, word(PageNumber(3), 0)), 13);
        assert_eq!(read(&world.model.fork(), 2), Ok(12));
        // It counts when it has let the fork go on.
        while world.space.counters().children < 2 {
            std::thread::yield_now();
        }
    });
}

#[test]
fn no_address_space_is_opened_where_forks_cannot_be_told() {
    let mm = Injected::new(Model::new(ModelOptions::default()));
    mm.injections().inject(Call::TellForks, 1, Failure::Errno(Errno(libc::ENOMEM)));
    let options = Options::new().engine_memory(Options::LEAST_ENGINE_MEMORY);
    let refused = options.open_on(mm);
    assert!(
        matches!(refused, Err(OpenError::System(SystemError::Memory(Errno(libc::ENOMEM))))),
        "{:?}",
        refused.err()
    );
}

#[test]
fn what_cannot_be_kept_from_children_does_not_leave() {
    let world = World::open_as(false);
    let range = pages(0, 4);
    map(&world.model, range);
    world.space.adopt(bytes(range)).unwrap();
    store(&world.model, word(PageNumber(1), 0), 5);
    let device = world.attach(false);
    let errno = Errno(libc::EAGAIN);
    world.injections.inject(Call::SetInherited, 1, Failure::Errno(errno));
    let report = device.migrate(bytes(range)).unwrap();
    assert_eq!((report.moved(), report.stayed()), (0, 4));
    assert!(report.causes().all(|stayed| stayed.cause == StayCause::System(errno)));
    assert_eq!(read(&world.model.fork(), 1), Ok(5), "it is there, and the child's");
    assert_eq!(device.migrate(bytes(range)).unwrap().moved(), 4, "it is asked for anew");
    assert!(world.model.fork().lacks(range));
    drop(device);
    world.end();
}

#[test]
fn what_the_program_keeps_from_children_stays_kept() {
    let world = World::open_as(false);
    let range = pages(0, 4);
    map(&world.model, range);
    world.model.set_inherited(range, false).unwrap();
    world.space.adopt(bytes(range)).unwrap();
    let device = world.attach(false);
    assert_eq!(device.migrate(bytes(range)).unwrap().moved(), 4);
    drop(device);
    let model = world.model.clone();
    world.end();
    assert!(model.fork().lacks(range));
}

#[test]
fn closing_gives_children_what_was_kept() {
    let mut model = None;
    away(false, |world| {
        assert!(world.model.fork().lacks(pages(0, 4)));
        model = Some(world.model.clone());
    });
    assert_eq!(read(&model.unwrap().fork(), 2), Ok(12));
}
