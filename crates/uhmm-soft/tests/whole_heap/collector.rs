//! A program with handlers of its own for SIGSEGV and SIGBUS, as garbage collectors have: it closes
//! pages, and its handlers open them when they are touched, map them, make a file longer, or give the
//! access up. Several threads meet closed pages while another closes them, and moves them about.

use std::{
    ffi::{c_int, c_void},
    mem, ptr,
    sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    thread,
};

use crate::{
    jump::{give_up, try_load},
    random::{Random, lost, mix, note},
    work::{Job, World},
};

const PAGE: usize = 4096;
const NONE: c_int = libc::PROT_NONE;
const READ: c_int = libc::PROT_READ;
const ALL: c_int = libc::PROT_READ | libc::PROT_WRITE;

/// What stands at a page, and what the handlers do where it is touched.
mod state {
    /// It can be read and written.
    pub(super) const OPEN: u8 = 0;
    /// It cannot be touched: it is opened.
    pub(super) const CLOSED: u8 = 1;
    /// It cannot be written: it is opened.
    pub(super) const GUARDED: u8 = 2;
    /// Nothing is there but the reservation of its addresses: it is mapped.
    pub(super) const GONE: u8 = 3;
    /// It cannot be touched: the access is given up.
    pub(super) const FORBIDDEN: u8 = 4;
    /// It lies behind the end of its file, which is made longer.
    pub(super) const BEYOND: u8 = 5;
    /// It lies behind the end of its file, and memory is mapped in its place.
    pub(super) const REPLACED: u8 = 6;
    /// Somebody is changing it.
    pub(super) const BUSY: u8 = 7;
}

/// Pages that the handlers know. Like all of this it is on the heap.
struct Region {
    /// Where handlers find it.
    place: usize,
    start: usize,
    states: Vec<AtomicU8>,
    /// The file that is mapped there, or -1.
    file: c_int,
    /// How often a handler did something about a page.
    handled: AtomicU64,
}

/// The regions that there are.
static REGIONS: [AtomicPtr<Region>; 3] = [const { AtomicPtr::new(ptr::null_mut()) }; 3];

/// What was done about the two signals before.
static BEFORE: [AtomicPtr<libc::sigaction>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];

fn last_error() -> std::io::Error {
    std::io::Error::last_os_error()
}

fn map(at: usize, pages: usize, access: c_int, more: c_int, file: c_int) -> usize {
    let at = ptr::without_provenance_mut(at);
    // SAFETY: new memory, or in place of memory of this program's own, as its callers see to.
    let start = unsafe { libc::mmap(at, pages * PAGE, access, more, file, 0) };
    assert_ne!(start, libc::MAP_FAILED, "mmap: {}", last_error());
    start.expose_provenance()
}

const ANONYMOUS: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

fn file_of(pages: usize) -> c_int {
    // SAFETY: a new file without a name; the name given is for people.
    let file = unsafe { libc::memfd_create(c"uhmm-collector".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(file >= 0, "memfd_create: {}", last_error());
    set_length(file, pages);
    file
}

fn set_length(file: c_int, pages: usize) {
    let bytes = i64::try_from(pages * PAGE).unwrap_or(0);
    // SAFETY: the file is this program's own.
    if unsafe { libc::ftruncate(file, bytes) } != 0 {
        uhmm::abort::abort(b"a file cannot be made longer");
    }
}

impl Region {
    /// A region of private memory, or of a file that is `length` pages long.
    #[expect(clippy::unnecessary_box_returns, reason = "handlers know where it is")]
    fn new(place: usize, pages: usize, length: Option<usize>) -> Box<Self> {
        let (start, file) = match length {
            None => (map(0, pages, ALL, ANONYMOUS, -1), -1),
            Some(length) => {
                let file = file_of(length);
                (map(0, pages, ALL, libc::MAP_SHARED, file), file)
            }
        };
        let states = (0..pages).map(|_| AtomicU8::new(state::OPEN)).collect();
        let mut region = Box::new(Self { place, start, states, file, handled: AtomicU64::new(0) });
        REGIONS[place].store(&raw mut *region, Release);
        region
    }

    /// The region and the page in it that an address lies in.
    fn at(address: usize) -> Option<(&'static Self, usize)> {
        REGIONS.iter().find_map(|region| {
            // SAFETY: a region that is found here lives while its pages can be touched.
            let region = unsafe { region.load(Acquire).as_ref() }?;
            let page = address.checked_sub(region.start)? / PAGE;
            (page < region.states.len()).then_some((region, page))
        })
    }

    fn address(&self, page: usize) -> usize {
        self.start + page * PAGE
    }

    fn word(&self, page: usize, word: usize) -> *mut u64 {
        ptr::with_exposed_provenance_mut(self.address(page) + word * 8)
    }

    fn protect(&self, page: usize, pages: usize, access: c_int) {
        let at = self.word(page, 0).cast();
        // SAFETY: the region's own pages, which are used as their states say.
        if unsafe { libc::mprotect(at, pages * PAGE, access) } != 0 {
            uhmm::abort::abort(b"the protection of a page cannot be changed");
        }
    }

    /// What a handler does about an access of a page. Answers whether the access is to be made again.
    fn touched(&self, page: usize, signal: c_int) -> bool {
        let now = self.states[page].load(Acquire);
        let expected = match now {
            state::BEYOND | state::REPLACED => libc::SIGBUS,
            state::CLOSED | state::GUARDED | state::GONE => libc::SIGSEGV,
            // Another thread did, or does, what is to be done.
            state::OPEN | state::BUSY => {
                thread::yield_now();
                return true;
            }
            _ => return false,
        };
        if signal != expected {
            uhmm::abort::abort(b"LOST: a page was touched and another signal came");
        }
        if self.states[page].compare_exchange(now, state::BUSY, AcqRel, Relaxed).is_err() {
            return true;
        }
        match now {
            state::BEYOND => set_length(self.file, self.states.len()),
            state::REPLACED | state::GONE => {
                map(self.address(page), 1, ALL, ANONYMOUS | libc::MAP_FIXED, -1);
            }
            _ => self.protect(page, 1, ALL),
        }
        self.handled.fetch_add(1, Relaxed);
        self.states[page].store(state::OPEN, Release);
        true
    }

    /// Changes the state of a page that nobody else changes meanwhile. False where somebody does.
    fn change(&self, page: usize, from: u8, to: u8, by: impl FnOnce()) -> bool {
        if self.states[page].compare_exchange(from, state::BUSY, AcqRel, Relaxed).is_err() {
            return false;
        }
        by();
        self.states[page].store(to, Release);
        true
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        REGIONS[self.place].store(ptr::null_mut(), Release);
        // SAFETY: nobody uses the memory or the file any more.
        unsafe {
            libc::munmap(ptr::with_exposed_provenance_mut(self.start), self.states.len() * PAGE);
            if self.file >= 0 {
                libc::close(self.file);
            }
        }
    }
}

extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: where the thread's error number lies.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: it is that of a handler that runs.
    let (address, code) = unsafe { ((*info).si_addr().addr(), (*info).si_code) };
    let known = if code > 0 { Region::at(address) } else { None };
    if uhmm::engine_memory::on_engine_thread() {
        uhmm::abort::abort(b"LOST: a handler of the program runs on a thread of the engine");
    }
    match known {
        Some((region, page)) => {
            if !region.touched(page, signal) {
                region.handled.fetch_add(1, Relaxed);
                // SAFETY: forbidden pages are touched by `try_load` only, and nothing is to be dropped.
                unsafe { give_up() }
            }
        }
        // SAFETY: what was there before gets what the kernel gave.
        None => unsafe { pass_on(signal, info, context) },
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Has what was there before deal with a signal.
///
/// # Safety
/// The arguments are those of a handler that runs.
unsafe fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let before = BEFORE[usize::from(signal != libc::SIGSEGV)].load(Acquire);
    // SAFETY: where it is known it is an action, whose handler is a function of the type that its
    // flags tell.
    unsafe {
        match before.as_ref() {
            Some(action) if action.sa_sigaction > libc::SIG_IGN => {
                if action.sa_flags & libc::SA_SIGINFO != 0 {
                    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                        mem::transmute(action.sa_sigaction);
                    handler(signal, info, context);
                } else {
                    let handler: extern "C" fn(c_int) = mem::transmute(action.sa_sigaction);
                    handler(signal);
                }
            }
            _ => {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

fn set_handlers() {
    for (signal, before) in [libc::SIGSEGV, libc::SIGBUS].into_iter().zip(&BEFORE) {
        // SAFETY: all zeros is an action.
        let (mut action, mut old): (libc::sigaction, libc::sigaction) = unsafe { mem::zeroed() };
        let function: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = handler;
        action.sa_sigaction = function as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler does what may be done about faults of this program's own accesses.
        let result = unsafe { libc::sigaction(signal, &raw const action, &raw mut old) };
        assert_eq!(result, 0, "sigaction: {}", last_error());
        before.store(Box::leak(Box::new(old)), Release);
    }
}

/// The word that must be at a place of a page that has a seed; zeros where it has none.
fn content(seed: u64, word: usize) -> u64 {
    if seed == 0 { 0 } else { mix(seed ^ word as u64) }
}

/// Pages that one thread uses, so that each signal can be told: there is one for each access of a page
/// that is closed, and none for others.
struct Own {
    region: Box<Region>,
    seeds: Vec<u64>,
    expected: u64,
}

impl Own {
    fn new() -> Self {
        let pages = 256;
        Self { region: Region::new(0, pages, None), seeds: vec![0; pages], expected: 0 }
    }

    fn state(&self, page: usize) -> u8 {
        self.region.states[page].load(Relaxed)
    }

    /// What a signal is expected for as the page is touched.
    fn expect(&mut self, page: usize, write: bool) {
        match self.state(page) {
            state::CLOSED => self.expected += 1,
            state::GUARDED if write => self.expected += 1,
            state::GONE => {
                self.expected += 1;
                self.seeds[page] = 0;
            }
            _ => {}
        }
    }

    fn check(&mut self, page: usize) {
        if self.state(page) == state::FORBIDDEN {
            self.expected += 1;
            // SAFETY: the handler gives the access up.
            if let Some(found) = unsafe { try_load(self.region.word(page, 1)) } {
                lost("a page that cannot be read", self.region.address(page), found);
            }
            return;
        }
        self.expect(page, false);
        for word in [0, 1, 255, 511] {
            // SAFETY: the page can be read, or the handler opens it.
            let found = unsafe { self.region.word(page, word).read_volatile() };
            if found != content(self.seeds[page], word) {
                lost("a word of a collector's page", self.region.word(page, word).addr(), found);
            }
        }
    }

    fn write(&mut self, page: usize, seed: u64) {
        if self.state(page) == state::FORBIDDEN {
            return;
        }
        self.expect(page, true);
        self.seeds[page] = seed | 1;
        for word in 0..PAGE / 8 {
            // SAFETY: the page can be written, or the handler opens it.
            unsafe { self.region.word(page, word).write_volatile(content(seed | 1, word)) };
        }
    }

    /// Changes the states of some pages.
    fn set(&mut self, pages: std::ops::Range<usize>, to: u8) {
        let (first, count) = (pages.start, pages.len());
        for page in pages.clone() {
            let now = self.state(page);
            if now == state::GONE && to != state::GONE {
                // What is there from now on are zeros.
                self.seeds[page] = 0;
            }
            self.region.states[page].store(to, Release);
        }
        match to {
            state::OPEN => self.region.protect(first, count, ALL),
            state::GUARDED => self.region.protect(first, count, READ),
            state::GONE => {
                let at = self.region.address(first);
                map(at, count, NONE, ANONYMOUS | libc::MAP_FIXED, -1);
            }
            _ => self.region.protect(first, count, NONE),
        }
    }

    /// A system call is refused a page that is closed, and no handler runs for it.
    fn call_the_system(&self, page: usize, pipe: [c_int; 2]) {
        let closed = matches!(self.state(page), state::CLOSED | state::GONE | state::FORBIDDEN);
        // SAFETY: the kernel reads eight bytes of the page, or says that it cannot.
        let written = unsafe { libc::write(pipe[1], self.region.word(page, 7).cast(), 8) };
        if written < 0 {
            let refused = last_error().raw_os_error() == Some(libc::EFAULT);
            if !closed || !refused {
                lost("what a call is refused", self.region.address(page), 0);
            }
            return;
        }
        let mut word = 0_u64;
        // SAFETY: there is room for eight bytes.
        let read = unsafe { libc::read(pipe[0], (&raw mut word).cast(), 8) };
        if closed || read != 8 || word != content(self.seeds[page], 7) {
            lost("a word that a call read", self.region.address(page), word);
        }
    }

    /// A device reads a page. What the program may not read it may have read before.
    fn have_read(&self, page: usize, world: &World, which: usize) {
        let closed = matches!(self.state(page), state::CLOSED | state::GONE | state::FORBIDDEN);
        let at = self.region.address(page) + 8;
        let found = std::sync::Arc::new(AtomicU64::new(0));
        let put = found.clone();
        // SAFETY: nobody writes to the page meanwhile.
        let ran = unsafe {
            world.devices[which].run(0..1, move |worker, _| {
                put.store(worker.load(at)?, Relaxed);
                Ok(())
            })
        };
        match ran {
            Ok(()) if found.load(Relaxed) == content(self.seeds[page], 1) => {}
            Err(_) if closed => {}
            Ok(()) => lost("a word that a device read", at, found.load(Relaxed)),
            Err(error) => panic!("a device cannot read a page: {error}"),
        }
    }
}

/// Pages of a file that is too short for them.
fn beyond_the_end(random: &mut Random) {
    const PAGES: usize = 32;
    let length = random.below(PAGES);
    let region = Region::new(2, PAGES, Some(length));
    let what = [state::BEYOND, state::REPLACED, state::FORBIDDEN][random.below(3)];
    for page in length..PAGES {
        region.states[page].store(what, Release);
    }
    let mut expected = 0;
    for page in 0..PAGES {
        let now = region.states[page].load(Relaxed);
        // SAFETY: the page can be read, or the handler sees to it.
        let found = unsafe { try_load(region.word(page, 3)) };
        let mut known = Some(0);
        if page >= length {
            expected += u64::from(now != state::OPEN);
            if now == state::FORBIDDEN {
                known = None;
            } else if now == state::BEYOND {
                // All are there now.
                for page in page..PAGES {
                    region.states[page].store(state::OPEN, Release);
                }
            }
        }
        if found != known {
            lost("a word of a file's page", region.address(page), found.unwrap_or(0));
        }
        if known.is_some() {
            // SAFETY: it is there now.
            unsafe { region.word(page, 3).write_volatile(mix(page as u64)) };
        }
    }
    for page in (0..PAGES).filter(|&page| region.states[page].load(Relaxed) == state::OPEN) {
        // SAFETY: it is there.
        let found = unsafe { region.word(page, 3).read_volatile() };
        if found != mix(page as u64) {
            lost("a word of a file's page, later", region.address(page), found);
        }
    }
    let handled = region.handled.load(Relaxed);
    assert_eq!(handled, expected, "one signal for each page that was not there");
}

const SHARED: usize = 128;

/// Reads pages that another thread closes and moves about.
fn mutate(region: &Region, mut random: Random, stop: &AtomicBool, reads: &AtomicUsize) {
    while !stop.load(Relaxed) {
        let (page, word) = (random.below(SHARED), random.below(PAGE / 8));
        // SAFETY: the page can be read, or the handler opens it.
        let found = unsafe { region.word(page, word).read_volatile() };
        if found != content(page as u64 + 1, word) {
            lost("a word of a page that moves about", region.word(page, word).addr(), found);
        }
        reads.fetch_add(1, Relaxed);
    }
}

/// Moves a page that is closed elsewhere, looks at it there, and moves it back.
fn relocate(region: &Region, page: usize, scratch: usize) {
    let mover = |from: usize, to: usize| {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        let [from, to] = [from, to].map(ptr::with_exposed_provenance_mut::<c_void>);
        // SAFETY: both are this program's own, and nobody but this thread can touch either.
        let moved = unsafe { libc::mremap(from, PAGE, PAGE, flags, to) };
        assert_eq!(moved, to, "mremap: {}", last_error());
    };
    let protect = |access| {
        // SAFETY: the page is this thread's.
        let done =
            unsafe { libc::mprotect(ptr::with_exposed_provenance_mut(scratch), PAGE, access) };
        assert_eq!(done, 0, "mprotect: {}", last_error());
    };
    mover(region.address(page), scratch);
    protect(ALL);
    for word in [0, 300] {
        let at = ptr::with_exposed_provenance_mut::<u64>(scratch + word * 8);
        // SAFETY: it is this thread's page, which can be read and written.
        let found = unsafe { at.read_volatile() };
        if found != content(page as u64 + 1, word) {
            lost("a word of a page that was moved", at.addr(), found);
        }
        // SAFETY: as above.
        unsafe { at.write_volatile(found) };
    }
    protect(NONE);
    mover(scratch, region.address(page));
}

pub(crate) fn run(mut job: Job, world: &World) {
    set_handlers();
    let mut own = Own::new();
    let shared = Region::new(1, SHARED, None);
    for page in 0..SHARED {
        for word in 0..PAGE / 8 {
            // SAFETY: it was mapped just now.
            unsafe { shared.word(page, word).write(content(page as u64 + 1, word)) };
        }
    }
    let mut pipe = [0; 2];
    // SAFETY: there is room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    let scratch = map(0, 1, NONE, ANONYMOUS, -1);
    let (stop, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            let random = Random::new(job.random.next());
            let (region, stop, reads) = (&*shared, &stop, &reads);
            scope.spawn(move || mutate(region, random, stop, reads));
        }
        while job.goes_on() {
            let all = own.seeds.len();
            let first = job.random.below(all);
            let pages = first..first + 1 + job.random.below((all - first).min(24));
            let step = job.random.below(16);
            note(format!("{step}: {pages:?}"));
            match step {
                0..=2 => pages.for_each(|page| own.write(page, job.random.next())),
                3..=5 => pages.for_each(|page| own.check(page)),
                6 => own.set(pages, state::OPEN),
                7 | 8 => own.set(pages, state::CLOSED),
                9 | 10 => own.set(pages, state::GUARDED),
                11 => own.set(pages, state::GONE),
                12 => own.set(pages, state::FORBIDDEN),
                13 => own.call_the_system(first, pipe),
                14 => own.have_read(first, world, job.random.below(2)),
                _ => beyond_the_end(&mut job.random),
            }
            let handled = own.region.handled.load(Relaxed);
            assert_eq!(handled, own.expected, "one signal for each page that was touched closed");
            let page = job.random.below(SHARED);
            if !shared.change(page, state::OPEN, state::CLOSED, || shared.protect(page, 1, NONE))
                || job.random.one_in(3)
            {
                let scratch = || relocate(&shared, page, scratch);
                shared.change(page, state::CLOSED, state::CLOSED, scratch);
            }
        }
        stop.store(true, Relaxed);
    });
    println!(
        "{} pages touched that were closed, {} of them by several threads, {} reads there",
        own.region.handled.load(Relaxed) + shared.handled.load(Relaxed),
        shared.handled.load(Relaxed),
        reads.load(Relaxed)
    );
    for page in 0..own.seeds.len() {
        own.check(page);
    }
}
