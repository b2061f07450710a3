//! Memory of which devices may have pages, and what they do with it.

use std::{
    ops::Range,
    ptr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use uhmm::{
    AddressSpace, Options as SpaceOptions,
    mm::{
        injected::{Injected, Injections},
        linux::Linux,
    },
    units::{AddressRange, BLOCK_PAGES},
};
use uhmm_soft::{AccessError, Bus, Options, Soft, Worker};

use crate::{allow_huge_pages::allow_huge_pages, copied::Copied, skip::skip};

pub(crate) type Device = Soft<Injected<Linux>>;

/// A process has one address space.
static ALONE: Mutex<()> = Mutex::new(());

/// An address space, and memory of which devices may have pages, with what each is to have.
pub(crate) struct Place {
    pub(crate) space: AddressSpace<Injected<Linux>>,
    pub(crate) injections: Injections,
    pub(crate) start: usize,
    pub(crate) page: usize,
    pub(crate) expected: Vec<u64>,
    _alone: MutexGuard<'static, ()>,
}

impl Place {
    /// Memory of so many pages, in huge ones where that is asked for and can be had.
    pub(crate) fn with(test: &str, pages: usize, huge: bool) -> Option<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mm = match Linux::open() {
            Ok(mm) => Injected::new(mm),
            Err(error) => {
                skip(test, error);
                return None;
            }
        };
        let injections = mm.injections();
        let space = SpaceOptions::new().open_on(mm).unwrap();
        let page = space.page_size().bytes();
        let block = page * BLOCK_PAGES;
        // SAFETY: new mappings, at addresses of the kernel's choice, and of that; advice changes no content.
        let start = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let len = pages * page + block;
            let start = libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            let aligned = start.byte_add(start.addr().next_multiple_of(block) - start.addr());
            let flags = flags | libc::MAP_FIXED;
            let start = libc::mmap(aligned, pages * page, access, flags, -1, 0);
            assert_eq!(start, aligned);
            // Else each page goes by itself; where that cannot be had none is huge by chance alone.
            let _ = allow_huge_pages(huge);
            if huge {
                libc::madvise(start, pages * page, libc::MADV_HUGEPAGE);
            }
            start.expose_provenance()
        };
        let expected = vec![0; pages];
        let mut place = Self { space, injections, start, page, expected, _alone: alone };
        (0..pages).for_each(|page| place.store(page, page as u64));
        place.space.adopt(place.part(0..pages)).unwrap();
        Some(place)
    }

    pub(crate) fn new(test: &str, pages: usize) -> Option<Self> {
        Self::with(test, pages, false)
    }

    pub(crate) fn device(&self, frames: usize) -> Device {
        let options = Options::new(frames * self.page).keep_pages().behind_bus(Bus::new());
        Soft::start(&self.space, options).unwrap()
    }

    pub(crate) fn part(&self, pages: Range<usize>) -> AddressRange {
        AddressRange::new(self.address(pages.start), pages.len() * self.page).unwrap()
    }

    pub(crate) fn all(&self) -> AddressRange {
        self.part(0..self.expected.len())
    }

    pub(crate) fn address(&self, page: usize) -> usize {
        self.start + page * self.page
    }

    pub(crate) fn load(&self, page: usize) -> u64 {
        let at = ptr::with_exposed_provenance::<u64>(self.address(page));
        // SAFETY: the mapping is the place's, and no launch is under way.
        unsafe { at.read_volatile() }
    }

    pub(crate) fn store(&mut self, page: usize, value: u64) {
        let at = ptr::with_exposed_provenance_mut::<u64>(self.address(page));
        // SAFETY: as above.
        unsafe { at.write_volatile(value) };
        self.expected[page] = value;
    }

    pub(crate) fn check(&self) {
        for (page, &expected) in self.expected.iter().enumerate() {
            assert_eq!(self.load(page), expected, "page {page}");
        }
    }

    /// Has the device read the number of each of some pages, which are where the first is at `start`, and
    /// compare it.
    pub(crate) fn read_at(
        &self,
        device: &Device,
        start: usize,
        pages: impl IntoIterator<Item = usize>,
    ) {
        let at = |page| (start + page * self.page, self.expected[page]);
        let numbers: Vec<_> = pages.into_iter().map(at).collect();
        let items = 0..numbers.len();
        let compare = move |worker: &mut Worker<'_, _>, item: usize| {
            let (address, expected) = numbers[item];
            // SAFETY: as below.
            let found: u64 = unsafe { worker.load(address) }?;
            if found == expected { Ok(()) } else { Err(AccessError::GivenUp { address }) }
        };
        // SAFETY: the place lives, and nobody else touches it meanwhile.
        unsafe { device.run(items, compare) }.unwrap();
    }

    pub(crate) fn read(&self, device: &Device, pages: impl IntoIterator<Item = usize>) {
        self.read_at(device, self.start, pages);
    }

    /// Has the device add one to the number of each of some pages, which are where the first is at `start`.
    pub(crate) fn add_at(&mut self, device: &Device, start: usize, pages: &[usize]) {
        let addresses: Vec<_> = pages.iter().map(|page| start + page * self.page).collect();
        let items = 0..addresses.len();
        let add = move |worker: &mut Worker<'_, _>, item: usize| {
            // SAFETY: as below.
            unsafe { worker.fetch_add(addresses[item], 1_u64) }.map(drop)
        };
        // SAFETY: the place lives, and nobody else touches it meanwhile.
        unsafe { device.run(items, add) }.unwrap();
        for &page in pages {
            self.expected[page] += 1;
        }
    }

    pub(crate) fn add(&mut self, device: &Device, pages: &[usize]) {
        self.add_at(device, self.start, pages);
    }

    pub(crate) fn go(&self, device: &Device, pages: Range<usize>) {
        let there = device.migrate(self.part(pages.clone())).unwrap();
        assert_eq!((there.moved(), there.stayed()), (pages.len(), 0));
    }

    pub(crate) fn come_back(&self, pages: Range<usize>) {
        let back = self.space.bring_back(self.part(pages.clone())).unwrap();
        assert_eq!((back.moved(), back.stayed()), (pages.len(), 0));
    }

    /// What was copied while `what` is done.
    pub(crate) fn copied_by(&mut self, what: impl FnOnce(&mut Self)) -> Copied {
        let before = self.space.counters();
        what(self);
        Copied::between(&before, &self.space.counters())
    }

    pub(crate) fn end(self) {
        assert_eq!(self.injections.clear(), 0, "nothing that was to fail is left");
        self.check();
        self.space.close().unwrap();
        let start = ptr::with_exposed_provenance_mut(self.start);
        // SAFETY: the mapping is the place's, and nobody uses it any more.
        unsafe { libc::munmap(start, self.expected.len() * self.page) };
    }
}
