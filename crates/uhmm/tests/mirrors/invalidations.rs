//! What devices are told of changes, and when.

use std::ptr;

use uhmm::{
    InvalidationKind, Request,
    units::{BLOCK_PAGES, PageRange},
};

use crate::{
    memory::{READ_WRITE, anonymous, map, memory_file},
    open, page,
    table::{Listener, Recorder, translations},
};

#[test]
fn unmapping_is_told_before_the_next_fault_returns() {
    let Some(world) = open("unmapping_is_told_before_the_next_fault_returns") else { return };
    for area in [anonymous(4), map(4, READ_WRITE, libc::MAP_SHARED, Some(memory_file(4)))] {
        world.mirror.fault(&Request::read(area.range())).expect("a request");
        world.mirror.table().take();
        area.unmap(1, 2);
        let report = world.mirror.fault(&Request::present(area.range())).expect("a request");
        assert_eq!(report.failed(), 2, "{report:?}");
        let gone = PageRange::of(area.numbers().start().plus(1), 2);
        assert_eq!(world.mirror.table().take_invalidations(), [(gone, InvalidationKind::Unmap)]);
    }
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn discarding_moving_and_protecting_are_told() {
    let Some(world) = open("discarding_moving_and_protecting_are_told") else { return };
    let area = anonymous(4);
    area.touch(0, 4, 9);
    let all = Request::write(area.range());
    let first = area.numbers().start();
    let mirror = &world.mirror;
    let told = || {
        // Asking has everything applied that was read.
        let _ = mirror.snapshot(area.range(), &mut [uhmm::PageEntry::default(); 4]);
        mirror.table().take_invalidations()
    };
    mirror.fault(&all).expect("a request");
    area.advise(2, 1, libc::MADV_DONTNEED);
    assert_eq!(told(), [(PageRange::of(first.plus(2), 1), InvalidationKind::Clear)]);
    assert_eq!(mirror.fault(&all).expect("a request").failed(), 0);
    assert_eq!(area.byte(2), 0);

    area.protect(0, 1, libc::PROT_READ);
    world.space.protection_changed(area.part(0, 1)).expect("a part");
    assert_eq!(told(), [(PageRange::of(first, 1), InvalidationKind::Protection)]);
    assert_eq!(mirror.fault(&all).expect("a request").failed(), 1);
    area.protect(0, 1, READ_WRITE);
    mirror.fault(&all).expect("a request");
    mirror.table().take();

    let (old, len) = (area.start.cast(), 4 * page());
    let target = anonymous(4);
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: both are mappings of this test's own, which it uses by their new owner only.
    let moved = unsafe { libc::mremap(old, len, len, flags, target.start) };
    assert_eq!(moved.cast(), target.start, "{}", std::io::Error::last_os_error());
    assert_eq!(told()[0], (area.numbers(), InvalidationKind::Unmap));
    assert_eq!(target.byte(3), 9);
    assert_eq!(mirror.fault(&Request::read(target.range())).expect("a request").failed(), 0);
    drop(world.mirror);
    world.space.close().expect("a close");
    let _ = ptr::null::<u8>();
}

#[test]
fn what_was_held_and_ends_within_a_request_is_entered_anew() {
    let Some(world) = open("what_was_held_and_ends_within_a_request_is_entered_anew") else {
        return;
    };
    let area = anonymous(2 * BLOCK_PAGES);
    let first = area.numbers().start();
    // Four pages on both sides of where a block ends.
    let border = BLOCK_PAGES - first.in_block();
    let (before, both) = (area.part(border - 3, 3), area.part(border - 3, 4));
    let mirror = &world.mirror;
    let report = mirror.fault(&Request::write(before)).expect("a request");
    assert_eq!(report.entered(), 3, "{report:?}");
    area.protect(border - 3, 4, libc::PROT_READ);
    // Those of the first block are held; that they may not be written is met in the second.
    let report = mirror.fault(&Request::read(both)).expect("a request");
    assert_eq!((report.held(), report.entered(), report.failed()), (0, 4, 0), "{report:?}");
    let pages = PageRange::of(first.plus(border - 3), 4);
    assert_eq!(translations(&mirror.table().take(), pages), [Some(false); 4]);
    let report = mirror.fault(&Request::read(both)).expect("a request");
    assert_eq!(report.held(), 4, "{report:?}");
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn asking_for_more_of_an_area_ends_nothing_that_is_permitted() {
    let Some(world) = open("asking_for_more_of_an_area_ends_nothing_that_is_permitted") else {
        return;
    };
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let area = map(2, libc::PROT_READ, kind, None);
    area.unmap(1, 1);
    world.mirror.fault(&Request::read(area.part(0, 1))).expect("a request");
    // What is mapped behind it becomes one area with it as it is watched.
    let (flags, at) = (kind | libc::MAP_FIXED, area.start.wrapping_add(page()).cast());
    // SAFETY: a part of the mapping above, which was unmapped and nobody else maps.
    let mapped = unsafe { libc::mmap(at, page(), libc::PROT_READ, flags, -1, 0) };
    assert_eq!(mapped, at);
    world.mirror.table().take();
    let report = world.mirror.fault(&Request::read(area.range())).expect("a request");
    assert_eq!(report.failed(), 0, "{report:?}");
    let told = world.mirror.table().take_invalidations();
    let first = area.numbers().start();
    assert!(told.iter().all(|(pages, _)| !pages.contains(first)), "{told:?}");
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn every_mirror_that_has_the_page_is_told_and_no_other() {
    let Some(world) = open("every_mirror_that_has_the_page_is_told_and_no_other") else { return };
    let area = anonymous(8);
    let space = &world.space;
    let mirrors: Vec<_> = (0..40)
        .map(|number| {
            let pages = 1 + number % 8;
            space.mirror(area.part(0, pages), Recorder::default()).expect("a mirror")
        })
        .collect();
    for (number, mirror) in mirrors.iter().enumerate() {
        // Every fifth never asks.
        if number % 5 != 0 {
            let range = area.part(0, mirror.pages().len());
            mirror.fault(&Request::read(range)).expect("a request");
            mirror.table().take();
        }
    }
    area.unmap(3, 1);
    world.mirror.snapshot(area.range(), &mut [uhmm::PageEntry::default(); 8]).expect("a look");
    for (number, mirror) in mirrors.iter().enumerate() {
        let told = mirror.table().take_invalidations();
        let has_it = number % 5 != 0 && mirror.pages().len() > 3;
        assert_eq!(told.len(), usize::from(has_it), "mirror {number}: {told:?}");
    }
    drop(mirrors);
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn migration_is_told_with_its_owner() {
    let Some(world) = open("migration_is_told_with_its_owner") else { return };
    let area = anonymous(4);
    area.touch(0, 4, 3);
    world.space.adopt(area.range()).expect("memory that can be adopted");
    let attach = || world.space.attach(Listener::default(), 8).expect("a device");
    let devices = [attach(), attach()];
    let owner = |device: usize| InvalidationKind::Migrate { owner: Some(devices[device].index()) };
    let pages = |first, count| PageRange::of(area.numbers().start().plus(first), count);
    world.mirror.fault(&Request::write(area.range())).expect("a request");
    world.mirror.table().take();

    assert_eq!(devices[0].migrate(area.part(0, 3)).expect("whole pages").moved(), 3);
    assert_eq!(world.mirror.table().take_invalidations(), [(pages(0, 3), owner(0))]);
    assert_eq!(devices[0].device().take(), [], "its own request ends nothing of its own");
    assert_eq!(devices[1].migrate(area.part(2, 1)).expect("whole pages").moved(), 1);
    assert_eq!(devices[0].device().take(), [(pages(2, 1), owner(1))]);
    assert_eq!(area.byte(0), 3);
    let back = InvalidationKind::Migrate { owner: None };
    let told = devices[0].device().take();
    assert_eq!(told.first(), Some(&(pages(0, 1), back)), "{told:?}");
    assert_eq!(devices[1].device().take(), []);
    drop(devices);
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn each_way_to_discard_is_told() {
    let Some(world) = open("each_way_to_discard_is_told") else { return };
    let mirror = &world.mirror;
    let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    for (flags, advice) in [
        (private, libc::MADV_DONTNEED),
        (private, libc::MADV_FREE),
        (shared, libc::MADV_DONTNEED),
        (shared, libc::MADV_REMOVE),
    ] {
        let area = map(4, READ_WRITE, flags, None);
        mirror.fault(&Request::write(area.range())).expect("a request");
        mirror.table().take();
        area.advise(1, 2, advice);
        // Asking has everything applied that was read.
        mirror.snapshot(area.range(), &mut [uhmm::PageEntry::default(); 4]).expect("a look");
        let gone = PageRange::of(area.numbers().start().plus(1), 2);
        let told = mirror.table().take_invalidations();
        assert_eq!(told, [(gone, InvalidationKind::Clear)], "advice {advice}");
    }
    drop(world.mirror);
    world.space.close().expect("a close");
}
