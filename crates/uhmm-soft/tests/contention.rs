//! Two devices and two threads of the CPU read, write and add atomically over the same four
//! mebibytes, while other threads migrate them, make them exclusive, place them, and unmap, map and
//! remap pages among them. At the end every sum is exact, nothing has failed, and nobody has waited for
//! more than one turn of each other side and one more of the side that had the turn as it arrived.
//!
//! How long each access took is told. `UHMM_CONTENTION_SECONDS` says how long it goes on, 5 where
//! unset.

#[path = "../../uhmm/tests/support/random_numbers.rs"]
mod random_numbers;
#[path = "../../uhmm/tests/support/skip.rs"]
mod skip;

use std::{
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use random_numbers::Random;
use skip::skip;
use uhmm::{AddressSpace, units::AddressRange};
use uhmm_soft::{Options, Placement, Soft};

const BYTES: usize = 4 << 20;
const HALF: usize = BYTES / 2;

/// Pages at the end of each half that are not for the sums: they come and go.
const LOOSE: usize = 24;

/// Whose word of a page is whose: the sums' is the first, then one for each that reads and writes.
const ACTORS: usize = 4;

/// Threads that wait for blocks: a worker of either device, who sends pages about, and the handler that
/// leads. Each stands in a queue once at a time.
const THREADS: u64 = 4;

/// Threads that fault: those that compute, and the one that changes the address space.
const FAULTING: u64 = 3;

/// Turns that may pass before one's own: one of each other side. Who has the turn as one arrives may be
/// in line again, where that is a fault's, whose thread goes on as soon as its page is there.
const TURNS: u64 = (THREADS + FAULTING - 1) + 1;

/// How long accesses took: how many took less than each power of two of nanoseconds.
struct Waits([AtomicU64; 40]);

impl Waits {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 40])
    }

    fn add(&self, took: Duration) {
        let bits = u128::BITS - took.as_nanos().leading_zeros();
        self.0[usize::try_from(bits).expect("few bits").min(39)].fetch_add(1, Relaxed);
    }

    /// Below what `parts` of a thousand are, in microseconds.
    fn below(&self, parts: u64) -> f64 {
        let all: u64 = self.0.iter().map(|count| count.load(Relaxed)).sum();
        let mut left = all * parts / 1000;
        for (bits, count) in self.0.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > left {
                return f64::exp2(f64::from(u32::try_from(bits).unwrap_or(0))) / 1000.0;
            }
            left -= count;
        }
        f64::INFINITY
    }
}

static CPU_WAITS: Waits = Waits::new();
static DEVICE_WAITS: Waits = Waits::new();
static STOP: AtomicBool = AtomicBool::new(false);

/// Where all of it is.
#[derive(Clone, Copy)]
struct Arena {
    start: usize,
    page: usize,
}

impl Arena {
    fn map(page: usize) -> Self {
        let (access, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping; what of it is not aligned stays unused.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), 2 * BYTES, access, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        Self { start: start.expose_provenance().next_multiple_of(HALF), page }
    }

    const fn pages(self) -> usize {
        BYTES / self.page
    }

    /// A page for the sums, from a number.
    const fn firm(self, number: usize) -> usize {
        let half = self.pages() / 2;
        let firm = half - LOOSE;
        let number = number % (2 * firm);
        number / firm * half + number % firm
    }

    const fn word(self, page: usize, number: usize) -> usize {
        self.start + page * self.page + 8 * number
    }

    fn range(self, first: usize, pages: usize) -> AddressRange {
        AddressRange::new(self.word(first, 0), pages * self.page).expect("some pages")
    }

    fn cpu(self, page: usize, number: usize) -> &'static AtomicU64 {
        let at = std::ptr::with_exposed_provenance_mut(self.word(page, number));
        // SAFETY: the arena stays mapped there to the end of the process, the word is aligned, and
        // everybody accesses it atomically.
        unsafe { AtomicU64::from_ptr(at) }
    }
}

/// A thread of the CPU adds, writes its own words and reads them again.
fn compute(arena: Arena, actor: usize, mut random: Random) -> u64 {
    let mut added = 0;
    while !STOP.load(Relaxed) {
        let page = arena.firm(random.below(1 << 20));
        let since = Instant::now();
        if random.below(3) == 0 {
            arena.cpu(page, 0).fetch_add(1, SeqCst);
            added += 1;
        } else {
            let mine = arena.cpu(page, 1 + actor);
            let value = mine.load(Relaxed);
            mine.store(value.wrapping_add(3), Relaxed);
            assert_eq!(mine.load(Relaxed), value.wrapping_add(3), "another wrote my word");
        }
        CPU_WAITS.add(since.elapsed());
    }
    added
}

/// A device does the same, some accesses a launch.
fn compute_on(device: &Soft, arena: Arena, actor: usize, mut random: Random) -> u64 {
    const ACCESSES: usize = 32;
    let mut added = 0;
    while !STOP.load(Relaxed) {
        let seed = random.below(1 << 30);
        // SAFETY: the kernel touches words of the arena, by its worker, as atomics or those that are
        // this device's own; what it counts in is no heap.
        let ran = unsafe {
            device.run(0..ACCESSES, move |worker, item| {
                let page = arena.firm(seed.wrapping_mul(31).wrapping_add(item * 7919));
                let since = Instant::now();
                if item % 3 == 0 {
                    worker.fetch_add(arena.word(page, 0), 1_u64)?;
                } else {
                    let mine = arena.word(page, 1 + actor);
                    let value: u64 = worker.load(mine)?;
                    worker.store(mine, value.wrapping_add(3))?;
                    let now: u64 = worker.load(mine)?;
                    if now != value.wrapping_add(3) {
                        uhmm::abort::abort(b"another wrote a device's word");
                    }
                }
                DEVICE_WAITS.add(since.elapsed());
                Ok(())
            })
        };
        if let Err(error) = ran {
            panic!("a device failed: {error}");
        }
        added += ACCESSES.div_ceil(3) as u64;
    }
    added
}

/// Pages are sent about.
fn send_about(devices: &[Soft; 2], space: &AddressSpace, arena: Arena, mut random: Random) {
    while !STOP.load(Relaxed) {
        let first = random.below(arena.pages());
        let pages = 1 + random.below((arena.pages() - first).min(200));
        let range = arena.range(first, pages);
        let device = &devices[random.below(2)];
        match random.below(8) {
            0..=2 => drop(device.migrate(range).expect("whole pages")),
            3 => drop(device.make_exclusive(range).expect("whole pages")),
            4 => drop(space.bring_back(range).expect("whole pages")),
            5 => device.place(range, Placement::InPlace).expect("whole pages"),
            6 => device.place(range, Placement::Migrate).expect("whole pages"),
            _ => thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// Pages among the others are unmapped, mapped, moved and discarded, and keep what they hold.
fn change(arena: Arena, mut random: Random) {
    let half = arena.pages() / 2;
    // A slot is a page; content moves between two slots, one of which is mapped.
    let slots = [half - LOOSE + 2, arena.pages() - LOOSE + 5];
    let (access, fixed) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
    );
    let at =
        |slot: usize| std::ptr::with_exposed_provenance_mut::<libc::c_void>(arena.word(slot, 0));
    let map = |slot: usize| {
        // SAFETY: a page of this thread's own.
        let mapped = unsafe { libc::mmap(at(slot), arena.page, access, fixed, -1, 0) };
        assert_eq!(mapped, at(slot));
    };
    let mut here = 0;
    let mut value = 0;
    while !STOP.load(Relaxed) {
        let slot = slots[here];
        match random.below(5) {
            0 => {
                let to = slots[1 - here];
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                // SAFETY: both pages are this thread's own.
                let moved =
                    unsafe { libc::mremap(at(slot), arena.page, arena.page, flags, at(to)) };
                assert_eq!(moved, at(to), "{}", std::io::Error::last_os_error());
                here = 1 - here;
            }
            1 => {
                // SAFETY: a page of this thread's own.
                assert_eq!(unsafe { libc::munmap(at(slot), arena.page) }, 0);
                map(slot);
                value = 0;
            }
            2 => {
                // SAFETY: a page of this thread's own.
                let done = unsafe { libc::madvise(at(slot), arena.page, libc::MADV_DONTNEED) };
                assert_eq!(done, 0);
                value = 0;
            }
            3 => {
                value += 1;
                arena.cpu(slot, 7).store(value, Relaxed);
            }
            _ => thread::sleep(Duration::from_micros(100)),
        }
        assert_eq!(arena.cpu(slots[here], 7).load(Relaxed), value, "content follows its page");
    }
}

#[test]
fn sums_are_exact_under_contention() {
    let space = match AddressSpace::open() {
        Ok(space) => space,
        Err(error) => return skip("sums_are_exact_under_contention", error),
    };
    let seconds = std::env::var("UHMM_CONTENTION_SECONDS")
        .map_or(5, |seconds| seconds.parse().expect("UHMM_CONTENTION_SECONDS is a number"));
    let arena = Arena::map(space.page_size().bytes());
    for page in 0..arena.pages() {
        arena.cpu(page, 0).store(0, Relaxed);
    }
    space.adopt(arena.range(0, arena.pages())).expect("memory that can be adopted");
    let devices = [3 << 20, 1 << 20]
        .map(|memory| Soft::start(&space, Options::new(memory)).expect("a device starts"));
    let added: u64 = thread::scope(|scope| {
        let (space, devices) = (&space, &devices);
        let mut actors = Vec::new();
        for actor in 0..2 {
            let seed = Random::new(actor as u64 + 1);
            actors.push(scope.spawn(move || compute(arena, actor, seed)));
            let (seed, actor) = (Random::new(actor as u64 + 11), actor + ACTORS / 2);
            let device = &devices[actor - ACTORS / 2];
            actors.push(scope.spawn(move || compute_on(device, arena, actor, seed)));
        }
        scope.spawn(move || send_about(devices, space, arena, Random::new(21)));
        scope.spawn(move || change(arena, Random::new(31)));
        thread::sleep(Duration::from_secs(seconds));
        STOP.store(true, SeqCst);
        actors.into_iter().map(|actor| actor.join().expect("no thread panics")).sum()
    });
    let counters = space.counters();
    let sum: u64 =
        (0..arena.pages()).map(|page| arena.cpu(arena.firm(page), 0).load(Relaxed)).sum();
    let twice: u64 = (2 * (arena.pages() / 2 - LOOSE)..arena.pages())
        .map(|page| arena.cpu(arena.firm(page), 0).load(Relaxed))
        .sum();
    assert_eq!(sum - twice, added, "every addition is seen once");
    for (name, waits) in [("CPU", &CPU_WAITS), ("device", &DEVICE_WAITS)] {
        println!(
            "{name}: half of the accesses took less than {} µs, 99.9 % less than {} µs",
            waits.below(500),
            waits.below(999),
        );
    }
    println!("{added} additions; {counters:?}");
    assert_eq!(counters.failed_for_memory, 0);
    let (all, of_threads) = (counters.most_turns_waited, counters.most_thread_turns_waited);
    println!("nobody waited for more than {all} turns, and {of_threads} of threads");
    assert!(all <= TURNS, "{all} turns, of which {TURNS} may pass");
    assert!(of_threads <= THREADS, "{of_threads} turns of {THREADS} threads");
    drop(devices);
    space.close().expect("a close");
}
