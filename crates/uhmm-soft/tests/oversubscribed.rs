//! A device works on several times what its memory holds: the numbers are those that they would be without
//! one, what nobody uses is not brought, and a memory that is reached by copies takes no new memory of the
//! system for what goes there and comes back.
#![cfg(not(any(shuttle, miri)))]

#[path = "../../uhmm/tests/support/allow_huge_pages.rs"]
mod allow_huge_pages;
#[path = "../../uhmm/tests/support/skip.rs"]
mod skip;

use std::{
    ptr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use allow_huge_pages::allow_huge_pages;
use skip::skip;
use uhmm::{
    AddressSpace, Options as SpaceOptions,
    mm::{
        Stop,
        injected::{Call, Failure, Injected, Injections},
        linux::Linux,
    },
    units::{AddressRange, BLOCK_PAGES},
};
use uhmm_soft::{Bus, Options, Soft};

/// A process has one address space.
static ALONE: Mutex<()> = Mutex::new(());

/// An address space, and memory of which devices may have pages.
struct Place {
    space: AddressSpace<Injected<Linux>>,
    injections: Injections,
    start: usize,
    pages: usize,
    page: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Place {
    fn new(test: &str, pages: usize) -> Option<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mm = match Linux::open() {
            Ok(mm) => Injected::new(mm),
            Err(error) => {
                skip(test, error);
                return None;
            }
        };
        // Each page goes by itself. Where that cannot be had none is huge by chance alone.
        let _ = allow_huge_pages(false);
        let injections = mm.injections();
        let space = SpaceOptions::new().open_on(mm).unwrap();
        let page = space.page_size().bytes();
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(ptr::null_mut(), pages * page, access, flags, -1, 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        let start = start.expose_provenance();
        let place = Self { space, injections, start, pages, page, _alone: alone };
        (0..pages).for_each(|page| place.store(page, page as u64));
        place.space.adopt(place.all()).unwrap();
        Some(place)
    }

    fn all(&self) -> AddressRange {
        AddressRange::new(self.start, self.pages * self.page).unwrap()
    }

    fn address(&self, page: usize) -> usize {
        self.start + page * self.page
    }

    fn load(&self, page: usize) -> u64 {
        let at = ptr::with_exposed_provenance::<u64>(self.address(page));
        // SAFETY: the mapping is the place's, and no launch is under way.
        unsafe { at.read_volatile() }
    }

    fn store(&self, page: usize, value: u64) {
        let at = ptr::with_exposed_provenance_mut::<u64>(self.address(page));
        // SAFETY: as above.
        unsafe { at.write_volatile(value) };
    }

    /// Has a device add one to the number of each page of `order`, in that order.
    fn add(&self, device: &Soft<Injected<Linux>>, order: Vec<usize>) {
        let (start, page) = (self.start, self.page);
        let work = move |worker: &mut uhmm_soft::Worker<'_, _>, _: usize| {
            for &wanted in &order {
                let at = start + wanted * page;
                // SAFETY: the place lives, and nobody else touches it meanwhile.
                unsafe {
                    let number: u64 = worker.load(at)?;
                    worker.store(at, number + 1)?;
                }
            }
            Ok(())
        };
        // SAFETY: as above.
        unsafe { device.run(0..1, work) }.unwrap();
    }

    fn end(self, device: Soft<Injected<Linux>>) {
        drop(device);
        self.space.close().unwrap();
        let start = ptr::with_exposed_provenance_mut(self.start);
        // SAFETY: the mapping is the place's, and nobody uses it any more.
        unsafe { libc::munmap(start, self.pages * self.page) };
    }
}

/// Pages one after the other that have nothing to do with each other.
fn at_random(count: usize, pages: usize) -> Vec<usize> {
    let mut state = 88_172_645_463_325_252_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % pages
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn works_on_four_times_its_memory(
    test: &str,
    order: impl Fn(usize) -> Vec<usize>,
    is_random: bool,
) {
    const FRAMES: usize = 128;
    for bus in [None, Some(Bus::new())] {
        let Some(place) = Place::new(test, 4 * FRAMES) else { return };
        let options = Options::new(FRAMES * place.page).keep_pages();
        let options = bus.map_or(options, |bus| options.behind_bus(bus));
        let device = Soft::start(&place.space, options).unwrap();
        let mut expected: Vec<u64> = (0..place.pages).map(|page| page as u64).collect();
        let mut before = place.space.counters();
        for _ in 0..4 {
            before = place.space.counters();
            let order = order(place.pages);
            for &page in &order {
                expected[page] += 1;
            }
            place.add(&device, order);
        }
        let after = place.space.counters();
        let faulted = after.to_device_fault - before.to_device_fault;
        let neighbours = after.to_device_neighbour - before.to_device_neighbour;
        if is_random {
            assert!(neighbours * 4 < faulted, "{neighbours} neighbours came with {faulted} pages");
        } else {
            assert!(faulted * 8 < neighbours, "{neighbours} neighbours came with {faulted} pages");
        }
        for (page, &expected) in expected.iter().enumerate() {
            assert_eq!(place.load(page), expected, "page {page}");
        }
        place.end(device);
    }
}

#[test]
fn in_order() {
    works_on_four_times_its_memory("in_order", |pages| (0..pages).collect(), false);
}

#[test]
fn at_random_one_page_here_and_one_there() {
    let order = |pages| at_random(8 * pages, pages);
    works_on_four_times_its_memory("at_random_one_page_here_and_one_there", order, true);
}

/// A bus that takes its time.
fn far() -> Bus {
    Bus::new().latency(Duration::from_micros(5))
}

/// How often each of some failures comes while a device gives up memory ahead of need.
const FAILURES: usize = 40;

#[test]
fn memory_that_is_far_is_given_up_ahead_of_need_and_survives_failures() {
    let test = "memory_that_is_far_is_given_up_ahead_of_need_and_survives_failures";
    let frames = 256;
    for stop in [None, Some(Stop::NoMemory), Some(Stop::Changing), Some(Stop::Busy)] {
        let Some(place) = Place::new(test, 4 * frames) else { return };
        let options = Options::new(frames * place.page).keep_pages().behind_bus(far());
        let device = Soft::start(&place.space, options).unwrap();
        let mut expected: Vec<u64> = (0..place.pages).map(|page| page as u64).collect();
        for number in 0..FAILURES {
            place.injections.clear();
            if let Some(stop) = stop {
                let (call, after) = ([Call::Give, Call::Copy][number % 2], number / 2 % 2);
                place.injections.inject(call, 1 + number, Failure::Stop { after, stop });
            }
            let order = if number % 4 == 0 {
                (0..place.pages).collect()
            } else {
                at_random(place.pages, place.pages)
            };
            for &page in &order {
                expected[page] += 1;
            }
            place.add(&device, order);
            // The program uses some of it in between.
            for page in (number..place.pages).step_by(61) {
                assert_eq!(place.load(page), expected[page], "page {page}");
                expected[page] += 7;
                place.store(page, expected[page]);
            }
        }
        place.injections.clear();
        let counters = place.space.counters();
        assert!(
            counters.evicted_ahead > 0 && counters.evicted_ahead <= counters.to_system_eviction
        );
        for (page, &expected) in expected.iter().enumerate() {
            assert_eq!(place.load(page), expected, "page {page}");
        }
        // Nobody wants any, and nobody looks: what is on the device stays there.
        place.add(&device, (0..frames / 2).collect());
        let evicted = || {
            let counters = place.space.counters();
            (counters.to_system_eviction, counters.evicted_ahead)
        };
        let before = evicted();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(evicted(), before);
        place.end(device);
    }
}

#[test]
fn what_fits_stays() {
    let Some(place) = Place::new("what_fits_stays", 256) else { return };
    let options = Options::new(256 * place.page).keep_pages().behind_bus(far());
    let device = Soft::start(&place.space, options).unwrap();
    for _ in 0..20 {
        place.add(&device, at_random(1024, 256));
    }
    let counters = place.space.counters();
    assert_eq!(counters.to_system_eviction, 0);
    place.end(device);
}

#[test]
fn what_was_copied_to_a_device_comes_back_into_the_memory_that_it_had() {
    let test = "what_was_copied_to_a_device_comes_back_into_the_memory_that_it_had";
    let blocks = 12;
    let Some(place) = Place::new(test, blocks * BLOCK_PAGES) else { return };
    let options = Options::new((blocks + 1) * BLOCK_PAGES * place.page).behind_bus(Bus::new());
    let device = Soft::start(&place.space, options).unwrap();
    let calls =
        || [Call::EmptyStaging, Call::Copy, Call::Zero].map(|call| place.injections.calls(call));
    let mut before = calls();
    for round in 0..3 {
        let there = device.migrate(place.all()).unwrap();
        assert_eq!((there.moved(), there.stayed()), (place.pages, 0));
        let back = place.space.bring_back(place.all()).unwrap();
        assert_eq!((back.moved(), back.stayed()), (place.pages, 0));
        if round > 0 {
            assert_eq!(calls(), before, "staging was emptied, pages copied or filled");
        }
        before = calls();
        (0..place.pages).for_each(|page| assert_eq!(place.load(page), page as u64));
    }
    place.end(device);
}
