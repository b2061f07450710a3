//! Memory of the program that devices may take, and the process of a device.

use std::{io, ops::Range, path::PathBuf, ptr, time::Duration};

use uhmm::{AddressSpace, units::AddressRange};
use uhmm_soft::{Bus, Home, KernelDevice, Options, ProcessOptions};

use crate::kernels::KERNELS;

const PAGE: usize = 4096;

/// Bytes of a block.
const BLOCK: usize = 512 * PAGE;

/// This executable.
pub(crate) fn myself() -> PathBuf {
    std::env::current_exe().expect("a test knows its executable")
}

/// How long all threads of this process have had a processor.
pub(crate) fn time_used() -> Duration {
    // SAFETY: the call fills what it is given.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        assert_eq!(libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time), 0);
        time
    };
    Duration::new(
        u64::try_from(time.tv_sec).expect("a time"),
        u32::try_from(time.tv_nsec).expect("a part of a second"),
    )
}

/// Pages of the program, each of which begins with a number. They are read by the kernel, on behalf of a
/// pipe, so that an access that would end with a signal ends with an error.
pub(crate) struct Place {
    pub(crate) base: u64,
    pages: usize,
    pipe: [libc::c_int; 2],
}

impl Place {
    /// Opens the address space, and adopts new pages, which are filled.
    pub(crate) fn open(pages: usize) -> (AddressSpace, Self) {
        let (access, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let len = pages * PAGE;
        // SAFETY: the system chooses the addresses.
        let start = unsafe { libc::mmap(ptr::null_mut(), len + BLOCK, access, flags, -1, 0) };
        assert!(start != libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        // It begins with a block, whatever addresses the system chose, and there is nothing behind it.
        let before = start.addr().next_multiple_of(BLOCK) - start.addr();
        // SAFETY: what is in the mapping before the pages and behind them nobody uses.
        let start = unsafe {
            assert_eq!(libc::munmap(start.byte_add(before + len), BLOCK - before), 0);
            assert!(before == 0 || libc::munmap(start, before) == 0);
            start.byte_add(before)
        };
        let mut pipe = [0; 2];
        // SAFETY: there is room for two descriptors.
        assert_eq!(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        let place = Self { base: start.expose_provenance() as u64, pages, pipe };
        place.fill(0..pages);
        let space = AddressSpace::open().expect("an address space");
        space.adopt(place.range()).expect("pages are adopted");
        (space, place)
    }

    /// What a page begins with.
    pub(crate) const fn content(page: usize) -> u64 {
        page as u64 * 3 + 1
    }

    pub(crate) fn address(&self, page: usize) -> usize {
        usize::try_from(self.base).expect("an address") + page * PAGE
    }

    pub(crate) fn part(&self, pages: Range<usize>) -> AddressRange {
        AddressRange::new(self.address(pages.start), pages.len() * PAGE).expect("a range")
    }

    pub(crate) fn range(&self) -> AddressRange {
        self.part(0..self.pages)
    }

    /// Drops what is there, and fills pages anew.
    pub(crate) fn fill(&self, pages: Range<usize>) {
        for page in pages {
            self.discard(page..page + 1);
            self.store(page, Self::content(page));
        }
    }

    /// Drops what is there.
    pub(crate) fn discard(&self, pages: Range<usize>) {
        let at = ptr::with_exposed_provenance_mut(self.address(pages.start));
        // SAFETY: the pages are the test's own.
        assert_eq!(unsafe { libc::madvise(at, pages.len() * PAGE, libc::MADV_DONTNEED) }, 0);
    }

    /// Has a page begin with a number.
    pub(crate) fn store(&self, page: usize, number: u64) {
        let at: *mut u64 = ptr::with_exposed_provenance_mut(self.address(page));
        // SAFETY: the page is the test's own.
        unsafe { at.write_volatile(number) };
    }

    /// Unmaps a page.
    pub(crate) fn unmap(&self, page: usize) {
        // SAFETY: the page is the test's own, and nothing is in it that is used again.
        let done =
            unsafe { libc::munmap(ptr::with_exposed_provenance_mut(self.address(page)), PAGE) };
        assert_eq!(done, 0, "munmap: {}", io::Error::last_os_error());
    }

    /// All bytes of a page.
    pub(crate) fn bytes(&self, page: usize) -> Vec<u8> {
        let at: *const [u8; PAGE] = ptr::with_exposed_provenance(self.address(page));
        // SAFETY: the page is there, and no device uses it now.
        unsafe { at.read_volatile() }.to_vec()
    }

    /// What a page begins with now; none where its content is lost.
    pub(crate) fn load(&self, page: usize) -> Option<u64> {
        let at: *const libc::c_void = ptr::with_exposed_provenance(self.address(page));
        let mut bytes = [0; 8];
        // SAFETY: the kernel reads eight bytes of the page, or says that it cannot.
        if unsafe { libc::write(self.pipe[1], at, 8) } != 8 {
            return None;
        }
        // SAFETY: there is room for eight bytes.
        assert_eq!(unsafe { libc::read(self.pipe[0], bytes.as_mut_ptr().cast(), 8) }, 8);
        Some(u64::from_ne_bytes(bytes))
    }
}

/// The page that an address is in.
pub(crate) fn page_at(address: usize) -> AddressRange {
    AddressRange::new(address / PAGE * PAGE, PAGE).expect("a range")
}

/// Where a device can live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lives {
    InProgram,
    InOwnProcess,
}

pub(crate) const EVERYWHERE: [Lives; 2] = [Lives::InProgram, Lives::InOwnProcess];

impl Lives {
    /// A device there with so many frames of memory that is reached by copies, and so many workers.
    pub(crate) fn start(self, space: &AddressSpace, frames: usize, workers: usize) -> KernelDevice {
        let home = match self {
            Self::InProgram => Home::Program(in_program(frames, workers, Bus::new())),
            Self::InOwnProcess => Home::OwnProcess(in_own_process(frames, workers, Bus::new())),
        };
        KernelDevice::start(space, home, KERNELS).expect("a device starts")
    }

    /// One where pages stay as a launch returns.
    pub(crate) fn start_to_keep(
        self,
        space: &AddressSpace,
        frames: usize,
        workers: usize,
    ) -> KernelDevice {
        self.start_keeping(space, frames, workers, Bus::new())
    }

    /// One with such a bus, where pages stay as a launch returns, and one worker.
    pub(crate) fn start_behind(
        self,
        space: &AddressSpace,
        frames: usize,
        bus: Bus,
    ) -> KernelDevice {
        self.start_keeping(space, frames, 1, bus)
    }

    fn start_keeping(
        self,
        space: &AddressSpace,
        frames: usize,
        workers: usize,
        bus: Bus,
    ) -> KernelDevice {
        let home = match self {
            Self::InProgram => Home::Program(in_program(frames, workers, bus).keep_pages()),
            Self::InOwnProcess => {
                Home::OwnProcess(in_own_process(frames, workers, bus).keep_pages())
            }
        };
        KernelDevice::start(space, home, KERNELS).expect("a device starts")
    }
}

fn in_program(frames: usize, workers: usize, bus: Bus) -> Options {
    Options::new(frames * PAGE).workers(workers).behind_bus(bus)
}

fn in_own_process(frames: usize, workers: usize, bus: Bus) -> ProcessOptions {
    let patience = Duration::from_secs(10);
    ProcessOptions::new(frames * PAGE).workers(workers).behind_bus(bus).patience(patience)
}

/// A device process with so many frames, and one worker.
pub(crate) fn start(space: &AddressSpace, frames: usize) -> KernelDevice {
    Lives::InOwnProcess.start(space, frames, 1)
}

/// One with so many workers, that has so long to answer.
pub(crate) fn start_with(
    space: &AddressSpace,
    frames: usize,
    workers: usize,
    patience: Duration,
) -> KernelDevice {
    let options = ProcessOptions::new(frames * PAGE).workers(workers).patience(patience);
    KernelDevice::start(space, Home::OwnProcess(options), KERNELS).expect("a device process starts")
}

impl Drop for Place {
    fn drop(&mut self) {
        // SAFETY: nobody uses the pages or the pipe any more.
        unsafe {
            libc::munmap(ptr::with_exposed_provenance_mut(self.address(0)), self.pages * PAGE);
            libc::close(self.pipe[0]);
            libc::close(self.pipe[1]);
        }
    }
}

fn signal(device: &KernelDevice, signal: libc::c_int) {
    let id: libc::pid_t = device.process().and_then(|id| id.try_into().ok()).expect("a process");
    // SAFETY: it is the device's process, which is not waited for before the device is dropped.
    assert_eq!(unsafe { libc::kill(id, signal) }, 0);
}

pub(crate) fn killed(device: &KernelDevice) {
    signal(device, libc::SIGKILL);
}

pub(crate) fn stopped(device: &KernelDevice) {
    signal(device, libc::SIGSTOP);
}
