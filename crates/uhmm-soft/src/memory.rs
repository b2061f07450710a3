//! Memory of the device's own, which pages are copied into and out of: frames in a mapping that nobody
//! else uses, behind a bus of a set speed.
//!
//! The copying itself is done by the thread that asks. A transfer is over when the bus would have it
//! over: transfers use the bus one after the other, for as long as their bytes take, and each arrives
//! one latency later.

use core::{
    num::NonZeroU64,
    ptr::{self, NonNull},
    sync::atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{AcqRel, Relaxed},
    },
    time::Duration,
};
use std::time::Instant;

use rustix::mm::{Advice, MapFlags, ProtFlags};
use uhmm::{
    Begun, CopyingMemory, Frames, Shared, Ticket, Transfer, TransferError, copy_bytes,
    mm::Errno,
    units::{PageRange, PageSize},
};

/// How fast pages get to a device's own memory and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bus {
    bandwidth: Option<NonZeroU64>,
    latency: Duration,
}

impl Bus {
    /// One as fast as the processor copies.
    pub const fn new() -> Self {
        Self { bandwidth: None, latency: Duration::ZERO }
    }

    /// Sets how many bytes it carries in a second, in both directions together.
    #[must_use]
    pub const fn bandwidth(self, bytes_a_second: NonZeroU64) -> Self {
        Self { bandwidth: Some(bytes_a_second), ..self }
    }

    /// Sets how long a transfer takes beyond what its bytes take.
    #[must_use]
    pub const fn latency(self, latency: Duration) -> Self {
        Self { latency, ..self }
    }

    /// Nanoseconds that the bus is in use for so many bytes.
    fn occupied_for(self, bytes: usize) -> u64 {
        let Some(bandwidth) = self.bandwidth else { return 0 };
        let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(bandwidth.get());
        u64::try_from(nanoseconds).unwrap_or(u64::MAX / 2)
    }
}

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
    bus: Bus,
    began: Instant,
    /// Until when the bus is in use, in nanoseconds from the beginning on.
    in_use_until: AtomicU64,
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
            bus,
            began: Instant::now(),
            in_use_until: AtomicU64::new(0),
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

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX / 2)
    }

    /// Uses the bus for `bytes` bytes as soon as it is free. Answers when they have arrived.
    fn arrival(&self, bytes: usize) -> u64 {
        let now = self.now();
        let takes = self.bus.occupied_for(bytes);
        let mut until = self.in_use_until.load(Relaxed);
        loop {
            let end = until.max(now).saturating_add(takes);
            match self.in_use_until.compare_exchange_weak(until, end, AcqRel, Relaxed) {
                Ok(_) => {
                    let latency = u64::try_from(self.bus.latency.as_nanos()).unwrap_or(u64::MAX);
                    return end.saturating_add(latency);
                }
                Err(other) => until = other,
            }
        }
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

/// How long before a transfer is over a thread that waits for it stops sleeping.
const AWAKE: Duration = Duration::from_micros(60);

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
        if memory.bus == Bus::new() {
            return Ok(Begun::Done);
        }
        let crosses = if matches!(transfer, Transfer::Zero { .. }) { 0 } else { len };
        Ok(Begun::UnderWay(Ticket(memory.arrival(crosses))))
    }

    fn finish(&self, Ticket(arrival): Ticket) -> Result<(), TransferError> {
        loop {
            let left = Duration::from_nanos(arrival.saturating_sub(self.0.now()));
            if left.is_zero() {
                return Ok(());
            }
            match left.checked_sub(AWAKE) {
                Some(sleep) if !sleep.is_zero() => std::thread::sleep(sleep),
                _ => core::hint::spin_loop(),
            }
        }
    }

    fn is_far(&self) -> bool {
        self.0.bus != Bus::new()
    }

    fn mapped(&self) -> Option<PageRange> {
        let first = self.0.page_size.page_of(self.0.base.as_ptr().addr());
        Some(PageRange::of(first, self.0.frames))
    }
}

/// What a transfer of a kind that the device does not know says.
const UNKNOWN: i32 = 2;
