//! What the tests share: shared memory that is adopted, and devices.

use std::{
    ffi::CStr,
    fs::{self, File, OpenOptions},
    os::fd::{AsRawFd as _, FromRawFd as _},
    ptr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use uhmm::{AddressSpace, Migration, PageLocation, StayCause, units::AddressRange};
use uhmm_soft::{Options, Soft};

/// How many pages there are: parts of three blocks.
pub(crate) const PAGES: usize = 1100;

pub(crate) const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// What shared memory is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Anonymous,
    Memfd,
    Tmpfs,
}

/// A name of the files, by which their areas are known.
const NAME: &CStr = c"uhmm-shared-memory";

impl Kind {
    /// The file of such memory, if it has one, `bytes` long.
    fn file(self, bytes: usize) -> Option<File> {
        let file = match self {
            Self::Anonymous => return None,
            Self::Memfd => {
                // SAFETY: a new file.
                let file = unsafe { libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC) };
                assert!(file >= 0);
                // SAFETY: it is this caller's alone.
                unsafe { File::from_raw_fd(file) }
            }
            Self::Tmpfs => {
                let path = in_tmpfs("");
                let options = OpenOptions::new().read(true).write(true).create_new(true).clone();
                let file = options.open(&path).unwrap();
                fs::remove_file(path).unwrap();
                file
            }
        };
        file.set_len(bytes.try_into().unwrap()).unwrap();
        Some(file)
    }
}

/// The path of a file of a tmpfs.
pub(crate) fn in_tmpfs(of: &str) -> String {
    format!("/dev/shm/{}-{}{of}", NAME.to_str().unwrap(), std::process::id())
}

/// An address space, and shared memory that is adopted, of which page `n` holds the number `n + 1`.
pub(crate) struct Place {
    pub(crate) space: AddressSpace,
    /// The file that the memory shows, if it has one.
    pub(crate) file: Option<File>,
    pub(crate) start: usize,
    pub(crate) page: usize,
    /// There is one address space a process.
    _alone: MutexGuard<'static, ()>,
}

/// Until what it answers is dropped no other test has an address space.
pub(crate) fn lock() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Areas of such memory that this process has.
pub(crate) fn areas() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let name = NAME.to_str().unwrap();
    maps.lines().filter(|line| line.contains("/dev/zero") || line.contains(name)).count()
}

/// Runs a test where the system can do it, once with memory of each kind.
pub(crate) fn test(body: impl Fn(&Place)) {
    for kind in [Kind::Anonymous, Kind::Memfd, Kind::Tmpfs] {
        test_of(kind, &body);
    }
}

/// Runs a test with memory of one kind where the system can do it.
pub(crate) fn test_of(kind: Kind, body: impl Fn(&Place)) {
    let alone = lock();
    let areas_before = areas();
    let space = AddressSpace::open().unwrap();
    let page = space.page_size().bytes();
    let file = kind.file(PAGES * page);
    let start = match &file {
        Some(file) => map_file(file, PAGES * page),
        None => map(PAGES * page, libc::MAP_SHARED | libc::MAP_ANONYMOUS),
    };
    let place = Place { space, file, start, page, _alone: alone };
    place.fill();
    place.space.adopt(place.all()).unwrap();
    body(&place);
    let Place { space, start, _alone: alone, .. } = place;
    space.close().unwrap();
    // SAFETY: the memory is this test's.
    unsafe { libc::munmap(at(start).cast(), PAGES * page) };
    assert_eq!(areas(), areas_before, "an alias is left, of {kind:?}");
    drop(alone);
}

/// A new mapping of a file's first bytes.
pub(crate) fn map_file(file: &File, bytes: usize) -> usize {
    // SAFETY: a new mapping.
    let start = unsafe {
        let file = file.as_raw_fd();
        libc::mmap(ptr::null_mut(), bytes, READ_WRITE, libc::MAP_SHARED, file, 0)
    };
    assert_ne!(start, libc::MAP_FAILED);
    start.expose_provenance()
}

/// New memory at an address of the system's choice.
pub(crate) fn map(bytes: usize, flags: i32) -> usize {
    // SAFETY: a new mapping.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, READ_WRITE, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    start.expose_provenance()
}

pub(crate) fn at(address: usize) -> *mut u64 {
    ptr::with_exposed_provenance_mut(address)
}

/// A number of the test's memory, which others may access at the same time.
pub(crate) fn number(address: usize) -> &'static AtomicU64 {
    // SAFETY: the tests map the memory while they use it.
    unsafe { AtomicU64::from_ptr(at(address)) }
}

pub(crate) fn load(address: usize) -> u64 {
    number(address).load(Relaxed)
}

pub(crate) fn store(address: usize, value: u64) {
    number(address).store(value, Relaxed);
}

impl Place {
    pub(crate) fn address(&self, page: usize) -> usize {
        self.start + page * self.page
    }

    pub(crate) fn range(&self, first: usize, pages: usize) -> AddressRange {
        AddressRange::new(self.address(first), pages * self.page).unwrap()
    }

    pub(crate) fn all(&self) -> AddressRange {
        self.range(0, PAGES)
    }

    pub(crate) fn fill(&self) {
        for page in 0..PAGES {
            store(self.address(page), page as u64 + 1);
        }
    }

    pub(crate) fn check(&self, pages: core::ops::Range<usize>) {
        for page in pages {
            assert_eq!(load(self.address(page)), page as u64 + 1, "page {page}");
        }
    }

    /// A device with memory for so many pages.
    pub(crate) fn device(&self, frames: usize) -> Soft {
        Soft::start(&self.space, Options::new(frames * self.page).workers(1).keep_pages()).unwrap()
    }

    pub(crate) fn is_away(&self, page: usize) -> bool {
        matches!(self.space.locate(self.address(page)), PageLocation::Device(_))
    }

    pub(crate) fn count_away(&self) -> usize {
        (0..PAGES).filter(|&page| self.is_away(page)).count()
    }

    pub(crate) fn advise(&self, first: usize, pages: usize, advice: i32) {
        let start = at(self.address(first)).cast();
        // SAFETY: the memory is the test's, and holds numbers, of which any may become zero.
        assert_eq!(unsafe { libc::madvise(start, pages * self.page, advice) }, 0);
    }
}

/// Adds to numbers on the device, one in each page from `address` on.
pub(crate) fn add(device: &Soft, address: usize, pages: usize, page: usize, value: u64) {
    let add = move |worker: &mut uhmm_soft::Worker<'_>, item: usize| {
        // SAFETY: as of the launch.
        unsafe { worker.fetch_add(address + item * page, value) }.map(drop)
    };
    // SAFETY: the numbers are accessed atomically by all.
    unsafe { device.run(0..pages, add) }.unwrap();
}

/// Numbers as the device sees them.
pub(crate) fn seen(device: &Soft, address: usize, pages: usize, page: usize) -> Vec<u64> {
    let numbers: Vec<_> = (0..pages).map(|_| AtomicU64::new(0)).collect();
    let numbers = std::sync::Arc::new(numbers);
    let to = numbers.clone();
    let read = move |worker: &mut uhmm_soft::Worker<'_>, item: usize| {
        // SAFETY: as of the launch.
        to[item].store(unsafe { worker.load(address + item * page) }?, Relaxed);
        Ok(())
    };
    // SAFETY: as in `add`.
    unsafe { device.run(0..pages, read) }.unwrap();
    numbers.iter().map(|number| number.load(Relaxed)).collect()
}

/// Asserts that all went.
pub(crate) fn moved(report: &Migration, pages: usize) {
    assert_eq!((report.moved() + report.already(), report.stayed()), (pages, 0), "{report:?}");
}

pub(crate) fn causes(report: &Migration) -> Vec<StayCause> {
    report.causes().map(|stayed| stayed.cause).collect()
}
