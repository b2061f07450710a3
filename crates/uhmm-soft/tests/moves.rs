//! Threads move memory, cut it short, let it grow in place and leave it to each other, all at once, while a
//! device takes it: what each has there is what it wrote, and zeros where it is new.
//!
//! `UHMM_MOVES_SECONDS` says how long that goes on, 5 where unset; `UHMM_MOVES_SEED` with what it starts.

#[path = "../../uhmm/tests/support/random_numbers.rs"]
mod random_numbers;

use std::{
    fs, io, ptr,
    sync::{
        Mutex,
        atomic::{
            AtomicUsize,
            Ordering::{Acquire, Release},
        },
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use uhmm::{AddressSpace, units::AddressRange};
use uhmm_soft::{Options, Soft};

use random_numbers::Random;

const THREADS: usize = 4;
/// The most pages that a thread has.
const MOST: usize = 48;

/// What a thread does with its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    WriteAll,
    WriteSome,
    Check,
    /// It becomes longer, elsewhere where it has no room.
    GrowOrMove,
    Cut,
    Grow,
    Move,
    /// At once, with nothing looked at in between.
    MoveCutAndGrow,
    MapOver,
    Renew,
}

impl Step {
    const ALL: [Self; 10] = [
        Self::WriteAll,
        Self::WriteSome,
        Self::Check,
        Self::GrowOrMove,
        Self::Cut,
        Self::Grow,
        Self::Move,
        Self::MoveCutAndGrow,
        Self::MapOver,
        Self::Renew,
    ];
}

/// Where a thread's memory is, for who migrates it. It may be elsewhere by then.
#[derive(Default)]
struct Place {
    start: AtomicUsize,
    bytes: AtomicUsize,
}

impl Place {
    fn range(&self) -> Option<AddressRange> {
        let range = AddressRange::new(self.start.load(Acquire), self.bytes.load(Acquire));
        range.ok().filter(|range| range.len() > 0)
    }
}

/// Memory of one thread, and the number that is to be at the start of each page.
struct Memory<'a> {
    start: *mut u64,
    numbers: Vec<u64>,
    page: usize,
    place: &'a Place,
    /// What was done with it, for who has to understand a loss.
    done: Vec<String>,
}

fn map(at: *mut u64, bytes: usize) -> *mut u64 {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let fixed = if at.is_null() { 0 } else { libc::MAP_FIXED };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed;
    // SAFETY: a new mapping, or one in place of memory of this thread's own.
    let start = unsafe { libc::mmap(at.cast(), bytes, access, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
    start.cast()
}

impl<'a> Memory<'a> {
    fn new(pages: usize, page: usize, place: &'a Place) -> Self {
        let start = map(ptr::null_mut(), pages * page);
        let memory = Self { start, numbers: vec![0; pages], page, place, done: Vec::new() };
        memory.publish();
        memory
    }

    fn publish(&self) {
        self.place.start.store(self.start.addr(), Release);
        self.place.bytes.store(self.numbers.len() * self.page, Release);
    }

    fn note(&mut self, step: Step, pages: usize) {
        if self.done.len() == 24 {
            self.done.remove(0);
        }
        let (start, all) = (self.start, self.numbers.len());
        self.done.push(format!("{step:?} {pages}, of {all} pages at {start:?}"));
    }

    fn at(&self, page: usize) -> *mut u64 {
        assert!(page < self.numbers.len());
        // SAFETY: the page is in the memory.
        unsafe { self.start.byte_add(page * self.page) }
    }

    fn write(&mut self, page: usize, number: u64) {
        self.numbers[page] = number;
        // SAFETY: the place is in the memory and aligned, and this thread's alone.
        unsafe { self.at(page).write_volatile(number) };
    }

    fn check(&self) {
        for (page, &expected) in self.numbers.iter().enumerate() {
            // SAFETY: as for writing.
            let found = unsafe { self.at(page).read_volatile() };
            if found != expected {
                eprintln!(
                    "page {page} of {:?} has {found:#x} and is to have {expected:#x}",
                    self.start
                );
                for done in &self.done {
                    eprintln!("  {done}");
                }
                std::process::abort();
            }
        }
    }

    /// Whether the system has it as one area.
    fn is_one_area(&self) -> bool {
        let (start, bytes) = (self.start.addr(), self.numbers.len() * self.page);
        let areas = fs::read_to_string("/proc/self/maps").expect("the areas can be read");
        areas.lines().filter_map(area).any(|(first, end)| first <= start && start + bytes <= end)
    }

    /// Makes it `pages` long, there or as `flags` say. Answers whether the system did.
    fn remap(&mut self, pages: usize, flags: i32, to: *mut u64) -> bool {
        let (old, new) = (self.numbers.len() * self.page, pages * self.page);
        // SAFETY: this thread's own memory, to which it has no references now.
        let at = unsafe { libc::mremap(self.start.cast(), old, new, flags, to) };
        // What is several areas does not move as one, and what has no room does not grow.
        if at == libc::MAP_FAILED {
            return false;
        }
        self.start = at.cast();
        self.numbers.resize(pages, 0);
        self.publish();
        true
    }
}

/// The range that a line of the system's list of areas is of.
fn area(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        // SAFETY: the memory is this value's, and nobody has a reference into it.
        unsafe { libc::munmap(self.start.cast(), self.numbers.len() * self.page) };
    }
}

fn work(place: &Place, page: usize, mut random: Random, still: &Mutex<()>, until: Instant) -> u64 {
    let mut memory = Memory::new(MOST / 2, page, place);
    let (mut steps, mut several) = (0, 0_u64);
    while Instant::now() < until {
        let all = memory.numbers.len();
        let pages = 1 + random.below(MOST);
        let step = Step::ALL[random.below(Step::ALL.len())];
        memory.note(step, pages);
        match step {
            Step::WriteAll => {
                for page in 0..all {
                    memory.write(page, random.next() | 1);
                }
            }
            Step::Check => memory.check(),
            Step::GrowOrMove => {
                memory.remap(pages.max(all), libc::MREMAP_MAYMOVE, ptr::null_mut());
            }
            Step::Cut => {
                memory.remap(pages.min(all), 0, ptr::null_mut());
            }
            Step::Grow => {
                memory.remap(pages.max(all), 0, ptr::null_mut());
            }
            Step::Move | Step::MoveCutAndGrow => {
                let _still = still.lock().unwrap();
                // Several areas move one by one, if at all.
                if memory.is_one_area() {
                    let to = map(ptr::null_mut(), all * page);
                    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                    assert!(memory.remap(all, flags, to), "{}", io::Error::last_os_error());
                    if step == Step::MoveCutAndGrow {
                        memory.remap(pages.min(all), 0, ptr::null_mut());
                        memory.remap(all, 0, ptr::null_mut());
                    }
                } else {
                    several += 1;
                }
            }
            Step::MapOver => {
                let first = random.below(all);
                map(memory.at(first), (all - first).min(pages) * page);
                memory.numbers[first..(first + pages).min(all)].fill(0);
            }
            Step::Renew => memory = Memory::new(pages, page, place),
            Step::WriteSome => {
                for _ in 0..4 {
                    let page = random.below(all);
                    memory.write(page, random.next() | 1);
                }
            }
        }
        memory.check();
        steps += 1;
    }
    eprintln!("{steps} steps, {several} times memory was not one area");
    steps
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |number| number.parse().expect("a number"))
}

#[test]
fn what_moves_is_cut_and_grows_again_is_what_was_written() {
    let seconds = setting("UHMM_MOVES_SECONDS", 5);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = setting("UHMM_MOVES_SEED", now.as_secs());
    eprintln!("{seconds} s, seed {seed}");
    let space = AddressSpace::open().unwrap();
    let page = space.page_size().bytes();
    let device = Soft::start(&space, Options::new(THREADS * MOST * page)).unwrap();
    let places: [Place; THREADS] = Default::default();
    // Held while what moves is looked for, or while something moves as a whole.
    let still = &Mutex::new(());
    let until = Instant::now() + Duration::from_secs(seconds);
    let steps: u64 = thread::scope(|scope| {
        let workers: Vec<_> = places
            .iter()
            .zip(1..)
            .map(|(place, number)| {
                let random = Random::new(seed.wrapping_add(number));
                scope.spawn(move || work(place, page, random, still, until))
            })
            .collect();
        scope.spawn(|| {
            let mut random = Random::new(seed);
            while Instant::now() < until {
                let Some(range) = places[random.below(THREADS)].range() else { continue };
                let _still = still.lock().unwrap();
                // It may have gone.
                if space.adopt(range).is_ok() {
                    let _ = device.migrate(range);
                }
            }
        });
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    let counters = space.counters();
    for name in ["remapped", "changes", "changes_waited", "changes_outdated"] {
        let value = counters.iter().find(|(other, _)| *other == name).map_or(0, |(_, value)| value);
        eprintln!("{name} {value}");
    }
    eprintln!("{steps} steps");
    assert!(counters.remapped > 0, "nothing moved that was on a device");
    drop(device);
    space.close().unwrap();
}
