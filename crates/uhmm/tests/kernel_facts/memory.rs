//! Memory that the tests map, and what a program does to its memory.
//!
//! The one claim behind every unsafe block here: the memory was mapped by [`Memory::with`] for one
//! test, nobody holds a reference into it, and all accesses are volatile or of raw bytes.

use std::{
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::{
    fd::AsFd,
    mm::{Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags},
};
use uhmm::{
    mm::{Mm, linux::Linux},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

use crate::support::value;

const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

/// Memory as a program maps it. It stays mapped when the value is gone.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) pages: PageRange,
    page_bytes: usize,
}

impl Memory {
    /// `pages` pages aligned to a block, private and anonymous, and unlike their neighbours, so
    /// that they are an area.
    pub(crate) fn new(linux: &Linux, pages: usize) -> Self {
        Self::with(linux, pages, MapFlags::PRIVATE)
    }

    pub(crate) fn with(linux: &Linux, pages: usize, flags: MapFlags) -> Self {
        Self::near(linux, 0, pages, flags)
    }

    /// Such memory far below where the kernel places mappings, so that nobody's come to lie where a
    /// test unmaps a part of it.
    pub(crate) fn apart(linux: &Linux, pages: usize) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1 << 44);
        let hint = NEXT.fetch_add(1 << 32, Ordering::Relaxed);
        Self::near(linux, hint, pages, MapFlags::PRIVATE)
    }

    fn near(linux: &Linux, hint: usize, pages: usize, flags: MapFlags) -> Self {
        let size = linux.page_size();
        let len = size.bytes_in(pages + 2 * BLOCK_PAGES);
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe {
            let hint = ptr::without_provenance_mut(hint);
            rustix::mm::mmap_anonymous(hint, len, ProtFlags::empty(), flags).unwrap()
        };
        let start = size.page_of(start.expose_provenance());
        let first = PageNumber(start.plus(1).0.next_multiple_of(BLOCK_PAGES));
        let memory = Self { pages: PageRange::of(first, pages), page_bytes: size.bytes() };
        memory.map_over(flags);
        memory
    }

    /// Such memory, in which page `i` is filled with `value(i)`, trapped.
    pub(crate) fn trapped(linux: &Linux, pages: usize) -> Self {
        let memory = Self::new(linux, pages);
        memory.fill();
        linux.trap(memory.pages).unwrap();
        memory
    }

    /// `pages` pages of it, from page `i` on.
    pub(crate) fn part(self, i: usize, pages: usize) -> Self {
        Self { pages: PageRange::of(self.page(i), pages), ..self }
    }

    pub(crate) fn fill(self) {
        for i in 0..self.pages.len() {
            self.write(i, value(i));
        }
    }

    pub(crate) fn bytes(self) -> usize {
        self.pages.len() * self.page_bytes
    }

    pub(crate) fn page(self, i: usize) -> PageNumber {
        self.pages.start().plus(i)
    }

    pub(crate) fn at(self, i: usize) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.page(i).0 * self.page_bytes)
    }

    /// Fills page `i`.
    pub(crate) fn write(self, i: usize, value: u8) {
        // SAFETY: a page of the test's own.
        unsafe { self.at(i).write_bytes(value, self.page_bytes) }
    }

    /// Writes one byte within page `i`.
    pub(crate) fn poke(self, i: usize, value: u8) {
        // SAFETY: a page of the test's own, larger than that.
        unsafe { self.at(i).add(77).write_volatile(value) }
    }

    /// Reads that byte.
    pub(crate) fn peek(self, i: usize) -> u8 {
        // SAFETY: a page of the test's own, larger than that.
        unsafe { self.at(i).add(77).read_volatile() }
    }

    /// The one value that all bytes of page `i` have.
    pub(crate) fn read(self, i: usize) -> u8 {
        let byte = |offset: usize| {
            // SAFETY: within a page of the test's own.
            unsafe { self.at(i).add(offset).read_volatile() }
        };
        let first = byte(0);
        assert!((0..self.page_bytes).all(|offset| byte(offset) == first), "page {i}");
        first
    }

    pub(crate) fn advise(self, advice: Advice) {
        self.try_advise(advice).unwrap();
    }

    pub(crate) fn try_advise(self, advice: Advice) -> rustix::io::Result<()> {
        // SAFETY: the test's own memory.
        unsafe { rustix::mm::madvise(self.at(0).cast(), self.bytes(), advice) }
    }

    /// Puts marks in its place that end accesses, where the kernel has such.
    pub(crate) fn guard(self) -> bool {
        const GUARD_INSTALL: i32 = 102;
        // SAFETY: the test's own memory. By libc, as rustix does not know this advice.
        unsafe { libc::madvise(self.at(0).cast(), self.bytes(), GUARD_INSTALL) == 0 }
    }

    pub(crate) fn protect(self, protection: MprotectFlags) {
        self.try_protect(protection).unwrap();
    }

    pub(crate) fn try_protect(self, protection: MprotectFlags) -> rustix::io::Result<()> {
        // SAFETY: the test's own memory.
        unsafe { rustix::mm::mprotect(self.at(0).cast(), self.bytes(), protection) }
    }

    /// Locks it, where that is allowed.
    pub(crate) fn lock(self) -> bool {
        // SAFETY: the test's own memory.
        unsafe { rustix::mm::mlock(self.at(0).cast(), self.bytes()) }.is_ok()
    }

    pub(crate) fn unmap(self) {
        // SAFETY: the test's own memory.
        unsafe { rustix::mm::munmap(self.at(0).cast(), self.bytes()).unwrap() }
    }

    /// Maps new anonymous memory in its place.
    pub(crate) fn map_over(self, flags: MapFlags) {
        let flags = flags | MapFlags::FIXED;
        // SAFETY: the test's own memory, or what was reserved for it.
        unsafe {
            rustix::mm::mmap_anonymous(self.at(0).cast(), self.bytes(), READ_WRITE, flags).unwrap();
        }
    }

    /// Maps a file in its place, where the system has room.
    pub(crate) fn try_map_over(self, flags: MapFlags, file: impl AsFd) -> rustix::io::Result<()> {
        self.map_file(flags, READ_WRITE, file)
    }

    /// Maps a file in its place, to be read.
    pub(crate) fn map_file_over(self, file: impl AsFd) {
        self.map_file(MapFlags::PRIVATE, ProtFlags::READ, file).unwrap();
    }

    pub(crate) fn map_file(
        self,
        flags: MapFlags,
        protection: ProtFlags,
        file: impl AsFd,
    ) -> rustix::io::Result<()> {
        let (start, flags) = (self.at(0).cast(), flags | MapFlags::FIXED);
        // SAFETY: the test's own memory.
        unsafe { rustix::mm::mmap(start, self.bytes(), protection, flags, file, 0) }.map(drop)
    }

    /// Gives it another length, in place.
    pub(crate) fn resize(self, pages: usize) {
        let len = pages * self.page_bytes;
        // SAFETY: the test's own memory, with room behind it.
        unsafe {
            rustix::mm::mremap(self.at(0).cast(), self.bytes(), len, MremapFlags::empty()).unwrap();
        }
    }

    /// Moves it to where `to` is.
    pub(crate) fn move_to(self, to: Self) {
        let flags = MremapFlags::MAYMOVE;
        let (from, to, len) = (self.at(0).cast(), to.at(0).cast(), self.bytes());
        // SAFETY: the test's own memory, both.
        unsafe { rustix::mm::mremap_fixed(from, len, len, flags, to).unwrap() };
    }
}
