//! The pages: what is at each, and the bytes.

use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::{BTreeMap, BTreeSet};

use super::world::Arc;
use crate::{
    mm::Look,
    units::{BLOCK_PAGES, BlockNumber, PageNumber, PageRange, PageSize},
};

/// What a page of staging is overwritten with when it becomes a hole, so that whoever still reads
/// it sees neither its old content nor zeros.
const GONE: u8 = 0xdb;

/// What is at a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PageState {
    #[default]
    Hole,
    /// A page of memory.
    Own {
        /// How often it is pinned.
        pins: u32,
        /// Shared with a child since a fork.
        shared: bool,
        /// A part of a huge page, as are then all pages of its block.
        huge: bool,
    },
    /// The shared page of zeros.
    Zero,
    /// A page of a file, zeros too, seen through a private mapping that has not written it yet.
    Cached,
    /// Written out to swap.
    Swapped {
        /// Shared with a child since a fork.
        shared: bool,
    },
    /// A mark that ends accesses.
    Poison,
}

impl PageState {
    /// A page of memory that nobody else holds.
    pub(super) const OWN: Self = Self::Own { pins: 0, shared: false, huge: false };

    const fn is_huge(self) -> bool {
        matches!(self, Self::Own { huge: true, .. })
    }

    const fn is_memory(self) -> bool {
        matches!(self, Self::Own { .. })
    }

    /// Whether somebody else holds the page, so that it cannot move.
    pub(super) const fn is_held(self) -> bool {
        match self {
            Self::Own { pins, shared, .. } => pins > 0 || shared,
            Self::Swapped { shared } => shared,
            Self::Hole | Self::Zero | Self::Cached | Self::Poison => false,
        }
    }

    pub(super) const fn look(self) -> Look {
        match self {
            Self::Hole => Look::Hole,
            Self::Own { huge: false, .. } | Self::Cached => Look::Present,
            Self::Own { huge: true, .. } => Look::PresentHuge,
            Self::Zero => Look::Zero,
            Self::Swapped { .. } => Look::Swapped,
            Self::Poison => Look::Poisoned,
        }
    }
}

/// One allocation that holds the bytes of every page, and stays where it is.
///
/// Devices reach staging through [`pointer`](Self::pointer) while the model works on other pages,
/// so no reference to the bytes is ever made: all of them are reached by raw pointers.
#[derive(Debug)]
pub(super) struct Bytes {
    base: NonNull<u8>,
    layout: Layout,
    page_size: PageSize,
}

// SAFETY: the allocation belongs to no thread; who may touch which bytes when is stated at
// `Bytes::pointer`.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// Room for `pages` pages, all zeros.
    ///
    /// # Panics
    /// Where that is no memory at all, or more than there can be.
    pub(super) fn new(pages: usize, page_size: PageSize) -> Self {
        let size = page_size.bytes_in(pages);
        assert!(size > 0, "a model without pages");
        let layout = Layout::from_size_align(size, page_size.bytes()).expect("a sensible size");
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        Self { base, layout, page_size }
    }

    /// Where the bytes of `page` are. The program's pages are touched with the model's lock held
    /// only; those of staging by whom the core lets.
    ///
    /// # Panics
    /// Where the model has no such page.
    pub(super) fn pointer(&self, page: PageNumber) -> NonNull<u8> {
        let offset = self.page_size.address_of(page);
        assert!(offset < self.layout.size(), "no such page: {page:?}");
        // SAFETY: the offset is within the allocation.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; the last handle is going.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

/// All pages.
///
/// # Invariants
/// The bytes of a page are its content unless it is a hole or poisoned; where there is an alias of it
/// they are the alias's. A hole that is `in_file` has content too. `used` counts the pages of
/// memory that are no holes. A huge page is flagged on all pages of its block or on none.
#[derive(Debug)]
pub(super) struct Pages {
    states: Vec<PageState>,
    bytes: Arc<Bytes>,
    page_size: PageSize,
    staging: PageRange,
    used: usize,
    limit: usize,
    /// Pages of the program that have an alias, and where that is.
    aliases: BTreeMap<PageNumber, PageNumber>,
    /// Holes of shared memory of which the file has the page.
    in_file: BTreeSet<PageNumber>,
}

impl Pages {
    pub(super) fn new(
        bytes: Arc<Bytes>,
        staging: PageRange,
        page_size: PageSize,
        limit: Option<usize>,
    ) -> Self {
        Self {
            states: vec![PageState::Hole; staging.end().0],
            bytes,
            page_size,
            staging,
            used: 0,
            limit: limit.unwrap_or(usize::MAX),
            aliases: BTreeMap::new(),
            in_file: BTreeSet::new(),
        }
    }

    /// What is at `page`.
    pub(super) fn at(&self, page: PageNumber) -> PageState {
        self.states.get(page.0).copied().unwrap_or_default()
    }

    /// The size of a page.
    pub(super) const fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// How many pages of memory there are.
    pub(super) fn used(&self) -> usize {
        self.used + self.in_file.len()
    }

    /// Whether there is memory for one page more.
    pub(super) fn room(&self) -> bool {
        self.room_for(1)
    }

    /// Whether there is memory for so many pages more.
    pub(super) fn room_for(&self, pages: usize) -> bool {
        self.used() + pages <= self.limit
    }

    /// Where the bytes of `page` are.
    fn bytes_of(&self, page: PageNumber) -> NonNull<u8> {
        self.bytes.pointer(self.aliases.get(&page).copied().unwrap_or(page))
    }

    /// Where the alias of `page` is.
    pub(super) fn alias_of(&self, page: PageNumber) -> Option<PageNumber> {
        self.aliases.get(&page).copied()
    }

    /// The page of which `alias` is one.
    pub(super) fn page_of_alias(&self, alias: PageNumber) -> Option<PageNumber> {
        self.aliases.iter().find(|&(_, at)| *at == alias).map(|(page, _)| *page)
    }

    /// From here on the bytes of `page` are at `alias`. It has none yet.
    pub(super) fn make_alias(&mut self, page: PageNumber, alias: PageNumber) {
        self.copy_bytes(page, alias);
        self.aliases.insert(page, alias);
    }

    /// From here on the bytes of the page that has its bytes at `alias`, if one has, are its own.
    pub(super) fn end_alias(&mut self, alias: PageNumber) {
        if let Some(page) = self.page_of_alias(alias) {
            self.aliases.remove(&page);
            self.copy_bytes(alias, page);
        }
        self.fill(alias, GONE);
    }

    /// Whether `page` is a hole of shared memory of which the file has the page.
    pub(super) fn is_in_file(&self, page: PageNumber) -> bool {
        self.in_file.contains(&page)
    }

    /// Ends the mapping of a page of shared memory.
    pub(super) fn unmap_of_file(&mut self, page: PageNumber) {
        self.set(page, PageState::Hole);
        self.in_file.insert(page);
    }

    /// Has the file have `page`, a hole of shared memory.
    pub(super) fn add_to_file(&mut self, page: PageNumber) {
        if self.in_file.insert(page) {
            self.fill(page, 0);
        }
    }

    /// Gives a hole of shared memory the page that the file has.
    pub(super) fn map_of_file(&mut self, page: PageNumber) {
        self.in_file.remove(&page);
        self.set(page, PageState::OWN);
    }

    /// The file has no such page any more.
    pub(super) fn drop_of_file(&mut self, page: PageNumber) {
        self.in_file.remove(&page);
        self.drop_page(page);
    }

    /// Forgets what the file has of `page`, and its alias.
    pub(super) fn forget_file(&mut self, page: PageNumber) {
        self.in_file.remove(&page);
        self.aliases.remove(&page);
    }

    pub(super) const fn set_limit(&mut self, limit: Option<usize>) {
        self.limit = match limit {
            Some(limit) => limit,
            None => usize::MAX,
        };
    }

    /// Changes what is at `page`; its bytes stay. A huge page that held it is split.
    pub(super) fn set(&mut self, page: PageNumber, state: PageState) {
        let before = self.states[page.0];
        if before.is_huge() && !state.is_huge() {
            self.split_huge(page.block());
        }
        self.states[page.0] = state;
        self.used += usize::from(state.is_memory());
        self.used -= usize::from(before.is_memory());
    }

    /// Makes the pages of a block base pages.
    pub(super) fn split_huge(&mut self, block: BlockNumber) {
        for page in block.pages().pages() {
            if let Some(PageState::Own { huge, .. }) = self.states.get_mut(page.0) {
                *huge = false;
            }
        }
    }

    /// Makes `page` a hole.
    pub(super) fn drop_page(&mut self, page: PageNumber) {
        if self.staging.contains(page) && self.at(page) != PageState::Hole {
            self.fill(page, GONE);
        }
        self.set(page, PageState::Hole);
    }

    /// Makes `page` one of zeros.
    pub(super) fn set_zeroed(&mut self, page: PageNumber, state: PageState) {
        self.fill(page, 0);
        self.set(page, state);
    }

    /// Moves what is at `from` to the hole at `to`.
    pub(super) fn move_page(&mut self, from: PageNumber, to: PageNumber) {
        if self.in_file.remove(&from) {
            self.in_file.insert(to);
        }
        if let Some(alias) = self.aliases.remove(&from) {
            self.aliases.insert(to, alias);
            let state = self.at(from);
            self.set(from, PageState::Hole);
            return self.set(to, state);
        }
        let mut state = self.at(from);
        if let PageState::Own { huge, .. } = &mut state {
            *huge = false;
        }
        self.copy_bytes(from, to);
        self.drop_page(from);
        self.set(to, state);
    }

    /// Moves the huge page that starts at `from` to the holes from `to` on, and keeps it whole.
    pub(super) fn move_huge(&mut self, from: PageNumber, to: PageNumber) {
        for index in 0..BLOCK_PAGES {
            let state = self.at(from.plus(index));
            self.copy_bytes(from.plus(index), to.plus(index));
            // Past `set`, which would split the huge page at its first part.
            self.states[to.plus(index).0] = state;
            self.states[from.plus(index).0] = PageState::Hole;
            if self.staging.contains(from) {
                self.fill(from.plus(index), GONE);
            }
        }
    }

    /// Whether a huge page starts at `from`, and `to` is where one could.
    pub(super) fn huge_fits(&self, from: PageNumber, to: PageNumber, pages: usize) -> bool {
        from.in_block() == 0
            && to.in_block() == 0
            && pages >= BLOCK_PAGES
            && self.at(from).is_huge()
    }

    /// Makes the pages of memory of a block one huge page.
    pub(super) fn make_huge(&mut self, block: PageRange) {
        for page in block.pages() {
            if let PageState::Own { huge, .. } = &mut self.states[page.0] {
                *huge = true;
            }
        }
    }

    /// Recognises that a device has written to what was the page of zeros in staging: it could not
    /// be seen, and would have given staging a page of its own.
    pub(super) fn settle(&mut self, page: PageNumber) {
        if self.at(page) == PageState::Zero {
            let mut content = vec![0; self.page_size.bytes()];
            self.read(page, 0, &mut content);
            if content.iter().any(|&byte| byte != 0) {
                self.set(page, PageState::OWN);
            }
        }
    }

    /// Copies bytes of `page` from `offset` on to `out`.
    pub(super) fn read(&self, page: PageNumber, offset: usize, out: &mut [u8]) {
        assert!(offset + out.len() <= self.page_size.bytes(), "within one page");
        let from = self.bytes_of(page);
        // SAFETY: the bytes are those of one page of the allocation, and `out` is apart from it.
        // The caller may touch them by the contract of `Bytes::pointer`.
        unsafe {
            core::ptr::copy_nonoverlapping(from.add(offset).as_ptr(), out.as_mut_ptr(), out.len());
        }
    }

    /// Copies `data` to the bytes of `page` from `offset` on.
    pub(super) fn write(&mut self, page: PageNumber, offset: usize, data: &[u8]) {
        assert!(offset + data.len() <= self.page_size.bytes(), "within one page");
        let to = self.bytes_of(page);
        // SAFETY: as in `read`, the other way.
        unsafe {
            core::ptr::copy_nonoverlapping(data.as_ptr(), to.add(offset).as_ptr(), data.len());
        }
    }

    /// Copies the bytes of one page to another.
    pub(super) fn copy_bytes(&mut self, from: PageNumber, to: PageNumber) {
        assert_ne!(from, to, "a page copied to itself");
        let (from, to) = (self.bytes_of(from), self.bytes_of(to));
        // SAFETY: two pages of the allocation, apart from each other; the caller may touch both.
        unsafe {
            core::ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), self.page_size.bytes());
        }
    }

    fn fill(&mut self, page: PageNumber, byte: u8) {
        let to = self.bytes_of(page);
        // SAFETY: the bytes of one page of the allocation, which the caller may touch.
        unsafe { to.write_bytes(byte, self.page_size.bytes()) };
    }
}
