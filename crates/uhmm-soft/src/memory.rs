//! Memory of the device's own, which pages are copied into and out of: frames in a mapping that nobody
//! else uses, behind a [bus](crate::bus) of a set speed.

use core::{
    ptr::{self, NonNull},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use rustix::mm::{Advice, MapFlags, ProtFlags};
use uhmm::{
    Begun, CopyingMemory, Frames, Shared, Ticket, Transfer, TransferError, copy_bytes,
    mm::Errno,
    units::{PageRange, PageSize},
};

use crate::bus::{Bus, BusLine};

/// What a transfer that was [told to fail](crate::Soft::fail_transfer) says.
pub(crate) const TOLD_TO_FAIL: i32 = 1;

/// The device's frames.
///
/// # Invariants
/// `base` is the start of a mapping of `frames` pages, which is this value's alone, and ends with it.
#[derive(Debug)]
pub(crate) struct OwnMemory {
    base: NonNull<u8>,
    frames: usize,
    page_size: PageSize,
    bus: BusLine,
    /// How many transfers were begun.
    transfers: AtomicUsize,
    /// The number of the one that is to fail; 0 for none.
    fails: AtomicUsize,
}

// SAFETY: the mapping belongs to no thread; its frames are touched by transfers, of frames that nobody
// else uses, and by workers, through translations.
unsafe impl Send for OwnMemory {}
// SAFETY: as above.
unsafe impl Sync for OwnMemory {}

impl OwnMemory {
    /// Maps `frames` frames, all of zeros.
    pub(crate) fn map(frames: usize, page_size: PageSize, bus: Bus) -> Result<Self, Errno> {
        let failed = |error: rustix::io::Errno| Errno(error.raw_os_error());
        let len = frames.checked_mul(page_size.bytes()).ok_or(Errno(NO_MEMORY))?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap_anonymous(ptr::null_mut(), len, access, flags)
        };
        let start = start.map_err(failed)?;
        let Some(base) = NonNull::new(start.cast::<u8>()) else { return Err(Errno(NO_MEMORY)) };
        let memory = Self {
            base,
            frames,
            page_size,
            bus: BusLine::new(bus),
            transfers: AtomicUsize::new(0),
            fails: AtomicUsize::new(0),
        };
        // SAFETY: the new mapping. A child has no device.
        unsafe { rustix::mm::madvise(start, len, Advice::LinuxDontFork) }.map_err(failed)?;
        // SAFETY: as above. It costs less in huge pages, where there are any.
        let _ = unsafe { rustix::mm::madvise(start, len, Advice::LinuxHugepage) };
        Ok(memory)
    }

    /// Where a frame is. It lies `frames` frames before the end, as the core says.
    pub(crate) fn frame(&self, number: usize) -> NonNull<u8> {
        assert!(number < self.frames, "a frame of the device");
        // SAFETY: the frame is in the mapping, as was checked.
        unsafe { self.base.add(self.page_size.bytes_in(number)) }
    }

    /// Frames, and their length in bytes.
    fn part(&self, frames: Frames) -> (NonNull<u8>, usize) {
        let Frames { first, count } = frames;
        assert!(count > 0 && count <= self.frames - first, "frames of the device");
        (self.frame(first), self.page_size.bytes_in(count))
    }

    /// Has the `nth` transfer from now on fail, the next being the first.
    pub(crate) fn fail(&self, nth: usize) {
        self.fails.store(self.transfers.load(Relaxed) + nth, Relaxed);
    }

    /// How many transfers were begun.
    pub(crate) fn transfers(&self) -> usize {
        self.transfers.load(Relaxed)
    }
}

const NO_MEMORY: i32 = rustix::io::Errno::NOMEM.raw_os_error();

impl Drop for OwnMemory {
    fn drop(&mut self) {
        let len = self.page_size.bytes_in(self.frames);
        // SAFETY: by the invariant the mapping is this value's alone; the device is gone, and with it
        // all translations.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), len) };
    }
}

/// The memory, as the core has it.
pub(crate) struct Lent(pub(crate) Shared<OwnMemory>);

// SAFETY: a transfer touches the pages before `begin` returns, and no more after; what goes into a frame
// is copied from there; nothing here uses the heap or waits for a call of the core, and a wait for the
// bus is as long as its speed says.
unsafe impl CopyingMemory for Lent {
    fn begin(&self, transfer: &Transfer) -> Result<Begun, TransferError> {
        let memory = &self.0;
        let number = memory.transfers.fetch_add(1, Relaxed) + 1;
        if memory.fails.load(Relaxed) == number {
            return Err(TransferError::Failed { code: TOLD_TO_FAIL });
        }
        let (frame, len) = memory.part(transfer.frames());
        // SAFETY: the frames are in the mapping, and nobody else's for now; the pages are as many bytes,
        // are there, and apart from it, as the core says.
        unsafe {
            match *transfer {
                Transfer::In { from, .. } => copy_bytes(from, frame, len),
                Transfer::Out { to, .. } => copy_bytes(frame, to, len),
                Transfer::Zero { .. } => frame.write_bytes(0, len),
                _ => return Err(TransferError::Failed { code: UNKNOWN }),
            }
        }
        Ok(memory.bus.carry(transfer, len))
    }

    fn finish(&self, ticket: Ticket) -> Result<(), TransferError> {
        self.0.bus.wait(ticket);
        Ok(())
    }

    fn is_far(&self) -> bool {
        self.0.bus.is_slow()
    }

    fn mapped(&self) -> Option<PageRange> {
        let first = self.0.page_size.page_of(self.0.base.as_ptr().addr());
        Some(PageRange::of(first, self.0.frames))
    }
}

/// What a transfer of a kind that the device does not know says.
const UNKNOWN: i32 = 2;
