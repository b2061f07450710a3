//! Accesses to memory that the tests map, on threads and in children of the test.
//!
//! The one claim behind every unsafe block here: the memory is the test's own, nobody holds a
//! reference into it, and all accesses are in place, atomic or volatile.

mod accesses;
mod handlers;
mod vanishing;

use core::{
    ffi::c_void,
    ptr,
    sync::atomic::{AtomicBool, AtomicU64},
};

use rustix::{
    fd::OwnedFd,
    fs::MemfdFlags,
    mm::{MapFlags, MprotectFlags, ProtFlags},
};

use super::*;
use crate::mm::{Refused, Width};

const PROTECTION: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);
const NONE: MprotectFlags = MprotectFlags::empty();
const READ: MprotectFlags = MprotectFlags::READ;
const READ_WRITE: MprotectFlags = MprotectFlags::READ.union(MprotectFlags::WRITE);

/// A page that can be read and written; it stays mapped when the value is gone.
#[derive(Clone, Copy)]
struct Page(*mut c_void);

// SAFETY: it only names the page.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

fn page_bytes() -> usize {
    rustix::param::page_size()
}

impl Page {
    fn new() -> Self {
        Self::several(1)
    }

    /// As many, one after the other.
    fn several(pages: usize) -> Self {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        let (at, len) = (Self::place(), pages * page_bytes());
        // SAFETY: a new mapping, where nothing is.
        Self(unsafe { rustix::mm::mmap_anonymous(at, len, PROTECTION, flags).unwrap() })
    }

    /// Where a few pages can be mapped, and unmapped: the kernel, which maps from the top down,
    /// comes never so low, so that no other test gets what one has unmapped.
    fn place() -> *mut c_void {
        static NEXT: AtomicUsize = AtomicUsize::new(0x20_0000_0000);
        ptr::with_exposed_provenance_mut(NEXT.fetch_add(1 << 24, Relaxed))
    }

    /// The only page of a file.
    fn of_file() -> (Self, OwnedFd) {
        let file = rustix::fs::memfd_create(c"page", MemfdFlags::CLOEXEC).unwrap();
        let len = page_bytes();
        rustix::fs::ftruncate(&file, len as u64).unwrap();
        let flags = MapFlags::SHARED | MapFlags::FIXED_NOREPLACE;
        // SAFETY: a new mapping, where nothing is.
        let start =
            unsafe { rustix::mm::mmap(Self::place(), len, PROTECTION, flags, &file, 0).unwrap() };
        (Self(start), file)
    }

    fn address(self) -> usize {
        self.0.expose_provenance()
    }

    fn protect(self, protection: MprotectFlags) {
        // SAFETY: the test's own page.
        unsafe { rustix::mm::mprotect(self.0, page_bytes(), protection).unwrap() }
    }

    fn unmap(self) {
        // SAFETY: the test's own page.
        unsafe { rustix::mm::munmap(self.0, page_bytes()).unwrap() }
    }

    /// Maps a new page of zeros there.
    fn map_again(self) {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: the test's own page.
        unsafe { rustix::mm::mmap_anonymous(self.0, page_bytes(), PROTECTION, flags).unwrap() };
    }

    /// The first eight bytes, as the program shares them among its threads.
    fn word<'a>(self) -> &'a AtomicU64 {
        // SAFETY: see the module; the page stays mapped where a test asks for this.
        unsafe { &*self.0.cast() }
    }

    fn byte(self, offset: usize) -> *mut u8 {
        self.0.cast::<u8>().wrapping_add(offset)
    }

    /// Reads a byte as the program would.
    fn read(self, offset: usize) -> u8 {
        // SAFETY: the test's own page; where it is not there the test wants the signal.
        unsafe { self.byte(offset).read_volatile() }
    }

    fn write(self, offset: usize, value: u8) {
        // SAFETY: as in `read`.
        unsafe { self.byte(offset).write_volatile(value) }
    }
}

/// A thread's accessor, closed in the end.
struct Open<'a> {
    accessors: &'a Accessors,
    accessor: Option<Accessor>,
}

impl<'a> Open<'a> {
    fn new(accessors: &'a Accessors) -> Self {
        Self { accessors, accessor: Some(accessors.open().unwrap()) }
    }

    fn number(&self) -> AccessorNumber {
        self.accessor.as_ref().unwrap().number()
    }

    fn busy(&self) -> &AtomicU32 {
        self.accessors.busy(self.accessor.as_ref().unwrap())
    }

    fn load(&self, address: usize, width: Width) -> Result<u64, Refused> {
        // SAFETY: see the module.
        unsafe { load(self.busy(), address, width) }
    }

    fn store(&self, address: usize, width: Width, value: u64) -> Result<(), Refused> {
        // SAFETY: see the module.
        unsafe { store(self.busy(), address, width, value) }
    }

    fn compare_exchange(
        &self,
        address: usize,
        width: Width,
        expected: u64,
        new: u64,
    ) -> Result<u64, Refused> {
        // SAFETY: see the module.
        unsafe { compare_exchange(self.busy(), address, width, expected, new) }
    }

    fn fetch_add(&self, address: usize, width: Width, value: u64) -> Result<u64, Refused> {
        // SAFETY: see the module.
        unsafe { fetch_add(self.busy(), address, width, value) }
    }

    fn copy_out(&self, address: usize, out: &mut [u8]) -> Result<(), Refused> {
        let from = ptr::with_exposed_provenance(address);
        // SAFETY: see the module.
        unsafe { copy(self.busy(), out.as_mut_ptr(), from, out.len()) }
    }

    fn copy_in(&self, address: usize, bytes: &[u8]) -> Result<(), Refused> {
        let to = ptr::with_exposed_provenance_mut(address);
        // SAFETY: see the module.
        unsafe { copy(self.busy(), to, bytes.as_ptr(), bytes.len()) }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.accessors.close(self.accessor.take().unwrap());
    }
}

/// Ends what other threads do, also where a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Release);
    }
}

/// Runs `body` in a child and returns how it ended: its exit status, or the signal below zero. The
/// body uses no heap, as a lock of it can be held by a thread that the child does not have.
fn in_child(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs code that keeps to what is said above, then ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // What would go round in circles ends.
        let limit = libc::rlimit { rlim_cur: 20, rlim_max: 20 };
        // SAFETY: the limit, in seconds of the processor, concerns this child.
        unsafe { libc::setrlimit(libc::RLIMIT_CPU, &raw const limit) };
        let status = body();
        // SAFETY: ending a process is always sound.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: the status is ours to be written.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}
