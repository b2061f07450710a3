//! What cannot be done is refused with an error that names it, and changes nothing.
//!
//! Where a machine lacks what a test needs the test says `skipped: NAME: reason`; where the variable
//! `CI` is set it fails instead.
#![cfg(not(any(shuttle, miri)))]
#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand for the program, which has a heap"
)]

#[path = "support/privileges.rs"]
mod privileges;
#[path = "support/skip.rs"]
mod skip;

use std::{
    fmt::Display,
    fs::{self, File},
    io::{Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use privileges::drop_privileges;
use skip::skip;
use uhmm::{
    AddressSpace, AdoptError, AttachError, Attachment, Device, Entries, Invalidation, OpenError,
    Options, PageLocation, PageTable, StayCause,
    mm::{Access, Backing},
    units::{AddressRange, RangeError},
};

const PAGES: usize = 8;

fn page() -> usize {
    // SAFETY: asking for a number touches no memory.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a size of pages")
}

/// A device that never touches anything: it has no translations that could outlive an entry.
struct Idle;

// SAFETY: it touches no memory and waits for nothing.
unsafe impl PageTable for Idle {
    fn commit(&self, _: &Entries) {}
    fn invalidate(&self, _: &Invalidation) {}
}

// SAFETY: as above.
unsafe impl Device for Idle {}

/// The right to have an address space open: one test at a time, as there is one a process.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the address space with a device, or says why the test is left out.
fn open(name: &str) -> Option<(AddressSpace, Attachment<Idle>)> {
    match AddressSpace::open() {
        Ok(space) => {
            let device = space.attach(Idle, 4 * PAGES).unwrap();
            Some((space, device))
        }
        Err(error) => {
            skip(name, error);
            None
        }
    }
}

/// Memory of the test's own, filled, with a page around it that nothing can be joined to.
struct Memory {
    start: *mut u8,
    len: usize,
}

impl Memory {
    fn new() -> Self {
        Self::map(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    fn map(flags: i32, file: i32) -> Self {
        let len = PAGES * page();
        let hole = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, at an address of the system's choice.
        let around =
            unsafe { libc::mmap(ptr::null_mut(), len + 2 * page(), libc::PROT_NONE, hole, -1, 0) };
        assert_ne!(around, libc::MAP_FAILED);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a mapping in place of the middle of the one just made.
        let start = unsafe {
            let at = around.byte_add(page());
            libc::mmap(at, len, access, flags | libc::MAP_FIXED, file, 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        let memory = Self { start: start.cast(), len };
        // SAFETY: the mapping was just made and is writable.
        unsafe { memory.start.write_bytes(7, len) };
        memory
    }

    fn pages(&self, first: usize, pages: usize) -> AddressRange {
        AddressRange::new(self.start.addr() + first * page(), pages * page()).unwrap()
    }

    fn all(&self) -> AddressRange {
        self.pages(0, PAGES)
    }

    fn protect(&self, first: usize, pages: usize, access: i32) {
        // SAFETY: the memory is the test's own, and it keeps to the protection.
        let done = unsafe {
            libc::mprotect(self.start.add(first * page()).cast(), pages * page(), access)
        };
        assert_eq!(done, 0);
    }

    /// What the system says of the memory: its areas with their flags.
    fn told(&self) -> Vec<String> {
        let text = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        let mut told = Vec::new();
        for line in text.lines() {
            let header = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            if let Some((start, end)) = header
                && let (Ok(start), Ok(end)) =
                    (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16))
            {
                inside = start < self.start.addr() + self.len && self.start.addr() < end;
            }
            if inside && (line.contains('-') || line.starts_with("VmFlags")) {
                told.push(line.to_owned());
            }
        }
        told
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the memory is the test's own, with the page before and the one behind.
        unsafe { libc::munmap(self.start.sub(page()).cast(), self.len + 2 * page()) };
    }
}

/// Shows that `range` is refused with `expected` for its first part, and that nothing changed.
#[track_caller]
fn refuses(
    space: &AddressSpace,
    device: &Attachment<Idle>,
    memory: &Memory,
    range: AddressRange,
    expected: StayCause,
) {
    let before = memory.told();
    // What was unmapped before this was read by then, and is counted once it is applied.
    device.settle();
    let counted = space.counters().changes;
    let error = space.adopt(range).unwrap_err();
    let AdoptError::Refused { range: named, cause, pages } = error else {
        panic!("another error: {error}");
    };
    assert_eq!((named, cause), (range, expected));
    assert!(range.pages(space.page_size()).unwrap().covers(pages), "{error}");
    says(&error, &[&range.to_string(), &expected.to_string()]);
    assert_eq!(memory.told(), before);
    assert_eq!(space.counters().changes, counted);
    let report = device.migrate(memory.all()).unwrap();
    assert_eq!((report.moved(), report.stayed()), (0, PAGES));
    assert!(report.causes().all(|stayed| stayed.cause == StayCause::NotAdopted), "{report:?}");
    assert_eq!(memory.told(), before);
}

/// Shows that a message is one line with all of `parts`.
#[track_caller]
fn says(error: &dyn Display, parts: &[&str]) {
    let said = error.to_string();
    assert!(!said.contains('\n'), "more than a line: {said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

#[test]
fn ranges_that_are_none() {
    let _alone = alone();
    let Some((space, device)) = open("ranges_that_are_none") else { return };
    assert!(matches!(AddressRange::new(4096, 0), Err(RangeError::Empty { start: 4096 })));
    says(&AddressRange::new(usize::MAX - 4095, 8192).unwrap_err(), &["wraps", "0x2000"]);
    let memory = Memory::new();
    let start = memory.start.addr();
    for (first, len) in [(1, page()), (0, page() - 1), (page() / 2, page() / 2)] {
        let before = memory.told();
        let range = AddressRange::new(start + first, len).unwrap();
        let errors: [Box<dyn Display>; 4] = [
            Box::new(space.adopt(range).unwrap_err()),
            Box::new(space.release(range).unwrap_err()),
            Box::new(space.bring_back(range).unwrap_err()),
            Box::new(device.migrate(range).unwrap_err()),
        ];
        for error in &errors {
            says(error, &["does not start and end on boundaries", "align it"]);
        }
        assert_eq!(memory.told(), before);
    }
    let beyond = AddressRange::new(1 << 63, page()).unwrap();
    let error = space.adopt(beyond).unwrap_err();
    assert!(matches!(error, AdoptError::BeyondLimit { .. }));
    says(&error, &["beyond", "0x8000000000000000"]);
    assert_eq!(device.migrate(beyond).unwrap().stayed(), 1);
    let error = device.fault(1 << 63, Access::Read).unwrap_err();
    assert_eq!(error.cause, StayCause::NoArea);
    assert_eq!(space.locate(usize::MAX), PageLocation::System);
    drop(device);
    space.close().unwrap();
}

#[test]
fn what_is_not_mapped() {
    let _alone = alone();
    let Some((space, device)) = open("what_is_not_mapped") else { return };
    let memory = Memory::new();
    // SAFETY: the memory is the test's own.
    unsafe { libc::munmap(memory.start.add(3 * page()).cast(), page()) };
    refuses(&space, &device, &memory, memory.pages(3, 1), StayCause::NoArea);
    // What precedes could be adopted, and is not.
    refuses(&space, &device, &memory, memory.all(), StayCause::NoArea);
    space.adopt(memory.pages(0, 3)).unwrap();
    drop(device);
    space.close().unwrap();
}

#[test]
fn kinds_that_do_not_migrate() {
    let _alone = alone();
    let Some((space, device)) = open("kinds_that_do_not_migrate") else { return };
    // SAFETY: a new file without a name; the name given is for people.
    let file = unsafe { libc::memfd_create(c"bad-input".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(file >= 0);
    // SAFETY: the descriptor was made just now and is nobody else's.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(file) });
    file.set_len((PAGES * page()) as u64).unwrap();
    let mapped = Memory::map(libc::MAP_PRIVATE, file.as_raw_fd());
    let cause = StayCause::Backing(Backing::PrivateFile);
    refuses(&space, &device, &mapped, mapped.all(), cause);

    for access in [libc::PROT_NONE, libc::PROT_READ] {
        let memory = Memory::new();
        memory.protect(2, 3, access);
        space.adopt(memory.all()).unwrap();
        let stayed: Vec<_> = device.migrate(memory.pages(2, 3)).unwrap().causes().collect();
        assert!(!stayed.is_empty());
        assert!(stayed.iter().all(|stayed| stayed.cause == StayCause::Protection), "{stayed:?}");
        memory.protect(2, 3, libc::PROT_READ | libc::PROT_WRITE);
        // What is mapped at these addresses next is not adopted.
        space.release(memory.all()).unwrap();
    }

    let memory = Memory::new();
    // SAFETY: locking changes no content.
    if unsafe { libc::mlock(memory.start.add(page()).cast(), page()) } == 0 {
        refuses(&space, &device, &memory, memory.pages(1, 1), StayCause::Locked);
        refuses(&space, &device, &memory, memory.all(), StayCause::Locked);
    } else {
        skip("kinds_that_do_not_migrate (locked)", std::io::Error::last_os_error());
    }
    drop(device);
    space.close().unwrap();
}

#[test]
fn stacks() {
    let _alone = alone();
    let Some((space, device)) = open("stacks") else { return };
    let local = 0_u8;
    let start = (&raw const local).addr() / page() * page();
    let here = AddressRange::new(start, page()).unwrap();
    let error = space.adopt(here).unwrap_err();
    assert!(matches!(error, AdoptError::Refused { cause: StayCause::Stack, .. }), "{error}");
    says(&error, &[&here.to_string(), "stack"]);
    // Everything leaves it out too, and says so.
    let adopted = space.adopt_everything().unwrap();
    let pages = here.pages(space.page_size()).unwrap();
    let left = adopted.left_out().find(|left| left.pages.overlaps(pages)).unwrap();
    assert_eq!(left.cause, StayCause::Stack);
    let report = device.migrate(here).unwrap();
    assert_eq!((report.moved(), report.stayed()), (0, 1));
    drop(device);
    space.close().unwrap();
}

#[test]
fn what_the_engine_uses() {
    let _alone = alone();
    let Some((space, device)) = open("what_the_engine_uses") else { return };
    let size = space.page_size();
    let engine = space.engine_memory().range().pages_touched(size);
    let range = AddressRange::new(size.address_of(engine.start()), size.bytes_in(engine.len()));
    let used = space.engine_memory().used();
    let error = space.adopt(range.unwrap()).unwrap_err();
    assert!(matches!(error, AdoptError::Refused { .. }), "{error}");
    says(&error, &["cannot be adopted", "engine memory"]);
    assert_eq!(space.engine_memory().used(), used);
    // Nor is it among everything, nor are the frames of a device.
    let adopted = space.adopt_everything().unwrap();
    assert!(adopted.left_out().any(|left| left.pages.overlaps(engine)));
    let report = device.migrate(range.unwrap()).unwrap();
    assert_eq!((report.moved(), report.stayed()), (0, engine.len()));
    drop(device);
    space.close().unwrap();
}

/// The calls of userfaultfd(2) that the tests make themselves.
mod foreign {
    use super::{AddressRange, AsRawFd, FromRawFd, OwnedFd};

    const API: libc::c_ulong = 0xc018_aa3f;
    const REGISTER: libc::c_ulong = 0xc020_aa00;
    const UFFD_API: u64 = 0xaa;
    const MISSING: u64 = 1;

    /// A descriptor of the test's own, with `range` registered.
    pub(super) fn register(range: AddressRange) -> OwnedFd {
        // SAFETY: a descriptor on which nothing is registered changes no memory.
        let number = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | 1) };
        assert!(number >= 0, "userfaultfd: {}", std::io::Error::last_os_error());
        let number = i32::try_from(number).unwrap();
        // SAFETY: the descriptor was made just now and is nobody else's.
        let file = unsafe { OwnedFd::from_raw_fd(number) };
        let mut api = [UFFD_API, 0, 0];
        // SAFETY: the structure of the call has three words.
        let agreed = unsafe { libc::ioctl(file.as_raw_fd(), API, api.as_mut_ptr()) };
        assert_eq!(agreed, 0, "UFFDIO_API: {}", std::io::Error::last_os_error());
        let mut register = [range.start() as u64, range.len() as u64, MISSING, 0];
        // SAFETY: the structure of the call has four words; all pages are there, so nobody waits.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), REGISTER, register.as_mut_ptr()) };
        assert_eq!(done, 0, "UFFDIO_REGISTER: {}", std::io::Error::last_os_error());
        file
    }
}

#[test]
fn somebody_elses_userfaultfd() {
    let _alone = alone();
    let Some((space, device)) = open("somebody_elses_userfaultfd") else { return };
    let memory = Memory::new();
    let other = foreign::register(memory.pages(4, 2));
    refuses(&space, &device, &memory, memory.pages(4, 1), StayCause::ForeignUserfaultfd);
    refuses(&space, &device, &memory, memory.all(), StayCause::ForeignUserfaultfd);
    drop(other);
    space.adopt(memory.all()).unwrap();
    // Somebody else comes between the adoption and the first migration.
    let other = foreign::register(memory.all());
    let before = memory.told();
    let report = device.migrate(memory.all()).unwrap();
    assert_eq!((report.moved(), report.stayed()), (0, PAGES));
    let foreign = |cause| cause == StayCause::ForeignUserfaultfd;
    assert!(report.causes().all(|stayed| foreign(stayed.cause)), "{report:?}");
    assert_eq!(memory.told(), before);
    drop(other);
    assert_eq!(device.migrate(memory.all()).unwrap().moved(), PAGES);
    drop(device);
    space.close().unwrap();
}

#[test]
fn options_that_cannot_be() {
    let _alone = alone();
    let Some((space, device)) = open("options_that_cannot_be") else { return };
    let error = space.attach(Idle, 0).unwrap_err();
    assert_eq!(error, AttachError::NoFrames);
    says(&error, &["at least one frame"]);
    let error = space.attach(Idle, usize::MAX).unwrap_err();
    assert!(matches!(error, AttachError::TooManyFrames { frames: usize::MAX, .. }));
    drop(device);
    space.close().unwrap();
    for bytes in [0, 1, Options::LEAST_ENGINE_MEMORY - 1] {
        let error = Options::new().engine_memory(bytes).open().unwrap_err();
        assert!(matches!(error, OpenError::TooLittleEngineMemory { asked, .. } if asked == bytes));
        says(&error, &[&bytes.to_string(), &Options::LEAST_ENGINE_MEMORY.to_string()]);
    }
    let error = Options::new().engine_memory(usize::MAX).open().unwrap_err();
    assert!(matches!(error, OpenError::Memory(_)), "{error}");
    says(&error, &["engine memory", &usize::MAX.to_string()]);
    // None of this is in the way of those that can be.
    Options::new().engine_memory(Options::LEAST_ENGINE_MEMORY).open().unwrap().close().unwrap();
}

#[test]
fn a_second_address_space() {
    let _alone = alone();
    let Some((space, device)) = open("a_second_address_space") else { return };
    let error = AddressSpace::open().unwrap_err();
    assert!(matches!(error, OpenError::AlreadyOpen));
    says(&error, &["open already"]);
    let memory = Memory::new();
    space.adopt(memory.all()).unwrap();
    assert_eq!(device.migrate(memory.all()).unwrap().moved(), PAGES);
    drop(device);
    space.close().unwrap();
    // SAFETY: the memory is the test's own and there.
    assert!((0..memory.len).all(|place| unsafe { *memory.start.add(place) } == 7));
    AddressSpace::open().unwrap().close().unwrap();
}

/// Runs `body` in a child of a fork, with a pipe to say something. Returns what it said.
fn in_child(body: impl FnOnce(&mut dyn Write)) -> String {
    let (mut from, mut to) = std::io::pipe().unwrap();
    // SAFETY: the C library makes its heap usable in a child, and the child ends without what
    // others of the parent's threads may have begun.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // Whatever hangs in there ends.
        // SAFETY: the signal ends the process, as by default.
        unsafe { libc::alarm(20) };
        body(&mut to);
        // SAFETY: ending a process is always sound.
        unsafe { libc::_exit(0) };
    }
    drop(to);
    let mut said = String::new();
    from.read_to_string(&mut said).unwrap();
    let mut status = 0;
    // SAFETY: the status is ours to be written.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "the child ended with {status:#x}, having said: {said}");
    said
}

/// Opens, migrates there and back, closes; says how it went.
fn try_all(to: &mut dyn Write) {
    let said = match AddressSpace::open() {
        Err(error) => format!("no: {error}"),
        Ok(space) => {
            let device = space.attach(Idle, PAGES).unwrap();
            let memory = Memory::new();
            space.adopt(memory.all()).unwrap();
            let moved = device.migrate(memory.all()).unwrap().moved();
            // SAFETY: the memory is the test's own.
            let right = (0..memory.len).all(|place| unsafe { *memory.start.add(place) } == 7);
            let faults = space.counters().cpu_faults;
            drop(device);
            space.close().unwrap();
            format!("moved {moved}, {right}, faults {}", faults > 0)
        }
    };
    let _ = to.write_all(said.as_bytes());
}

const ALL_WELL: &str = "moved 8, true, faults true";

#[test]
fn a_child_of_a_fork_opens_its_own() {
    let _alone = alone();
    let Some((space, device)) = open("a_child_of_a_fork_opens_its_own") else { return };
    assert_eq!(in_child(try_all), ALL_WELL);
    // The parent's is as it was.
    assert!(matches!(AddressSpace::open(), Err(OpenError::AlreadyOpen)));
    let memory = Memory::new();
    space.adopt(memory.all()).unwrap();
    assert_eq!(device.migrate(memory.all()).unwrap().moved(), PAGES);
    drop(device);
    space.close().unwrap();
}

#[test]
fn an_ordinary_user() {
    let _alone = alone();
    let Some((space, device)) = open("an_ordinary_user") else { return };
    drop(device);
    space.close().unwrap();
    let said = in_child(|to| {
        drop_privileges();
        try_all(to);
    });
    if said != ALL_WELL {
        // Where the system does not allow it that is said, in a line, with what would help.
        says(&said, &["no: ", ": "]);
        skip("an_ordinary_user", said);
    }
}

/// Makes userfaultfd(2), and the call on its device that makes a descriptor, fail with `error` in
/// this process from now on.
fn refuse_userfaultfd(error: i32) {
    const NEW: u32 = 0xaa00;
    let number = |call: libc::c_long| u32::try_from(call).unwrap();
    let refuse = libc::SECCOMP_RET_ERRNO | error.unsigned_abs();
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let equal = |value, yes, no| statement(libc::BPF_JMP | libc::BPF_JEQ, value, yes, no);
    let answer = |value| statement(libc::BPF_RET, value, 0, 0);
    // The call's number is the first word of what a filter sees; arguments start at the fourth, and
    // have two words each, the lower one first on the processors that there are tests for.
    let mut filter = [
        load(0),
        equal(number(libc::SYS_userfaultfd), 4, 0),
        equal(number(libc::SYS_ioctl), 0, 2),
        load(24),
        equal(NEW, 1, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(refuse),
    ];
    let program =
        libc::sock_fprog { len: u16::try_from(filter.len()).unwrap(), filter: filter.as_mut_ptr() };
    // SAFETY: the filter is valid while it is read; it refuses two calls that nobody relies on.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

fn statement(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k }
}

#[test]
fn a_system_without_userfaultfd() {
    let _alone = alone();
    for (error, hint) in [
        (libc::EPERM, "seccomp profile"),
        (libc::ENOSYS, "CONFIG_USERFAULTFD"),
        (libc::EMFILE, "limit of open files"),
    ] {
        let said = in_child(|to| {
            refuse_userfaultfd(error);
            let count = |path| fs::read_dir(path).unwrap().count();
            let before = (count("/proc/self/fd"), count("/proc/self/task"));
            let first = AddressSpace::open().unwrap_err();
            let second = AddressSpace::open().unwrap_err();
            let same = (count("/proc/self/fd"), count("/proc/self/task")) == before;
            let named = matches!(first, OpenError::System(_));
            let _ = write!(to, "{same} {named} {first} and {second}");
        });
        says(&said, &["true true no userfaultfd", &format!("system error {error}"), hint]);
        assert!(said.contains(" and no userfaultfd"), "the second time is like the first: {said}");
    }
}

/// Maps single pages until the system has no room for another area, and answers where they are: a
/// mapping, every other page of which is an area of its own.
fn exhaust_areas() -> (*mut libc::c_void, usize) {
    let len = (4 << 20) * page();
    let hole = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, at an address of the system's choice.
    let all = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, hole, -1, 0) };
    assert_ne!(all, libc::MAP_FAILED);
    for place in (0..len).step_by(2 * page()) {
        // SAFETY: the mapping is the test's own.
        if unsafe { libc::mprotect(all.byte_add(place), page(), libc::PROT_READ) } != 0 {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ENOMEM));
            // A split is refused a little sooner than a new area.
            let new = |access| {
                // SAFETY: a new mapping, at an address of the system's choice.
                unsafe { libc::mmap(ptr::null_mut(), page(), access, hole, -1, 0) }
            };
            while new(libc::PROT_READ) != libc::MAP_FAILED
                && new(libc::PROT_NONE) != libc::MAP_FAILED
            {}
            return (all, len);
        }
    }
    panic!("the system has room for {} areas", len / page());
}

#[test]
fn as_many_areas_as_the_system_allows() {
    let _alone = alone();
    let Some((space, device)) = open("as_many_areas_as_the_system_allows") else { return };
    drop(device);
    space.close().unwrap();
    let said = in_child(|to| {
        let space = AddressSpace::open().unwrap();
        let device = space.attach(Idle, PAGES).unwrap();
        let memory = Memory::new();
        let (areas, len) = exhaust_areas();
        let refused = space.attach(Idle, PAGES).map(drop).unwrap_err();
        let named = matches!(refused, AttachError::Staging { frames: PAGES, .. });
        // What is attached works on, as far as the system lets it.
        space.adopt(memory.all()).unwrap();
        let moved = device.migrate(memory.all()).unwrap();
        let done = moved.moved() + moved.stayed() == PAGES;
        // SAFETY: the memory is the test's own.
        let right = (0..memory.len).all(|place| unsafe { *memory.start.add(place) } == 7);
        // SAFETY: nobody uses the areas.
        assert_eq!(unsafe { libc::munmap(areas, len) }, 0);
        let after = device.migrate(memory.all()).unwrap().moved();
        let again = space.attach(Idle, PAGES).is_ok();
        drop(device);
        space.close().unwrap();
        let _ = write!(to, "{named} {done} {right} {after} {again} {refused}");
    });
    says(&said, &["true true true 8 true memory of 8 frames", "system error 12"]);
}
