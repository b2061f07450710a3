//! Memory of all kinds, mapped for a test and unmapped at its end.

use std::{
    ffi::CStr,
    fs::File,
    io::Write,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

use uhmm::units::{AddressRange, BLOCK_PAGES, PageRange, PageSize};

use super::page;

/// A mapping.
pub(crate) struct Mapped {
    pub(crate) start: *mut u8,
    pub(crate) pages: usize,
    _file: Option<OwnedFd>,
}

/// Maps pages.
pub(crate) fn map(pages: usize, access: i32, flags: i32, file: Option<OwnedFd>) -> Mapped {
    let fd = file.as_ref().map_or(-1, AsRawFd::as_raw_fd);
    let (at, flags) = if pages <= BLOCK_PAGES / 2 && flags & libc::MAP_HUGETLB == 0 {
        (within_a_block(), flags | libc::MAP_FIXED)
    } else {
        (ptr::null_mut(), flags)
    };
    // SAFETY: a new mapping, at addresses that are this test's or of the kernel's choice.
    let start = unsafe { libc::mmap(at, pages * page(), access, flags, fd, 0) };
    assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    Mapped { start: start.cast(), pages, _file: file }
}

/// The start of a block of addresses that nobody uses: what is told of pages is told block by block. They
/// stay reserved to the end.
fn within_a_block() -> *mut libc::c_void {
    let block = BLOCK_PAGES * page();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start = unsafe { libc::mmap(ptr::null_mut(), 2 * block, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    let start = start.cast::<u8>();
    start.wrapping_add(start.addr().next_multiple_of(block) - start.addr()).cast()
}

pub(crate) const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Private anonymous memory.
pub(crate) fn anonymous(pages: usize) -> Mapped {
    map(pages, READ_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None)
}

/// A file in memory, of so many pages, each filled with its number.
pub(crate) fn memory_file(pages: usize) -> OwnedFd {
    const NAME: &CStr = c"mirrors";
    // SAFETY: the name is a string; the descriptor is new and ours.
    let fd = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC)) };
    let mut file = File::from(fd.try_clone().expect("a descriptor"));
    for number in 0..pages {
        let content = vec![u8::try_from(number + 1).expect("few pages"); page()];
        file.write_all(&content).expect("memory for a file");
    }
    fd
}

/// Cuts a file.
pub(crate) fn truncate(file: &OwnedFd, pages: usize) {
    let len = i64::try_from(pages * page()).expect("a small file");
    // SAFETY: no memory is touched; who has it mapped finds pages gone.
    let result = unsafe { libc::ftruncate(file.as_raw_fd(), len) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

impl Mapped {
    pub(crate) fn range(&self) -> AddressRange {
        self.part(0, self.pages)
    }

    pub(crate) fn part(&self, first: usize, pages: usize) -> AddressRange {
        let start = self.start.expose_provenance() + first * page();
        AddressRange::new(start, pages * page()).expect("a part of a mapping")
    }

    pub(crate) fn numbers(&self) -> PageRange {
        let size = PageSize::new(page()).expect("a power of two");
        self.range().pages(size).expect("whole pages")
    }

    /// Writes a byte into each of some pages.
    pub(crate) fn touch(&self, first: usize, pages: usize, value: u8) {
        for number in first..first + pages {
            // SAFETY: the page is mapped and writable, and nobody else uses it.
            unsafe { self.start.add(number * page()).write_volatile(value) };
        }
    }

    pub(crate) fn byte(&self, number: usize) -> u8 {
        // SAFETY: the page is mapped and readable.
        unsafe { self.start.add(number * page()).read_volatile() }
    }

    pub(crate) fn advise(&self, first: usize, pages: usize, advice: i32) {
        let at = self.start.wrapping_add(first * page());
        // SAFETY: nobody uses what the advice ends.
        let result = unsafe { libc::madvise(at.cast(), pages * page(), advice) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    pub(crate) fn protect(&self, first: usize, pages: usize, access: i32) {
        let at = self.start.wrapping_add(first * page());
        // SAFETY: nobody uses what may not be used from here on.
        let result = unsafe { libc::mprotect(at.cast(), pages * page(), access) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    pub(crate) fn unmap(&self, first: usize, pages: usize) {
        let at = self.start.wrapping_add(first * page());
        // SAFETY: nobody uses the pages any more.
        let result = unsafe { libc::munmap(at.cast(), pages * page()) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: nobody uses the mapping any more.
        unsafe { libc::munmap(self.start.cast(), self.pages * page()) };
    }
}
