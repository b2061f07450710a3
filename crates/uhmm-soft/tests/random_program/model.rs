//! The world of the model.

use std::{
    ops::{ControlFlow, Range},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use uhmm::{
    AddressSpace, Options,
    mm::{
        Backing, Errno, Mm, Protection,
        model::{Model, ModelOptions, Signal},
    },
    units::{BLOCK_PAGES, PageNumber, PageRange, PageSize},
};

use crate::{
    oracle::Oracle,
    run::{Failure, ensure},
    step::{CELL, Child, PAGES},
    world::{Allowed, ENGINE_MEMORY, Place, Segv, World},
};

const PAGE: PageSize = PageSize::new(CELL).expect("a power of two");

/// The arena begins at the second block: in the first nothing ever is.
const BASE: usize = BLOCK_PAGES;

/// The program's side of a model.
pub(crate) struct ModelWorld {
    model: Arc<Model>,
    /// Where the program's data end.
    end: AtomicUsize,
}

fn pages(pages: &Range<usize>) -> PageRange {
    PageRange::of(PageNumber(BASE + pages.start), pages.len())
}

fn number(error: Errno) -> i32 {
    error.0
}

fn segv(signal: Signal) -> Segv {
    match signal {
        Signal::Segv(address) => Segv(PAGE.page_of(address).0 - BASE),
        Signal::Bus(_) | Signal::OutOfMemory(_) => panic!("an access ended with {signal:?}"),
    }
}

impl World for ModelWorld {
    type Mm = Model;

    const ALONE: bool = false;

    const STEADY: bool = true;

    fn open(huge: bool) -> (Self, AddressSpace<Model>) {
        let (world, model) = Self::make(huge);
        let space = Options::new().engine_memory(ENGINE_MEMORY).open_on(model);
        (world, space.expect("an address space on the model"))
    }

    fn make(huge: bool) -> (Self, Model) {
        let model = Model::new(ModelOptions {
            page_size: PAGE,
            pages: BASE + PAGES + BLOCK_PAGES,
            staging_pages: 40 * BLOCK_PAGES,
            memory_limit_pages: None,
            loose_changes: true,
            late_refusals: true,
            tells_forks: !huge,
            huge_pages: huge,
        });
        (Self { model: Arc::new(model.clone()), end: AtomicUsize::new(0) }, model)
    }

    fn place(&self) -> Place {
        Place { base: PAGE.bytes_in(BASE), page: PAGE.bytes() }
    }

    fn map(&self, range: Range<usize>) -> Result<(), i32> {
        let protection = Protection { read: true, write: true, execute: false };
        let at = pages(&range);
        self.model
            .map(Some(at.start()), at.len(), protection, Backing::PrivateAnonymous)
            .map(|_| ())
            .map_err(number)
    }

    fn unmap(&self, range: Range<usize>) -> Result<(), i32> {
        self.model.unmap(pages(&range)).map_err(number)
    }

    fn protect(&self, range: Range<usize>, allowed: Allowed) -> Result<(), i32> {
        let (read, write) = (allowed.allows(false), allowed.allows(true));
        let protection = Protection { read, write, execute: false };
        self.model.protect(pages(&range), protection).map_err(number)
    }

    fn discard(&self, range: Range<usize>) -> Result<(), i32> {
        self.model.discard(pages(&range)).map_err(number)
    }

    fn areas(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let mut areas = Vec::new();
        self.model
            .areas(pages(&range), &mut |area| {
                let part = area.pages.intersection(pages(&range));
                areas.push(part.start().0 - BASE..part.end().0 - BASE);
                ControlFlow::Continue(())
            })
            .expect("the model's areas");
        areas
    }

    fn remap(&self, from: Range<usize>, to: usize, len: usize) -> Result<(), i32> {
        let to = PageNumber(BASE + to);
        self.model.remap_and_grow(pages(&from), len, Some(to)).map(|_| ()).map_err(number)
    }

    fn remap_content(&self, from: Range<usize>, to: usize) -> Result<(), i32> {
        let to = PageNumber(BASE + to);
        self.model.remap(pages(&from), Some(to), true).map(|_| ()).map_err(number)
    }

    /// As the kernel does it, which asks for a free page behind (`mm/mmap.c`).
    fn set_break(&self, to: usize) -> Option<(Range<usize>, bool)> {
        let from = self.end.load(Relaxed);
        let pages = from.min(to)..from.max(to);
        let grows = from < to;
        let wanted = if grows { pages.start..pages.end + 1 } else { pages.clone() };
        if pages.is_empty() || grows != self.areas(wanted).is_empty() {
            return None;
        }
        let changed = if grows { self.map(pages.clone()) } else { self.unmap(pages.clone()) };
        changed.expect("what is free is mapped, and what is mapped unmapped");
        self.end.store(to, Relaxed);
        Some((pages, grows))
    }

    fn grow(&self, range: Range<usize>, len: usize) -> Result<(), i32> {
        self.model.grow(pages(&range), len).map(|_| ()).map_err(number)
    }

    fn collapse(&self, range: Range<usize>) {
        self.model.make_huge(pages(&range).start().block());
    }

    fn free(&self, range: Range<usize>) -> Result<(), i32> {
        self.model.free(pages(&range)).map_err(number)
    }

    fn remove(&self, range: Range<usize>) -> Result<(), i32> {
        let mapped = !self.areas(range).is_empty();
        Err(if mapped { libc::EINVAL } else { libc::ENOMEM })
    }

    fn advise_huge(&self, range: Range<usize>) -> Result<(), i32> {
        let mapped: usize = self.areas(range.clone()).iter().map(ExactSizeIterator::len).sum();
        if mapped == range.len() { Ok(()) } else { Err(libc::ENOMEM) }
    }

    fn fork(&self, _: &Child, oracle: &Oracle) -> Result<(), Failure> {
        let told = self.model.tells_forks();
        let forked = self.model.fork();
        for page in oracle.part.clone() {
            let content = forked.content(PageNumber(BASE + page));
            let known = oracle.page(page);
            let right = match content {
                Ok(ref content) => known.mapped && content[..] == known.bytes,
                Err(Signal::Segv(_)) => !known.mapped || !told,
                Err(_) => false,
            };
            let mapped = known.mapped;
            ensure!(right, "a child finds {content:?} at page {page}, mapped: {mapped}");
        }
        Ok(())
    }

    fn load(&self, address: usize, out: &mut [u8]) -> Result<(), Segv> {
        self.model.load(address, out).map_err(segv)
    }

    fn store(&self, address: usize, data: &[u8]) -> Result<(), Segv> {
        self.model.store(address, data).map_err(segv)
    }

    fn fetch_add(&self, address: usize, value: u64) -> Result<u64, Segv> {
        self.model.fetch_add(address, value).map_err(segv)
    }

    fn violations(&self) -> Option<String> {
        let violations = self.model.violations();
        (!violations.is_empty()).then(|| format!("{violations:?}"))
    }

    fn end(self) {}
}
