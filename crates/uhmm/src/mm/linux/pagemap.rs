//! What is at a page, by the kernel's page tables: `PAGEMAP_SCAN`, without touching anything.

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{abi, abi::category, descriptor::call};
use crate::{
    mm::Look,
    units::{PageNumber, PageRange, PageSize},
};

/// Regions asked for in one call: a few kilobytes of stack.
const REGIONS: usize = 128;

/// In an entry of the pagemap file, bits of what the page is in swap: the kind, then the place.
const ENTRY_FRAME: u64 = (1 << 55) - 1;
/// In an entry of the pagemap file: the page is mapped.
const ENTRY_PRESENT: u64 = 1 << 63;
/// Bits of the kind of an entry that is not a mapped page.
const KIND_BITS: u32 = 5;

/// The pagemap file of this process.
#[derive(Debug)]
pub(super) struct Pagemap {
    file: OwnedFd,
    page: PageSize,
    /// The kind of a mark in the pagemap file's entries; `None` where we may not see the kinds, or
    /// the kernel has no marks.
    mark: Option<u64>,
}

impl Pagemap {
    /// Opens the file. The file of the thread, as the process's own is empty once the main thread
    /// has ended.
    pub(super) fn open(page: PageSize) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(c"/proc/thread-self/pagemap", flags, Mode::empty())?;
        Ok(Self { file, page, mark: None })
    }

    /// Learns what a mark looks like from the page at `page`, on which there is one.
    pub(super) fn learn_mark(&mut self, page: PageNumber) {
        self.mark = match self.entry(page) {
            Ok(entry) if entry & ENTRY_PRESENT == 0 && entry & ENTRY_FRAME != 0 => {
                Some(kind(entry))
            }
            _ => None,
        };
    }

    /// Visits the runs of pages of `pages` that are not holes, in order, with their categories.
    pub(super) fn scan(
        &self,
        pages: PageRange,
        mut visit: impl FnMut(PageRange, u64),
    ) -> Result<(), Errno> {
        let mut regions = [abi::Region::default(); REGIONS];
        let mut start = abi::word(self.page.address_of(pages.start()));
        let end = abi::word(self.page.address_of(pages.end()));
        while start < end {
            let mut scan = abi::Scan {
                size: abi::word(size_of::<abi::Scan>()),
                flags: 0,
                start,
                end,
                walk_end: 0,
                regions: abi::word(regions.as_mut_ptr().expose_provenance()),
                regions_len: abi::word(REGIONS),
                max_pages: 0,
                category_inverted: 0,
                category_mask: 0,
                category_anyof_mask: category::PRESENT | category::SWAPPED,
                return_mask: category::PRESENT
                    | category::SWAPPED
                    | category::ZERO
                    | category::HUGE,
            };
            // SAFETY: the structure of the call, which names `regions` with its length; no flag
            // asks for a change of pages.
            let found = unsafe { call::<{ abi::PAGEMAP_SCAN }, _>(self.file.as_fd(), &mut scan) }?;
            let found = usize::try_from(found).unwrap_or(0);
            for region in regions.iter().take(found) {
                let start = self.page.page_of(abi::bytes(region.start));
                let end = self.page.page_of(abi::bytes(region.end));
                visit(PageRange::new(start, end).intersection(pages), region.categories);
            }
            if scan.walk_end <= start {
                return Err(Errno::IO);
            }
            start = scan.walk_end;
        }
        Ok(())
    }

    /// Looks at the pages from `start` on, one for each place of `out`.
    pub(super) fn look(&self, start: PageNumber, out: &mut [Look]) -> Result<(), Errno> {
        out.fill(Look::Hole);
        let mut marks = Ok(());
        self.scan(PageRange::of(start, out.len()), |run, categories| {
            let look = match categories {
                c if c & category::SWAPPED != 0 => Look::Swapped,
                c if c & category::ZERO != 0 => Look::Zero,
                c if c & category::HUGE != 0 => Look::PresentHuge,
                _ => Look::Present,
            };
            for page in run.pages() {
                let Some(place) = out.get_mut(page.since(start)) else { return };
                *place = look;
                if look == Look::Swapped {
                    match self.is_mark(page) {
                        Ok(true) => *place = Look::Poisoned,
                        Ok(false) => {}
                        Err(error) => marks = Err(error),
                    }
                }
            }
        })?;
        marks
    }

    /// Whether `page`, which is not mapped and no hole, is a mark.
    fn is_mark(&self, page: PageNumber) -> Result<bool, Errno> {
        let Some(mark) = self.mark else { return Ok(false) };
        let entry = self.entry(page)?;
        Ok(entry & ENTRY_PRESENT == 0 && kind(entry) == mark)
    }

    /// The pagemap file's entry of a page (`Documentation/admin-guide/mm/pagemap.rst`).
    fn entry(&self, page: PageNumber) -> Result<u64, Errno> {
        let mut bytes = [0; size_of::<u64>()];
        let offset = abi::word(page.0 * bytes.len());
        loop {
            match rustix::io::pread(&self.file, bytes.as_mut_slice(), offset) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
                // A page past the end of the address space has no entry: nothing is there.
                Ok(_) => return Ok(u64::from_ne_bytes(bytes)),
            }
        }
    }
}

/// The kind of an entry that is not a mapped page.
const fn kind(entry: u64) -> u64 {
    entry & ((1 << KIND_BITS) - 1)
}
