//! What a device with copying memory has not written goes back without being copied out; what it has
//! written is copied, and nothing else; and the numbers are right either way.
#![cfg(not(any(shuttle, miri)))]

#[path = "../../../uhmm/tests/support/allow_huge_pages.rs"]
mod allow_huge_pages;
#[path = "../device_process/copied.rs"]
mod copied;
#[path = "../../../uhmm/tests/support/huge_bytes.rs"]
mod huge_bytes;
#[path = "../../../uhmm/tests/support/nobody.rs"]
mod nobody;
mod place;
#[path = "../../../uhmm/tests/support/random_numbers.rs"]
mod random_numbers;
#[path = "../../../uhmm/tests/support/skip.rs"]
mod skip;
mod whole;

use std::ptr;

use copied::{Way, copied, some_written};
use huge_bytes::huge_bytes;
use place::Place;
use random_numbers::Random;
use uhmm::{
    StayCause,
    mm::{
        Errno, Stop,
        injected::{Call, Failure},
    },
    units::{AddressRange, BLOCK_PAGES},
};
use uhmm_soft::{Options, Soft};

#[test]
fn what_was_only_read_goes_back_without_a_copy() {
    const PAGES: usize = 64;
    for way in [Way::Request, Way::Touched, Way::Eviction, Way::Detached] {
        let test = "what_was_only_read_goes_back_without_a_copy";
        let Some(mut place) = Place::new(test, 2 * PAGES) else { return };
        let mut device = place.device(PAGES);
        for round in 0..3_u64 {
            place.go(&device, 0..PAGES);
            place.read(&device, 0..PAGES);
            let gone = place.copied_by(|place| match way {
                Way::Request => place.come_back(0..PAGES),
                Way::Touched => {
                    place.check();
                    // Who was woken can be here before it is counted.
                    drop(place.space.bring_back(place.all()).unwrap());
                }
                Way::Eviction => place.go(&device, PAGES..2 * PAGES),
                Way::Detached => device = place.device(PAGES),
            });
            assert_eq!(gone, copied(0, PAGES), "{way:?}");
            place.check();
            // What the program writes next is what goes there next.
            (0..PAGES).for_each(|page| place.store(page, page as u64 * 3 + round));
        }
        drop(device);
        place.end();
    }
}

#[test]
fn of_what_was_written_each_page_is_copied_alone() {
    const PAGES: usize = 64;
    let test = "of_what_was_written_each_page_is_copied_alone";
    let Some(mut place) = Place::new(test, PAGES) else { return };
    let device = place.device(PAGES);
    for (written, out) in some_written(PAGES) {
        place.go(&device, 0..PAGES);
        place.read(&device, 0..PAGES);
        place.add(&device, &written);
        let gone = place.copied_by(|place| place.come_back(0..PAGES));
        assert_eq!(gone, copied(out, PAGES - out), "{written:?}");
        place.check();
    }
    // What was made on the device has nothing to be the same as.
    let made = place.part(0..PAGES);
    let start = ptr::with_exposed_provenance_mut(made.start());
    // SAFETY: the place's memory, whose content is given up.
    unsafe { libc::madvise(start, made.len(), libc::MADV_DONTNEED) };
    place.expected.fill(0);
    place.go(&device, 0..PAGES);
    let gone = place.copied_by(|place| place.come_back(0..PAGES));
    assert_eq!(gone, copied(PAGES, 0));
    drop(device);
    place.end();
}

#[test]
fn a_block_goes_back_as_a_whole_with_one_page_copied() {
    let test = "a_block_goes_back_as_a_whole_with_one_page_copied";
    let pages = 2 * BLOCK_PAGES;
    for huge in [false, true] {
        let Some(mut place) = Place::with(test, pages, huge) else { return };
        let device = place.device(pages + BLOCK_PAGES);
        let were_huge = huge_bytes(place.start);
        for _ in 0..3 {
            place.go(&device, 0..pages);
            place.read(&device, (0..pages).step_by(7));
            place.add(&device, &[100]);
            let calls =
                |place: &Place| [Call::Give, Call::Copy].map(|call| place.injections.calls(call));
            let [gives, copies] = calls(&place);
            let gone = place.copied_by(|place| place.come_back(0..pages));
            assert_eq!(gone, copied(1, pages - 1));
            assert_eq!(calls(&place), [gives + 2, copies], "each block by one move");
            assert_eq!(huge_bytes(place.start), were_huge);
            place.check();
        }
        drop(device);
        place.end();
    }
}

#[test]
fn what_changes_its_address_or_ends_is_known_to_be_written() {
    const PAGES: usize = 16;
    let test = "what_changes_its_address_or_ends_is_known_to_be_written";
    let Some(mut place) = Place::new(test, 2 * PAGES) else { return };
    let device = place.device(2 * PAGES);
    place.go(&device, 0..PAGES);
    place.add(&device, &[2]);
    // The first pages go elsewhere, and the device goes on there.
    let len = PAGES * place.page;
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let from = ptr::with_exposed_provenance_mut::<libc::c_void>(place.start);
    // SAFETY: a new mapping, and a move of what is the place's to there.
    let to = unsafe {
        let to = libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0);
        let to = libc::mremap(from, len, len, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to);
        assert_ne!(to, libc::MAP_FAILED);
        to.expose_provenance()
    };
    place.read_at(&device, to, 0..PAGES);
    place.add_at(&device, to, &[5]);
    let there = AddressRange::new(to, len).unwrap();
    let gone = place.copied_by(|place| {
        let back = place.space.bring_back(there).unwrap();
        assert_eq!((back.moved(), back.stayed()), (PAGES, 0));
    });
    // Those between are copied along.
    assert_eq!(gone, copied(4, PAGES - 4));
    for page in 0..PAGES {
        let at = ptr::with_exposed_provenance::<u64>(to + page * place.page);
        // SAFETY: what was moved there.
        assert_eq!(unsafe { at.read_volatile() }, place.expected[page], "page {page}");
    }
    // What was written there ends, and others come to the address.
    device.migrate(there).unwrap();
    place.add_at(&device, to, &[0, 1, 2]);
    // SAFETY: what was moved, which nobody uses; and new mappings in its place, and where it was.
    unsafe {
        let to = ptr::with_exposed_provenance_mut(to);
        assert_eq!(libc::munmap(to, len), 0);
        assert_eq!(libc::mmap(from, len, access, flags | libc::MAP_FIXED, -1, 0), from);
    }
    (0..PAGES).for_each(|page| place.store(page, page as u64 + 40));
    place.space.adopt(place.part(0..PAGES)).unwrap();
    for _ in 0..2 {
        place.go(&device, 0..PAGES);
        place.read(&device, 0..PAGES);
        place.add(&device, &[7]);
        // SAFETY: mapped over what is on the device, written.
        unsafe {
            assert_eq!(libc::mmap(from, len, access, flags | libc::MAP_FIXED, -1, 0), from);
        }
        (0..PAGES).for_each(|page| place.store(page, page as u64 + 50));
        place.space.adopt(place.part(0..PAGES)).unwrap();
        place.go(&device, 0..PAGES);
        let gone = place.copied_by(|place| place.come_back(0..PAGES));
        assert_eq!(gone, copied(0, PAGES));
    }
    drop(device);
    place.end();
}

#[test]
fn what_does_not_move_is_as_clean_as_it_was() {
    const PAGES: usize = 32;
    for stop in [Stop::Changing, Stop::Refused, Stop::Busy, Stop::NoMemory] {
        let test = "what_does_not_move_is_as_clean_as_it_was";
        let Some(mut place) = Place::new(test, PAGES) else { return };
        let device = place.device(PAGES);
        place.go(&device, 0..PAGES);
        place.add(&device, &[10]);
        place.injections.inject(Call::Give, 1, Failure::Stop { after: 5, stop });
        let gone = place.copied_by(|place| place.come_back(0..PAGES));
        // What was copied out and did not come back is copied again.
        assert_eq!(gone, copied(2, PAGES - 1), "{stop:?}");
        place.check();
        drop(device);
        place.end();
    }
}

#[test]
fn a_copy_that_fails_holds_up_what_was_written_alone() {
    const PAGES: usize = 32;
    let test = "a_copy_that_fails_holds_up_what_was_written_alone";
    let Some(mut place) = Place::new(test, PAGES) else { return };
    let device = place.device(PAGES);
    for written in [0, 10, PAGES - 1] {
        place.go(&device, 0..PAGES);
        place.add(&device, &[written]);
        let gone = place.copied_by(|place| {
            device.fail_transfer(1);
            let back = place.space.bring_back(place.all()).unwrap();
            // What is before it comes, and then it is tried again.
            let stays = usize::from(written == 0);
            assert_eq!((back.moved(), back.stayed()), (PAGES - stays, stays));
            for stayed in back.causes() {
                assert!(matches!(stayed.cause, StayCause::DeviceFails(_)), "{stayed:?}");
                // The device goes on with it, and then it comes.
                place.add(&device, &[written]);
                place.come_back(written..written + 1);
            }
        });
        assert_eq!(gone, copied(1, PAGES - 1));
        place.check();
    }
    drop(device);
    place.end();
}

#[test]
fn another_device_gets_it_without_a_copy_too() {
    const PAGES: usize = 32;
    for own_memory in [false, true] {
        let Some(mut place) = Place::new("another_device_gets_it_without_a_copy_too", PAGES) else {
            return;
        };
        let one = place.device(PAGES);
        let other = if own_memory {
            place.device(PAGES)
        } else {
            Soft::start(&place.space, Options::new(PAGES * place.page).keep_pages()).unwrap()
        };
        place.go(&one, 0..PAGES);
        place.add(&one, &[4]);
        let gone = place.copied_by(|place| place.go(&other, 0..PAGES));
        assert_eq!(gone, copied(1, PAGES - 1));
        place.read(&other, 0..PAGES);
        // The other one has nothing of it on the way.
        let gone = place.copied_by(|place| place.come_back(0..PAGES));
        assert_eq!(gone, if own_memory { copied(PAGES, 0) } else { copied(0, 0) });
        drop((one, other));
        place.end();
    }
}

#[test]
fn what_cannot_be_written_any_more_goes_back_clean() {
    const PAGES: usize = 32;
    let test = "what_cannot_be_written_any_more_goes_back_clean";
    let Some(mut place) = Place::new(test, PAGES) else { return };
    let device = place.device(PAGES);
    place.go(&device, 0..PAGES);
    place.add(&device, &[3]);
    let protect = |place: &Place, access| {
        let start = ptr::with_exposed_provenance_mut(place.start);
        // SAFETY: the place's memory, of which nobody writes what cannot be.
        assert_eq!(unsafe { libc::mprotect(start, PAGES * place.page, access) }, 0);
        place.space.protection_changed(place.all()).unwrap();
    };
    protect(&place, libc::PROT_READ);
    place.read(&device, 0..PAGES);
    let gone = place.copied_by(|place| place.come_back(0..PAGES));
    // A move is refused, so it is copied out once more to be copied by the system.
    assert_eq!(gone, copied(2, PAGES - 1));
    protect(&place, libc::PROT_READ | libc::PROT_WRITE);
    drop(device);
    place.end();
}

#[test]
fn a_device_reads_and_writes_several_times_its_memory_at_random() {
    const FRAMES: usize = 64;
    const PAGES: usize = 4 * FRAMES;
    let test = "a_device_reads_and_writes_several_times_its_memory_at_random";
    for seed in 1..4 {
        let Some(mut place) = Place::new(test, PAGES) else { return };
        let device = place.device(FRAMES);
        let mut random = Random::new(seed);
        let all = place.copied_by(|place| {
            for round in 0..150 {
                let stops = [Stop::NoMemory, Stop::Changing, Stop::Busy, Stop::Refused];
                if round % 5 == 0 {
                    let call = [Call::Give, Call::Copy, Call::Take][random.below(3)];
                    let (after, stop) = (random.below(3), stops[random.below(4)]);
                    place.injections.inject(
                        call,
                        1 + random.below(20),
                        Failure::Stop { after, stop },
                    );
                }
                let some = |random: &mut Random, most| -> Vec<_> {
                    let (first, len) = (random.below(PAGES), 1 + random.below(most));
                    (first..(first + len).min(PAGES)).collect()
                };
                let read = some(&mut random, FRAMES);
                place.read(&device, read);
                let written = some(&mut random, 8);
                place.add(&device, &written);
                let page = random.below(PAGES);
                match random.below(4) {
                    0 => place.store(page, random.next()),
                    1 => assert_eq!(place.load(page), place.expected[page], "page {page}"),
                    2 => drop(place.space.bring_back(place.all()).unwrap()),
                    _ => {}
                }
            }
        });
        place.injections.clear();
        place.check();
        assert!(all.out > 0 && all.clean > all.out, "{all:?}");
        drop(device);
        place.end();
    }
}

/// Without memory for it a device with no room for more pages gives none up, and loses nothing.
#[test]
fn without_memory_of_the_system_what_is_clean_goes_back() {
    const PAGES: usize = 64;
    let test = "without_memory_of_the_system_what_is_clean_goes_back";
    let Some(mut place) = Place::new(test, PAGES) else { return };
    let device = place.device(PAGES);
    place.go(&device, 0..PAGES);
    place.read(&device, 0..PAGES);
    // The first page is copied when it is touched; then it moves.
    place.injections.inject(Call::Copy, 1, Failure::Errno(Errno(libc::ENOMEM)));
    let gone = place.copied_by(|place| {
        place.check();
        drop(place.space.bring_back(place.all()).unwrap());
    });
    assert_eq!(gone, copied(0, PAGES));
    assert_eq!(place.space.counters().failed_for_memory, 0);
    drop(device);
    place.end();
}

#[test]
fn and_all_of_it_as_an_ordinary_user() {
    nobody::run_all_but("and_all_of_it_as_an_ordinary_user");
}
