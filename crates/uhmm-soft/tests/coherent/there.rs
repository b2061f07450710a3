//! Pages go there and come back, and the program goes on with them all the time.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use uhmm::{
    AttachError, PageLocation, StayCause,
    units::{AddressRange, BLOCK_PAGES, NumaNode},
};
use uhmm_soft::{Bus, Options, Soft, StartError};

use crate::{
    huge_bytes::huge_bytes,
    place::{PAGES, at, map, minor_faults, number, test},
    skip::skip,
};

#[test]
fn the_program_reads_and_writes_what_is_there_with_no_fault() {
    test(|place| {
        let device = place.device(PAGES);
        let before = place.page_frames(0, PAGES);
        place.send(&device, 0, PAGES);
        assert_eq!(place.count_on(device.index()), PAGES);
        assert_eq!(place.used(&device), PAGES);

        let (faults, minor) = (place.faults(), minor_faults());
        for page in 0..PAGES {
            assert_eq!(place.number(page).fetch_add(1, Relaxed), page as u64 + 1);
        }
        // A few are of this thread's own stack and code.
        let more = minor_faults() - minor;
        assert!(20 * more < i64::try_from(PAGES).unwrap(), "{more} faults of {PAGES} accesses");
        assert_eq!(place.faults(), faults, "the engine served a fault");
        place.add(&device, 0, PAGES, 10);
        place.check(0..PAGES, 11);
        assert_eq!(place.count_on(device.index()), PAGES);

        // They were copied: what the program has now is other memory.
        if let (Some(before), Some(after)) = (before, place.page_frames(0, PAGES)) {
            let same = before.iter().filter(|frame| after.contains(frame)).count();
            assert!(same < PAGES / 4, "{same} of {PAGES} pages are where they were");
        }
        let back = device.bring_back(place.range(0, PAGES)).unwrap();
        assert_eq!((back.moved(), back.stayed()), (PAGES, 0));
        assert_eq!((place.count_on(device.index()), place.used(&device)), (0, 0));
        place.check(0..PAGES, 11);
        assert_eq!(place.faults(), faults);
    });
}

#[test]
fn pages_that_were_never_touched_are_zeros_there() {
    test(|place| {
        let start = map(64 * place.page);
        let range = AddressRange::new(start, 64 * place.page).unwrap();
        place.space.adopt(range).unwrap();
        let device = place.device(64);
        assert_eq!(device.migrate(range).unwrap().moved(), 64);
        let faults = place.faults();
        for page in 0..64 {
            assert_eq!(number(start + page * place.page).fetch_add(1, Relaxed), 0);
        }
        assert_eq!(place.faults(), faults);
        assert_eq!(place.space.counters().made_on_device, 64);
        drop(device);
        for page in 0..64 {
            assert_eq!(number(start + page * place.page).load(Relaxed), 1);
        }
        // SAFETY: the memory is this test's.
        unsafe { libc::munmap(at(start), 64 * place.page) };
    });
}

#[test]
fn a_device_of_four_frames_takes_four_pages() {
    test(|place| {
        let device = place.device(4);
        for first in (0..40).step_by(4) {
            place.send(&device, first, 4);
            assert_eq!((place.count_on(device.index()), place.used(&device)), (4, 4));
        }
        // By its own faults, too.
        place.add(&device, 0, 100, 5);
        assert!(place.count_on(device.index()) <= 4 && place.used(&device) <= 4);
        assert!(place.space.counters().to_system_eviction >= 36);
        place.check(0..100, 5);
        place.check(100..PAGES, 0);
    });
}

#[test]
fn nothing_that_threads_write_is_lost_while_pages_go_there_and_back() {
    const ROUNDS: u64 = 60;
    test(|place| {
        let device = place.device(256);
        let stop = AtomicBool::new(false);
        let pages = 0..300;
        let written = thread::scope(|scope| {
            let writers = [(); 2].map(|()| {
                scope.spawn(|| {
                    let mut rounds = 0_u64;
                    while !stop.load(Relaxed) || rounds == 0 {
                        for page in pages.clone() {
                            place.number(page).fetch_add(1, Relaxed);
                        }
                        rounds += 1;
                    }
                    rounds
                })
            });
            for round in 0..ROUNDS {
                let first = usize::try_from(round).unwrap() % 100;
                let there = device.migrate(place.range(first, 200)).unwrap();
                assert_eq!(there.stayed(), 0, "{there:?}");
                place.add(&device, 0, 300, 1000);
                let back = device.bring_back(place.range(first + 50, 100)).unwrap();
                assert_eq!(back.stayed(), 0, "{back:?}");
            }
            stop.store(true, Relaxed);
            writers.map(|writer| writer.join().unwrap()).iter().sum::<u64>()
        });
        place.check(pages, written + 1000 * ROUNDS);
    });
}

#[test]
fn what_a_device_has_alone_the_program_takes_back_by_a_fault() {
    test(|place| {
        let device = place.device(64);
        place.send(&device, 0, 8);
        // Four of these are there already.
        let made = device.make_exclusive(place.range(4, 8)).unwrap();
        assert_eq!((made.stayed(), place.used(&device)), (0, 12), "{made:?}");
        assert_eq!(device.is_exclusive(place.range(4, 8)), Ok(true));
        place.add(&device, 0, 12, 1);
        let faults = place.faults();
        place.check(0..4, 1);
        assert_eq!(place.faults(), faults);
        place.check(4..12, 1);
        assert!(place.faults()[0] > faults[0]);
        assert_eq!(device.is_exclusive(place.range(4, 1)), Ok(false));
        assert_eq!(place.used(&device), 4);
    });
}

#[test]
fn pages_go_from_one_device_to_another_of_any_kind() {
    test(|place| {
        let options = Options::new(64 * place.page).keep_pages();
        let others = [
            place.device(64),
            Soft::start(&place.space, options).unwrap(),
            Soft::start(&place.space, options.behind_bus(Bus::new())).unwrap(),
        ];
        let device = place.device(64);
        for (round, other) in others.iter().enumerate() {
            place.send(&device, 0, 32);
            place.send(other, 0, 32);
            assert_eq!(place.count_on(other.index()), 32);
            assert_eq!((place.used(&device), place.used(other)), (0, 32));
            place.send(&device, 0, 32);
            assert_eq!((place.used(&device), place.used(other)), (32, 0));
            // Whose they are a device need not know to map them in place.
            place.add(&device, 0, 32, 1);
            place.check(0..32, round as u64 + 1);
        }
    });
}

#[test]
fn what_the_system_does_not_move_stays_with_the_program() {
    test(|place| {
        let device = place.device(64);
        place.send(&device, 0, 8);
        let (start, len) = (at(place.address(2)), 3 * place.page);
        // SAFETY: nobody writes to the pages.
        assert_eq!(unsafe { libc::mprotect(start, len, libc::PROT_READ) }, 0);
        let back = device.bring_back(place.range(0, 8)).unwrap();
        assert_eq!((back.moved(), back.stayed()), (8, 0), "{back:?}");
        assert_eq!(place.space.counters().left_in_place, 3);
        assert_eq!((place.count_on(device.index()), place.used(&device)), (0, 0));
        place.check(0..8, 0);
        let there = device.migrate(place.range(0, 8)).unwrap();
        assert_eq!((there.moved(), there.stayed()), (5, 3));
        assert!(there.causes().all(|stayed| stayed.cause == StayCause::Protection));
        // SAFETY: as above.
        let writable = unsafe { libc::mprotect(start, len, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(writable, 0);
        // Detached, too.
        drop(device);
        place.check(0..PAGES, 0);
        assert_eq!(place.space.locate(place.address(0)), PageLocation::System);
    });
}

#[test]
fn huge_pages_go_and_come_back_whole() {
    const BLOCKS: usize = 3;
    const PAGES: usize = BLOCKS * BLOCK_PAGES;
    test(|place| {
        let bytes = PAGES * place.page;
        let huge = bytes / BLOCKS;
        let start = map(bytes + 2 * huge).next_multiple_of(huge);
        // SAFETY: the test's own memory, which is in use by nobody. An area of its own is looked at.
        unsafe {
            libc::mprotect(at(start + bytes), place.page, libc::PROT_NONE);
            libc::mprotect(at(start - place.page), place.page, libc::PROT_NONE);
            assert_eq!(libc::madvise(at(start), bytes, libc::MADV_HUGEPAGE), 0);
        }
        let numbers = || (0..PAGES).map(|page| number(start + page * place.page));
        for (page, number) in (0..).zip(numbers()) {
            number.store(page, Relaxed);
        }
        if huge_bytes(start) != bytes {
            return skip("huge_pages_go_and_come_back_whole", "no huge page is to be had");
        }
        let range = AddressRange::new(start, bytes).unwrap();
        place.space.adopt(range).unwrap();
        let device = place.device(PAGES);
        for round in 1..=3 {
            let copied = place.space.counters().copied_in;
            assert_eq!(device.migrate(range).unwrap().moved(), PAGES);
            assert_eq!(place.space.counters().copied_in - copied, PAGES as u64);
            assert_eq!(huge_bytes(start), bytes, "there, in round {round}");
            for (page, number) in (0..).zip(numbers()) {
                assert_eq!(number.fetch_add(1, Relaxed), page + 2 * round - 2, "round {round}");
            }
            assert_eq!(device.bring_back(range).unwrap().moved(), PAGES);
            assert_eq!(huge_bytes(start), bytes, "back, in round {round}");
            for (page, number) in (0..).zip(numbers()) {
                assert_eq!(number.fetch_add(1, Relaxed), page + 2 * round - 1, "round {round}");
            }
        }
        // One page of a huge one leaves by itself, and the rest stays what it is.
        assert_eq!(device.migrate(range).unwrap().moved(), PAGES);
        let one = AddressRange::new(start + 7 * place.page, place.page).unwrap();
        assert_eq!(device.bring_back(one).unwrap().moved(), 1);
        assert_eq!(huge_bytes(start), bytes - huge);
        // SAFETY: numbers of the test's own.
        assert_eq!(unsafe { libc::madvise(at(start + huge), huge / 2, libc::MADV_DONTNEED) }, 0);
        drop(device);
        for (page, number) in (0..).zip(numbers()) {
            let gone = (BLOCK_PAGES..BLOCK_PAGES + BLOCK_PAGES / 2).contains(&page);
            assert_eq!(number.load(Relaxed), if gone { 0 } else { page as u64 + 6 });
        }
        // SAFETY: the memory is this test's.
        unsafe { libc::munmap(at(start), bytes) };
    });
}

/// Of each NUMA node of a system that knows of them its number.
fn nodes() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/sys/devices/system/node") else { return Vec::new() };
    let number =
        |entry: std::fs::DirEntry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok();
    entries.filter_map(|entry| number(entry.ok()?)).collect()
}

/// The nodes that pages of memory are of.
fn nodes_of(start: usize, pages: usize, page: usize) -> Vec<i32> {
    let addresses: Vec<_> = (0..pages).map(|number| at(start + number * page)).collect();
    let mut nodes = vec![-1; pages];
    // SAFETY: the lists have as many entries; without nodes to go to no page is moved.
    let asked = unsafe {
        let none = std::ptr::null::<i32>();
        let (addresses, told) = (addresses.as_ptr(), nodes.as_mut_ptr());
        libc::syscall(libc::SYS_move_pages, 0, pages, addresses, none, told, 0)
    };
    assert_eq!(asked, 0, "move_pages: {}", std::io::Error::last_os_error());
    nodes
}

#[test]
fn frames_are_of_the_node_that_is_named() {
    const NAME: &str = "frames_are_of_the_node_that_is_named";
    let nodes = nodes();
    if nodes.is_empty() {
        return skip(NAME, "a system that knows of NUMA nodes");
    }
    test(|place| {
        for &node in &nodes {
            let options = Options::new(PAGES * place.page).coherent_on(NumaNode(node));
            // A node without memory, or one that this process may not use, is refused.
            let device = match Soft::start(&place.space, options) {
                Ok(device) => device,
                Err(StartError::Attach(AttachError::Node { .. })) if nodes.len() > 1 => continue,
                Err(error) => panic!("node {node}: {error}"),
            };
            let bound = std::fs::read_to_string("/proc/self/numa_maps").unwrap();
            let policy = format!("bind:{node}");
            let mut words = bound.split_whitespace();
            assert!(words.any(|word| word == policy), "nothing is bound to {node}");
            place.send(&device, 0, PAGES);
            let on = nodes_of(place.start, PAGES, place.page);
            assert!(on.iter().all(|&on| u32::try_from(on) == Ok(node)), "{node}: {on:?}");
            place.check(0..PAGES, 0);
            // What the program makes is not bound by that.
            let own = bound.lines().find(|line| line.starts_with(&format!("{:x} ", place.start)));
            assert!(own.is_none_or(|line| !line.contains("bind:")), "{own:?}");
            drop(device);
            place.check(0..PAGES, 0);
        }
    });
}

#[test]
fn a_node_that_is_not_there_is_refused() {
    test(|place| {
        for number in [1023, 1024, u32::MAX] {
            let options = Options::new(PAGES * place.page).coherent_on(NumaNode(number));
            let error = Soft::start(&place.space, options).unwrap_err();
            let StartError::Attach(AttachError::Node { node, .. }) = error else {
                panic!("{error}");
            };
            assert_eq!(node, NumaNode(number));
            let message = error.to_string();
            assert!(
                message.starts_with(&format!("memory of NUMA node {number} is not")),
                "{message}"
            );
        }
        // Nothing is left behind: there is room for a device, and its memory.
        place.send(&place.device(PAGES), 0, PAGES);
        place.check(0..PAGES, 0);
    });
}
