//! Shared memory on the model.

use uhmm::{
    PageLocation, StayCause,
    mm::{
        Access, Backing, Errno,
        injected::{Call, Failure, Injected},
        model::{Model, ModelOptions, Signal},
    },
    units::{BLOCK_PAGES, PageNumber},
};

use crate::{
    device::Worker,
    world::{World, bytes, load, map, map_file, map_pool, map_shared, pages, store, word},
};

#[test]
fn shared_memory_goes_to_a_device_without_frames_and_comes_back() {
    let range = pages(BLOCK_PAGES - 3, BLOCK_PAGES + 3);
    let world = World::open();
    map_shared(&world.model, range);
    world.space.adopt(bytes(range)).unwrap();
    for page in range.pages().skip(2) {
        store(&world.model, word(page, 0), page.0 as u64);
    }
    // Private memory beside it takes the one frame.
    let private = pages(BLOCK_PAGES + 3, BLOCK_PAGES + 6);
    map(&world.model, private);
    world.space.adopt(bytes(private)).unwrap();
    let device = world.attach(1, 1);
    let report = device.migrate(bytes(range)).unwrap();
    assert_eq!((report.moved(), report.stayed(), device.frames_used()), (6, 0, 0));
    let mut worker = Worker::new(&device, 0);
    for page in range.pages().chain(private.pages()) {
        worker.add(word(page, 1), 5).unwrap();
    }
    assert_eq!(device.frames_used(), 1);
    assert_eq!(world.space.locate(word(range.start(), 0)), PageLocation::Device(device.index()));
    for page in range.pages() {
        let stored = if page.since(range.start()) < 2 { 0 } else { page.0 as u64 };
        assert_eq!(load(&world.model, word(page, 0)), stored);
        assert_eq!(load(&world.model, word(page, 1)), 5);
    }
    drop(worker);
    drop(device);
    world.end();
}

#[test]
fn it_follows_a_move_and_ends_with_an_unmapping() {
    let range = pages(10, 20);
    let world = World::open();
    map_shared(&world.model, range);
    world.space.adopt(bytes(range)).unwrap();
    let device = world.attach(4, 1);
    let mut worker = Worker::new(&device, 0);
    for page in range.pages() {
        worker.add(word(page, 0), page.0 as u64).unwrap();
    }
    let to = PageNumber(BLOCK_PAGES - 2);
    world.model.remap(pages(14, 18), Some(to), false).unwrap();
    for index in 0..4 {
        assert_eq!(Worker::new(&device, 0).load(word(to.plus(index), 0)), Ok(14 + index as u64));
        assert_eq!(load(&world.model, word(to.plus(index), 0)), 14 + index as u64);
    }
    assert_eq!(load(&world.model, word(PageNumber(13), 0)), 13);
    world.model.discard(pages(10, 14)).unwrap();
    assert_eq!(worker.load(word(PageNumber(12), 0)), Ok(12), "only a view was discarded");
    world.model.unmap(pages(10, 12)).unwrap();
    world.model.unmap(pages(18, 20)).unwrap();
    map(&world.model, pages(10, 12));
    assert_eq!(load(&world.model, word(PageNumber(11), 0)), 0);
    drop(worker);
    drop(device);
    world.end();
}

#[test]
fn a_child_that_is_told_has_it() {
    let range = pages(3, 7);
    let world = World::open();
    map_shared(&world.model, range);
    world.space.adopt(bytes(range)).unwrap();
    store(&world.model, word(PageNumber(4), 0), 44);
    let device = world.attach(4, 1);
    device.migrate(bytes(range)).unwrap();
    let child = world.model.fork();
    assert_eq!(child.content(PageNumber(4)).unwrap()[..8], 44_u64.to_ne_bytes());
    drop(device);
    world.end();
}

#[test]
fn what_cannot_be_vacated_stays_with_its_cause() {
    let model = Model::new(ModelOptions::default());
    let injected = Injected::new(model.clone());
    let injections = injected.injections();
    let space = uhmm::Options::new().engine_memory(4 << 20).open_on(injected).unwrap();
    let range = pages(3, 7);
    map_shared(&model, range);
    space.adopt(bytes(range)).unwrap();
    store(&model, word(PageNumber(3), 0), 33);
    store(&model, word(PageNumber(4), 0), 44);
    let table = crate::device::TestDevice::new(
        space.engine_memory(),
        space.page_size(),
        space.page_limit(),
        1,
        None,
    );
    let device = space.attach(table, 4).unwrap();
    let causes = |call, errno| {
        injections.inject(call, 1, Failure::Errno(Errno(errno)));
        let report = device.migrate(bytes(range)).unwrap();
        let causes: Vec<_> = report.causes().map(|stayed| (stayed.pages, stayed.cause)).collect();
        causes
    };
    let all = |cause| [(range, cause)];
    let no_room = Errno(libc::ENOSPC);
    assert_eq!(causes(Call::ReserveAliases, no_room.0), all(StayCause::System(no_room)));
    assert_eq!(causes(Call::Alias, libc::ENOMEM), all(StayCause::NoRoomForAreas));
    assert_eq!(causes(Call::IsAlias, libc::ENOTTY), all(StayCause::CannotTrap));
    // The others are holes, and go.
    assert_eq!(causes(Call::Vacate, libc::EINVAL), [(pages(3, 5), StayCause::Locked)]);
    let other = StayCause::System(Errno(libc::EIO));
    assert_eq!(causes(Call::PopulateAlias, libc::EIO), [(pages(3, 4), other)]);
    assert_eq!(load(&model, word(PageNumber(4), 0)), 44);
    assert_eq!(device.migrate(bytes(range)).unwrap().stayed(), 0);
    assert_eq!(load(&model, word(PageNumber(4), 0)), 44);
    drop(device);
    space.close().unwrap();
}

#[test]
fn a_page_of_a_pool_that_cannot_be_vacated_stays_whole() {
    let model = Model::new(ModelOptions::default());
    let injected = Injected::new(model.clone());
    let injections = injected.injections();
    let space = uhmm::Options::new().engine_memory(4 << 20).open_on(injected).unwrap();
    let range = pages(0, BLOCK_PAGES);
    map_pool(&model, range);
    space.adopt(bytes(range)).unwrap();
    let last = PageNumber(BLOCK_PAGES - 1);
    store(&model, word(PageNumber(0), 0), 33);
    store(&model, word(last, 0), 44);
    let table = crate::device::TestDevice::new(
        space.engine_memory(),
        space.page_size(),
        space.page_limit(),
        1,
        None,
    );
    let device = space.attach(table, 4).unwrap();
    let stayed = |report: uhmm::Migration| -> Vec<_> {
        report.causes().map(|stayed| (stayed.pages, stayed.cause)).collect()
    };
    let of_pool = StayCause::Backing(Backing::SharedHugetlb);
    let others = || device.migrate(bytes(range)).unwrap();
    assert_eq!(stayed(others()), [(range, of_pool)], "there are other threads");
    let causes = |call, errno| {
        injections.inject(call, 1, Failure::Errno(Errno(errno)));
        // SAFETY: nothing of it changes meanwhile.
        stayed(unsafe { device.migrate_undisturbed(bytes(range)) }.unwrap())
    };
    let other = Errno(libc::EIO);
    assert_eq!(causes(Call::Alias, libc::EPERM), [(range, of_pool)]);
    assert_eq!(causes(Call::VacateUndisturbed, libc::EINVAL), [(range, StayCause::Locked)]);
    assert_eq!(causes(Call::VacateUndisturbed, other.0), [(range, StayCause::System(other))]);
    assert_eq!(causes(Call::PopulateAlias, other.0), [(range, StayCause::System(other))]);
    assert_eq!((load(&model, word(PageNumber(0), 0)), load(&model, word(last, 0))), (33, 44));
    // Trapped by now, it stays all the same where it could be disturbed, and goes where nobody else is.
    assert_eq!(stayed(others()), [(range, of_pool)]);
    model.set_alone(true);
    let report = device.migrate(bytes(range)).unwrap();
    assert_eq!((report.moved(), report.stayed()), (BLOCK_PAGES, 0));
    assert_eq!(load(&model, word(last, 0)), 44);
    assert_eq!(space.locate(word(PageNumber(7), 0)), PageLocation::System, "all came with it");
    assert_eq!(load(&model, word(PageNumber(0), 0)), 33);
    drop(device);
    space.close().unwrap();
}

#[test]
fn a_file_that_is_cut_short_is_so_for_a_device() {
    let range = pages(3, 13);
    let world = World::open();
    let model = &world.model;
    map_file(model, range);
    world.space.adopt(bytes(range)).unwrap();
    for page in range.pages() {
        store(model, word(page, 0), page.0 as u64);
    }
    let device = world.attach(1, 1);
    assert_eq!(device.migrate(bytes(range)).unwrap().moved(), 10);
    model.punch(pages(4, 6)).unwrap();
    model.truncate(range.start(), 6).unwrap();
    assert_eq!(Worker::new(&device, 0).load(word(PageNumber(3), 0)), Ok(3));
    let beyond = |page: usize| {
        let fault = device.fault(word(PageNumber(page), 0), Access::Read);
        assert_eq!(fault.unwrap_err().cause, StayCause::BeyondEnd, "page {page}");
        let bus = Signal::Bus(word(PageNumber(page), 0));
        assert_eq!(model.fetch_add(word(PageNumber(page), 0), 1), Err(bus));
    };
    beyond(9);
    beyond(12);
    for page in [4, 5] {
        assert_eq!(load(model, word(PageNumber(page), 0)), 0);
    }
    // What comes back beyond the end is told so to who touches it.
    world.space.bring_back(bytes(pages(8, 11))).unwrap();
    beyond(10);
    let report = device.migrate(bytes(range)).unwrap();
    assert!(report.causes().all(|stayed| stayed.cause == StayCause::BeyondEnd), "{report:?}");
    model.truncate(range.start(), 10).unwrap();
    assert_eq!(device.fault(word(PageNumber(12), 0), Access::Read), Ok(()));
    assert_eq!(load(model, word(PageNumber(12), 0)), 0);
    drop(device);
    world.end();
}
