//! Pages of a huge page that one device alone may access.

use uhmm::{InvalidationKind, PageEntry, PageLocation, PageState, units::BLOCK_PAGES};

use crate::{huge::HugePage, open, table::Listener};

#[test]
fn a_huge_page_is_made_exclusive_whole() {
    const TEST: &str = "a_huge_page_is_made_exclusive_whole";
    let Some(world) = open(TEST) else { return };
    let Some(huge) = HugePage::new(TEST, &world) else { return };
    let device = world.space.attach(Listener::default(), 2 * BLOCK_PAGES).expect("a device");
    let all = huge.numbers(0, BLOCK_PAGES);

    assert_eq!(device.make_exclusive(huge.range()).expect("whole pages").moved(), BLOCK_PAGES);
    let owner = Some(device.index());
    assert_eq!(
        world.mirror.table().take_invalidations(),
        [(all, InvalidationKind::Exclusive { owner })],
        "others are told once, of all of it"
    );
    assert_eq!(device.device().take(), [], "the device's own request ends nothing of its own");
    let mut entries = [PageEntry::default(); BLOCK_PAGES];
    device.snapshot(huge.range(), &mut entries).expect("a snapshot");
    for (number, entry) in entries.iter().enumerate() {
        assert_eq!((entry.state, entry.exclusive), (PageState::Own, true), "page {number}");
        assert_eq!(entry.order, 9, "page {number}: it is one huge page on the device");
    }

    // One access of the CPU gives all of it up, and it is a huge page still.
    assert_eq!(huge.area.byte(huge.first + 77), HugePage::value(77));
    assert_eq!(device.device().take(), [(all, InvalidationKind::Exclusive { owner: None })]);
    assert_eq!(huge.orders(&world), [9; BLOCK_PAGES]);
    let counters = world.space.counters();
    assert_eq!(counters.cpu_faults, 1, "{counters:?}");
    assert_eq!(counters.made_exclusive, BLOCK_PAGES as u64);
    huge.check();
    drop(device);
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn pages_within_a_huge_page_are_made_exclusive() {
    const TEST: &str = "pages_within_a_huge_page_are_made_exclusive";
    let Some(world) = open(TEST) else { return };
    let Some(huge) = HugePage::new(TEST, &world) else { return };
    let device = world.space.attach(Listener::default(), 2 * BLOCK_PAGES).expect("a device");
    assert_eq!(device.make_exclusive(huge.part(100, 3)).expect("whole pages").moved(), 3);
    let told = world.mirror.table().take_invalidations();
    let owner = Some(device.index());
    assert_eq!(told, [(huge.numbers(100, 3), InvalidationKind::Exclusive { owner })]);
    for number in 0..BLOCK_PAGES {
        let on_device = world.space.locate(huge.part(number, 1).start()) != PageLocation::System;
        assert_eq!(on_device, (100..103).contains(&number), "page {number}");
    }
    // The rest is used meanwhile, and ends nothing.
    assert_eq!(huge.area.byte(huge.first + 99), HugePage::value(99));
    assert_eq!(device.device().take(), []);
    assert_eq!(huge.area.byte(huge.first + 101), HugePage::value(101));
    let told = device.device().take();
    let kind = InvalidationKind::Exclusive { owner: None };
    assert!(told.contains(&(huge.numbers(101, 1), kind)), "{told:?}");
    assert_eq!(world.space.locate(huge.part(100, 1).start()), PageLocation::Device(device.index()));
    huge.check();
    drop(device);
    drop(world.mirror);
    world.space.close().expect("a close");
}

/// A device without room for a huge page takes its pages one by one, as many as there is room for.
#[test]
fn a_huge_page_without_a_huge_frame_is_taken_in_parts() {
    const TEST: &str = "a_huge_page_without_a_huge_frame_is_taken_in_parts";
    let Some(world) = open(TEST) else { return };
    let Some(huge) = HugePage::new(TEST, &world) else { return };
    let device = world.space.attach(Listener::default(), 64).expect("a device");
    let report = device.make_exclusive(huge.range()).expect("whole pages");
    assert_eq!(report.moved() + report.stayed(), BLOCK_PAGES, "{report:?}");
    let mut entries = [PageEntry::default(); BLOCK_PAGES];
    device.snapshot(huge.range(), &mut entries).expect("a snapshot");
    let exclusive = entries.iter().filter(|entry| entry.exclusive).count();
    assert!((1..=64).contains(&exclusive), "{exclusive} pages");
    assert!(entries.iter().all(|entry| !entry.exclusive || entry.order == 0));
    huge.check();
    drop(device);
    drop(world.mirror);
    world.space.close().expect("a close");
}
