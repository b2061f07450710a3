//! This process on Linux and the model, and the program's side of each.

use std::{io, ops::Range, ptr};

use uhmm::{
    mm::{
        Backing, Mm, Protection,
        linux::Linux,
        model::{Model, ModelOptions},
    },
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

/// Pages that the program may have.
pub(crate) const PAGES: usize = 5 * BLOCK_PAGES;

/// A system with an arena in it. Pages are those of the arena. An access that ends with a signal
/// answers nothing.
pub(crate) trait World: Sized + Sync {
    type Mm: Mm;

    /// A system in which the arena is reserved, and nothing is mapped there.
    fn start() -> (Self, Self::Mm);

    /// Where a page is, and the size of one.
    fn address(&self, page: usize) -> usize;

    fn map(&self, pages: Range<usize>);

    /// Maps memory of a file that is kept in memory.
    fn map_shared(&self, pages: Range<usize>);

    fn unmap(&self, pages: Range<usize>);

    fn discard(&self, pages: Range<usize>);

    fn remap(&self, from: Range<usize>, to: usize);

    fn load(&self, page: usize) -> Option<u64>;

    fn store(&self, page: usize, value: u64) -> Option<()>;

    /// Has a child share the pages that are there and not trapped, until the world ends.
    fn share(&mut self, pages: Range<usize>);

    /// Maps a file privately.
    fn map_file(&self, pages: Range<usize>);

    /// Has pages be read only, or written again.
    fn protect(&self, pages: Range<usize>, writable: bool);

    /// Has somebody hold a page until the world ends, where there is who does.
    fn pin(&mut self, page: usize) -> bool;

    /// Makes the pages of a block, which are mapped and to some of which `write` writes, one huge page. Answers
    /// whether the system has such.
    fn make_huge(&self, block: Range<usize>, write: impl FnOnce()) -> bool;

    /// Ends it, and answers what the core did that it must not.
    fn end(self) -> Option<String>;
}

pub(crate) struct ModelWorld(Model);

fn pages(pages: Range<usize>) -> PageRange {
    PageRange::new(PageNumber(pages.start), PageNumber(pages.end))
}

impl ModelWorld {
    fn map_kind(&self, range: &Range<usize>, backing: Backing) {
        let all = Protection { read: true, write: true, execute: false };
        self.0.map(Some(PageNumber(range.start)), range.len(), all, backing).unwrap();
    }
}

impl World for ModelWorld {
    type Mm = Model;

    fn start() -> (Self, Model) {
        let model = Model::new(ModelOptions {
            pages: PAGES,
            staging_pages: 96 * BLOCK_PAGES,
            tells_forks: false,
            ..Default::default()
        });
        (Self(model.clone()), model)
    }

    fn address(&self, page: usize) -> usize {
        self.0.page_size().address_of(PageNumber(page))
    }

    fn map(&self, range: Range<usize>) {
        self.map_kind(&range, Backing::PrivateAnonymous);
    }

    fn map_shared(&self, range: Range<usize>) {
        self.map_kind(&range, Backing::SharedFile);
    }

    fn unmap(&self, range: Range<usize>) {
        self.0.unmap(pages(range)).unwrap();
    }

    fn discard(&self, range: Range<usize>) {
        self.0.discard(pages(range)).unwrap();
    }

    fn remap(&self, from: Range<usize>, to: usize) {
        self.0.remap(pages(from), Some(PageNumber(to)), false).unwrap();
    }

    fn load(&self, page: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        self.0.load(self.address(page), &mut bytes).ok()?;
        Some(u64::from_ne_bytes(bytes))
    }

    fn store(&self, page: usize, value: u64) -> Option<()> {
        self.0.store(self.address(page), &value.to_ne_bytes()).ok()
    }

    fn share(&mut self, range: Range<usize>) {
        self.0.share_by_fork(pages(range));
    }

    fn map_file(&self, range: Range<usize>) {
        self.map_kind(&range, Backing::PrivateFile);
    }

    fn protect(&self, range: Range<usize>, writable: bool) {
        let protection = Protection { read: true, write: writable, execute: false };
        self.0.protect(pages(range), protection).unwrap();
    }

    fn pin(&mut self, page: usize) -> bool {
        self.0.pin(PageNumber(page)).unwrap();
        true
    }

    fn make_huge(&self, block: Range<usize>, write: impl FnOnce()) -> bool {
        for page in block.clone() {
            self.store(page, 0).unwrap();
        }
        write();
        self.0.make_huge(pages(block).start().block())
    }

    fn end(self) -> Option<String> {
        let violations = self.0.violations();
        (!violations.is_empty()).then(|| format!("{violations:?}"))
    }
}

/// Accesses are the kernel's, on behalf of a pipe: one that would end with a signal ends with an
/// error.
pub(crate) struct LinuxWorld {
    base: usize,
    page: usize,
    pipe: [libc::c_int; 2],
    children: Vec<libc::pid_t>,
    /// What holds a page.
    ring: libc::c_int,
}

fn checked(returned: libc::c_int, what: &str) {
    assert!(returned >= 0, "{what}: {}", io::Error::last_os_error());
}

impl LinuxWorld {
    fn at(&self, page: usize) -> *mut libc::c_void {
        ptr::with_exposed_provenance_mut(self.address(page))
    }

    fn bytes(&self, pages: &Range<usize>) -> usize {
        pages.len() * self.page
    }

    fn reserve(&self, pages: &Range<usize>, protection: libc::c_int) {
        self.map_kind(pages, protection, libc::MAP_PRIVATE);
    }

    fn map_kind(&self, pages: &Range<usize>, protection: libc::c_int, kind: libc::c_int) {
        let flags = kind | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let at = self.at(pages.start);
        // SAFETY: the arena is the test's own.
        let mapped = unsafe { libc::mmap(at, self.bytes(pages), protection, flags, -1, 0) };
        assert!(mapped == at, "mmap: {}", io::Error::last_os_error());
    }
}

impl World for LinuxWorld {
    type Mm = Linux;

    fn start() -> (Self, Linux) {
        let linux = Linux::open().unwrap();
        let page = linux.page_size().bytes();
        let (bytes, block) = (PAGES * page, BLOCK_PAGES * page);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: the system chooses the addresses.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), bytes + block, libc::PROT_NONE, flags, -1, 0) };
        assert!(start != libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        let base = start.expose_provenance().next_multiple_of(block);
        let mut pipe = [0; 2];
        // SAFETY: there is room for two descriptors.
        checked(unsafe { libc::pipe(pipe.as_mut_ptr()) }, "pipe");
        (Self { base, page, pipe, children: Vec::new(), ring: -1 }, linux)
    }

    fn address(&self, page: usize) -> usize {
        self.base + page * self.page
    }

    fn map(&self, pages: Range<usize>) {
        self.reserve(&pages, libc::PROT_READ | libc::PROT_WRITE);
        // Base pages, as in the model. Not by advice: that is what stacks have.
    }

    fn map_shared(&self, pages: Range<usize>) {
        let (at, bytes) = (self.at(pages.start), self.bytes(&pages));
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: a new file; the arena is the test's own.
        unsafe {
            let file = libc::memfd_create(c"failures".as_ptr(), libc::MFD_CLOEXEC);
            assert!(file >= 0, "memfd: {}", io::Error::last_os_error());
            checked(libc::ftruncate(file, bytes.try_into().unwrap()), "ftruncate");
            let mapped = libc::mmap(at, bytes, libc::PROT_READ | libc::PROT_WRITE, flags, file, 0);
            assert_eq!(mapped, at, "mmap: {}", io::Error::last_os_error());
            checked(libc::close(file), "close");
        }
    }

    fn unmap(&self, pages: Range<usize>) {
        // SAFETY: the arena is the test's own, and so is what others map there meanwhile.
        checked(unsafe { libc::munmap(self.at(pages.start), self.bytes(&pages)) }, "munmap");
        self.reserve(&pages, libc::PROT_NONE);
    }

    fn discard(&self, pages: Range<usize>) {
        let (at, bytes) = (self.at(pages.start), self.bytes(&pages));
        // SAFETY: the arena is the test's own.
        checked(unsafe { libc::madvise(at, bytes, libc::MADV_DONTNEED) }, "madvise");
    }

    fn remap(&self, from: Range<usize>, to: usize) {
        let (at, bytes, to) = (self.at(from.start), self.bytes(&from), self.at(to));
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: the arena is the test's own.
        let moved = unsafe { libc::mremap(at, bytes, bytes, flags, to) };
        assert!(moved == to, "mremap: {}", io::Error::last_os_error());
    }

    fn load(&self, page: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        // SAFETY: the kernel reads eight bytes of the arena, or says that it cannot.
        let written = unsafe { libc::write(self.pipe[1], self.at(page), 8) };
        if written != 8 {
            return None;
        }
        // SAFETY: there is room for eight bytes.
        let read = unsafe { libc::read(self.pipe[0], bytes.as_mut_ptr().cast(), 8) };
        assert_eq!(read, 8);
        Some(u64::from_ne_bytes(bytes))
    }

    fn store(&self, page: usize, value: u64) -> Option<()> {
        let bytes = value.to_ne_bytes();
        // SAFETY: there are eight bytes.
        assert_eq!(unsafe { libc::write(self.pipe[1], bytes.as_ptr().cast(), 8) }, 8);
        // SAFETY: the kernel writes eight bytes of the arena, or says that it cannot.
        if unsafe { libc::read(self.pipe[0], self.at(page), 8) } == 8 {
            return Some(());
        }
        let mut left = [0_u8; 8];
        // SAFETY: there is room for eight bytes, which are in the pipe still.
        assert_eq!(unsafe { libc::read(self.pipe[0], left.as_mut_ptr().cast(), 8) }, 8);
        None
    }

    fn share(&mut self, _: Range<usize>) {
        // SAFETY: the child calls what a signal handler may.
        let child = unsafe { libc::fork() };
        checked(child, "fork");
        if child == 0 {
            loop {
                // SAFETY: as above.
                unsafe { libc::pause() };
            }
        }
        self.children.push(child);
    }

    fn map_file(&self, pages: Range<usize>) {
        let at = self.at(pages.start);
        // SAFETY: a new file without a name; the name given is for people.
        let file = unsafe { libc::memfd_create(c"failures".as_ptr(), libc::MFD_CLOEXEC) };
        checked(file, "memfd_create");
        let length = libc::off_t::try_from(self.bytes(&pages)).unwrap();
        // SAFETY: the descriptor is ours, and the arena the test's own.
        let mapped = unsafe {
            checked(libc::ftruncate(file, length), "ftruncate");
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
            let mapped = libc::mmap(at, self.bytes(&pages), access, flags, file, 0);
            libc::close(file);
            mapped
        };
        assert!(mapped == at, "mmap: {}", io::Error::last_os_error());
    }

    fn protect(&self, range: Range<usize>, writable: bool) {
        let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        let (at, bytes) = (self.at(range.start), self.bytes(&range));
        // SAFETY: the arena is the test's own.
        checked(unsafe { libc::mprotect(at, bytes, protection) }, "mprotect");
    }

    fn pin(&mut self, page: usize) -> bool {
        let mut parameters = [0_u64; 15];
        // SAFETY: the parameters have the 120 bytes that the call reads and writes.
        let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut parameters) };
        let Some(ring) = libc::c_int::try_from(ring).ok().filter(|&ring| ring >= 0) else {
            return false;
        };
        self.ring = ring;
        let buffer = libc::iovec { iov_base: self.at(page), iov_len: self.page };
        // SAFETY: one buffer, of the arena; the ring is never told to use it.
        let registered =
            unsafe { libc::syscall(libc::SYS_io_uring_register, ring, 0, &raw const buffer, 1) };
        registered == 0
    }

    fn make_huge(&self, block: Range<usize>, write: impl FnOnce()) -> bool {
        let choice = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        let (at, bytes) = (self.at(block.start), self.bytes(&block));
        // SAFETY: the arena is the test's own.
        let advised = unsafe { libc::madvise(at, bytes, libc::MADV_HUGEPAGE) } == 0;
        write();
        advised && choice.is_ok_and(|choice| !choice.contains("[never]"))
    }

    fn end(self) -> Option<String> {
        None
    }
}

impl Drop for LinuxWorld {
    fn drop(&mut self) {
        for child in &self.children {
            // SAFETY: it is our child, not waited for before.
            unsafe {
                libc::kill(*child, libc::SIGKILL);
                libc::waitpid(*child, ptr::null_mut(), 0);
            }
        }
        // SAFETY: nobody uses the arena or the pipe any more.
        unsafe {
            libc::munmap(self.at(0), PAGES * self.page);
            libc::close(self.pipe[0]);
            libc::close(self.pipe[1]);
            if self.ring >= 0 {
                libc::close(self.ring);
            }
        }
    }
}
