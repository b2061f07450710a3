//! What a device tells of its use of pages, wherever it lives: what it has not written goes back without being copied
//! out, and what it used lately stays while there is other to give up.

use std::{
    num::NonZeroU64,
    ops::Range,
    ptr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use uhmm::{AddressSpace, PageLocation, units::AddressRange};
use uhmm_soft::{Bus, KernelDevice};

use crate::{
    copied::{Copied, Way, copied, some_written},
    kernels::{ADD, TOUCH},
    place::{EVERYWHERE, Place},
};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("clean_goes_back_what_was_only_read", goes_back_what_was_only_read),
    ("clean_goes_back_what_is_beside_what_was_written", what_is_beside_what_was_written),
    ("clean_is_all_of_a_reading_stream", is_all_of_a_reading_stream),
    ("clean_is_not_what_was_written_elsewhere", is_not_what_was_written_elsewhere),
    ("clean_or_not_by_chance", or_not_by_chance),
    ("clean_or_not_while_it_writes", or_not_while_it_writes),
    ("what_is_used_stays", what_is_used_stays),
    ("a_bus_takes_its_time", a_bus_takes_its_time),
];

const PAGE: u64 = 4096;

/// What was copied while `what` is done.
fn copied_by(space: &AddressSpace, what: impl FnOnce()) -> Copied {
    let before = space.counters();
    what();
    Copied::between(&before, &space.counters())
}

/// Has the device read the first number of each of some pages, or add to it.
fn run_at(device: &KernelDevice, base: u64, pages: Range<usize>, add: Option<u64>) {
    let kernel = if add.is_some() { ADD } else { TOUCH };
    let start = usize::try_from(base + PAGE * pages.start as u64).unwrap();
    let given = AddressRange::new(start, pages.len() * 4096).unwrap();
    let arguments = [base, PAGE, add.unwrap_or(0), 0];
    // SAFETY: nobody else writes the place meanwhile but in whole numbers, and it holds numbers.
    unsafe { device.run(kernel, pages, arguments, &[given]) }.unwrap();
}

fn read(device: &KernelDevice, place: &Place, pages: Range<usize>) {
    run_at(device, place.base, pages, None);
}

fn add(device: &KernelDevice, place: &Place, pages: Range<usize>, more: u64) {
    run_at(device, place.base, pages, Some(more));
}

fn go(device: &KernelDevice, place: &Place, pages: Range<usize>) {
    let there = device.migrate(place.part(pages.clone())).unwrap();
    assert_eq!((there.moved(), there.stayed()), (pages.len(), 0));
}

fn come_back(device: &KernelDevice, place: &Place, pages: Range<usize>) {
    let back = device.bring_back(place.part(pages.clone())).unwrap();
    assert_eq!((back.moved(), back.stayed()), (pages.len(), 0));
}

fn goes_back_what_was_only_read() {
    const PAGES: usize = 64;
    for (lives, way) in EVERYWHERE.into_iter().flat_map(|lives| {
        [Way::Request, Way::Touched, Way::Eviction, Way::Detached].map(|way| (lives, way))
    }) {
        let (space, place) = Place::open(2 * PAGES);
        let mut device = None;
        let check = |more| {
            for page in 0..2 * PAGES {
                let more = if page < PAGES { more } else { 0 };
                assert_eq!(place.load(page), Some(Place::content(page) + more), "{lives:?} {page}");
            }
        };
        for round in 0..3 {
            let here = device.take().unwrap_or_else(|| lives.start_to_keep(&space, PAGES, 2));
            go(&here, &place, 0..PAGES);
            read(&here, &place, 0..PAGES);
            let gone = copied_by(&space, || {
                match way {
                    Way::Request => come_back(&here, &place, 0..PAGES),
                    Way::Touched => {
                        check(round);
                        // Who was woken can be here before it is counted.
                        drop(space.bring_back(place.range()).unwrap());
                    }
                    Way::Eviction => go(&here, &place, PAGES..2 * PAGES),
                    Way::Detached => return drop(here),
                }
                device = Some(here);
            });
            assert_eq!(gone, copied(0, PAGES), "{lives:?} {way:?}");
            check(round);
            // What the program writes next is what goes there next.
            (0..PAGES).for_each(|page| place.store(page, Place::content(page) + round + 1));
        }
        drop(device);
        space.close().unwrap();
    }
}

fn what_is_beside_what_was_written() {
    const PAGES: usize = 64;
    for lives in EVERYWHERE {
        let (space, place) = Place::open(PAGES);
        let device = lives.start_to_keep(&space, PAGES, 1);
        let mut sums = [0; PAGES];
        for (written, out) in some_written(PAGES) {
            go(&device, &place, 0..PAGES);
            read(&device, &place, 0..PAGES);
            for &page in &written {
                add(&device, &place, page..page + 1, 3);
                sums[page] += 3;
            }
            let gone = copied_by(&space, || come_back(&device, &place, 0..PAGES));
            assert_eq!(gone, copied(out, PAGES - out), "{lives:?} {written:?}");
            for (page, sum) in sums.iter().enumerate() {
                assert_eq!(place.load(page), Some(Place::content(page) + sum), "{lives:?} {page}");
            }
        }
        // What was made on the device has nothing to be the same as.
        place.discard(0..PAGES);
        go(&device, &place, 0..PAGES);
        let gone = copied_by(&space, || come_back(&device, &place, 0..PAGES));
        assert_eq!(gone, copied(PAGES, 0), "{lives:?}");
        assert!((0..PAGES).all(|page| place.load(page) == Some(0)));
        drop(device);
        space.close().unwrap();
    }
}

/// Four times the device's memory, twice over, by one worker and by several.
fn is_all_of_a_reading_stream() {
    const FRAMES: usize = 128;
    for (lives, workers) in EVERYWHERE.into_iter().flat_map(|lives| [(lives, 1), (lives, 3)]) {
        let (space, place) = Place::open(4 * FRAMES);
        let device = lives.start_to_keep(&space, FRAMES, workers);
        let gone = copied_by(&space, || {
            (0..2).for_each(|_| read(&device, &place, 0..4 * FRAMES));
            assert_eq!(device.bring_all_back().stayed(), 0);
        });
        assert_eq!(gone.out, 0, "{lives:?}, {workers} workers");
        assert!(gone.clean >= 8 * FRAMES as u64, "{lives:?}, {workers} workers: {gone:?}");
        for page in 0..4 * FRAMES {
            assert_eq!(place.load(page), Some(Place::content(page)), "{lives:?} {page}");
        }
        drop(device);
        space.close().unwrap();
    }
}

/// What was written at an address that the pages have left counts where they are now; what was written to pages that
/// are gone counts for none that come after them, also in the same frames.
fn is_not_what_was_written_elsewhere() {
    const PAGES: usize = 16;
    for lives in EVERYWHERE {
        let (space, place) = Place::open(2 * PAGES);
        let device = lives.start_to_keep(&space, PAGES, 1);
        go(&device, &place, 0..PAGES);
        add(&device, &place, 2..3, 7);
        let (first, len) = (place.address(0), PAGES * 4096);
        let from = ptr::with_exposed_provenance_mut::<libc::c_void>(first);
        // SAFETY: a new mapping, and a move of what is the place's to there.
        let to = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let to = libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0);
            let to = libc::mremap(from, len, len, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to);
            assert_ne!(to, libc::MAP_FAILED);
            to
        };
        let there = to.expose_provenance();
        run_at(&device, there as u64, 0..PAGES, None);
        run_at(&device, there as u64, 5..6, Some(9));
        let all = AddressRange::new(there, len).unwrap();
        let gone = copied_by(&space, || {
            assert_eq!(device.bring_back(all).unwrap().moved(), PAGES);
        });
        // Those between are copied along.
        assert_eq!(gone, copied(4, PAGES - 4), "{lives:?}");
        let added = |page| [(2, 7), (5, 9)].iter().find(|at| at.0 == page).map_or(0, |at| at.1);
        for page in 0..PAGES {
            let at = ptr::with_exposed_provenance::<u64>(there + page * 4096);
            // SAFETY: what was moved there.
            let seen = unsafe { at.read_volatile() };
            assert_eq!(seen, Place::content(page) + added(page), "{lives:?} {page}");
        }
        // All is written there, and ends.
        assert_eq!(device.migrate(all).unwrap().moved(), PAGES);
        run_at(&device, there as u64, 0..PAGES, Some(1));
        // SAFETY: what was moved, which nobody uses.
        assert_eq!(unsafe { libc::munmap(to, len) }, 0);
        go(&device, &place, PAGES..2 * PAGES);
        read(&device, &place, PAGES..2 * PAGES);
        let gone = copied_by(&space, || come_back(&device, &place, PAGES..2 * PAGES));
        assert_eq!(gone, copied(0, PAGES), "{lives:?}");
        drop(device);
        // SAFETY: new pages where the place's were.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            assert_eq!(libc::mmap(from, len, libc::PROT_NONE, flags, -1, 0), from);
        }
        space.close().unwrap();
    }
}

/// Numbers one after the other that have nothing to do with each other.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn pages(&mut self, limit: usize, most: usize) -> Range<usize> {
        let first = self.below(limit);
        first..(first + 1 + self.below(most)).min(limit)
    }
}

fn or_not_by_chance() {
    const FRAMES: usize = 64;
    const PAGES: usize = 4 * FRAMES;
    for (lives, seed) in EVERYWHERE.into_iter().flat_map(|lives| [(lives, 1), (lives, 2)]) {
        let (space, place) = Place::open(PAGES);
        let device = lives.start_to_keep(&space, FRAMES, 2);
        let mut expected: Vec<_> = (0..PAGES).map(Place::content).collect();
        let mut chance = Chance(seed * 88_172_645_463_325_252);
        let all = copied_by(&space, || {
            for _ in 0..150 {
                read(&device, &place, chance.pages(PAGES, FRAMES));
                let written = chance.pages(PAGES, 8);
                add(&device, &place, written.clone(), 1);
                expected[written].iter_mut().for_each(|number| *number += 1);
                let page = chance.below(PAGES);
                match chance.below(4) {
                    0 => {
                        expected[page] = chance.0 >> 8;
                        place.store(page, expected[page]);
                    }
                    1 => assert_eq!(place.load(page), Some(expected[page]), "{lives:?} {page}"),
                    2 => drop(device.bring_all_back()),
                    _ => {}
                }
            }
        });
        for (page, &expected) in expected.iter().enumerate() {
            assert_eq!(place.load(page), Some(expected), "{lives:?}, page {page}");
        }
        assert!(all.out > 0 && all.clean > all.out, "{lives:?}: {all:?}");
        drop(device);
        space.close().unwrap();
    }
}

/// Pages are taken back while workers write them: no write is lost.
fn or_not_while_it_writes() {
    const PAGES: usize = 64;
    const TAKEN: u64 = 5000;
    for lives in EVERYWHERE {
        let (space, place) = Place::open(PAGES);
        let device = lives.start_to_keep(&space, PAGES, 3);
        let (done, mut rounds, since) = (AtomicBool::new(false), 0, Instant::now());
        std::thread::scope(|scope| {
            let taking = scope.spawn(|| {
                for page in (0..PAGES).cycle().step_by(5) {
                    if done.load(Relaxed) {
                        return;
                    }
                    // Of some the program asks, others it touches.
                    if page % 2 == 0 {
                        let _ = device.bring_back(place.part(page..(page + 9).min(PAGES)));
                    } else {
                        assert!(place.load(page).is_some(), "{lives:?}: nothing is lost");
                    }
                }
            });
            while space.counters().copied_out < TAKEN && since.elapsed() < Duration::from_secs(30) {
                add(&device, &place, 0..PAGES, 1);
                rounds += 1;
            }
            done.store(true, Relaxed);
            taking.join().unwrap();
        });
        assert!(space.counters().copied_out >= TAKEN, "{lives:?}: they did not meet");
        for page in 0..PAGES {
            assert_eq!(place.load(page), Some(Place::content(page) + rounds), "{lives:?} {page}");
        }
        drop(device);
        space.close().unwrap();
    }
}

/// Pages that are used all the time stay while others come and go.
fn what_is_used_stays() {
    const FRAMES: usize = 256;
    const HOT: usize = FRAMES / 4;
    const COLD: usize = 3 * FRAMES;
    let faults = EVERYWHERE.map(|lives| {
        let (space, place) = Place::open(HOT + COLD);
        let device = lives.start_to_keep(&space, FRAMES, 1);
        read(&device, &place, 0..HOT);
        let mut faults = 0;
        for _ in 0..2 {
            for first in (HOT..HOT + COLD).step_by(32) {
                read(&device, &place, first..first + 32);
                let before = space.counters().to_device_fault;
                read(&device, &place, 0..HOT);
                faults += space.counters().to_device_fault - before;
            }
        }
        let here = PageLocation::Device(device.index());
        assert!((0..HOT).all(|page| space.locate(place.address(page)) == here), "{lives:?}");
        drop(device);
        space.close().unwrap();
        faults
    });
    assert!(faults[1] <= HOT as u64 / 8, "used pages came anew {faults:?} times");
    assert_eq!(faults[0], faults[1], "wherever it lives");
}

/// A transfer takes what the bus's speed says, both ways; what was not written crosses it once.
fn a_bus_takes_its_time() {
    const PAGES: usize = 300;
    // A page in 20 µs.
    let bandwidth = NonZeroU64::new(PAGE * 50_000).unwrap();
    let takes = Duration::from_micros(20) * u32::try_from(PAGES).unwrap();
    let latency = Duration::from_millis(3);
    for lives in EVERYWHERE {
        let (space, place) = Place::open(PAGES);
        let bus = Bus::new().bandwidth(bandwidth).latency(latency);
        let device = lives.start_behind(&space, PAGES, bus);
        let timed = |what: &dyn Fn()| {
            let since = Instant::now();
            what();
            since.elapsed()
        };
        let there = timed(&|| go(&device, &place, 0..PAGES));
        assert!(there >= takes + latency, "{lives:?}: {there:?}");
        add(&device, &place, 0..PAGES, 1);
        let back = timed(&|| come_back(&device, &place, 0..PAGES));
        assert!(back >= takes + latency, "{lives:?}: {back:?}");
        for page in 0..PAGES {
            assert_eq!(place.load(page), Some(Place::content(page) + 1), "{lives:?} {page}");
        }
        go(&device, &place, 0..PAGES);
        read(&device, &place, 0..PAGES);
        let shortest = (0..5).map(|_| {
            let back = timed(&|| come_back(&device, &place, 0..PAGES));
            go(&device, &place, 0..PAGES);
            back
        });
        let shortest = shortest.min().unwrap();
        assert!(shortest < takes, "{lives:?}: what was not written took {shortest:?}");
        drop(device);
        space.close().unwrap();
    }
    // A device that is far has a thread that evicts ahead of need.
    for lives in EVERYWHERE {
        let (space, place) = Place::open(4 * PAGES);
        let device =
            lives.start_behind(&space, PAGES, Bus::new().latency(Duration::from_micros(50)));
        let mut expected: Vec<_> = (0..4 * PAGES).map(Place::content).collect();
        let (mut chance, since) = (Chance(88_172_645_463_325_252), Instant::now());
        // It is a thread that others can keep from a processor.
        while space.counters().evicted_ahead == 0 && since.elapsed() < Duration::from_secs(20) {
            let page = chance.below(4 * PAGES);
            add(&device, &place, page..page + 1, 1);
            expected[page] += 1;
        }
        assert!(space.counters().evicted_ahead > 0, "{lives:?}");
        for (page, &expected) in expected.iter().enumerate() {
            assert_eq!(place.load(page), Some(expected), "{lives:?}, page {page}");
        }
        drop(device);
        space.close().unwrap();
    }
}
