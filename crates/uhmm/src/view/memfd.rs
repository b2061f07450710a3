//! The file that is shown, and the engine's mapping of it.

use core::{
    ffi::CStr,
    ptr::{self, NonNull},
    sync::atomic::Ordering::{Relaxed, Release},
};

use rustix::{
    fd::OwnedFd,
    fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, ftruncate, memfd_create},
    io,
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap},
};

use super::layout::{BYTES, FINGERPRINT, Head, MAGIC, MAP_OFFSET, Map, OPEN};
use crate::{mm::Errno, units::AddressRange};

/// The name of the file, by which others find it.
pub(super) const NAME: &CStr = c"uhmm-view";

/// Nobody can change the file, nor its size, but by the mapping that there is.
pub(super) const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);

/// Memory that other processes see.
///
/// # Invariants
/// `start` is the first of `BYTES` bytes of a mapping of ours, of which the engine's threads alone know.
#[derive(Debug)]
pub(super) struct Shown {
    start: NonNull<u8>,
    /// Kept open, for others to find.
    file: OwnedFd,
}

impl Shown {
    /// Makes the file and maps it. Children do not inherit the mapping, and no core dump has it.
    pub(super) fn new(page_size: usize) -> Result<Self, Errno> {
        Self::make(page_size).map_err(|error| Errno(error.raw_os_error()))
    }

    fn make(page_size: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Some systems give no file that could be executed, older ones know of no other.
        let file = match memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL) {
            Err(io::Errno::INVAL) => memfd_create(NAME, flags)?,
            made => made?,
        };
        fchmod(&file, Mode::RUSR)?;
        ftruncate(&file, BYTES as u64)?;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place of the system's choice.
        let start = unsafe { mmap(ptr::null_mut(), BYTES, access, flags, &file, 0) }?;
        let Some(start) = NonNull::new(start.cast::<u8>()) else { return Err(io::Errno::NOMEM) };
        // From here on the value's drop ends the mapping.
        let shown = Self { start, file };
        for advice in [Advice::LinuxDontFork, Advice::LinuxDontDump] {
            // SAFETY: the mapping is ours, and this process sees no difference.
            unsafe { madvise(start.as_ptr().cast(), BYTES, advice) }?;
        }
        fcntl_add_seals(&shown.file, SEALS)?;
        // SAFETY: there is room for a head, which nobody reads before its first number is there.
        unsafe { shown.head().write(Head::default()) };
        // SAFETY: it was just written, and is all atomics.
        let head = unsafe { shown.head().as_ref() };
        head.process.store(std::process::id(), Relaxed);
        head.page_size.store(page_size, Relaxed);
        head.open.store(OPEN, Relaxed);
        head.fingerprint.store(FINGERPRINT, Relaxed);
        head.magic.store(MAGIC, Release);
        Ok(shown)
    }

    /// Where it is mapped.
    pub(super) fn range(&self) -> AddressRange {
        let range = AddressRange::new(self.start.as_ptr().addr(), BYTES);
        range.unwrap_or_else(|_| unreachable!("a mapping does not wrap around"))
    }

    pub(super) const fn head(&self) -> NonNull<Head> {
        self.start.cast()
    }

    pub(super) const fn map(&self) -> NonNull<Map> {
        // SAFETY: the mapping has a map there.
        unsafe { self.start.add(MAP_OFFSET) }.cast()
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody uses it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), BYTES) };
    }
}
