//! Units of the address space, as types: addresses in bytes, pages by number, ranges that cannot
//! wrap. A page's size is the system's and is known at run time only, so converting between bytes
//! and pages always names the [`PageSize`].

use core::fmt;

use thiserror::Error;

/// Pages in a block, the unit of locking and of policy.
///
/// Under the schedule explorer and the interpreter a block is small, so that every boundary is met
/// often and a run stays short.
pub const BLOCK_PAGES: usize = if cfg!(any(shuttle, miri)) { 8 } else { 512 };

/// The binary logarithm of how many base pages a huge page has: those of a block.
pub(crate) const HUGE_ORDER: u8 = if BLOCK_PAGES == 512 { 9 } else { 3 };

const _: () = assert!(1 << HUGE_ORDER == BLOCK_PAGES, "a block is a huge page");

/// The size of the system's base page in bytes, a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize {
    shift: u32,
}

impl PageSize {
    /// A page of `bytes` bytes; `None` unless that is a power of two.
    pub const fn new(bytes: usize) -> Option<Self> {
        if bytes.is_power_of_two() { Some(Self { shift: bytes.trailing_zeros() }) } else { None }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> usize {
        1 << self.shift
    }

    /// Bytes in `pages` pages.
    pub const fn bytes_in(self, pages: usize) -> usize {
        pages << self.shift
    }

    /// Pages that hold `bytes` bytes, rounded up.
    pub const fn pages_for(self, bytes: usize) -> usize {
        (bytes >> self.shift) + if bytes & (self.bytes() - 1) == 0 { 0 } else { 1 }
    }

    /// The page that holds the byte at `address`.
    pub const fn page_of(self, address: usize) -> PageNumber {
        PageNumber(address >> self.shift)
    }

    /// The address of the first byte of `page`.
    pub const fn address_of(self, page: PageNumber) -> usize {
        page.0 << self.shift
    }
}

/// A page of the address space, by its number: its address divided by the page size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNumber(pub usize);

impl PageNumber {
    /// The page `pages` further on.
    #[must_use]
    pub const fn plus(self, pages: usize) -> Self {
        Self(self.0 + pages)
    }

    /// How many pages this one lies after `start`; it must not lie before.
    pub const fn since(self, start: Self) -> usize {
        self.0 - start.0
    }

    /// The block this page is in.
    pub const fn block(self) -> BlockNumber {
        BlockNumber(self.0 / BLOCK_PAGES)
    }

    /// The page's place in its block, below [`BLOCK_PAGES`].
    pub const fn in_block(self) -> usize {
        self.0 % BLOCK_PAGES
    }
}

/// A block of the address space, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockNumber(pub usize);

impl BlockNumber {
    /// The first page of the block.
    pub const fn first_page(self) -> PageNumber {
        PageNumber(self.0 * BLOCK_PAGES)
    }

    /// All pages of the block.
    pub const fn pages(self) -> PageRange {
        PageRange { start: self.first_page(), end: PageNumber((self.0 + 1) * BLOCK_PAGES) }
    }
}

/// Pages from `start` up to, not including, `end`. `start <= end` always holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PageRange {
    start: PageNumber,
    end: PageNumber,
}

impl PageRange {
    /// The pages from `start` up to, not including, `end`; empty where `end` lies before `start`.
    pub const fn new(start: PageNumber, end: PageNumber) -> Self {
        if end.0 < start.0 { Self { start, end: start } } else { Self { start, end } }
    }

    /// `pages` pages from `start` on.
    pub const fn of(start: PageNumber, pages: usize) -> Self {
        Self { start, end: PageNumber(start.0 + pages) }
    }

    /// The first page.
    pub const fn start(self) -> PageNumber {
        self.start
    }

    /// The page after the last.
    pub const fn end(self) -> PageNumber {
        self.end
    }

    /// How many pages.
    pub const fn len(self) -> usize {
        self.end.0 - self.start.0
    }

    /// Whether there is no page in it.
    pub const fn is_empty(self) -> bool {
        self.end.0 == self.start.0
    }

    /// Whether `page` is one of them.
    pub const fn contains(self, page: PageNumber) -> bool {
        self.start.0 <= page.0 && page.0 < self.end.0
    }

    /// Whether all of `other` is in it.
    pub const fn covers(self, other: Self) -> bool {
        other.is_empty() || (self.start.0 <= other.start.0 && other.end.0 <= self.end.0)
    }

    /// Whether the two share a page.
    pub const fn overlaps(self, other: Self) -> bool {
        !self.intersection(other).is_empty()
    }

    /// The pages that both hold.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        let start = if self.start.0 > other.start.0 { self.start } else { other.start };
        let end = if self.end.0 < other.end.0 { self.end } else { other.end };
        Self::new(start, end)
    }

    /// Its parts, each within one block, in order.
    pub fn by_block(self) -> impl Iterator<Item = Self> {
        let mut rest = self;
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let part = rest.intersection(rest.start.block().pages());
            rest.start = part.end;
            Some(part)
        })
    }

    /// Its pages, in order.
    pub fn pages(self) -> impl Iterator<Item = PageNumber> {
        (self.start.0..self.end.0).map(PageNumber)
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pages {:#x}..{:#x}", self.start.0, self.end.0)
    }
}

/// Bytes of the address space from `start` up to, not including, `end`; never empty, never
/// wrapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressRange {
    start: usize,
    len: usize,
}

/// Why a pair of numbers is no range of addresses.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RangeError {
    /// the range at {start:#x} is empty: give it at least one byte
    #[error("the range at {start:#x} is empty: give it at least one byte")]
    Empty {
        /// Where the range starts.
        start: usize,
    },
    /// the range wraps around the end of the address space
    #[error(
        "the range of {len:#x} bytes at {start:#x} wraps around the end of the address space: shorten it"
    )]
    Wraps {
        /// Where the range starts.
        start: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// an edge of the range is not on a page boundary
    #[error(
        "the range of {len:#x} bytes at {start:#x} does not start and end on boundaries of pages of {page:#x} bytes: align it"
    )]
    Unaligned {
        /// Where the range starts.
        start: usize,
        /// Its length in bytes.
        len: usize,
        /// The page size in bytes.
        page: usize,
    },
}

impl AddressRange {
    /// `len` bytes from `start` on.
    ///
    /// # Errors
    /// [`RangeError::Empty`] for no bytes, [`RangeError::Wraps`] where the end is past the last
    /// address.
    pub const fn new(start: usize, len: usize) -> Result<Self, RangeError> {
        if len == 0 {
            return Err(RangeError::Empty { start });
        }
        if start.checked_add(len).is_none() {
            return Err(RangeError::Wraps { start, len });
        }
        Ok(Self { start, len })
    }

    /// The bytes of `slice`.
    ///
    /// # Errors
    /// [`RangeError::Empty`] for a slice of no bytes.
    pub fn of_slice<T>(slice: &[T]) -> Result<Self, RangeError> {
        Self::new(slice.as_ptr().addr(), size_of_val(slice))
    }

    /// The bytes of `pages`.
    ///
    /// # Errors
    /// [`RangeError::Empty`] for no pages.
    pub const fn of_pages(pages: PageRange, size: PageSize) -> Result<Self, RangeError> {
        Self::new(size.address_of(pages.start()), size.bytes_in(pages.len()))
    }

    /// Where it starts.
    pub const fn start(self) -> usize {
        self.start
    }

    /// The address after its last byte.
    pub const fn end(self) -> usize {
        self.start + self.len
    }

    /// Its length in bytes, at least one.
    #[expect(clippy::len_without_is_empty, reason = "a range of addresses is never empty")]
    pub const fn len(self) -> usize {
        self.len
    }

    /// The pages it covers exactly.
    ///
    /// # Errors
    /// [`RangeError::Unaligned`] where an edge lies inside a page.
    pub const fn pages(self, size: PageSize) -> Result<PageRange, RangeError> {
        let mask = size.bytes() - 1;
        if self.start & mask != 0 || self.len & mask != 0 {
            return Err(RangeError::Unaligned {
                start: self.start,
                len: self.len,
                page: size.bytes(),
            });
        }
        Ok(self.pages_touched(size))
    }

    /// Every page that holds a byte of it.
    pub const fn pages_touched(self, size: PageSize) -> PageRange {
        PageRange::of(
            size.page_of(self.start),
            size.page_of(self.end() - 1).0 - size.page_of(self.start).0 + 1,
        )
    }

    /// The pages all of whose bytes are in it; empty where there is none.
    pub const fn pages_within(self, size: PageSize) -> PageRange {
        PageRange::new(PageNumber(size.pages_for(self.start)), size.page_of(self.end()))
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end())
    }
}

/// A NUMA node, by the number that the system gives it (`/sys/devices/system/node`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NumaNode(pub u32);

impl fmt::Display for NumaNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
