//! What the tests share: private memory that is adopted, devices, and what the system says of pages.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    ptr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use uhmm::{
    AddressSpace, CounterValues, DeviceIndex, Migration, Options as SpaceOptions, PageLocation,
    mm::{
        Mm,
        injected::{Injected, Injections},
        linux::Linux,
    },
    units::AddressRange,
};
use uhmm_soft::{Options, Soft, StartError};

/// How many pages there are: parts of three blocks.
pub(crate) const PAGES: usize = 1100;

/// An address space, and private memory that is adopted, of which page `n` holds the number `n + 1`.
pub(crate) struct Place<M: Mm = Linux> {
    pub(crate) space: AddressSpace<M>,
    pub(crate) start: usize,
    pub(crate) page: usize,
    /// There is one address space a process, and one that forks.
    _alone: MutexGuard<'static, ()>,
}

/// Runs a test.
pub(crate) fn test(body: impl FnOnce(&Place)) {
    test_on(|| AddressSpace::open().unwrap(), body);
}

/// Runs a test of which calls of the system are made, or fail. Forks are nobody's there.
pub(crate) fn test_injected(body: impl FnOnce(&Place<Injected<Linux>>, &Injections)) {
    let mm = Injected::new(Linux::open().unwrap());
    let injections = mm.injections();
    test_on(|| SpaceOptions::new().open_on(mm).unwrap(), |place| body(place, &injections));
}

fn test_on<M: Mm>(open: impl FnOnce() -> AddressSpace<M>, body: impl FnOnce(&Place<M>)) {
    static ONE: Mutex<()> = Mutex::new(());
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let space = open();
    let page = space.page_size().bytes();
    let start = map(PAGES * page);
    let place = Place { space, start, page, _alone: alone };
    for page in 0..PAGES {
        place.number(page).store(page as u64 + 1, Relaxed);
    }
    place.space.adopt(place.range(0, PAGES)).unwrap();
    body(&place);
    let Place { space, start, .. } = place;
    space.close().unwrap();
    // SAFETY: the memory is this test's.
    unsafe { libc::munmap(at(start), PAGES * page) };
}

/// New private memory at an address of the system's choice.
pub(crate) fn map(bytes: usize) -> usize {
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    start.expose_provenance()
}

pub(crate) fn at(address: usize) -> *mut libc::c_void {
    ptr::with_exposed_provenance_mut(address)
}

/// A number of the test's memory, which devices may access at the same time.
pub(crate) fn number(address: usize) -> &'static AtomicU64 {
    // SAFETY: the tests map the memory while they use it.
    unsafe { AtomicU64::from_ptr(at(address).cast()) }
}

impl<M: Mm> Place<M> {
    pub(crate) fn address(&self, page: usize) -> usize {
        self.start + page * self.page
    }

    pub(crate) fn range(&self, first: usize, pages: usize) -> AddressRange {
        AddressRange::new(self.address(first), pages * self.page).unwrap()
    }

    pub(crate) fn number(&self, page: usize) -> &'static AtomicU64 {
        number(self.address(page))
    }

    /// Asserts that pages hold their numbers, and so much more.
    pub(crate) fn check(&self, pages: core::ops::Range<usize>, more: u64) {
        for page in pages {
            assert_eq!(self.number(page).load(Relaxed), page as u64 + 1 + more, "page {page}");
        }
    }

    /// A device with coherent memory of so many frames.
    pub(crate) fn device(&self, frames: usize) -> Soft<M> {
        self.try_device(frames).unwrap()
    }

    pub(crate) fn try_device(&self, frames: usize) -> Result<Soft<M>, StartError> {
        Soft::start(&self.space, Options::new(frames * self.page).coherent())
    }

    /// Sends pages to a device, all of which go.
    pub(crate) fn send(&self, device: &Soft<M>, first: usize, pages: usize) {
        let report: Migration = device.migrate(self.range(first, pages)).unwrap();
        assert_eq!((report.moved() + report.already(), report.stayed()), (pages, 0), "{report:?}");
    }

    /// How many pages are on a device.
    pub(crate) fn count_on(&self, device: DeviceIndex) -> usize {
        let there = PageLocation::Device(device);
        (0..PAGES).filter(|&page| self.space.locate(self.address(page)) == there).count()
    }

    /// Frames that a device has in use.
    pub(crate) fn used(&self, device: &Soft<M>) -> usize {
        device.memory_used() / self.page
    }

    /// A device adds to the number of each page.
    pub(crate) fn add(&self, device: &Soft<M>, first: usize, pages: usize, value: u64) {
        let (address, page) = (self.address(first), self.page);
        let add = move |worker: &mut uhmm_soft::Worker<'_, M>, item: usize| {
            // SAFETY: as of the launch.
            unsafe { worker.fetch_add(address + item * page, value) }.map(drop)
        };
        // SAFETY: the numbers are accessed atomically by all.
        unsafe { device.run(0..pages, add) }.unwrap();
    }

    /// The page frames of main memory that the process has at pages, by number; `None` where the system
    /// does not tell them.
    pub(crate) fn page_frames(&self, first: usize, pages: usize) -> Option<Vec<u64>> {
        let told = File::open("/proc/self/pagemap").unwrap();
        let mut bytes = vec![0; 8 * pages];
        told.read_exact_at(&mut bytes, (self.address(first) / self.page * 8) as u64).unwrap();
        let frames: Vec<_> = bytes
            .chunks_exact(8)
            .map(|entry| u64::from_ne_bytes(entry.try_into().unwrap()) & ((1 << 55) - 1))
            .collect();
        frames.iter().all(|&frame| frame != 0).then_some(frames)
    }

    /// What was counted of faults of the processor.
    pub(crate) fn faults(&self) -> [u64; 3] {
        let CounterValues { cpu_faults, cpu_first_touches, cpu_faults_stale, .. } =
            self.space.counters();
        [cpu_faults, cpu_first_touches, cpu_faults_stale]
    }
}

/// How many faults the system has served this thread, of those that read nothing from a disk.
pub(crate) fn minor_faults() -> i64 {
    // SAFETY: the structure is ours to be written, and plain numbers.
    unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        let told = libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        assert_eq!(told, 0, "{}", io::Error::last_os_error());
        usage.ru_minflt
    }
}
