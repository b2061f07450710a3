//! The world of this process: raw system calls, loads and stores.

use std::{
    fs, io,
    ops::Range,
    ptr,
    sync::atomic::{
        AtomicU8, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use uhmm::{
    AddressSpace, Options,
    mm::{Access, linux::Linux},
    units::BLOCK_PAGES,
};

use crate::{
    allow_huge_pages::allow_huge_pages,
    children,
    oracle::Oracle,
    run::Failure,
    step::{Child, PAGES},
    touch::ends_with_a_signal,
    world::{Allowed, ENGINE_MEMORY, Place, Segv, World},
};

/// The arena of this process.
pub(crate) struct LinuxWorld {
    pub(crate) place: Place,
    huge: bool,
    /// Whether libc's forks are seen before.
    pub(crate) hooked: bool,
    /// What may be done with each page, as numbers. The system is asked by accesses that are to end
    /// with a signal.
    allowed: Vec<AtomicU8>,
}

/// Address space that is looked for a place, and whose lower end is then the arena's. What is
/// mapped meanwhile takes its upper end, so holes of the arena stay holes.
const SEARCHED: usize = 64 << 30;

/// How the arena's start is aligned: to what a leaf of the core's records spans, so that one covers
/// the arena here and in the model.
const ALIGNED_BLOCKS: usize = 512;

fn result(returned: libc::c_int) -> Result<(), i32> {
    if returned == 0 { Ok(()) } else { Err(last_error()) }
}

fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Sets the end of the program's data to where an arena can begin, if that can be. Nothing is mapped there then.
fn end_of_data(aligned: impl Fn(usize) -> usize) -> Option<usize> {
    // SAFETY: nobody but libc's heap uses the end of the data, and by the first call it takes memory elsewhere
    // from here on. What is unmapped was mapped just now.
    unsafe {
        if libc::mallopt(libc::M_MMAP_THRESHOLD, 0) != 1 {
            return None;
        }
        let before = libc::sbrk(0);
        let base = aligned(before.expose_provenance());
        if libc::brk(ptr::with_exposed_provenance_mut(base)) != 0 {
            return None;
        }
        let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).ok()?;
        let start = before.addr().next_multiple_of(page);
        let start = ptr::with_exposed_provenance_mut::<libc::c_void>(start);
        assert_eq!(libc::munmap(start, base - start.addr()), 0);
        Some(base)
    }
}

impl LinuxWorld {
    fn new(huge: bool) -> Self {
        let _ = allow_huge_pages(huge);
        // SAFETY: asking is always sound.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page).expect("the size of a page");
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let aligned = |address: usize| {
            address.next_multiple_of(ALIGNED_BLOCKS * BLOCK_PAGES * page) + BLOCK_PAGES * page
        };
        let allowed = (0..PAGES).map(|_| AtomicU8::new(0)).collect();
        if let Some(base) = end_of_data(aligned) {
            return Self { place: Place { base, page }, huge, hooked: false, allowed };
        }
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let found = unsafe { libc::mmap(ptr::null_mut(), SEARCHED, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(found, libc::MAP_FAILED, "no room for the arena");
        // SAFETY: the mapping just made, which nobody uses.
        assert_eq!(unsafe { libc::munmap(found, SEARCHED) }, 0, "the search cannot be ended");
        let place = Place { base: aligned(found.expose_provenance()), page };
        Self { place, huge, hooked: false, allowed }
    }

    pub(crate) fn at(&self, page: usize) -> *mut libc::c_void {
        ptr::with_exposed_provenance_mut(self.place.page(page))
    }

    fn len(&self, pages: usize) -> usize {
        pages * self.place.page
    }

    /// The first page that `len` bytes at `address` touch and that is not mapped.
    fn unmapped(&self, address: usize, len: usize) -> Option<usize> {
        let (first, last) = (self.place.page_of(address), self.place.page_of(address + len - 1));
        let mapped = |page: usize, pages: usize| {
            let mut there = [0_u8; 2];
            // SAFETY: there is a byte for each of the pages, two at most.
            unsafe { libc::mincore(self.at(page), self.len(pages), there.as_mut_ptr()) == 0 }
        };
        if mapped(first, last - first + 1) {
            return None;
        }
        (first..=last).find(|&page| !mapped(page, 1))
    }

    /// The first page that `len` bytes at `address` touch and where the access ends with a signal, as
    /// the system has shown.
    fn forbidden(&self, address: usize, len: usize, write: bool) -> Option<usize> {
        let (first, last) = (self.place.page_of(address), self.place.page_of(address + len - 1));
        let access = if write { Access::Write } else { Access::Read };
        (first..=last).find(|&page| {
            let at = self.place.page(page).max(address);
            !self.allowed_at(page).allows(write)
                && ends_with_a_signal(ptr::with_exposed_provenance_mut(at), access)
        })
    }

    fn allowed_at(&self, page: usize) -> Allowed {
        match self.allowed[page].load(Relaxed) {
            0 => Allowed::Nothing,
            1 => Allowed::Reading,
            _ => Allowed::All,
        }
    }

    fn note(&self, pages: Range<usize>, allowed: Allowed) {
        for page in &self.allowed[pages] {
            page.store(allowed as u8, Relaxed);
        }
    }

    /// Notes that an area is at another place, and is `len` pages long there.
    fn note_moved(&self, from: Range<usize>, to: usize, len: usize) {
        self.note(to..to + len, self.allowed_at(from.start));
    }

    /// How many of `len` bytes at `address` can be accessed, and where it ends if not all.
    fn accessible(&self, address: usize, len: usize, write: bool) -> (usize, Result<(), Segv>) {
        let unmapped = self.unmapped(address, len);
        let mapped = unmapped.map_or(len, |page| self.place.page(page).saturating_sub(address));
        let forbidden = if mapped > 0 { self.forbidden(address, mapped, write) } else { None };
        match forbidden.or(unmapped) {
            None => (len, Ok(())),
            Some(page) => (self.place.page(page).saturating_sub(address), Err(Segv(page))),
        }
    }
}

impl World for LinuxWorld {
    type Mm = Linux;

    const ALONE: bool = true;

    const STEADY: bool = false;

    fn open(huge: bool) -> (Self, AddressSpace) {
        let space = Options::new().engine_memory(ENGINE_MEMORY).open().expect("an address space");
        (Self { hooked: true, ..Self::new(huge) }, space)
    }

    fn make(huge: bool) -> (Self, Linux) {
        (Self::new(huge), Linux::open_telling_forks().expect("what Linux has"))
    }

    fn has_huge_pages(&self) -> bool {
        self.huge
    }

    fn place(&self) -> Place {
        self.place
    }

    fn map(&self, pages: Range<usize>) -> Result<(), i32> {
        let (at, len) = (self.at(pages.start), self.len(pages.len()));
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: the arena is this world's, and only the program's steps touch it.
        let mapped = unsafe { libc::mmap(at, len, access, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(last_error());
        }
        self.note(pages, Allowed::All);
        if !self.huge {
            return Ok(());
        }
        // SAFETY: the mapping just made; no content changes.
        result(unsafe { libc::madvise(at, len, libc::MADV_HUGEPAGE) })
    }

    fn unmap(&self, pages: Range<usize>) -> Result<(), i32> {
        // SAFETY: as for `map`.
        result(unsafe { libc::munmap(self.at(pages.start), self.len(pages.len())) })
    }

    fn protect(&self, pages: Range<usize>, allowed: Allowed) -> Result<(), i32> {
        let access = match allowed {
            Allowed::Nothing => libc::PROT_NONE,
            Allowed::Reading => libc::PROT_READ,
            Allowed::All => libc::PROT_READ | libc::PROT_WRITE,
        };
        let (at, len) = (self.at(pages.start), self.len(pages.len()));
        let mapped = self.areas(pages.clone());
        let mut end = pages.start;
        for area in mapped {
            if area.start == end {
                end = area.end;
            }
        }
        self.note(pages.start..end, allowed);
        // SAFETY: as for `map`.
        result(unsafe { libc::mprotect(at, len, access) })
    }

    fn discard(&self, pages: Range<usize>) -> Result<(), i32> {
        let (at, len) = (self.at(pages.start), self.len(pages.len()));
        // SAFETY: as for `map`.
        result(unsafe { libc::madvise(at, len, libc::MADV_DONTNEED) })
    }

    fn areas(&self, pages: Range<usize>) -> Vec<Range<usize>> {
        let (start, end) = (self.place.page(pages.start), self.place.page(pages.end));
        let maps = fs::read_to_string("/proc/self/maps").expect("the areas of this process");
        maps.lines()
            .filter_map(|line| {
                let (from, to) = line.split_whitespace().next()?.split_once('-')?;
                let from = usize::from_str_radix(from, 16).ok()?.max(start);
                let to = usize::from_str_radix(to, 16).ok()?.min(end);
                (from < to).then(|| self.place.page_of(from)..self.place.page_of(to))
            })
            .collect()
    }

    fn remap(&self, from: Range<usize>, to: usize, len: usize) -> Result<(), i32> {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: as for `map`.
        let moved = unsafe {
            let (old, new) = (self.len(from.len()), self.len(len));
            libc::mremap(self.at(from.start), old, new, flags, self.at(to))
        };
        self.note_moved(from, to, len);
        if moved == libc::MAP_FAILED { Err(last_error()) } else { Ok(()) }
    }

    fn remap_content(&self, from: Range<usize>, to: usize) -> Result<(), i32> {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        let len = self.len(from.len());
        // SAFETY: as for `map`.
        let moved = unsafe { libc::mremap(self.at(from.start), len, len, flags, self.at(to)) };
        self.note_moved(from.clone(), to, from.len());
        if moved == libc::MAP_FAILED { Err(last_error()) } else { Ok(()) }
    }

    fn grow(&self, pages: Range<usize>, len: usize) -> Result<(), i32> {
        let (old, new) = (self.len(pages.len()), self.len(len));
        // SAFETY: as for `map`.
        let grown = unsafe { libc::mremap(self.at(pages.start), old, new, 0) };
        self.note_moved(pages.clone(), pages.start, len);
        if grown == libc::MAP_FAILED { Err(last_error()) } else { Ok(()) }
    }

    fn set_break(&self, to: usize) -> Option<(Range<usize>, bool)> {
        // SAFETY: asking is always sound.
        let from = unsafe { libc::sbrk(0) }.addr();
        let arena = self.place.page(0)..=self.place.page(PAGES);
        // SAFETY: as for `map`; nobody else sets it while there is an arena.
        if !arena.contains(&from) || unsafe { libc::brk(self.at(to)) } != 0 {
            return None;
        }
        let from = self.place.page_of(from);
        if from < to {
            self.note(from..to, Allowed::All);
        }
        (from != to).then(|| (from.min(to)..from.max(to), from < to))
    }

    fn collapse(&self, pages: Range<usize>) {
        let (at, len) = (self.at(pages.start), self.len(pages.len()));
        // It may be refused for many reasons.
        // SAFETY: no content changes.
        let _ = unsafe { libc::madvise(at, len, libc::MADV_COLLAPSE) };
    }

    fn free(&self, pages: Range<usize>) -> Result<(), i32> {
        let (at, len) = (self.at(pages.start), self.len(pages.len()));
        // SAFETY: as for `map`.
        result(unsafe { libc::madvise(at, len, libc::MADV_FREE) })
    }

    fn remove(&self, pages: Range<usize>) -> Result<(), i32> {
        let (at, len) = (self.at(pages.start), self.len(pages.len()));
        // SAFETY: as for `map`.
        result(unsafe { libc::madvise(at, len, libc::MADV_REMOVE) })
    }

    fn advise_huge(&self, pages: Range<usize>) -> Result<(), i32> {
        let (at, len) = (self.at(pages.start), self.len(pages.len()));
        // SAFETY: no content changes.
        result(unsafe { libc::madvise(at, len, libc::MADV_HUGEPAGE) })
    }

    fn fork(&self, child: &Child, oracle: &Oracle) -> Result<(), Failure> {
        children::fork(self, child, oracle)
    }

    fn load(&self, address: usize, out: &mut [u8]) -> Result<(), Segv> {
        let (len, result) = self.accessible(address, out.len(), false);
        let from = ptr::with_exposed_provenance::<u8>(address);
        for (place, byte) in out[..len].iter_mut().enumerate() {
            // SAFETY: it is mapped, and of the arena.
            *byte = unsafe { from.add(place).read_volatile() };
        }
        result
    }

    fn store(&self, address: usize, data: &[u8]) -> Result<(), Segv> {
        let (len, result) = self.accessible(address, data.len(), true);
        let to = ptr::with_exposed_provenance_mut::<u8>(address);
        for (place, &byte) in data[..len].iter().enumerate() {
            // SAFETY: it is mapped, and of the arena.
            unsafe { to.add(place).write_volatile(byte) };
        }
        result
    }

    fn fetch_add(&self, address: usize, value: u64) -> Result<u64, Segv> {
        self.accessible(address, size_of::<u64>(), true).1?;
        let number = ptr::with_exposed_provenance_mut(address);
        // SAFETY: it is mapped, of the arena and aligned, and others change it atomically meanwhile.
        Ok(unsafe { AtomicU64::from_ptr(number) }.fetch_add(value, SeqCst))
    }

    fn violations(&self) -> Option<String> {
        None
    }

    fn end(self) {
        // Whatever is there goes; nothing may be.
        let _ = self.unmap(0..PAGES);
    }
}
