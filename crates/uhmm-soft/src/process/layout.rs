//! The memory that a program and its device process share.

use core::{
    ptr::{self, NonNull},
    slice,
    sync::atomic::{
        AtomicU8, AtomicU32, AtomicU64,
        Ordering::{Relaxed, Release},
    },
};
use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::MemfdFlags,
    mm::{Advice, MapFlags, ProtFlags},
};
use uhmm::{
    mm::Errno,
    ring::{Limits, RingMemory, VERSION},
    units::PageSize,
};

use super::notes::Notes;
use crate::{
    kernels::{Kernel, fingerprint},
    limits::MOST_WORKERS,
};

/// What the first word holds, so that what is no such memory is not taken for it.
pub(super) const MAGIC: u64 = 0x756d_686d_736f_6674;

/// The device process is not ready yet.
pub(super) const STARTING: u32 = 0;
/// It serves.
pub(super) const READY: u32 = 1;
/// It does not go together with the program.
pub(super) const REFUSED: u32 = 2;

/// How many ranges a launch can name.
pub(crate) const MOST_RANGES: usize = 256;

/// What lies before the frames.
///
/// All of it is atomic, as the other side may write anything at any time. What is not used takes no memory.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Shared {
    pub(super) magic: AtomicU64,
    pub(super) version: AtomicU64,
    pub(super) page_bytes: AtomicU64,
    pub(super) frames: AtomicU64,
    /// The page after the last that the program can have.
    pub(super) page_limit: AtomicU64,
    pub(super) kernels: AtomicU64,
    pub(super) fingerprint: AtomicU64,
    /// The program's process.
    pub(super) program: AtomicU32,
    /// How far the device process is.
    pub(super) state: AtomicU32,
    /// How many commands it has applied.
    pub(super) applied: AtomicU32,
    /// How many wait for that, on either side.
    pub(super) awaited: AtomicU32,
    /// How many workers the device has.
    pub(super) workers: AtomicU64,
    /// How many items of the launch under way were taken, and perhaps more. The device counts; the
    /// program sets it to zero while it does not.
    pub(super) taken: AtomicU64,
    /// Whether one of them failed, likewise.
    pub(super) failed: AtomicU32,
    /// How many commands were sent before the launch: they are to be applied first.
    pub(super) launched_after: AtomicU32,
    /// How many ranges the launch names.
    pub(super) given_count: AtomicU32,
    pub(super) commands: RingMemory,
    pub(super) reports: RingMemory,
    /// One for each worker.
    pub(super) orders: [RingMemory; MOST_WORKERS],
    /// The ranges: a page, and the page behind the last.
    pub(super) given: [[AtomicU64; 2]; MOST_RANGES],
}

impl Shared {
    /// Puts where the device process finds it what there is that messages may name.
    pub(super) fn introduce(&self, limits: &Limits, kernels: &[Kernel]) {
        self.version.store(VERSION, Relaxed);
        self.page_bytes.store(limits.page_bytes as u64, Relaxed);
        self.frames.store(limits.frames as u64, Relaxed);
        self.page_limit.store(limits.pages as u64, Relaxed);
        self.kernels.store(limits.kernels as u64, Relaxed);
        self.workers.store(limits.workers as u64, Relaxed);
        self.fingerprint.store(fingerprint(kernels), Relaxed);
        self.program.store(std::process::id(), Relaxed);
        self.magic.store(MAGIC, Release);
    }
}

/// The shared memory, mapped.
///
/// # Invariants
/// `base` is the start of a mapping of `len` bytes that is this value's alone, aligned to a page. The first `head` have
/// room for a `Shared`; then come `frames` pages, the frames; then a byte of notes for each of those.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    head: usize,
    frames: usize,
    page_size: PageSize,
}

// SAFETY: the mapping belongs to no thread; its head is atomics, and who may touch a frame the core says.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

const NO_MEMORY: Errno = Errno(rustix::io::Errno::NOMEM.raw_os_error());

fn failed(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error())
}

impl Mapping {
    /// A file in memory that has room for so many frames.
    pub(super) fn create(frames: usize, page_size: PageSize) -> Result<(OwnedFd, Self), Errno> {
        let Lengths { all: len, .. } = Self::lengths(frames, page_size).ok_or(NO_MEMORY)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create(c"uhmm-device", flags).map_err(failed)?;
        rustix::fs::ftruncate(&file, len as u64).map_err(failed)?;
        // Nobody makes it shorter under the other's accesses.
        let seals = rustix::fs::SealFlags::SHRINK
            | rustix::fs::SealFlags::GROW
            | rustix::fs::SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(failed)?;
        let mapping = Self::map(&file, frames, page_size)?;
        Ok((file, mapping))
    }

    fn lengths(frames: usize, page_size: PageSize) -> Option<Lengths> {
        let page = page_size.bytes();
        let head = size_of::<Shared>().next_multiple_of(page);
        let notes = frames.checked_next_multiple_of(page)?;
        let all = frames.checked_mul(page)?.checked_add(head)?.checked_add(notes)?;
        Some(Lengths { head, all })
    }

    /// How many frames there are in so many bytes, if that is the length of such memory.
    pub(super) fn frames_in(len: usize, page_size: PageSize) -> Option<usize> {
        let page = page_size.bytes();
        let head = Self::lengths(0, page_size)?.head;
        let pages = len.checked_sub(head)? / page;
        // Of as many frames as a page has bytes the notes take a page.
        let frames = pages - pages.div_ceil(page + 1);
        (Self::lengths(frames, page_size)?.all == len).then_some(frames)
    }

    /// Maps such a file. One that the other side could make shorter is refused.
    pub(super) fn map(file: impl AsFd, frames: usize, page_size: PageSize) -> Result<Self, Errno> {
        let Lengths { head, all: len, .. } = Self::lengths(frames, page_size).ok_or(NO_MEMORY)?;
        let there = rustix::fs::fstat(&file).map_err(failed)?.st_size;
        let seals = rustix::fs::fcntl_get_seals(&file).map_err(failed)?;
        let stays = seals.contains(rustix::fs::SealFlags::SHRINK);
        if usize::try_from(there) != Ok(len) || !stays {
            return Err(Errno(rustix::io::Errno::INVAL.raw_os_error()));
        }
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap(ptr::null_mut(), len, access, MapFlags::SHARED, file, 0)
        };
        let start = start.map_err(failed)?;
        let Some(base) = NonNull::new(start.cast::<u8>()) else { return Err(NO_MEMORY) };
        let mapping = Self { base, len, head, frames, page_size };
        // SAFETY: the new mapping. A child of the program has no device.
        unsafe { rustix::mm::madvise(start, len, Advice::LinuxDontFork) }.map_err(failed)?;
        Ok(mapping)
    }

    /// What both sides tell.
    pub(super) fn shared(&self) -> &Shared {
        // SAFETY: by the invariant there is room for it at the start, aligned to a page; it is atomics, for
        // which any bytes are values.
        unsafe { self.base.cast().as_ref() }
    }

    /// How many frames there are.
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    /// The size of one.
    pub(super) fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Where frames are, and their length in bytes.
    ///
    /// # Panics
    /// Where there are none such.
    pub(super) fn part(&self, first: usize, count: usize) -> (NonNull<u8>, usize) {
        assert!(first < self.frames && count <= self.frames - first, "frames of the device");
        let offset = self.head + self.page_size.bytes_in(first);
        // SAFETY: the frames are in the mapping, as was checked.
        (unsafe { self.base.add(offset) }, self.page_size.bytes_in(count))
    }

    /// The number of the frame that `at` is in.
    pub(super) fn frame_of(&self, at: NonNull<u8>) -> usize {
        let first = self.base.as_ptr().addr() + self.head;
        self.page_size.page_of(at.as_ptr().addr() - first).0
    }

    /// What the device process notes of the frames.
    pub(super) fn notes(&self) -> Notes<'_> {
        let offset = self.head + self.page_size.bytes_in(self.frames);
        // SAFETY: by the invariant there is a byte for each frame behind them all. They are atomics, for which any
        // bytes are values.
        Notes(unsafe {
            let first = self.base.add(offset).cast::<AtomicU8>();
            slice::from_raw_parts(first.as_ptr(), self.frames)
        })
    }
}

/// How long the shared memory is, in bytes.
struct Lengths {
    /// What lies before the frames.
    head: usize,
    all: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: by the invariant the mapping is this value's alone.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Wakes all who sleep on a word that both processes have.
pub(super) fn wake(word: &AtomicU32) {
    use rustix::thread::futex;
    let _ = futex::wake(word, futex::Flags::empty(), i32::MAX.unsigned_abs());
}

/// Sleeps while a word that both processes have is as expected, `timeout` at most. May return early.
pub(super) fn wait(word: &AtomicU32, expected: u32, timeout: core::time::Duration) {
    use rustix::thread::{Timespec, futex};
    let timeout = Timespec::try_from(timeout).ok();
    let _ = futex::wait(word, futex::Flags::empty(), expected, timeout.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An access beyond the end of a file that was made shorter ends a process.
    #[test]
    fn what_could_become_shorter_is_refused() {
        let page_size = PageSize::new(4096).expect("a power of two");
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create(c"uhmm-device", flags).expect("a file");
        let len = Mapping::lengths(3, page_size).expect("a length").all;
        rustix::fs::ftruncate(&file, len as u64).expect("a longer file");
        assert_eq!(Mapping::map(&file, 3, page_size).unwrap_err(), Errno(22));
        rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::SHRINK).expect("a seal");
        assert_eq!(Mapping::map(&file, 2, page_size).unwrap_err(), Errno(22));
        assert_eq!(Mapping::map(&file, 3, page_size).expect("it stays").frames(), 3);
    }

    #[test]
    fn how_many_frames_there_are_is_seen_by_the_length() {
        for page in [64, 4096] {
            let page_size = PageSize::new(page).expect("a power of two");
            let near = |frames: usize| frames.saturating_sub(2)..frames + 3;
            let all_frames = [0, page, 2 * page, 7 * page, page * page].into_iter().flat_map(near);
            for frames in all_frames {
                let len = Mapping::lengths(frames, page_size).expect("a length").all;
                assert_eq!(Mapping::frames_in(len, page_size), Some(frames), "{len} bytes");
                assert_eq!(Mapping::frames_in(len + 1, page_size), None);
                assert_ne!(Mapping::frames_in(len + page, page_size), Some(frames));
            }
            assert_eq!(Mapping::frames_in(page, page_size), None);
        }
    }
}
