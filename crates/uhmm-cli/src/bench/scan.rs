//! `PAGEMAP_SCAN` with nothing around it: the floor of a look at pages.
//!
//! The structure, `struct pm_scan_arg`, and the bits are those of `include/uapi/linux/fs.h` of Linux
//! 6.8.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Opcode, ioctl, opcode};

use super::BenchError;
use super::memory::Area;
use super::userfault::Call;

/// Words of the structure.
const WORDS: usize = 12;

const SCAN: Opcode = opcode::read_write::<[u64; WORDS]>(b'f', 16);

const FILE: u64 = 1 << 2;
const PRESENT: u64 = 1 << 3;
const SWAPPED: u64 = 1 << 4;
const ZERO: u64 = 1 << 5;
const HUGE: u64 = 1 << 6;

/// Regions asked for in one call, and the words of each: start, end, categories. As many as the
/// engine asks for.
const REGIONS: usize = 128;
const REGION_WORDS: usize = 3;

/// The pagemap file of this process.
pub(super) struct Pagemap(OwnedFd);

impl Pagemap {
    pub(super) fn open() -> Result<Self, BenchError> {
        rustix::fs::open(c"/proc/self/pagemap", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map(Self)
            .map_err(BenchError::while_doing("the pagemap file cannot be opened"))
    }

    /// Looks at `pages` pages of an area, from `first` on, with one call. An error where they are
    /// not all present.
    pub(super) fn scan(&self, area: &Area, first: usize, pages: usize) -> Result<(), BenchError> {
        let mut regions = [0_u64; REGIONS * REGION_WORDS];
        let start = area.pointer(first, pages).as_ptr().expose_provenance() as u64;
        let bytes = area.page_size().bytes_in(pages) as u64;
        let mut words = [
            (WORDS * size_of::<u64>()) as u64,
            0,
            start,
            start + bytes,
            0,
            regions.as_mut_ptr().expose_provenance() as u64,
            REGIONS as u64,
            0,
            0,
            0,
            PRESENT | SWAPPED,
            FILE | PRESENT | SWAPPED | ZERO | HUGE,
        ];
        let call = Call::<SCAN, WORDS>(&mut words);
        // SAFETY: the words are the structure of the call, which names `regions` with its length; no
        // flag asks for a change of pages.
        let scanned = unsafe { ioctl(self.0.as_fd(), call) };
        scanned.map_err(BenchError::while_doing("pages cannot be looked at"))?;
        if regions[..2] == [start, start + bytes] {
            return Ok(());
        }
        Err(BenchError::failed("the measurement is void", "pages are not there, or not alike"))
    }
}
