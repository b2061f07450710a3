//! What the program discards is gone, and what it writes afterwards is not.

#[path = "../../uhmm/tests/support/nobody.rs"]
mod nobody;

use uhmm::{AddressSpace, units::AddressRange};
use uhmm_soft::{Options, Soft};

const PAGES: usize = 512;

/// Memory of its own, unmapped at the end.
struct Memory {
    start: *mut u64,
    page: usize,
}

impl Memory {
    fn map(page: usize) -> Self {
        // SAFETY: a new mapping at a place of the system's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGES * page,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED);
        Self { start: start.cast(), page }
    }

    fn range(&self) -> AddressRange {
        AddressRange::new(self.start.addr(), PAGES * self.page).unwrap()
    }

    fn at(&self, page: usize) -> *mut u64 {
        assert!(page < PAGES);
        // SAFETY: the page is in the mapping.
        unsafe { self.start.byte_add(page * self.page) }
    }

    fn fill(&self, value: u64) {
        for page in 0..PAGES {
            // SAFETY: the place is in the mapping and aligned.
            unsafe { self.at(page).write_volatile(value) };
        }
    }

    fn count(&self, value: u64) -> usize {
        // SAFETY: the place is in the mapping and aligned.
        (0..PAGES).filter(|&page| unsafe { self.at(page).read_volatile() } == value).count()
    }

    fn advise(&self, advice: i32) {
        // SAFETY: the mapping holds numbers, of which any may become zero.
        let result = unsafe { libc::madvise(self.start.cast(), PAGES * self.page, advice) };
        assert_eq!(result, 0);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nobody has a reference into it.
        unsafe { libc::munmap(self.start.cast(), PAGES * self.page) };
    }
}

#[test]
fn discarded_content_is_gone_and_later_content_stays() {
    let space = AddressSpace::open().unwrap();
    let memory = Memory::map(space.page_size().bytes());
    space.adopt(memory.range()).unwrap();
    let device = Soft::start(&space, Options::new(memory.range().len())).unwrap();
    for round in 1..300_u64 {
        memory.fill(round);
        if round % 3 == 0 {
            device.migrate(memory.range()).unwrap();
        }
        if round % 2 == 0 {
            memory.advise(libc::MADV_FREE);
            memory.fill(round + 1);
            assert_eq!(memory.count(round + 1), PAGES, "lost in round {round}");
        } else {
            memory.advise(libc::MADV_DONTNEED);
            device.migrate(memory.range()).unwrap();
            assert_eq!(memory.count(0), PAGES, "risen again in round {round}");
        }
    }
    drop(device);
    space.close().unwrap();
}

#[test]
fn and_all_of_it_as_an_ordinary_user() {
    nobody::run_all_but("and_all_of_it_as_an_ordinary_user");
}
