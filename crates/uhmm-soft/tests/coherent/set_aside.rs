//! The memory of a device is there from when it is attached, and stays there.

use std::{collections::BTreeSet, fs, os::unix::fs::FileExt, sync::atomic::Ordering::Relaxed};

use uhmm::{
    AttachError, Migration, StayCause,
    mm::{
        Mm, Stop,
        injected::{Call, Failure, Injections},
    },
    units::{AddressRange, BLOCK_PAGES, NumaNode},
};
use uhmm_soft::{Options, Soft, StartError};

use crate::{
    child::in_child,
    huge_bytes::huge_bytes,
    place::{PAGES, Place, at, map, number, test, test_injected},
    skip::skip,
};

/// The calls by which frames could get memory.
const MAKING: [Call; 2] = [Call::Zero, Call::ZeroBlock];

/// How often they were made.
fn made(injections: &Injections) -> usize {
    MAKING.iter().map(|&call| injections.calls(call)).sum()
}

/// How many pages of the process are in memory.
fn resident() -> usize {
    let told = fs::read_to_string("/proc/self/statm").unwrap();
    told.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Why pages of a migration stayed.
fn causes(report: &Migration) -> Vec<StayCause> {
    report.causes().map(|stayed| stayed.cause).collect()
}

/// Sends pages to a device and brings them back.
fn go_and_come_back<M: Mm>(place: &Place<M>, device: &Soft<M>, first: usize, pages: usize) {
    place.send(device, first, pages);
    assert_eq!(device.bring_back(place.range(first, pages)).unwrap().stayed(), 0);
}

/// Discards pages of the place, which are zeros then.
fn discard<M: Mm>(place: &Place<M>, first: usize, pages: usize) {
    let (start, len) = (at(place.address(first)), pages * place.page);
    // SAFETY: the memory is the test's, and holds numbers, of which any may become zero.
    assert_eq!(unsafe { libc::madvise(start, len, libc::MADV_DONTNEED) }, 0);
}

#[test]
fn it_is_there_from_the_attaching_until_the_detaching() {
    const FRAMES: usize = 16 * BLOCK_PAGES;
    test(|place| {
        let before = resident();
        let device = place.device(FRAMES);
        let more = resident() - before;
        // The engine makes tables besides, and the system counts roughly.
        assert!(more.abs_diff(FRAMES) < FRAMES / 4, "{more} pages for {FRAMES}");
        assert_eq!(place.used(&device), 0);
        drop(device);
        let left = resident().saturating_sub(before);
        assert!(left < FRAMES / 4, "{left} pages are left behind");
    });
}

#[test]
fn what_goes_there_and_back_makes_none() {
    test_injected(|place, injections| {
        let device = place.device(600);
        let made_before = made(injections);
        for round in 0..4 {
            go_and_come_back(place, &device, 0, 600);
            // Single pages, and one makes room for the other.
            for page in 0..100 {
                place.send(&device, page, 1);
            }
            place.send(&device, 500, 600);
            let exclusive = device.make_exclusive(place.range(100, 50)).unwrap();
            assert_eq!(exclusive.stayed(), 0, "{exclusive:?}");
            place.add(&device, 0, PAGES, 1);
            device.bring_all_back();
            place.check(0..PAGES, round + 1);
        }
        assert_eq!(made(injections), made_before);
        assert_eq!(place.used(&device), 0);
    });
}

#[test]
fn where_as_many_come_as_go_nothing_is_made_on_either_side() {
    test_injected(|place, injections| {
        // Nearly a block: no huge page, and many pages in one call.
        let first = (place.address(0) / place.page).wrapping_neg() % BLOCK_PAGES;
        let pages = BLOCK_PAGES - 12;
        let device = place.device(pages);
        let copies = || injections.calls(Call::Copy) + injections.calls(Call::CopyBlock);
        let before = (made(injections), copies());
        for round in 0..4 {
            place.send(&device, first, pages);
            place.add(&device, first, pages, 1);
            assert_eq!(device.bring_back(place.range(first, pages)).unwrap().moved(), pages);
            place.check(first..first + pages, round + 1);
        }
        assert_eq!((made(injections), copies()), before);
        place.check(0..first, 0);
        place.check(first + pages..PAGES, 0);
        // What a move does not do a copy does, and the other way round.
        for call in [Call::Give, Call::Copy] {
            place.send(&device, first, pages);
            let failure = Failure::Stop { after: 20, stop: Stop::Busy };
            injections.inject(call, 1, failure);
            assert_eq!(device.bring_back(place.range(first, pages)).unwrap().stayed(), 0);
            injections.clear();
            place.check(first..first + pages, 4);
        }
    });
}

#[test]
fn a_frame_is_the_same_page_of_memory_each_time() {
    const NAME: &str = "a_frame_is_the_same_page_of_memory_each_time";
    test(|place| {
        let device = place.device(PAGES);
        let mut first = None;
        for _ in 0..3 {
            place.send(&device, 0, PAGES);
            let Some(frames) = place.page_frames(0, PAGES) else {
                return skip(NAME, "the system does not tell which pages of memory they are");
            };
            let frames: BTreeSet<_> = frames.into_iter().collect();
            assert_eq!(frames.len(), PAGES);
            // The system may move a few itself.
            let known = first.get_or_insert_with(|| frames.clone());
            let same = frames.intersection(known).count();
            assert!(same > PAGES - PAGES / 8, "{same} of {PAGES} frames are what they were");
            assert_eq!(device.bring_back(place.range(0, PAGES)).unwrap().stayed(), 0);
            place.check(0..PAGES, 0);
        }
    });
}

#[test]
fn frames_that_a_fork_took_are_made_anew() {
    test(|place| {
        let device = place.device(600);
        for more in 0..3 {
            place.send(&device, 0, 600);
            place.add(&device, 0, 600, 1);
            let before = resident();
            assert_eq!(in_child(true, || 0, || ()), 0);
            assert_eq!(place.used(&device), 0);
            assert_eq!(place.space.counters().left_in_place, 600 * (more + 1));
            // The program has those, and the device others.
            place.send(&device, 500, 600);
            let grown = resident().saturating_sub(before);
            assert!(grown > 300, "{grown} pages more");
            assert_eq!(place.used(&device), 600);
            assert_eq!(device.bring_back(place.range(500, 600)).unwrap().stayed(), 0);
            place.check(0..600, more + 1);
        }
        place.check(600..PAGES, 0);
    });
}

#[test]
fn full_frames_are_used_before_holes() {
    test_injected(|place, injections| {
        let device = place.device(100);
        place.send(&device, 0, 100);
        discard(place, 0, 40);
        assert_eq!(device.bring_back(place.range(40, 60)).unwrap().moved(), 60);
        let before = made(injections);
        go_and_come_back(place, &device, 100, 60);
        assert_eq!(made(injections), before, "a hole was filled though frames were full");
        // One more takes holes, and as many as it needs.
        place.send(&device, 100, 61);
        assert_eq!(made(injections), before + 1);
        place.send(&device, 100, 100);
        device.bring_all_back();
        let all = made(injections);
        go_and_come_back(place, &device, 200, 100);
        assert_eq!(made(injections), all);
        place.check(40..PAGES, 0);
        for page in 0..40 {
            assert_eq!(place.number(page).load(Relaxed), 0, "page {page}");
        }
    });
}

#[test]
fn frames_that_stay_with_the_program_are_made_anew() {
    test_injected(|place, injections| {
        let device = place.device(8);
        place.send(&device, 0, 8);
        let (start, len) = (at(place.address(2)), 3 * place.page);
        // SAFETY: nobody writes to the pages.
        assert_eq!(unsafe { libc::mprotect(start, len, libc::PROT_READ) }, 0);
        assert_eq!(device.bring_back(place.range(0, 8)).unwrap().stayed(), 0);
        let before = made(injections);
        go_and_come_back(place, &device, 20, 5);
        assert_eq!(made(injections), before);
        go_and_come_back(place, &device, 20, 8);
        assert!(made(injections) > before);
        // SAFETY: as above.
        let writable = unsafe { libc::mprotect(start, len, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(writable, 0);
        go_and_come_back(place, &device, 0, 8);
        place.check(0..PAGES, 0);
    });
}

#[test]
fn without_memory_it_is_not_attached_and_nothing_is_left() {
    test_injected(|place, injections| {
        let refuse = |after, stop| injections.inject(Call::Zero, 1, Failure::Stop { after, stop });
        let before = resident();
        for after in [0, 1, 30] {
            refuse(after, Stop::NoMemory);
            let error = place.try_device(76).unwrap_err();
            let StartError::Attach(error @ AttachError::SetAside { frames, had }) = error else {
                panic!("{error}");
            };
            assert_eq!((frames, had), (76, after));
            assert!(error.to_string().contains(&format!("gives {after}")), "{error}");
        }
        // Of whole blocks, too: what is not huge there is made of small pages, or not at all.
        injections.inject(Call::ZeroBlock, 2, Failure::Stop { after: 0, stop: Stop::NoMemory });
        // What was made of a first block, if the system had no huge page, is not refused.
        let calls = injections.calls(Call::Zero);
        drop(place.device(2 * BLOCK_PAGES));
        assert!(injections.calls(Call::Zero) > calls);
        assert!(resident() < before + BLOCK_PAGES, "something is left behind");
        // While changes are unread nothing is made; it is waited for.
        refuse(7, Stop::Changing);
        let device = place.device(76);
        assert_eq!(injections.clear(), 0);
        place.send(&device, 0, 76);
        place.check(0..PAGES, 0);
    });
}

#[test]
fn more_than_there_is_is_refused_before_it_is_taken() {
    test(|place| {
        // SAFETY: it asks for a number.
        let all = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
        let frames = usize::try_from(all).unwrap() + 1;
        let before = resident();
        let options = Options::new(frames * place.page);
        for options in [options.coherent(), options.coherent_on(NumaNode(0))] {
            let error = Soft::start(&place.space, options).unwrap_err();
            match error {
                StartError::Attach(AttachError::SetAside { frames: asked, had }) => {
                    assert!(asked == frames && had < frames, "{asked}, {had}");
                }
                // A system that knows of no nodes.
                StartError::Attach(AttachError::Node { .. }) => {}
                error => panic!("{error}"),
            }
        }
        assert!(resident() < before + 1000, "it was taken");
        go_and_come_back(place, &place.device(50), 0, 50);
    });
}

#[test]
fn a_frame_without_memory_is_not_used() {
    test_injected(|place, injections| {
        let device = place.device(50);
        place.send(&device, 0, 50);
        discard(place, 0, 50);
        let refuse = |after, stop| injections.inject(Call::Zero, 1, Failure::Stop { after, stop });
        // One page, and several of one block.
        let crosses = (place.address(100) / place.page) % BLOCK_PAGES > BLOCK_PAGES - 40;
        let first = if crosses { 140 } else { 100 };
        for pages in [1, 40] {
            refuse(0, Stop::NoMemory);
            let report = device.migrate(place.range(first, pages)).unwrap();
            assert_eq!((report.moved(), report.stayed()), (0, pages), "{report:?}");
            assert_eq!(causes(&report), [StayCause::NoMemory]);
            assert_eq!(place.used(&device), 0);
        }
        // What there is memory for goes. It is asked again for more, and again for those that stay.
        refuse(10, Stop::NoMemory);
        for nth in [2, 3] {
            let failure = Failure::Stop { after: 0, stop: Stop::NoMemory };
            injections.inject(Call::Zero, nth, failure);
        }
        let report = device.migrate(place.range(first, 40)).unwrap();
        assert_eq!((report.moved(), report.stayed()), (10, 30), "{report:?}");
        assert_eq!(causes(&report), [StayCause::NoMemory]);
        // What changes is waited for.
        refuse(0, Stop::Changing);
        place.send(&device, first, 40);
        assert_eq!(place.used(&device), 40);
        assert_eq!(injections.clear(), 0);
        place.check(50..PAGES, 0);
    });
}

/// New memory of whole blocks in an area of its own, in huge pages where they are to be had.
fn map_huge<M: Mm>(place: &Place<M>, blocks: usize) -> AddressRange {
    let (bytes, huge) = (blocks * BLOCK_PAGES * place.page, BLOCK_PAGES * place.page);
    let start = map(bytes + 2 * huge).next_multiple_of(huge);
    // SAFETY: the test's own memory, which is in use by nobody.
    unsafe {
        libc::mprotect(at(start + bytes), place.page, libc::PROT_NONE);
        libc::mprotect(at(start - place.page), place.page, libc::PROT_NONE);
        assert_eq!(libc::madvise(at(start), bytes, libc::MADV_HUGEPAGE), 0);
    }
    AddressRange::new(start, bytes).unwrap()
}

#[test]
fn huge_pages_go_into_huge_frames_and_into_frames_that_were_small() {
    const NAME: &str = "huge_pages_go_into_huge_frames_and_into_frames_that_were_small";
    test_injected(|place, injections| {
        let range = map_huge(place, 1);
        let start = range.start();
        let numbers = || (0..BLOCK_PAGES).map(|page| number(start + page * place.page));
        for (page, number) in (0..).zip(numbers()) {
            number.store(page, Relaxed);
        }
        if huge_bytes(start) != range.len() {
            return skip(NAME, "no huge page is to be had");
        }
        place.space.adopt(range).unwrap();
        let device = place.device(BLOCK_PAGES);
        let ways = [(false, false), (false, false), (true, false), (false, false), (true, true)];
        for (small_first, refused) in ways {
            if small_first {
                go_and_come_back(place, &device, 0, 5);
            }
            let before = made(injections);
            if refused {
                // It goes into the small frames that are there.
                let small = injections.calls(Call::Zero);
                let none = Failure::Stop { after: 0, stop: Stop::NoMemory };
                injections.inject(Call::ZeroBlock, 1, none);
                assert_eq!(device.migrate(range).unwrap().moved(), BLOCK_PAGES);
                assert_eq!((injections.clear(), huge_bytes(start)), (0, 0));
                assert_eq!(injections.calls(Call::Zero), small);
                assert_eq!(device.bring_back(range).unwrap().moved(), BLOCK_PAGES);
                assert!((0..).zip(numbers()).all(|(page, number)| number.load(Relaxed) == page));
                continue;
            }
            assert_eq!(device.migrate(range).unwrap().moved(), BLOCK_PAGES);
            assert_eq!(huge_bytes(start), range.len(), "there");
            assert_eq!(device.bring_back(range).unwrap().moved(), BLOCK_PAGES);
            assert_eq!(huge_bytes(start), range.len(), "back");
            // Frames that were split by small pages are made one huge page again.
            assert_eq!(made(injections) != before, small_first);
        }
        assert!((0..).zip(numbers()).all(|(page, number)| number.load(Relaxed) == page));
        place.check(0..PAGES, 0);
        // SAFETY: the memory is this test's.
        unsafe { libc::munmap(at(start), range.len()) };
    });
}

#[test]
fn small_pages_of_zeros_take_no_memory_from_huge_frames() {
    // Present, and the process's alone: not the page of zeros that all share.
    const OWN: u64 = 1 << 63 | 1 << 56;
    test(|place| {
        let device = place.device(2 * BLOCK_PAGES);
        let before = resident();
        let range = map_huge(place, 1);
        let part = AddressRange::new(range.start(), 5 * place.page).unwrap();
        place.space.adopt(part).unwrap();
        assert_eq!(device.migrate(part).unwrap().moved(), 5);
        let pagemap = fs::File::open("/proc/self/pagemap").unwrap();
        let mut entries = [0; 5 * size_of::<u64>()];
        let first = part.start() / place.page;
        pagemap.read_exact_at(&mut entries, (first * size_of::<u64>()) as u64).unwrap();
        for entry in entries.as_chunks().0 {
            assert_eq!(u64::from_ne_bytes(*entry) & OWN, OWN);
        }
        assert!(resident() + 100 > before, "{} pages of {before}", resident());
        drop(device);
        // SAFETY: the memory is this test's.
        unsafe { libc::munmap(at(range.start()), range.len()) };
    });
}

#[test]
fn what_frames_held_before_is_not_seen_in_pages_that_were_never_touched() {
    test(|place| {
        let device = place.device(PAGES);
        go_and_come_back(place, &device, 0, PAGES);
        // Whole blocks and parts.
        let range = map_huge(place, 2);
        place.space.adopt(range).unwrap();
        let part = AddressRange::new(range.start(), range.len() - 100 * place.page).unwrap();
        let pages = part.len() / place.page;
        assert_eq!(device.migrate(part).unwrap().moved(), pages);
        for page in 0..pages {
            let bytes = number(range.start() + page * place.page);
            assert_eq!(bytes.fetch_add(1, Relaxed), 0, "page {page}");
        }
        assert_eq!(place.space.counters().made_on_device, pages as u64);
        drop(device);
        for page in 0..pages {
            assert_eq!(number(range.start() + page * place.page).load(Relaxed), 1);
        }
        // SAFETY: the memory is this test's.
        unsafe { libc::munmap(at(range.start()), range.len()) };
    });
}
