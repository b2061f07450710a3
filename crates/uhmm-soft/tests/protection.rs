//! A device does with memory what the program may, from when the core knows it.

#[path = "../../uhmm/tests/support/nobody.rs"]
mod nobody;

use std::sync::{Mutex, MutexGuard, PoisonError};

use uhmm::{AddressSpace, MapError, PageError, StayCause, units::AddressRange};
use uhmm_soft::{AccessError, Options, RunError, Soft};

const PAGES: usize = 64;

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Memory of which page `n` begins with the number `n + 1`, adopted, and a device that holds it.
struct Fixture {
    device: Soft,
    memory: *mut u64,
    page: usize,
    space: AddressSpace,
    /// There is one address space a process.
    _alone: MutexGuard<'static, ()>,
}

impl Fixture {
    fn new() -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let space = AddressSpace::open().unwrap();
        let page = space.page_size().bytes();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at a place of the system's choice.
        let memory = unsafe {
            libc::mmap(std::ptr::null_mut(), PAGES * page, READ_WRITE, flags, -1, 0).cast::<u64>()
        };
        assert_ne!(memory.cast(), libc::MAP_FAILED);
        memory.expose_provenance();
        let device = Soft::start(&space, Options::new(PAGES * page).keep_pages()).unwrap();
        let fixture = Self { device, memory, page, space, _alone: alone };
        for number in 0..PAGES {
            // SAFETY: the page is in the mapping, which is this test's.
            unsafe { fixture.memory.byte_add(number * page).write_volatile(number as u64 + 1) };
        }
        fixture.space.adopt(fixture.range(0, PAGES)).unwrap();
        fixture
    }

    fn address(&self, page: usize) -> usize {
        self.memory.addr() + page * self.page
    }

    fn range(&self, first: usize, pages: usize) -> AddressRange {
        AddressRange::new(self.address(first), pages * self.page).unwrap()
    }

    fn protect(&self, first: usize, pages: usize, protection: i32) {
        let at = self.memory.wrapping_byte_add(first * self.page).cast();
        // SAFETY: the mapping is this test's, and nobody accesses it against its protection.
        let result = unsafe { libc::mprotect(at, pages * self.page, protection) };
        assert_eq!(result, 0);
    }

    fn tell(&self) {
        self.space.protection_changed(self.range(0, PAGES)).unwrap();
    }

    /// A number as the processor loads it.
    fn number(&self, page: usize) -> u64 {
        // SAFETY: the page is in the mapping, and may be read where this is called.
        unsafe { self.memory.byte_add(page * self.page).read_volatile() }
    }

    /// The device adds `value` to a page's number.
    fn add(&self, page: usize, value: u64) -> Result<(), RunError> {
        let at = self.address(page);
        // SAFETY: the kernel uses its worker alone, and nobody else touches the number meanwhile.
        unsafe { self.device.run(0..1, move |worker, _| worker.fetch_add(at, value).map(drop)) }
    }

    /// The device compares a page's number.
    fn has(&self, page: usize, expected: u64) -> Result<(), RunError> {
        let at = self.address(page);
        // SAFETY: as above.
        unsafe {
            self.device.run(0..1, move |worker, _| {
                let found: u64 = worker.load(at)?;
                if found == expected { Ok(()) } else { Err(AccessError::GivenUp { address: at }) }
            })
        }
    }

    fn refused(&self, page: usize) -> Result<(), RunError> {
        let error = MapError { address: self.address(page), error: PageError::Protection };
        Err(RunError::Item { item: 0, error: AccessError::Map(error) })
    }

    fn held(&self) -> usize {
        self.device.memory_used() / self.page
    }

    fn end(self) {
        let Self { device, memory, page, space, .. } = self;
        drop(device);
        space.close().unwrap();
        // SAFETY: the mapping is this test's, and nobody uses it any more.
        unsafe { libc::munmap(memory.cast(), PAGES * page) };
    }
}

#[test]
fn what_is_told_holds_at_once() {
    let fixture = Fixture::new();
    assert_eq!(fixture.device.migrate(fixture.range(0, PAGES)).unwrap().moved(), PAGES);
    fixture.add(3, 10).unwrap();
    for protection in [libc::PROT_READ, libc::PROT_NONE] {
        fixture.protect(0, PAGES, protection);
        fixture.tell();
        let may_read = protection == libc::PROT_READ;
        for page in [0, 3, PAGES - 1] {
            let expected = page as u64 + if page == 3 { 11 } else { 1 };
            assert_eq!(fixture.add(page, 1), fixture.refused(page));
            let read = if may_read { Ok(()) } else { fixture.refused(page) };
            assert_eq!(fixture.has(page, expected), read);
        }
        assert_eq!(fixture.held(), PAGES, "what is there stays there");
    }
    // What is made wider is found without a word.
    fixture.protect(0, PAGES, READ_WRITE);
    fixture.add(3, 10).unwrap();
    assert_eq!(fixture.held(), PAGES);
    let found: Vec<_> = (0..PAGES).map(|page| fixture.number(page)).collect();
    let expected = |page: usize| page as u64 + if page == 3 { 21 } else { 1 };
    assert_eq!(found, (0..PAGES).map(expected).collect::<Vec<_>>());
    fixture.end();
}

#[test]
fn what_is_not_told_holds_from_the_next_commit_in_the_area_on() {
    let fixture = Fixture::new();
    let migrate = |page| fixture.device.migrate(fixture.range(page, 1)).unwrap();
    for (round, protection) in [libc::PROT_READ, libc::PROT_NONE].into_iter().enumerate() {
        assert_eq!(migrate(0).stayed(), 0);
        fixture.add(0, 100).unwrap();
        fixture.protect(0, PAGES, protection);
        // By a page that is in system memory: it stays, for this cause.
        let stayed: Vec<_> = migrate(20 + round).causes().collect();
        assert_eq!(stayed.len(), 1);
        assert_eq!(stayed[0].cause, StayCause::Protection);
        assert_eq!(fixture.add(0, 1), fixture.refused(0));
        fixture.protect(0, PAGES, READ_WRITE);
        fixture.add(0, 1).unwrap();

        // By a page that the device reads, or would.
        fixture.protect(0, PAGES, protection);
        let may_read = protection == libc::PROT_READ;
        let read = if may_read { Ok(()) } else { fixture.refused(40) };
        assert_eq!(fixture.has(40, 41), read);
        assert_eq!(fixture.add(0, 1), fixture.refused(0));
        fixture.protect(0, PAGES, READ_WRITE);
        fixture.add(0, 1).unwrap();
    }
    assert_eq!((fixture.number(0), fixture.number(40)), (205, 41));
    fixture.end();
}

#[test]
fn what_may_not_be_written_stays_where_it_is_or_goes_from_device_to_device() {
    let fixture = Fixture::new();
    let other =
        Soft::start(&fixture.space, Options::new(PAGES * fixture.page).keep_pages()).unwrap();
    assert_eq!(other.migrate(fixture.range(8, 8)).unwrap().moved(), 8);
    fixture.protect(4, 24, libc::PROT_READ);
    fixture.protect(40, 8, libc::PROT_NONE);
    let report = fixture.device.migrate(fixture.range(0, PAGES)).unwrap();
    // What is on the other device comes over, the rest of the two areas stays.
    assert_eq!(report.moved(), PAGES - 24 - 8 + 8);
    assert_eq!(report.stayed(), 16 + 8);
    assert!(report.causes().all(|stayed| stayed.cause == StayCause::Protection));
    assert_eq!(fixture.held(), PAGES - 24);
    fixture.has(8, 9).unwrap();
    assert_eq!(fixture.add(8, 1), fixture.refused(8));
    assert_eq!(fixture.has(44, 45), fixture.refused(44));
    // What stayed and may be read is read where it is.
    fixture.has(4, 5).unwrap();
    assert_eq!(fixture.held(), PAGES - 24);
    // The processor reads what is away there.
    assert_eq!((fixture.number(15), fixture.number(20)), (16, 21));
    fixture.protect(0, PAGES, READ_WRITE);
    assert_eq!(fixture.device.migrate(fixture.range(0, PAGES)).unwrap().stayed(), 0);
    for page in 0..PAGES {
        fixture.add(page, 1).unwrap();
        assert_eq!(fixture.number(page), page as u64 + 2);
    }
    drop(other);
    fixture.end();
}

/// Not called: the device's access is none of the program's.
extern "C" fn of_the_program(_: i32) {
    uhmm::abort::abort(b"a handler of the program runs for an access of a device");
}

#[test]
fn a_handler_that_is_set_after_the_device_began_does_not_meet_its_accesses() {
    let fixture = Fixture::new();
    fixture.protect(0, PAGES, libc::PROT_READ);
    fixture.has(4, 5).unwrap();
    // SAFETY: zeros are actions.
    let (mut action, mut before): (libc::sigaction, libc::sigaction) =
        unsafe { std::mem::zeroed() };
    action.sa_sigaction = of_the_program as extern "C" fn(i32) as usize;
    // SAFETY: both point to actions; the handler may run anywhere.
    let set = unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut before) };
    assert_eq!(set, 0);
    // In place, by what the device knows from before.
    fixture.protect(0, PAGES, libc::PROT_NONE);
    assert_eq!(fixture.has(4, 5), fixture.refused(4));
    fixture.protect(0, PAGES, READ_WRITE);
    // SAFETY: what was there is put there again.
    let set = unsafe { libc::sigaction(libc::SIGSEGV, &raw const before, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    fixture.end();
}

#[test]
fn and_all_of_it_as_an_ordinary_user() {
    nobody::run_all_but("and_all_of_it_as_an_ordinary_user");
}
