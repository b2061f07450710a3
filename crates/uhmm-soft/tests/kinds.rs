//! Each kind of page migrates with its content, or stays with its cause: as the user who runs the tests,
//! and as an ordinary user.

#[path = "../../uhmm/tests/support/allow_huge_pages.rs"]
mod allow_huge_pages;
#[path = "../../uhmm/tests/support/privileges.rs"]
mod privileges;
#[path = "../../uhmm/tests/support/swap.rs"]
mod swap;

use std::{
    fs,
    io::{self, Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
    time::{Duration, Instant},
};

use allow_huge_pages::allow_huge_pages;
use privileges::drop_privileges;
use swap::Swap;
use uhmm::{AddressSpace, StayCause, mm::Backing, units::AddressRange};
use uhmm_soft::{Options, Soft};

const PAGES: usize = 32;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// As whom a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Us,
    Nobody,
}

fn checked(returned: i32, what: &str) -> i32 {
    assert!(returned >= 0, "{what}: {}", io::Error::last_os_error());
    returned
}

/// Tries `what` in a process of its own, as each user, where it answers what it lacks if it cannot be
/// tried there.
fn as_each_user(test: &str, what: fn(&Place) -> Result<(), String>) {
    for who in [Who::Us, Who::Nobody] {
        // SAFETY: the child has this thread alone, and does not return from here.
        let child = checked(unsafe { libc::fork() }, "fork");
        if child == 0 {
            let status = std::panic::catch_unwind(|| {
                if who == Who::Nobody {
                    drop_privileges();
                }
                let place = Place::new()?;
                let tried = what(&place);
                place.end();
                tried
            });
            let status = match status {
                Ok(Ok(())) => 0,
                Ok(Err(reason)) => {
                    eprintln!("skipped: {test} as {who:?}: {reason}");
                    2
                }
                Err(_) => 1,
            };
            // SAFETY: the child ends here.
            unsafe { libc::_exit(status) }
        }
        let mut status = 0;
        // SAFETY: there is room for the status of our child.
        checked(unsafe { libc::waitpid(child, &raw mut status, 0) }, "waitpid");
        assert!(libc::WIFEXITED(status), "{test} as {who:?} ended with {status:#x}");
        assert_ne!(libc::WEXITSTATUS(status), 1, "{test} as {who:?}");
    }
}

/// An address space, and a device.
struct Place {
    device: Soft,
    space: AddressSpace,
    page: usize,
}

/// What is written to a page.
fn content(page: usize) -> u64 {
    page as u64 * 11 + 3
}

/// Memory that a test mapped.
#[derive(Clone, Copy)]
struct Memory {
    start: usize,
    pages: usize,
    page: usize,
}

impl Memory {
    fn map(place: &Place, pages: usize, access: i32, flags: i32, file: i32) -> Self {
        // SAFETY: a new mapping at an address of the system's choice.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), pages * place.page, access, flags, file, 0) };
        assert_ne!(start, libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        Self { start: start.expose_provenance(), pages, page: place.page }
    }

    fn word(self, page: usize) -> *mut u64 {
        ptr::with_exposed_provenance_mut(self.start + page * self.page)
    }

    fn range(self) -> AddressRange {
        AddressRange::new(self.start, self.pages * self.page).unwrap()
    }

    fn fill(self) -> Self {
        for page in 0..self.pages {
            // SAFETY: the page is the test's, and may be written.
            unsafe { self.word(page).write_volatile(content(page)) };
        }
        self
    }

    fn check(self) {
        for page in 0..self.pages {
            // SAFETY: the page is the test's, and may be read.
            let found = unsafe { self.word(page).read_volatile() };
            assert_eq!(found, content(page), "page {page}");
        }
    }

    fn advise(self, advice: i32) -> io::Result<()> {
        // SAFETY: the memory is the test's; what is advised here changes no content.
        let done = unsafe { libc::madvise(self.word(0).cast(), self.pages * self.page, advice) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn protect(self, access: i32) {
        // SAFETY: the memory is the test's, and is used as it may be.
        let done = unsafe { libc::mprotect(self.word(0).cast(), self.pages * self.page, access) };
        checked(done, "mprotect");
    }
}

impl Place {
    fn new() -> Result<Self, String> {
        let space = AddressSpace::open().map_err(|error| {
            assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: {error}");
            error.to_string()
        })?;
        let page = space.page_size().bytes();
        let device = Soft::start(&space, Options::new(2048 * page)).unwrap();
        Ok(Self { device, space, page })
    }

    fn end(self) {
        drop(self.device);
        self.space.close().unwrap();
    }

    fn anonymous(&self, pages: usize) -> Memory {
        let memory = Memory::map(self, pages, READ_WRITE, ANONYMOUS, -1);
        self.space.adopt(memory.range()).unwrap();
        memory.fill()
    }

    /// All of it goes to the device, and comes back with its content.
    fn migrates(&self, memory: Memory) {
        let report = self.device.migrate(memory.range()).unwrap();
        assert_eq!(report.moved(), memory.pages, "{report:?}");
        memory.check();
        // By a request, and the device's own doing, too.
        assert_eq!(self.device.migrate(memory.range()).unwrap().stayed(), 0);
        let at = memory.start;
        // SAFETY: nobody else touches the page meanwhile.
        let ran = unsafe {
            self.device.run(0..1, move |worker, _| {
                let word: u64 = worker.load(at)?;
                worker.store(at, word)
            })
        };
        ran.unwrap();
        assert_eq!(self.space.bring_back(memory.range()).unwrap().stayed(), 0);
        memory.check();
    }

    /// All of it stays, for one cause.
    fn stays(&self, memory: Memory, cause: StayCause) {
        let report = self.device.migrate(memory.range()).unwrap();
        assert_eq!((report.moved(), report.stayed()), (0, memory.pages), "{report:?}");
        assert!(report.causes().all(|stayed| stayed.cause == cause), "{report:?}");
    }
}

fn file_of(name: &std::ffi::CStr, pages: usize, page: usize) -> fs::File {
    // SAFETY: a new file without a name; the name given is for people.
    let file = checked(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) }, "memfd");
    // SAFETY: the descriptor was made just now and is nobody else's.
    let file = unsafe { fs::File::from_raw_fd(file) };
    file.set_len((pages * page) as u64).unwrap();
    file
}

#[test]
fn ordinary_pages_migrate() {
    as_each_user("ordinary_pages_migrate", |place| {
        place.migrates(place.anonymous(PAGES));
        Ok(())
    });
}

#[test]
fn huge_pages_migrate() {
    as_each_user("huge_pages_migrate", |place| {
        let memory = Memory::map(place, 1024, READ_WRITE, ANONYMOUS, -1);
        memory.advise(libc::MADV_HUGEPAGE).map_err(|error| format!("MADV_HUGEPAGE: {error}"))?;
        place.space.adopt(memory.range()).unwrap();
        place.migrates(memory.fill());
        Ok(())
    });
}

/// Bytes of this process's anonymous memory that are in huge pages.
fn huge_bytes() -> usize {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
    let number = line.and_then(|line| line.trim().strip_suffix("kB")).map(str::trim);
    number.map_or(0, |number| number.parse::<usize>().unwrap() << 10)
}

#[test]
fn a_huge_page_stays_whole_where_copies_left_frames_that_are_no_holes() {
    const HUGE: usize = 512;
    as_each_user("a_huge_page_stays_whole_where_copies_left_frames_that_are_no_holes", |place| {
        allow_huge_pages(false).unwrap();
        let all = Memory::map(place, 5 * HUGE, READ_WRITE, ANONYMOUS, -1);
        let start = all.start.next_multiple_of(HUGE * place.page);
        let small = Memory { start, pages: 4 * HUGE, ..all }.fill();
        place.space.adopt(small.range()).unwrap();
        allow_huge_pages(true).unwrap();
        let report = place.device.migrate(small.range()).unwrap();
        assert_eq!(report.moved(), small.pages, "{report:?}");
        // Each comes back alone, by a copy: one in all that the device has for a huge page.
        for page in (100..small.pages).step_by(HUGE) {
            // SAFETY: the page is the test's, and may be read.
            let found = unsafe { small.word(page).read_volatile() };
            assert_eq!(found, content(page));
        }
        assert_eq!(place.space.bring_back(small.range()).unwrap().stayed(), 0);
        assert_eq!(place.space.counters().copied_back, 4);
        small.check();
        let before = huge_bytes();
        let large = Memory::map(place, 2 * HUGE, READ_WRITE, ANONYMOUS, -1);
        large.advise(libc::MADV_HUGEPAGE).map_err(|error| format!("MADV_HUGEPAGE: {error}"))?;
        place.space.adopt(large.range()).unwrap();
        large.fill();
        let huge = huge_bytes();
        if huge == before {
            return Err("the system has no huge page".to_owned());
        }
        let report = place.device.migrate(large.range()).unwrap();
        assert_eq!(report.moved(), large.pages, "{report:?}");
        assert_eq!(huge_bytes(), huge, "on the device");
        assert_eq!(place.space.bring_back(large.range()).unwrap().stayed(), 0);
        assert_eq!(huge_bytes(), huge, "back");
        large.check();
        Ok(())
    });
}

#[test]
fn what_cannot_be_written_stays_until_it_can() {
    as_each_user("what_cannot_be_written_stays_until_it_can", |place| {
        for access in [libc::PROT_READ, libc::PROT_NONE] {
            let memory = place.anonymous(PAGES);
            memory.protect(access);
            place.stays(memory, StayCause::Protection);
            memory.protect(READ_WRITE);
            memory.check();
            place.migrates(memory);
        }
        Ok(())
    });
}

#[test]
fn locked_pages_stay_until_they_are_unlocked() {
    as_each_user("locked_pages_stay_until_they_are_unlocked", |place| {
        let memory = place.anonymous(4);
        let (at, bytes) = (memory.word(0).cast(), memory.pages * memory.page);
        // SAFETY: locking changes no content.
        if unsafe { libc::mlock(at, bytes) } != 0 {
            return Err(format!("mlock: {}", io::Error::last_os_error()));
        }
        place.stays(memory, StayCause::Locked);
        memory.check();
        // SAFETY: as above.
        checked(unsafe { libc::munlock(at, bytes) }, "munlock");
        place.migrates(memory);
        Ok(())
    });
}

#[test]
fn pages_that_are_away_come_back_to_be_locked_or_are_refused() {
    as_each_user("pages_that_are_away_come_back_to_be_locked_or_are_refused", |place| {
        let memory = place.anonymous(4);
        assert_eq!(place.device.migrate(memory.range()).unwrap().moved(), 4);
        // SAFETY: locking changes no content.
        let locked = unsafe { libc::mlock(memory.word(0).cast(), 4 * memory.page) };
        if place.space.serves_system_calls() {
            checked(locked, "mlock");
        } else {
            assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ENOMEM));
        }
        memory.check();
        Ok(())
    });
}

#[test]
fn pages_shared_with_a_child_migrate_and_the_child_keeps_its_own() {
    as_each_user("pages_shared_with_a_child_migrate_and_the_child_keeps_its_own", |place| {
        let memory = place.anonymous(PAGES);
        let (mut from, mut to) = io::pipe().unwrap();
        // SAFETY: the child makes system calls and reads memory, and ends.
        let child = checked(unsafe { libc::fork() }, "fork");
        if child == 0 {
            drop(to);
            let mut byte = [0];
            let told = from.read_exact(&mut byte).is_ok();
            let right = (0..PAGES).all(|page| {
                // SAFETY: the child has the page, or ends.
                unsafe { memory.word(page).read_volatile() == content(page) }
            });
            // SAFETY: the child ends here.
            unsafe { libc::_exit(i32::from(!(told && right))) }
        }
        let report = place.device.migrate(memory.range()).unwrap();
        assert_eq!(report.moved(), PAGES, "{report:?}");
        for page in 0..PAGES {
            // SAFETY: the memory is the test's.
            unsafe { memory.word(page).write_volatile(0) };
        }
        to.write_all(&[1]).unwrap();
        let mut status = 0;
        // SAFETY: there is room for the status of our child.
        checked(unsafe { libc::waitpid(child, &raw mut status, 0) }, "waitpid");
        assert_eq!(status, 0, "the child has what was there at the fork");
        place.migrates(memory.fill());
        Ok(())
    });
}

/// Has a ring pin memory for its reads and writes, for as long as it lives.
fn pin(memory: Memory) -> Result<OwnedFd, String> {
    const REGISTER_BUFFERS: i32 = 0;
    // `struct io_uring_params` has 120 bytes (`linux/io_uring.h`).
    let mut parameters = [0_u8; 120];
    // SAFETY: there is room for the parameters.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    if ring < 0 {
        return Err(format!("io_uring_setup: {}", io::Error::last_os_error()));
    }
    // SAFETY: it was made just now.
    let ring = unsafe { OwnedFd::from_raw_fd(i32::try_from(ring).unwrap()) };
    let buffer =
        libc::iovec { iov_base: memory.word(0).cast(), iov_len: memory.pages * memory.page };
    // SAFETY: the memory is the test's.
    let done = unsafe {
        let (ring, buffer) = (ring.as_raw_fd(), &raw const buffer);
        libc::syscall(libc::SYS_io_uring_register, ring, REGISTER_BUFFERS, buffer, 1)
    };
    if done < 0 {
        return Err(format!("IORING_REGISTER_BUFFERS: {}", io::Error::last_os_error()));
    }
    Ok(ring)
}

#[test]
fn pinned_pages_stay_until_they_are_let_go() {
    as_each_user("pinned_pages_stay_until_they_are_let_go", |place| {
        let memory = place.anonymous(4);
        let ring = pin(memory)?;
        place.stays(memory, StayCause::Busy);
        memory.check();
        drop(ring);
        // The ring lets go when it has been taken down, a moment later.
        let since = Instant::now();
        while place.device.migrate(memory.range()).unwrap().stayed() > 0 {
            assert!(since.elapsed() < Duration::from_secs(30), "they are pinned still");
            std::thread::sleep(Duration::from_millis(5));
        }
        memory.check();
        place.migrates(memory);
        Ok(())
    });
}

/// Has the kernel look for equal pages, as long as it lives, where that is not done anyway.
struct Merging {
    before: [String; 2],
}

const MERGING: [&str; 2] = ["/sys/kernel/mm/ksm/run", "/sys/kernel/mm/ksm/sleep_millisecs"];

impl Merging {
    fn start() -> Result<Self, String> {
        let told =
            |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let merging = Self { before: [told(MERGING[0])?, told(MERGING[1])?] };
        for (path, value) in MERGING.into_iter().zip(["1", "1"]) {
            fs::write(path, value).map_err(|error| format!("{path}: {error}"))?;
        }
        Ok(merging)
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        for (path, value) in MERGING.into_iter().zip(&self.before) {
            let _ = fs::write(path, value.trim());
        }
    }
}

#[test]
fn merged_pages_migrate() {
    let _merging = match Merging::start() {
        Ok(merging) => merging,
        Err(reason) => return eprintln!("skipped: merged_pages_migrate: {reason}"),
    };
    as_each_user("merged_pages_migrate", |place| {
        let memory = place.anonymous(PAGES);
        let fill = |value: u64| {
            for page in 0..PAGES {
                // SAFETY: the memory is the test's.
                unsafe { memory.word(page).write_volatile(value) };
            }
        };
        fill(77);
        memory.advise(libc::MADV_MERGEABLE).map_err(|error| format!("MADV_MERGEABLE: {error}"))?;
        let merged = || {
            let told = fs::read_to_string("/proc/self/ksm_stat").unwrap_or_default();
            told.lines()
                .find_map(|line| line.strip_prefix("ksm_merging_pages "))
                .and_then(|count| count.parse::<usize>().ok())
        };
        let since = Instant::now();
        while merged().ok_or("no /proc/self/ksm_stat")? < PAGES / 2 {
            if since.elapsed() > Duration::from_secs(20) {
                return Err("the kernel merges nothing in 20 s".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let report = place.device.migrate(memory.range()).unwrap();
        // What the kernel merges just now stays for this cause.
        assert!(report.causes().all(|stayed| stayed.cause == StayCause::Busy), "{report:?}");
        assert!(report.moved() > 0, "{report:?}");
        for page in 0..PAGES {
            // SAFETY: the memory is the test's.
            assert_eq!(unsafe { memory.word(page).read_volatile() }, 77, "page {page}");
        }
        memory.advise(libc::MADV_UNMERGEABLE).unwrap();
        place.migrates(memory.fill());
        Ok(())
    });
}

#[test]
fn swapped_pages_migrate() {
    let _swap = match Swap::found_or_made() {
        Ok(swap) => swap,
        Err(reason) => return eprintln!("skipped: swapped_pages_migrate: {reason}"),
    };
    as_each_user("swapped_pages_migrate", |place| {
        let swapped = || {
            let told = fs::read_to_string("/proc/self/status").unwrap_or_default();
            let line = told.lines().find_map(|line| line.strip_prefix("VmSwap:"));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
            kib.unwrap_or(0) * 1024 / place.page
        };
        let memory = place.anonymous(PAGES);
        memory.advise(libc::MADV_PAGEOUT).map_err(|error| format!("MADV_PAGEOUT: {error}"))?;
        if swapped() < PAGES / 2 {
            return Err("the system swaps nothing out that is given up".to_owned());
        }
        place.migrates(memory);
        Ok(())
    });
}

#[test]
fn private_mappings_of_files_stay_written_or_not() {
    as_each_user("private_mappings_of_files_stay_written_or_not", |place| {
        let file = file_of(c"uhmm-private", PAGES, place.page);
        let memory = Memory::map(place, PAGES, READ_WRITE, libc::MAP_PRIVATE, file.as_raw_fd());
        // Adopting names the kind; asking for it all leaves it out.
        assert!(place.space.adopt(memory.range()).is_err());
        let adopted = place.space.adopt_everything().unwrap();
        assert!(
            adopted
                .left_out()
                .any(|left| left.pages.start() == place.space.page_size().page_of(memory.start)
                    && left.cause == StayCause::Backing(Backing::PrivateFile))
        );
        place.stays(memory, StayCause::NotAdopted);
        memory.fill();
        place.stays(memory, StayCause::NotAdopted);
        // A device reads and writes it where it is, and the file never sees that.
        let at = memory.start;
        // SAFETY: nobody else touches the page meanwhile.
        unsafe { place.device.run(0..1, move |worker, _| worker.store(at, content(0))) }.unwrap();
        memory.check();
        let mut bytes = [1; 8];
        (&file).read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [0; 8]);
        Ok(())
    });
}
