//! The same kernels in the program and in a device process: the same results, the same errors and the same
//! counters.

use std::iter;

use uhmm::{CounterValues, DeviceFaultError, PageLocation, StayCause, units::AddressRange};
use uhmm_soft::{AccessError, KernelDevice, KernelRunError, RunError};

use crate::{
    PAGES,
    kernels::{ADD, ASTRAY, COUNT, GIVE_UP, KERNELS, MIX, TOUCH, TOUCH_OR_NOT},
    place::{EVERYWHERE, Lives, Place},
};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("either_ends_with_the_same_bits", ends_with_the_same_bits),
    ("either_counts_the_same", counts_the_same),
    ("either_adds_atomically", adds_atomically),
    ("either_cancels_alone_what_is_not_mapped", cancels_alone_what_is_not_mapped),
    ("either_reaches_what_a_launch_names", reaches_what_a_launch_names),
    ("either_tells_the_same_errors", tells_the_same_errors),
    ("either_faults_on_many_pages_at_a_time", faults_on_many_pages_at_a_time),
];

/// Runs a kernel over pages of the place, which it may reach all of.
fn run(
    device: &KernelDevice,
    kernel: usize,
    place: &Place,
    pages: core::ops::Range<usize>,
    more: u64,
) -> Result<(), KernelRunError> {
    // SAFETY: nobody else touches the place meanwhile, which holds numbers.
    unsafe { device.run(kernel, pages, [place.base, 4096, more, 0], &[place.range()]) }
}

/// What the kernel `MIX` does to a page, as the program does it.
fn mixed(page: &mut [u8]) {
    let len = page.len();
    let number = |page: &[u8], at: usize| {
        u64::from_ne_bytes(page[at..at + 8].try_into().expect("eight bytes"))
    };
    let first = number(page, 0);
    let low = u8::try_from(first % 251).expect("a byte");
    page[8] = low;
    page[10..12].copy_from_slice(&(u16::from(low) * 3).to_ne_bytes());
    page[12..16].copy_from_slice(&(i32::from(low) - 100).to_ne_bytes());
    page[16..24].copy_from_slice(&(f64::from(low) / 8.0).to_ne_bytes());
    let part = u32::from_ne_bytes(page[5..9].try_into().expect("four bytes"));
    page[25..29].copy_from_slice(&(part ^ 0x5a5a_5a5a).to_ne_bytes());
    page.copy_within(0..128, len / 2);
    page.copy_within(1..34, len / 2 - 17);
    let before = number(page, 256);
    page[256..264].copy_from_slice(&before.wrapping_add(first).to_ne_bytes());
    let same = number(page, 264) == before;
    if same {
        page[264..272].copy_from_slice(&first.to_ne_bytes());
    }
    page[272] = u8::from(same);
}

/// Four times the device's memory, with one worker and with several, twice over.
fn ends_with_the_same_bits() {
    for (lives, workers) in EVERYWHERE.into_iter().flat_map(|lives| [(lives, 1), (lives, 4)]) {
        let (space, place) = Place::open(PAGES);
        let mut expected: Vec<_> = (0..PAGES).map(|page| place.bytes(page)).collect();
        let device = lives.start(&space, PAGES / 4, workers);
        assert_eq!(device.memory(), PAGES / 4 * 4096);
        for _ in 0..2 {
            run(&device, MIX, &place, 0..PAGES, 0).unwrap();
            for page in &mut expected {
                mixed(page);
            }
        }
        assert!(device.memory_used() <= device.memory(), "{lives:?}");
        assert!(space.counters().to_system_eviction > 0, "{lives:?}: it did not all fit");
        assert_eq!(device.bring_all_back().stayed(), 0);
        assert_eq!(device.memory_used(), 0);
        for (page, expected) in expected.iter().enumerate() {
            assert!(place.bytes(page) == *expected, "{lives:?}, {workers} workers: page {page}");
        }
        drop(device);
        space.close().unwrap();
    }
}

/// What a device with one worker does is counted the same in either place, whatever is asked of it.
fn counts_the_same() {
    let in_turn = |lives: Lives, frames: usize| -> (CounterValues, [usize; 3]) {
        let (space, place) = Place::open(PAGES);
        let device = lives.start(&space, frames, 1);
        let moved = device.migrate(place.part(0..frames / 2)).unwrap().moved();
        run(&device, ADD, &place, 0..PAGES, 3).unwrap();
        let used = device.memory_used();
        let back = device.bring_back(place.part(PAGES - 20..PAGES)).unwrap().moved();
        let _ = run(&device, TOUCH, &place, 0..PAGES + 1, 0).unwrap_err();
        for page in 0..PAGES {
            assert_eq!(place.load(page), Some(Place::content(page) + 3), "{lives:?}, page {page}");
        }
        drop(device);
        let counters = space.counters();
        space.close().unwrap();
        (counters, [moved, used, back])
    };
    for frames in [PAGES, PAGES / 4] {
        let [program, mut process] = EVERYWHERE.map(|lives| in_turn(lives, frames));
        assert!(program.0.returned_clean > 0);
        // Who met whom at a block is chance.
        process.0.most_turns_waited = program.0.most_turns_waited;
        process.0.most_thread_turns_waited = program.0.most_thread_turns_waited;
        assert_eq!(program, process, "{frames} frames");
        assert!(program.0.device_faults > 0 && program.0.fault_batches > 0);
    }
}

fn adds_atomically() {
    const TIMES: u64 = 200;
    for lives in EVERYWHERE {
        let (space, place) = Place::open(PAGES);
        let device = lives.start(&space, PAGES, 4);
        // SAFETY: nobody else touches the place meanwhile, which holds numbers.
        unsafe { device.run(COUNT, 0..400, [place.base, TIMES, 0, 0], &[place.part(0..1)]) }
            .unwrap();
        assert_eq!(place.load(0), Some(Place::content(0) + 400 * TIMES), "{lives:?}");
        drop(device);
        space.close().unwrap();
    }
}

fn item_error(item: usize, error: AccessError) -> Result<(), KernelRunError> {
    Err(RunError::Item { item, error }.into())
}

/// A kernel touches what is not mapped: it is told the address and the cause, or goes on without.
fn cancels_alone_what_is_not_mapped() {
    const HOLE: usize = 117;
    for (lives, workers) in EVERYWHERE.into_iter().flat_map(|lives| [(lives, 1), (lives, 4)]) {
        let (space, place) = Place::open(PAGES);
        let device = lives.start(&space, PAGES, workers);
        place.unmap(HOLE);
        let address = place.address(HOLE);
        let error = DeviceFaultError { address, cause: StayCause::NoArea }.into();
        assert_eq!(run(&device, TOUCH, &place, 0..PAGES, 0), item_error(HOLE, error), "{lives:?}");
        assert!(space.counters().queues_cancelled >= 1);
        // The others are not, whatever is in their batches.
        for _ in 0..3 {
            assert_eq!(device.bring_all_back().stayed(), 0);
            run(&device, TOUCH_OR_NOT, &place, 0..PAGES, 0).unwrap();
        }
        run(&device, ADD, &place, HOLE + 1..PAGES, 9).unwrap();
        for page in (0..PAGES).filter(|&page| page != HOLE) {
            let added = if page > HOLE { 9 } else { 0 };
            assert_eq!(place.load(page), Some(Place::content(page) + added), "{lives:?}, {page}");
        }
        drop(device);
        space.close().unwrap();
    }
}

/// The pages that a launch names and no others, also where an earlier launch has brought them.
fn reaches_what_a_launch_names() {
    for lives in EVERYWHERE {
        let (space, place) = Place::open(PAGES);
        let device = lives.start(&space, PAGES, 1);
        run(&device, ADD, &place, 0..20, 1).unwrap();
        assert!(matches!(space.locate(place.address(15)), PageLocation::Device(..)));
        let address = place.address(10);
        let touch = |given: &[AddressRange], pages| {
            let arguments = [place.base, 4096, 0, 0];
            // SAFETY: as above.
            unsafe { device.run(TOUCH, pages, arguments, given) }
        };
        let not_named =
            |page| item_error(page, AccessError::NotNamed { address: place.address(page) });
        assert_eq!(
            touch(&[place.part(0..10), place.part(11..20)], 0..20),
            not_named(10),
            "{lives:?}"
        );
        // One byte names its page.
        let byte = AddressRange::new(address + 4095, 1).unwrap();
        assert_eq!(touch(&[place.part(11..20), byte, place.part(0..10)], 0..20), Ok(()));
        assert_eq!(touch(&[], 0..1), not_named(0));
        assert_eq!(touch(&[], 5..5), Ok(()));
        drop(device);
        space.close().unwrap();
    }
}

fn tells_the_same_errors() {
    for (lives, workers) in EVERYWHERE.into_iter().flat_map(|lives| [(lives, 1), (lives, 3)]) {
        let (space, place) = Place::open(PAGES);
        let device = lives.start(&space, PAGES, workers);
        let run = |kernel, items, first, given: &[AddressRange]| {
            // SAFETY: as above.
            unsafe { device.run(kernel, items, [first, 0, 0, 0], given) }
        };
        let kernels = KERNELS.len();
        let error = run(kernels, 0..1, 0, &[]);
        assert_eq!(error, Err(KernelRunError::Kernel { kernel: kernels, kernels }));
        // The first of the items that fail, whoever runs them.
        for _ in 0..20 {
            let error = AccessError::GivenUp { address: 37 };
            assert_eq!(run(GIVE_UP, 0..5000, 37, &[]), item_error(37, error), "{lives:?}");
        }
        let error = AccessError::Wraps { address: usize::MAX - 7, len: 16 };
        assert_eq!(run(ASTRAY, 0..1, place.base, &[place.range()]), item_error(0, error));
        let error = AccessError::Unaligned { address: place.address(0) + 1, len: 8 };
        assert_eq!(run(ASTRAY, 1..2, place.base, &[place.range()]), item_error(1, error));
        // As many ranges as can be, and one more.
        let ranges: Vec<_> = (0..PAGES).step_by(2).map(|page| place.part(page..page + 1)).collect();
        let many: Vec<_> = iter::successors(Some(1 << 40), |start| Some(start + 2 * 4096))
            .map(|start| AddressRange::new(start, 1).unwrap())
            .take(256 - ranges.len())
            .chain(ranges)
            .collect();
        assert_eq!(run(TOUCH, 0..300, place.base, &many), Ok(()));
        let more: Vec<_> =
            many.into_iter().chain([AddressRange::new(1 << 30, 1).unwrap()]).collect();
        let error = KernelRunError::Ranges { ranges: 257, most: 256 };
        assert_eq!(run(TOUCH, 0..1, place.base, &more), Err(error));
        assert!(!device.is_lost() && device.lost_pages() == 0);
        drop(device);
        space.close().unwrap();
    }
}

/// Several workers miss pages far from each other at the same time, while the program takes them back.
fn faults_on_many_pages_at_a_time() {
    const MANY: usize = 2048;
    const ROUNDS: u64 = 6;
    for lives in EVERYWHERE {
        let (space, place) = Place::open(MANY);
        let device = lives.start(&space, MANY / 4, 4);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                for page in (0..MANY).step_by(3).cycle().take(MANY) {
                    assert!(place.load(page).is_some(), "{lives:?}: nothing is lost");
                }
            });
            for _ in 0..ROUNDS {
                // Every other page, then the others.
                for half in [0, 1] {
                    let first = place.base + half * 4096;
                    let arguments = [first, 2 * 4096, 1, 0];
                    // SAFETY: as above, but for the thread that reads, whole numbers.
                    unsafe { device.run(ADD, 0..MANY / 2, arguments, &[place.range()]) }.unwrap();
                }
            }
            reader.join().unwrap();
        });
        let counters = space.counters();
        assert!(
            counters.device_faults > counters.fault_batches,
            "{lives:?}: no two of {} faults were in flight together",
            counters.device_faults
        );
        for page in 0..MANY {
            assert_eq!(place.load(page), Some(Place::content(page) + ROUNDS), "{lives:?}, {page}");
        }
        drop(device);
        space.close().unwrap();
    }
}
