//! The two worlds in which a program runs: this process on Linux, and the model.

use std::ops::Range;

use uhmm::{
    AddressSpace, Options,
    mm::{
        Mm,
        injected::{Injected, Injections},
    },
    units::AddressRange,
};

use crate::{
    oracle::Oracle,
    run::Failure,
    step::{CELL, Child},
};

/// An access ended with a signal, at this page of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segv(pub(crate) usize);

/// What may be done with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Allowed {
    Nothing,
    Reading,
    All,
}

impl Allowed {
    /// Whether memory may be accessed so.
    pub(crate) fn allows(self, write: bool) -> bool {
        self >= if write { Self::All } else { Self::Reading }
    }
}

/// A memory management with an arena in it, and the program's side of it. Pages are those of the
/// arena.
pub(crate) trait World: Sized + Send + Sync {
    /// What the core runs on.
    type Mm: Mm;

    /// Whether there can be one at a time only, in this process.
    const ALONE: bool;

    /// Whether pages are there as they were last seen: the system writes none out to swap, and makes
    /// none the shared page of zeros again (which Linux does as it splits a huge page).
    const STEADY: bool;

    /// Makes an arena in which nothing is mapped, and opens the address space.
    fn open(huge: bool) -> (Self, AddressSpace<Self::Mm>);

    /// Makes the arena and what an address space is opened on.
    fn make(huge: bool) -> (Self, Self::Mm);

    /// Whether the system makes huge pages. What of one was shared with a child may be held on to for a
    /// while as it is split, by whatever the system does with it.
    fn has_huge_pages(&self) -> bool {
        false
    }

    /// By what calls to the system fail, if they can.
    fn injections(&self) -> Option<&Injections> {
        None
    }

    /// Where the arena is.
    fn place(&self) -> Place;

    /// Maps new memory that may be read and written, over what is there.
    fn map(&self, pages: Range<usize>) -> Result<(), i32>;

    /// Unmaps.
    fn unmap(&self, pages: Range<usize>) -> Result<(), i32>;

    /// Changes what may be done with what is mapped, up to the first page that is not.
    fn protect(&self, pages: Range<usize>, allowed: Allowed) -> Result<(), i32>;

    /// Drops the content of what is mapped.
    fn discard(&self, pages: Range<usize>) -> Result<(), i32>;

    /// The areas of a range in which all is mapped, cut to it.
    fn areas(&self, pages: Range<usize>) -> Vec<Range<usize>>;

    /// Moves pages of one area to another place, and makes it `pages` pages long there.
    fn remap(&self, from: Range<usize>, to: usize, pages: usize) -> Result<(), i32>;

    /// Moves the content of pages of one area to another place, and leaves holes.
    fn remap_content(&self, from: Range<usize>, to: usize) -> Result<(), i32>;

    /// Makes the area that ends with `pages` longer in place.
    fn grow(&self, pages: Range<usize>, len: usize) -> Result<(), i32>;

    /// Sets the end of the program's data to a page. Answers of which pages that changed whether they are
    /// mapped, and whether they are now; nothing where it is refused.
    fn set_break(&self, to: usize) -> Option<(Range<usize>, bool)>;

    /// Tries to make a block one huge page.
    fn collapse(&self, pages: Range<usize>);

    /// Says that the content of what is mapped is no longer needed.
    fn free(&self, pages: Range<usize>) -> Result<(), i32>;

    /// Is to make the memory behind what is mapped free.
    fn remove(&self, pages: Range<usize>) -> Result<(), i32>;

    /// Says that huge pages are wanted.
    fn advise_huge(&self, pages: Range<usize>) -> Result<(), i32>;

    /// Forks, has the child do what it is to do, and says what it found wrong.
    fn fork(&self, child: &Child, oracle: &Oracle) -> Result<(), Failure>;

    /// Loads from the address.
    fn load(&self, address: usize, out: &mut [u8]) -> Result<(), Segv>;

    /// Stores to the address; what precedes a signal is stored.
    fn store(&self, address: usize, data: &[u8]) -> Result<(), Segv>;

    /// Adds to the number of eight bytes at the address, as one atomic access, and answers what was
    /// there.
    fn fetch_add(&self, address: usize, value: u64) -> Result<u64, Segv>;

    /// What the core did that it must not do.
    fn violations(&self) -> Option<String>;

    /// Ends the arena. The address space is closed.
    fn end(self);
}

/// How much engine memory there is.
pub(crate) const ENGINE_MEMORY: usize = 256 << 20;

/// A world in which calls to the system can be made to fail. libc's forks are not seen before there.
pub(crate) struct Failing<W> {
    world: W,
    injections: Injections,
}

impl<W: World> World for Failing<W> {
    type Mm = Injected<W::Mm>;

    const ALONE: bool = W::ALONE;

    const STEADY: bool = W::STEADY;

    fn open(huge: bool) -> (Self, AddressSpace<Self::Mm>) {
        let (world, mm) = Self::make(huge);
        let space = Options::new().engine_memory(ENGINE_MEMORY).open_on(mm);
        (world, space.expect("an address space"))
    }

    fn make(huge: bool) -> (Self, Self::Mm) {
        let (world, mm) = W::make(huge);
        let mm = Injected::new(mm);
        (Self { world, injections: mm.injections() }, mm)
    }

    fn has_huge_pages(&self) -> bool {
        self.world.has_huge_pages()
    }

    fn injections(&self) -> Option<&Injections> {
        Some(&self.injections)
    }

    fn place(&self) -> Place {
        self.world.place()
    }

    fn map(&self, pages: Range<usize>) -> Result<(), i32> {
        self.world.map(pages)
    }

    fn unmap(&self, pages: Range<usize>) -> Result<(), i32> {
        self.world.unmap(pages)
    }

    fn protect(&self, pages: Range<usize>, allowed: Allowed) -> Result<(), i32> {
        self.world.protect(pages, allowed)
    }

    fn discard(&self, pages: Range<usize>) -> Result<(), i32> {
        self.world.discard(pages)
    }

    fn areas(&self, pages: Range<usize>) -> Vec<Range<usize>> {
        self.world.areas(pages)
    }

    fn remap(&self, from: Range<usize>, to: usize, pages: usize) -> Result<(), i32> {
        self.world.remap(from, to, pages)
    }

    fn remap_content(&self, from: Range<usize>, to: usize) -> Result<(), i32> {
        self.world.remap_content(from, to)
    }

    fn grow(&self, pages: Range<usize>, len: usize) -> Result<(), i32> {
        self.world.grow(pages, len)
    }

    fn set_break(&self, to: usize) -> Option<(Range<usize>, bool)> {
        self.world.set_break(to)
    }

    fn collapse(&self, pages: Range<usize>) {
        self.world.collapse(pages);
    }

    fn free(&self, pages: Range<usize>) -> Result<(), i32> {
        self.world.free(pages)
    }

    fn remove(&self, pages: Range<usize>) -> Result<(), i32> {
        self.world.remove(pages)
    }

    fn advise_huge(&self, pages: Range<usize>) -> Result<(), i32> {
        self.world.advise_huge(pages)
    }

    fn fork(&self, child: &Child, oracle: &Oracle) -> Result<(), Failure> {
        self.world.fork(child, oracle)
    }

    fn load(&self, address: usize, out: &mut [u8]) -> Result<(), Segv> {
        self.world.load(address, out)
    }

    fn store(&self, address: usize, data: &[u8]) -> Result<(), Segv> {
        self.world.store(address, data)
    }

    fn fetch_add(&self, address: usize, value: u64) -> Result<u64, Segv> {
        self.world.fetch_add(address, value)
    }

    fn violations(&self) -> Option<String> {
        self.world.violations()
    }

    fn end(self) {
        self.world.end();
    }
}

/// Where the arena is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The address of its first page.
    pub(crate) base: usize,
    /// The size of a page.
    pub(crate) page: usize,
}

impl Place {
    /// The address of a page.
    pub(crate) const fn page(self, page: usize) -> usize {
        self.base + page * self.page
    }

    /// The page that holds an address.
    pub(crate) const fn page_of(self, address: usize) -> usize {
        (address - self.base) / self.page
    }

    /// The addresses of some pages.
    pub(crate) fn range(self, pages: &Range<usize>) -> AddressRange {
        AddressRange::new(self.page(pages.start), pages.len() * self.page)
            .expect("a range of the arena")
    }

    /// The address of a byte that the program uses, they being numbered through all pages.
    pub(crate) const fn byte(self, byte: usize) -> usize {
        let (page, place) = (byte / CELL, byte % CELL);
        let in_page = if place < CELL / 2 { place } else { self.page - CELL + place };
        self.page(page) + in_page
    }

    /// The parts of `len` such bytes from `byte` on that lie together: the address, the first byte,
    /// and how many.
    pub(crate) fn pieces(
        self,
        byte: usize,
        len: usize,
    ) -> impl Iterator<Item = (usize, usize, usize)> {
        let mut next = byte;
        let end = byte + len;
        std::iter::from_fn(move || {
            if next == end {
                return None;
            }
            // What lies together begins in the middle of one page's bytes and ends in the middle of
            // the next one's.
            let split = (next + CELL / 2) / CELL * CELL + CELL / 2;
            let piece = (self.byte(next), next - byte, split.min(end) - next);
            next += piece.2;
            Some(piece)
        })
    }
}
