//! What is at a page, by the kernel's page tables: `PAGEMAP_SCAN`, without touching anything.

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{
    abi::{self, category, entry},
    descriptor::call,
};
use crate::{
    mm::{Look, Presence},
    units::{PageNumber, PageRange, PageSize},
};

/// Regions asked for in one call: a few kilobytes of stack.
const REGIONS: usize = 128;

/// Entries of the pagemap file read at once: two kilobytes of stack.
const ENTRIES: usize = 256;

/// Bits of the kind of an entry that is not a mapped page.
const KIND_BITS: u32 = 5;

/// Which pages belong to the page cache. The kernel looks at each page itself to say so, which takes
/// twice as long as all else together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cached {
    /// None of them, or it does not matter.
    None,
    /// All that are present.
    All,
    /// The kernel is to say it.
    Look,
}

/// The pagemap file of this process.
#[derive(Debug)]
pub(super) struct Pagemap {
    file: OwnedFd,
    page: PageSize,
    /// The kind of a mark in the pagemap file's entries; `None` where we may not see the kinds, or
    /// the kernel has no marks. Marks look like swapped pages then, but for guards.
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
            Ok(at) if at & entry::PRESENT == 0 && at & entry::FRAME != 0 => Some(kind(at)),
            _ => None,
        };
    }

    /// Visits the runs of pages of `pages` that are not holes, in order, with those of their
    /// categories that are `wanted`.
    fn regions(
        &self,
        pages: PageRange,
        wanted: u64,
        visit: &mut dyn FnMut(PageRange, u64) -> Result<(), Errno>,
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
                return_mask: wanted,
            };
            // SAFETY: the structure of the call, which names `regions` with its length; no flag
            // asks for a change of pages.
            let found = unsafe { call::<{ abi::PAGEMAP_SCAN }, _>(self.file.as_fd(), &mut scan) }?;
            let found = usize::try_from(found).unwrap_or(0);
            for region in regions.iter().take(found) {
                let start = self.page.page_of(abi::bytes(region.start));
                let end = self.page.page_of(abi::bytes(region.end));
                visit(PageRange::new(start, end).intersection(pages), region.categories)?;
            }
            if scan.walk_end <= start {
                return Err(Errno::IO);
            }
            start = scan.walk_end;
        }
        Ok(())
    }

    /// Visits `pages` in order, without gaps, as runs of pages that are alike.
    pub(super) fn scan(
        &self,
        pages: PageRange,
        cached: Cached,
        visit: &mut dyn FnMut(PageRange, Presence),
    ) -> Result<(), Errno> {
        let hole = Presence::default();
        let mut next = pages.start();
        let look = category::PRESENT | category::SWAPPED | category::ZERO | category::HUGE;
        let (wanted, of_all) = match cached {
            Cached::None => (look, 0),
            Cached::All => (look, category::FILE),
            Cached::Look => (look | category::FILE, 0),
        };
        self.regions(pages, wanted, &mut |run, categories| {
            let categories = categories | of_all;
            if next < run.start() {
                visit(PageRange::new(next, run.start()), hole);
            }
            next = run.end();
            let look = match categories {
                c if c & category::SWAPPED != 0 => return self.scan_swapped(run, visit),
                c if c & category::ZERO != 0 => Look::Zero,
                c if c & category::HUGE != 0 => Look::PresentHuge,
                _ => Look::Present,
            };
            visit(run, Presence { look, file: categories & category::FILE != 0 });
            Ok(())
        })?;
        if next < pages.end() {
            visit(PageRange::new(next, pages.end()), hole);
        }
        Ok(())
    }

    /// Visits a run of pages that are not mapped and no holes: in swap, or marks.
    fn scan_swapped(
        &self,
        run: PageRange,
        visit: &mut dyn FnMut(PageRange, Presence),
    ) -> Result<(), Errno> {
        let mark = |at| at & entry::GUARD != 0 || self.mark == Some(kind(at));
        self.entries(run, &mut |page, at| {
            let is_mark = at & entry::PRESENT == 0 && mark(at);
            let look = if is_mark { Look::Poisoned } else { Look::Swapped };
            visit(PageRange::of(page, 1), Presence { look, file: false });
        })
    }

    /// Looks at the pages from `start` on, one for each place of `out`.
    pub(super) fn look(&self, start: PageNumber, out: &mut [Look]) -> Result<(), Errno> {
        self.scan(PageRange::of(start, out.len()), Cached::None, &mut |run, presence| {
            let places = run.start().since(start)..run.end().since(start);
            if let Some(places) = out.get_mut(places) {
                places.fill(presence.look);
            }
        })
    }

    /// Visits each of `pages` with whether it is present, not of the page cache, and mapped once.
    pub(super) fn may_write(
        &self,
        pages: PageRange,
        visit: &mut dyn FnMut(PageNumber, bool),
    ) -> Result<(), Errno> {
        const OWN: u64 = entry::PRESENT | entry::EXCLUSIVE;
        self.entries(pages, &mut |page, at| visit(page, at & (OWN | entry::FILE) == OWN))
    }

    /// Whether one of `pages` is present, and mapped once.
    pub(super) fn is_mapped_once(&self, pages: PageRange) -> Result<bool, Errno> {
        const ONCE: u64 = entry::PRESENT | entry::EXCLUSIVE;
        let mut found = false;
        self.entries(pages, &mut |_, at| found |= at & ONCE == ONCE)?;
        Ok(found)
    }

    /// The entry of one page.
    fn entry(&self, page: PageNumber) -> Result<u64, Errno> {
        let mut entry = 0;
        self.entries(PageRange::of(page, 1), &mut |_, at| entry = at)?;
        Ok(entry)
    }

    /// Visits each of `pages` with its entry.
    fn entries(
        &self,
        pages: PageRange,
        visit: &mut dyn FnMut(PageNumber, u64),
    ) -> Result<(), Errno> {
        const ENTRY: usize = size_of::<u64>();
        let mut buffer = [0_u8; ENTRIES * ENTRY];
        let mut next = pages.start();
        while next < pages.end() {
            let part = PageRange::of(next, pages.end().since(next).min(ENTRIES));
            let bytes = &mut buffer[..part.len() * ENTRY];
            let offset = abi::word(next.0 * ENTRY);
            let read = match rustix::io::pread(&self.file, &mut *bytes, offset) {
                Err(Errno::INTR) => continue,
                read => read?,
            };
            // A page past the end of the address space has no entry: nothing is there.
            bytes[read..].fill(0);
            let read = if read < ENTRY { part.len() } else { read / ENTRY };
            let (entries, _) = bytes.as_chunks::<ENTRY>();
            for (page, entry) in part.pages().zip(entries).take(read) {
                visit(page, u64::from_ne_bytes(*entry));
            }
            next = next.plus(read);
        }
        Ok(())
    }
}

/// The kind of an entry that is not a mapped page.
const fn kind(entry: u64) -> u64 {
    entry & ((1 << KIND_BITS) - 1)
}
