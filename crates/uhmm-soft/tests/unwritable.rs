//! Pages that cannot be written go to a device where nobody disturbs it, and come back.

#[path = "../../uhmm/tests/support/huge_bytes.rs"]
mod huge_bytes;
#[path = "../../uhmm/tests/support/nobody.rs"]
mod nobody;
#[path = "../../uhmm/tests/support/skip.rs"]
mod skip;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use huge_bytes::huge_bytes;
use skip::skip;
use uhmm::{
    AddressSpace, MapError, Migration, PageError, StayCause,
    units::{AddressRange, BLOCK_PAGES},
};
use uhmm_soft::{AccessError, Bus, Options, RunError, Soft};

/// Parts of two blocks.
const PAGES: usize = 64;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PROTECTIONS: [i32; 3] = [libc::PROT_READ, libc::PROT_NONE, libc::PROT_READ | libc::PROT_EXEC];

/// Memory of which page `n` begins with the number `n + 1`, adopted, and a device.
struct Place {
    device: Soft,
    memory: *mut u64,
    pages: usize,
    page: usize,
    space: AddressSpace,
    /// There is one address space a process.
    _alone: MutexGuard<'static, ()>,
}

// SAFETY: the memory is read and written by the tests' threads as each says.
unsafe impl Sync for Place {}

/// Maps memory whose middle is where two blocks meet, or that begins with a block where it has several.
fn map(pages: usize, page: usize) -> *mut u64 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let bytes = (pages + 2 * BLOCK_PAGES) * page;
    // SAFETY: a new mapping at a place of the system's choice.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    let block = BLOCK_PAGES * page;
    let ahead = if pages < BLOCK_PAGES { pages / 2 * page } else { 0 };
    let at = (start.expose_provenance() + 1).next_multiple_of(block) + block - ahead;
    let at = std::ptr::with_exposed_provenance_mut(at);
    // SAFETY: within the new mapping, which nobody uses.
    let mapped =
        unsafe { libc::mmap(at, pages * page, READ_WRITE, flags | libc::MAP_FIXED, -1, 0) };
    assert_eq!(mapped, at);
    at.cast()
}

impl Place {
    fn new() -> Self {
        Self::with(PAGES, |options| options)
    }

    fn with(pages: usize, options: impl FnOnce(Options) -> Options) -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let space = AddressSpace::open().unwrap();
        let page = space.page_size().bytes();
        let device = Soft::start(&space, options(Options::new(pages * page).keep_pages())).unwrap();
        let place = Self { device, memory: map(pages, page), pages, page, space, _alone: alone };
        if pages >= BLOCK_PAGES {
            place.advise(libc::MADV_HUGEPAGE);
        }
        for number in 0..pages {
            place.write(number, number as u64 + 1);
        }
        place.space.adopt(place.range(0, pages)).unwrap();
        place
    }

    fn at(&self, page: usize) -> *mut u64 {
        self.memory.wrapping_byte_add(page * self.page)
    }

    fn range(&self, first: usize, pages: usize) -> AddressRange {
        AddressRange::new(self.at(first).addr(), pages * self.page).unwrap()
    }

    fn all(&self) -> AddressRange {
        self.range(0, self.pages)
    }

    fn protect(&self, first: usize, pages: usize, protection: i32) {
        // SAFETY: the mapping is this test's, and nobody accesses it against its protection.
        let result =
            unsafe { libc::mprotect(self.at(first).cast(), pages * self.page, protection) };
        assert_eq!(result, 0);
    }

    fn advise(&self, advice: i32) {
        // SAFETY: the mapping is this test's.
        let result = unsafe { libc::madvise(self.memory.cast(), self.pages * self.page, advice) };
        assert_eq!(result, 0);
    }

    fn write(&self, page: usize, value: u64) {
        // SAFETY: the page is in the mapping, and may be written where this is called.
        unsafe { self.at(page).write_volatile(value) };
    }

    fn number(&self, page: usize) -> u64 {
        // SAFETY: the page is in the mapping, and may be read where this is called.
        unsafe { self.at(page).read_volatile() }
    }

    /// All has the numbers that it had at first.
    fn check(&self) {
        self.protect(0, self.pages, libc::PROT_READ);
        for page in 0..self.pages {
            assert_eq!(self.number(page), page as u64 + 1);
        }
    }

    fn go(&self, range: AddressRange) -> Migration {
        // SAFETY: the tests change nothing of it meanwhile.
        unsafe { self.device.migrate_undisturbed(range) }.unwrap()
    }

    /// The device adds `value` to a page's number.
    fn add(&self, page: usize, value: u64) -> Result<(), RunError> {
        let at = self.at(page).addr();
        // SAFETY: the kernel uses its worker alone, and nobody else touches the number meanwhile.
        unsafe { self.device.run(0..1, move |worker, _| worker.fetch_add(at, value).map(drop)) }
    }

    /// The device compares a page's number.
    fn has(&self, page: usize, expected: u64) -> Result<(), RunError> {
        let at = self.at(page).addr();
        // SAFETY: as above.
        unsafe {
            self.device.run(0..1, move |worker, _| {
                let found: u64 = worker.load(at)?;
                if found == expected { Ok(()) } else { Err(AccessError::GivenUp { address: at }) }
            })
        }
    }

    fn refused(&self, page: usize) -> Result<(), RunError> {
        let error = MapError { address: self.at(page).addr(), error: PageError::Protection };
        Err(RunError::Item { item: 0, error: AccessError::Map(error) })
    }

    fn held(&self) -> usize {
        self.device.memory_used() / self.page
    }

    /// How many areas the system has in the memory.
    fn areas(&self) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let overlaps = |line: &&str| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [start, end] = [start, end].map(|hex| usize::from_str_radix(hex, 16).unwrap());
            start < self.at(self.pages).addr() && end > self.at(0).addr()
        };
        maps.lines().filter(overlaps).count()
    }

    /// Whether it has a huge page.
    fn is_huge(&self) -> bool {
        huge_bytes(self.at(0).addr()) > 0
    }

    fn end(self) {
        let Self { device, memory, page, pages, space, .. } = self;
        drop(device);
        space.close().unwrap();
        // SAFETY: the mapping is this test's, and nobody uses it any more.
        unsafe { libc::munmap(memory.cast(), pages * page) };
    }
}

#[test]
fn what_cannot_be_written_goes_and_comes_back() {
    goes_and_comes_back(|options| options);
}

#[test]
fn to_memory_that_the_processor_maps_too() {
    goes_and_comes_back(Options::coherent);
}

fn goes_and_comes_back(options: impl Fn(Options) -> Options) {
    for trapped in [false, true] {
        for protection in PROTECTIONS {
            let place = Place::with(PAGES, &options);
            if trapped {
                assert_eq!(place.device.migrate(place.all()).unwrap().moved(), PAGES);
                place.device.bring_all_back();
            }
            place.protect(0, PAGES, protection);
            let may_read = protection != libc::PROT_NONE;
            let report = place.go(place.all());
            assert_eq!((report.moved(), report.stayed()), (PAGES, 0), "{report:?}");
            assert_eq!(place.held(), PAGES);
            assert_eq!(place.areas(), 1);
            for page in [0, PAGES / 2, PAGES - 1] {
                let read = if may_read { Ok(()) } else { place.refused(page) };
                assert_eq!(place.has(page, page as u64 + 1), read);
                assert_eq!(place.add(page, 1), place.refused(page));
            }
            assert_eq!(place.held(), PAGES);
            // Again it is there already.
            let again = place.go(place.all());
            assert_eq!(again.stayed(), if may_read { 0 } else { PAGES });
            if may_read {
                assert_eq!(place.number(3), 4, "by a fault");
                let rest = place.device.bring_back(place.range(3, 1)).unwrap();
                assert_eq!(rest.moved(), 0);
            }
            assert_eq!(place.device.bring_all_back().stayed(), 0);
            assert_eq!(place.held(), 0);
            place.check();
            // And as ever where it can be written.
            place.protect(0, PAGES, READ_WRITE);
            assert_eq!(place.device.migrate(place.all()).unwrap().moved(), PAGES);
            place.add(7, 100).unwrap();
            assert_eq!(place.number(7), 108);
            place.write(7, 8);
            place.check();
            place.end();
        }
    }
}

#[test]
fn what_others_may_change_stays() {
    let place = Place::new();
    place.protect(0, PAGES, libc::PROT_READ);
    // There are other threads: the device's, at least.
    let report = place.device.migrate(place.all()).unwrap();
    assert_eq!((report.moved(), report.stayed()), (0, PAGES));
    assert!(report.causes().all(|stayed| stayed.cause == StayCause::Protection));
    // A fault of the device maps it where it is.
    place.has(5, 6).unwrap();
    assert_eq!(place.held(), 0);
    place.end();
}

#[test]
fn it_may_change_to_anything_while_away() {
    for before in PROTECTIONS {
        for after in [libc::PROT_NONE, libc::PROT_READ, READ_WRITE, libc::PROT_WRITE] {
            let place = Place::new();
            place.protect(0, PAGES, before);
            assert_eq!(place.go(place.all()).moved(), PAGES);
            place.protect(0, PAGES, after);
            if after & libc::PROT_WRITE != 0 {
                // By the device, which has no translation for writing, and by the processor.
                place.add(1, 10).unwrap();
                place.write(2, 33);
                assert_eq!((place.number(1), place.number(2)), (12, 33));
                place.write(1, 2);
                place.write(2, 3);
            } else {
                assert_eq!(place.add(1, 1), place.refused(1));
            }
            place.check();
            place.end();
        }
    }
}

#[test]
fn what_was_never_touched_is_made_there_if_it_can_be_read() {
    for protection in [libc::PROT_READ, libc::PROT_NONE] {
        let place = Place::new();
        place.advise(libc::MADV_DONTNEED);
        place.write(PAGES - 3, 1);
        place.protect(0, PAGES, protection);
        let report = place.go(place.all());
        if protection == libc::PROT_READ {
            assert_eq!((report.moved(), report.stayed()), (PAGES, 0));
            place.has(5, 0).unwrap();
        } else {
            assert_eq!((report.moved(), report.stayed()), (1, PAGES - 1), "{report:?}");
            assert!(report.causes().all(|stayed| stayed.cause == StayCause::Protection));
        }
        place.protect(0, PAGES, libc::PROT_READ);
        for page in 0..PAGES {
            assert_eq!(place.number(page), u64::from(page == PAGES - 3));
        }
        place.end();
    }
}

#[test]
fn parts_of_all_kinds_go() {
    let place = Place::new();
    for (first, protection) in [(8, libc::PROT_READ), (20, libc::PROT_NONE), (40, libc::PROT_READ)]
    {
        place.protect(first, 8, protection);
    }
    // A part of what cannot be written, then all.
    assert_eq!(place.go(place.range(10, 4)).moved(), 4);
    assert_eq!(place.held(), 4);
    assert_eq!(place.go(place.all()).stayed(), 0);
    assert_eq!(place.held(), PAGES);
    // Parts come back, and go again.
    assert_eq!(place.device.bring_back(place.range(9, 20)).unwrap().moved(), 20);
    assert_eq!(place.go(place.all()).stayed(), 0);
    assert_eq!(place.held(), PAGES);
    place.check();
    assert_eq!(place.areas(), 1);
    place.end();
}

#[test]
fn it_follows_its_addresses_and_ends_with_them() {
    let place = Place::new();
    place.protect(0, PAGES, libc::PROT_READ);
    assert_eq!(place.go(place.all()).moved(), PAGES);
    let target = map(PAGES, place.page);
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let bytes = 16 * place.page;
    // SAFETY: both are the test's own.
    let moved = unsafe {
        libc::mremap(place.at(8).cast(), bytes, bytes, flags, target.cast::<libc::c_void>())
    };
    assert_eq!(moved, target.cast());
    for page in 0..16 {
        // SAFETY: the page was moved there, and can be read.
        let number = unsafe { target.byte_add(page * place.page).read_volatile() };
        assert_eq!(number, page as u64 + 9);
    }
    // SAFETY: the test's own memory.
    unsafe { libc::munmap(place.at(40).cast(), 8 * place.page) };
    place.device.migrate(place.range(0, 1)).unwrap();
    for page in (0..8).chain(24..40).chain(48..PAGES) {
        assert_eq!(place.number(page), page as u64 + 1);
    }
    assert_eq!(place.device.bring_all_back().stayed(), 0);
    assert_eq!(place.held(), 0, "what was unmapped is on no device");
    // SAFETY: the test's own memory.
    unsafe { libc::munmap(target.cast(), PAGES * place.page) };
    place.end();
}

#[test]
fn who_reads_meanwhile_reads_what_is_there() {
    let place = Place::new();
    place.protect(0, PAGES, libc::PROT_READ);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in 0..3 {
            let (place, over) = (&place, &over);
            scope.spawn(move || {
                let mut page = reader;
                while !over.load(Relaxed) {
                    page = (page * 5 + 7) % PAGES;
                    assert_eq!(place.number(page), page as u64 + 1);
                }
            });
        }
        for round in 0..200 {
            let first = round * 7 % (PAGES - 16);
            assert_eq!(place.go(place.range(first, 16)).stayed(), 0);
        }
        over.store(true, Relaxed);
    });
    place.check();
    place.end();
}

#[test]
fn a_child_has_it() {
    let place = Place::new();
    place.protect(0, PAGES, libc::PROT_READ);
    for _ in 0..8 {
        assert_eq!(place.go(place.all()).stayed(), 0);
        // SAFETY: the child reads memory of its own, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let right = (0..PAGES).all(|page| place.number(page) == page as u64 + 1);
            // SAFETY: it ends.
            unsafe { libc::_exit(i32::from(!right)) };
        }
        let mut status = 0;
        // SAFETY: our own child; the status is ours.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
    }
    place.check();
    place.end();
}

#[test]
fn threads_fork_while_it_goes() {
    let place = Place::new();
    place.protect(0, PAGES, libc::PROT_READ);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let forker = scope.spawn(|| {
            let mut forks = 0;
            while !over.load(Relaxed) || forks < 3 {
                // SAFETY: the child reads memory of its own, and ends.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    let right = (0..PAGES).all(|page| place.number(page) == page as u64 + 1);
                    // SAFETY: it ends.
                    unsafe { libc::_exit(i32::from(!right)) };
                }
                let mut status = 0;
                // SAFETY: our own child; the status is ours.
                unsafe { libc::waitpid(child, &raw mut status, 0) };
                assert_eq!(status, 0);
                forks += 1;
            }
        });
        for _ in 0..10 {
            assert_eq!(place.go(place.all()).stayed(), 0);
            place.device.bring_all_back();
        }
        over.store(true, Relaxed);
        forker.join().unwrap();
    });
    place.check();
    place.end();
}

#[test]
fn what_a_child_shares_goes_too() {
    let place = Place::new();
    place.protect(0, PAGES, libc::PROT_READ);
    // SAFETY: the child waits until it is killed.
    let child = unsafe { libc::fork() };
    if child == 0 {
        loop {
            // SAFETY: as above. It ends with the test's thread, should that end without a word.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause();
            }
        }
    }
    assert_eq!(place.go(place.all()).stayed(), 0);
    assert_eq!(place.held(), PAGES);
    // SAFETY: our own child.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    place.check();
    place.end();
}

#[test]
fn what_is_pinned_stays_the_same_page() {
    let place = Place::new();
    let mut parameters = [0_u64; 15];
    // SAFETY: the parameters have the 120 bytes that the call reads and writes.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut parameters) };
    if ring < 0 {
        skip("what_is_pinned_stays_the_same_page", "no io_uring");
        return place.end();
    }
    let buffer = libc::iovec { iov_base: place.at(9).cast(), iov_len: place.page };
    // SAFETY: one buffer, of the test's own memory; the ring is never told to use it.
    let registered =
        unsafe { libc::syscall(libc::SYS_io_uring_register, ring, 0, &raw const buffer, 1) };
    assert_eq!(registered, 0, "IORING_REGISTER_BUFFERS");
    place.protect(0, PAGES, libc::PROT_READ);
    let frame = frame_of(place.at(9).addr(), place.page);
    let report = place.go(place.all());
    assert_eq!((report.moved(), report.stayed()), (PAGES - 1, 1));
    assert_eq!(report.causes().next().unwrap().cause, StayCause::Busy);
    assert_eq!(place.areas(), 1);
    assert_eq!(frame_of(place.at(9).addr(), place.page), frame, "the page that the ring has");
    // SAFETY: the descriptor made above.
    unsafe { libc::syscall(libc::SYS_close, ring) };
    // Its area is trapped as it was.
    assert_eq!(place.device.bring_all_back().stayed(), 0);
    place.check();
    place.end();
}

/// The number of the page of memory that is at an address, as far as the system tells it.
fn frame_of(address: usize, page: usize) -> u64 {
    use std::os::unix::fs::FileExt;
    let mut entry = [0; 8];
    let map = std::fs::File::open("/proc/self/pagemap").unwrap();
    map.read_exact_at(&mut entry, (address / page * 8) as u64).unwrap();
    u64::from_ne_bytes(entry) & ((1 << 55) - 1)
}

#[test]
fn huge_pages_go_whole() {
    let place = Place::with(2 * BLOCK_PAGES, |options| options);
    if !place.is_huge() {
        eprintln!("skipped: huge_pages_go_whole: the system has no huge page");
        return place.end();
    }
    place.protect(0, place.pages, libc::PROT_READ);
    assert_eq!(place.go(place.all()).moved(), place.pages);
    place.has(700, 701).unwrap();
    place.check();
    // A part of one.
    place.protect(0, place.pages, libc::PROT_READ);
    assert_eq!(place.go(place.range(100, 50)).moved(), 50);
    place.check();
    place.end();
}

#[test]
fn it_is_copied_where_the_device_has_memory_of_its_own() {
    let place = Place::with(PAGES, |options| options.behind_bus(Bus::new()));
    for protection in [libc::PROT_READ, libc::PROT_NONE] {
        place.protect(0, PAGES, protection);
        let report = place.go(place.all());
        assert_eq!((report.moved(), report.stayed()), (PAGES, 0), "{report:?}");
        place.check();
    }
    // A copy that fails leaves it where it was.
    place.device.fail_transfer(1);
    let report = place.go(place.range(0, 8));
    assert!(report.stayed() > 0, "{report:?}");
    place.check();
    place.end();
}

#[test]
fn a_device_of_few_frames_takes_what_it_can() {
    let place = Place::with(PAGES, |options| options);
    let small = Soft::start(&place.space, Options::new(8 * place.page).keep_pages()).unwrap();
    place.protect(0, PAGES, libc::PROT_READ);
    // SAFETY: nothing of it changes meanwhile.
    let report = unsafe { small.migrate_undisturbed(place.all()) }.unwrap();
    assert_eq!(report.moved() + report.stayed(), PAGES);
    assert!(small.memory_used() <= 8 * place.page);
    assert_eq!(place.areas(), 1);
    place.check();
    drop(small);
    place.end();
}

/// Maps a file of which each page begins with another number, privately.
fn map_file(pages: usize, page: usize) -> *mut u64 {
    use std::os::unix::fs::FileExt;
    let path = std::env::temp_dir().join(format!("uhmm-unwritable-{}", std::process::id()));
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    for number in 0..pages {
        file.write_all_at(&[0x77; 8], (number * page) as u64).unwrap();
    }
    file.set_len((pages * page) as u64).unwrap();
    let at = map(pages, page);
    // SAFETY: over memory that was mapped for it just now.
    let mapped = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file);
        libc::mmap(at.cast(), pages * page, READ_WRITE, flags, descriptor, 0)
    };
    assert_eq!(mapped, at.cast());
    at
}

#[test]
fn written_pages_of_a_file_s_private_mapping_go_once_they_are_anonymous() {
    for (protection, placed) in [(READ_WRITE, false), (libc::PROT_READ, false), (READ_WRITE, true)]
    {
        let mut place = Place::new();
        let old = std::mem::replace(&mut place.memory, map_file(PAGES, place.page));
        // SAFETY: the mapping is this test's, and nobody uses it any more.
        unsafe { libc::munmap(old.cast(), PAGES * place.page) };
        assert!(place.space.adopt(place.all()).is_err());
        for number in 0..PAGES - 1 {
            place.write(number, number as u64 + 1);
        }
        if placed {
            // A device has it in place, so that it is watched.
            place.add(0, 0).unwrap();
        }
        let make = || {
            // SAFETY: nobody changes or writes it meanwhile.
            unsafe { place.space.make_anonymous_undisturbed(place.all()) }
        };
        // There are other threads.
        assert!(place.space.make_anonymous(place.all()).is_err());
        assert_eq!(make(), Ok(0), "the last page shows the file");
        assert_eq!(place.number(PAGES - 1), 0x7777_7777_7777_7777);
        place.write(PAGES - 1, PAGES as u64);
        place.protect(0, PAGES, protection);
        assert_eq!(make(), Ok(PAGES));
        assert_eq!(make(), Ok(0));
        place.space.adopt(place.all()).unwrap();
        assert_eq!(place.areas(), 1);
        let report = place.go(place.all());
        assert_eq!((report.moved(), report.stayed()), (PAGES, 0), "{report:?}");
        place.has(5, 6).unwrap();
        if protection == READ_WRITE {
            place.add(5, 10).unwrap();
            assert_eq!(place.number(5), 16);
            place.write(5, 6);
        }
        place.check();
        place.end();
    }
}

#[test]
fn and_all_of_it_as_an_ordinary_user() {
    nobody::run_all_but("and_all_of_it_as_an_ordinary_user");
}
