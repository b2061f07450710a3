//! Memory of the measurements' own: areas that are read and written through their methods only.

use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use uhmm::units::{AddressRange, BLOCK_PAGES, PageSize};

use super::BenchError;

/// How the pages of an area are to be backed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Backing {
    /// By base pages, whatever the system's settings.
    BasePages,
    /// By huge pages, where the system gives them.
    HugePages,
}

/// Private anonymous memory, aligned to a block or more, that ends with the value.
///
/// There are no references into it but to numbers that are atomic, so pages may move out of it and
/// into it at any time.
///
/// # Invariants
/// `start` is the first of `bytes` bytes of a mapping of ours, of which `whole` is all.
pub(super) struct Area {
    start: NonNull<u8>,
    bytes: usize,
    whole: (NonNull<u8>, usize),
    page: PageSize,
}

// SAFETY: the area owns its mapping, and is read and written by volatile or atomic accesses to whole
// words.
unsafe impl Send for Area {}
// SAFETY: as above; two threads do not use one word at a time but to read it, or atomically.
unsafe impl Sync for Area {}

/// Has the process get huge pages only where it has advised so, as the engine has for its own memory;
/// or again wherever the system gives them.
///
/// Linux before 6.18 knows no such choice ([`PR_SET_THP_DISABLE`]): there the process gets none at all,
/// and what the engine reads of its own misses more often in the TLB than in a program.
///
/// [`PR_SET_THP_DISABLE`]: https://man7.org/linux/man-pages/man2/PR_SET_THP_DISABLE.2const.html
fn keep_huge_pages_to_advised_memory(keep: bool) -> rustix::io::Result<()> {
    /// `PR_THP_DISABLE_EXCEPT_ADVISED` of `linux/prctl.h`.
    const EXCEPT_ADVISED: libc::c_ulong = 1 << 1;

    let [on, none]: [libc::c_ulong; 2] = [1, 0];
    // SAFETY: the call changes how memory is backed, and nothing that is in it.
    let keep_to_advised =
        || unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, EXCEPT_ADVISED, none, none) == 0 };
    if keep && keep_to_advised() {
        return Ok(());
    }
    rustix::thread::disable_transparent_huge_pages(keep)
}

impl Area {
    /// Maps `pages` pages, none of which is there yet. For base pages the process gets huge ones
    /// only where it is advised from now on, until an area of huge pages is mapped.
    pub(super) fn map(pages: usize, page: PageSize, backing: Backing) -> Result<Self, BenchError> {
        let failed = BenchError::while_doing("memory to measure on cannot be mapped");
        let bytes = page.bytes_in(pages);
        // A large one starts where a table of the engine's may start, so that it needs no more of
        // them than its size says.
        let align = page.bytes_in(pages.next_multiple_of(BLOCK_PAGES).min(BLOCK_PAGES.pow(2)));
        let mapped = bytes + 2 * align;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let first = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), mapped, ProtFlags::empty(), flags)
        };
        let first = first.map_err(failed)?.cast::<u8>();
        // Memory that cannot be accessed is left on both sides. Without it the kernel may make one
        // area of this and a neighbour, such as a thread's stack, which would never migrate.
        let offset = (first.addr() + 1).next_multiple_of(align) - first.addr();
        // SAFETY: the offset is at most the alignment, and the mapping is larger than that; a
        // mapping does not start at null.
        let (start, whole) =
            unsafe { (NonNull::new_unchecked(first.add(offset)), NonNull::new_unchecked(first)) };
        // SAFETY: a part of the new mapping.
        unsafe {
            let access = MprotectFlags::READ | MprotectFlags::WRITE;
            rustix::mm::mprotect(start.as_ptr().cast(), bytes, access)
        }
        .map_err(failed)?;
        let area = Self { start, bytes, whole: (whole, mapped), page };
        // Not by an advice: the kernel gives that to stacks, and the engine knows them by it.
        keep_huge_pages_to_advised_memory(backing == Backing::BasePages).map_err(failed)?;
        if backing == Backing::HugePages {
            // A kernel that has none refuses, and then the pages are found not to be huge.
            let _ = area.advise(0, pages, Advice::LinuxHugepage);
        }
        Ok(area)
    }

    /// How many pages it has.
    pub(super) const fn pages(&self) -> usize {
        self.page.pages_for(self.bytes)
    }

    /// The size of its pages.
    pub(super) const fn page_size(&self) -> PageSize {
        self.page
    }

    /// `pages` of its pages from `first` on, as addresses.
    pub(super) fn range(&self, first: usize, pages: usize) -> Result<AddressRange, BenchError> {
        let pointer = self.pointer(first, pages);
        AddressRange::new(pointer.addr().get(), self.page.bytes_in(pages))
            .map_err(BenchError::while_doing("no range of addresses"))
    }

    /// All of its pages, as addresses.
    pub(super) fn all(&self) -> Result<AddressRange, BenchError> {
        self.range(0, self.pages())
    }

    /// Its page `first`, where there are `pages` more.
    pub(super) fn pointer(&self, first: usize, pages: usize) -> NonNull<u8> {
        assert!(pages <= self.pages() && first <= self.pages() - pages, "pages of the area");
        // SAFETY: the page is in the area, as was checked.
        unsafe { self.start.add(self.page.bytes_in(first)) }
    }

    /// Maps an area of so many pages for each of `pages`, as [`map`](Self::map) does, and writes each page's
    /// mark into it: a block of one after a block of another. So what the kernel has for them lies alike, where
    /// free memory is of large pieces first and of small ones then.
    pub(super) fn filled<const N: usize>(
        pages: [usize; N],
        page: PageSize,
        backing: Backing,
    ) -> Result<[Self; N], BenchError> {
        let areas = pages.map(|pages| Self::map(pages, page, backing));
        let areas = areas.into_iter().collect::<Result<Vec<_>, _>>()?;
        for first in (0..pages.into_iter().max().unwrap_or(0)).step_by(BLOCK_PAGES) {
            for area in &areas {
                area.fill_part(first..first + BLOCK_PAGES);
            }
        }
        areas.try_into().map_err(|_: Vec<_>| BenchError::failed("no memory", "an area is missing"))
    }

    /// Writes each page's mark into it.
    pub(super) fn fill(&self) {
        self.fill_part(0..self.pages());
    }

    /// Writes their marks into some pages, as far as there are such.
    fn fill_part(&self, pages: Range<usize>) {
        for page in pages.start..pages.end.min(self.pages()) {
            // SAFETY: the page's first word is in the area, aligned, and there are no references.
            unsafe { self.pointer(page, 1).cast::<u64>().write_volatile(mark(page)) };
        }
    }

    /// Touches a page: reads its mark. An error where the page has lost it.
    pub(super) fn touch(&self, page: usize) -> Result<(), BenchError> {
        // SAFETY: as for `fill`.
        let found = unsafe { self.pointer(page, 1).cast::<u64>().read_volatile() };
        if found == mark(page) {
            Ok(())
        } else {
            Err(BenchError::failed("the measurement is void", "a page has lost its content"))
        }
    }

    /// A number in a page, by its place among the page's. It is used by nobody but atomically.
    pub(super) fn word(&self, page: usize, word: usize) -> &AtomicU64 {
        assert!(word < self.page.bytes() / size_of::<AtomicU64>(), "a word of the page");
        // SAFETY: the word is in the area, which lives as long as self, and aligned.
        unsafe { self.pointer(page, 1).cast::<AtomicU64>().add(word).as_ref() }
    }

    /// Copies what is there from a page on into `numbers`.
    pub(super) fn read(&self, first: usize, numbers: &mut [u64]) {
        let from = self.pointer(first, self.page.pages_for(size_of_val(numbers)));
        // SAFETY: the area has as many pages from there on; nobody writes them now, and the target is
        // not in the area, into which there are no references.
        unsafe {
            ptr::copy_nonoverlapping(from.as_ptr().cast(), numbers.as_mut_ptr(), numbers.len());
        };
    }

    /// Copies `numbers` to where a page begins.
    pub(super) fn write(&self, first: usize, numbers: &[u64]) {
        let to = self.pointer(first, self.page.pages_for(size_of_val(numbers)));
        // SAFETY: as for `read`; nobody reads them now either.
        unsafe { ptr::copy_nonoverlapping(numbers.as_ptr(), to.as_ptr().cast(), numbers.len()) };
    }

    /// Copies pages of another area to the same pages of this one.
    pub(super) fn copy_from(&self, other: &Self, first: usize, pages: usize) {
        let (from, to) = (other.pointer(first, pages), self.pointer(first, pages));
        // SAFETY: both areas have the pages, and are apart; nobody else uses them meanwhile.
        unsafe { from.copy_to_nonoverlapping(to, self.page.bytes_in(pages)) };
    }

    /// An error where any page has lost its mark.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        (0..self.pages()).try_for_each(|page| self.touch(page))
    }

    /// Drops the content of a page. No event may be asked for on it.
    pub(super) fn discard(&self, page: usize) -> Result<(), BenchError> {
        self.advise(page, 1, Advice::LinuxDontNeed)
            .map_err(BenchError::while_doing("memory cannot be discarded"))
    }

    /// Makes pages present with one call of the kernel, as loads of them would, or stores.
    pub(super) fn populate(
        &self,
        first: usize,
        pages: usize,
        write: bool,
    ) -> Result<(), BenchError> {
        let advice = if write { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
        self.advise(first, pages, advice)
            .map_err(BenchError::while_doing("memory cannot be made present"))
    }

    fn advise(&self, first: usize, pages: usize, advice: Advice) -> rustix::io::Result<()> {
        let pointer = self.pointer(first, pages).as_ptr().cast();
        // SAFETY: pages of the area, whose content is nobody's but the measurement's.
        unsafe { rustix::mm::madvise(pointer, self.page.bytes_in(pages), advice) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        let (start, bytes) = self.whole;
        // SAFETY: the mapping is the area's, and nobody has a reference into it.
        let _ = unsafe { rustix::mm::munmap(start.as_ptr().cast(), bytes) };
    }
}

/// What a page holds, so that a wrong one is noticed.
const fn mark(page: usize) -> u64 {
    0x5a5a_0001 + page as u64
}
