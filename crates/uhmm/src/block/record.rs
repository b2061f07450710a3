//! The record of one block, and what may be seen of it without its lock.

use super::{Pages, TurnQueue};
use crate::{
    driver::DeviceIndex,
    policy::{DeviceStream, FaultStream},
    sync::{
        UnsafeCell,
        atomic::{
            AtomicBool, AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

/// The record of one block.
///
/// # Invariants
/// `state` is reached only by the holder of the lock in `turns`.
#[derive(Debug)]
#[cfg_attr(not(any(shuttle, miri, loom)), repr(align(64)))]
pub(crate) struct Block {
    pub(crate) turns: TurnQueue,
    generation: AtomicU32,
    away: AtomicU32,
    /// Whether a device may have a translation of a page of the block that is not in that device's
    /// own memory. Changed under the lock.
    translated: AtomicBool,
    /// A bit for each device in whose clock the block stands.
    clocks: AtomicU32,
    pub(crate) device_stream: DeviceStream,
    state: UnsafeCell<BlockState>,
}

/// What only the holder of a block's lock may touch.
#[derive(Debug, Default)]
pub(crate) struct BlockState {
    pub(crate) pages: Pages,
    pub(crate) stream: FaultStream,
}

#[cfg(not(any(shuttle, miri, loom)))]
const _: () = assert!(size_of::<Block>() == 64 && size_of::<BlockState>() == 28);

// SAFETY: by the invariant the state has one user at a time; the rest is atomic.
unsafe impl Sync for Block {}
// SAFETY: as above.
unsafe impl Send for Block {}

/// What was seen of a block without its lock. It can be acted on only to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// The generation then.
    pub(crate) generation: u32,
    /// How many pages were away then.
    pub(crate) away: u32,
}

const fn clock_bit(device: DeviceIndex) -> u32 {
    1 << device.0
}

impl Block {
    pub(crate) fn new() -> Self {
        Self {
            turns: TurnQueue::new(),
            generation: AtomicU32::new(0),
            away: AtomicU32::new(0),
            translated: AtomicBool::new(false),
            clocks: AtomicU32::new(0),
            device_stream: DeviceStream::default(),
            state: UnsafeCell::new(BlockState::default()),
        }
    }

    /// Looks without the lock.
    #[inline]
    pub(crate) fn hint(&self) -> Hint {
        let generation = self.generation.load(Acquire);
        Hint { generation, away: self.away.load(Relaxed) }
    }

    /// Notes that translations of the block changed: `added` pages went away, `removed` came back.
    /// The lock is held.
    #[inline]
    pub(crate) fn changed(&self, added: usize, removed: usize) {
        let away = self.away.load(Relaxed) as usize + added - removed;
        // A block has 512 pages.
        self.away.store(u32::try_from(away).unwrap_or(u32::MAX), Relaxed);
        // The holder alone changes it.
        self.generation.store(self.generation.load(Relaxed).wrapping_add(1), Release);
    }

    /// Whether a device may have a translation of a page that is not in its own memory.
    pub(crate) fn is_translated(&self) -> bool {
        self.translated.load(Relaxed)
    }

    /// Notes whether that is so. The lock is held.
    pub(crate) fn note_translated(&self, translated: bool) {
        self.translated.store(translated, Relaxed);
    }

    /// Puts the block into the clock of a device, or finds it there; answers whether the caller is to
    /// add it to the ring. The lock is held and a page is on the device.
    pub(crate) fn enter_clock(&self, device: DeviceIndex) -> bool {
        let bit = clock_bit(device);
        // Also where the bit is set. Against `leaves_clock_if_quiet`, which needs no lock of the block, two
        // changes of one word have an order: that comes after and sees the page, or this sees that the
        // block was taken out.
        self.clocks.fetch_or(bit, Release) & bit == 0
    }

    /// Takes the block out of the clock of a device; answers whether the caller is to remove it from
    /// the ring. The lock is held and no page is on the device.
    pub(crate) fn leave_clock(&self, device: DeviceIndex) -> bool {
        let bit = clock_bit(device);
        self.clocks.load(Relaxed) & bit != 0 && self.clocks.fetch_and(!bit, Relaxed) & bit != 0
    }

    /// Takes the block out of the clock of a device, whose ring is locked, if no page is away. The
    /// answer is whether it is to be removed from the ring.
    pub(crate) fn leaves_clock_if_quiet(&self, device: DeviceIndex) -> bool {
        let bit = clock_bit(device);
        if self.away.load(Relaxed) > 0 {
            return false;
        }
        self.clocks.fetch_and(!bit, Acquire);
        // A page may have gone there meanwhile. Whoever sets the bit then has the ring hold the block:
        // the other who adds it, or this, which leaves it there.
        self.away.load(Relaxed) == 0 || self.clocks.fetch_or(bit, Relaxed) & bit != 0
    }

    /// What the lock protects.
    ///
    /// # Safety
    /// The caller holds the lock, and has no other reference to the state.
    #[expect(clippy::mut_from_ref, reason = "the lock makes it unique")]
    pub(crate) unsafe fn state(&self) -> &mut BlockState {
        // SAFETY: by the invariant, as the caller holds the lock.
        unsafe { &mut *self.state.get() }
    }
}
