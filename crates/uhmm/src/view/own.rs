//! The engine's own side of what is shown.

use core::{
    ops::Deref,
    ptr::NonNull,
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
};

use super::{
    layout::{CLOSED, Head, RANGES},
    map::{Held, Map},
};
use crate::{
    driver::DeviceIndex,
    engine_memory::{EngineBox, EngineMemory, EngineMemoryError},
    report::StayCause,
    units::{AddressRange, BlockNumber, PageRange},
};

/// A part of the memory that is shown. It is there as long as the view, which its owner sees to.
///
/// # Invariants
/// It points into the head of a view that lives as long as whoever has the part.
#[derive(Debug)]
pub(crate) struct Part<T>(NonNull<T>);

// SAFETY: it stands for a shared reference to a part that lives as long.
unsafe impl<T: Sync> Send for Part<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Part<T> {}

impl<T> Deref for Part<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: by the invariant.
        unsafe { self.0.as_ref() }
    }
}

/// What is shown, or what would be, in memory of our own.
#[derive(Debug)]
pub(crate) struct View {
    /// In `memory`.
    head: NonNull<Head>,
    map: Option<Map>,
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    /// Made of a box.
    Own(EngineMemory),
    #[cfg(not(any(shuttle, miri)))]
    Shown {
        /// Kept for its drop, and for others to find.
        file: super::memfd::Shown,
    },
}

// SAFETY: the head is all atomics, and the rest can be shared.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// A view that nobody else sees.
    pub(crate) fn own(memory: &EngineMemory) -> Result<Self, EngineMemoryError> {
        let (head, memory) = EngineBox::into_raw(EngineBox::try_new(memory, Head::default())?);
        // SAFETY: a box's pointer is not null.
        let head = unsafe { NonNull::new_unchecked(head) };
        Ok(Self { head, map: None, memory: Memory::Own(memory) })
    }

    /// A view that others see, of this process.
    #[cfg(not(any(shuttle, miri)))]
    pub(crate) fn shown(page_size: usize) -> Result<Self, crate::mm::Errno> {
        let shown = super::memfd::Shown::new(page_size)?;
        // SAFETY: the map is in the memory that is shown, which lives as long as the view, and is
        // written by this process through this alone.
        let map = unsafe { Map::new(shown.map()) };
        Ok(Self { head: shown.head(), map: Some(map), memory: Memory::Shown { file: shown } })
    }

    fn head(&self) -> &Head {
        // SAFETY: the memory is this value's, and has a head that is all atomics.
        unsafe { self.head.as_ref() }
    }

    /// Whether others see it.
    pub(crate) const fn is_shown(&self) -> bool {
        self.map.is_some()
    }

    /// Where it is mapped, if others see it: else it is engine memory.
    pub(crate) fn range(&self) -> Option<AddressRange> {
        match &self.memory {
            Memory::Own(_) => None,
            #[cfg(not(any(shuttle, miri)))]
            Memory::Shown { file } => Some(file.range()),
        }
    }

    /// A part of the head.
    ///
    /// # Safety
    /// The view lives as long as the part.
    pub(crate) unsafe fn part<T>(&self, of: impl FnOnce(&Head) -> &T) -> Part<T> {
        Part(NonNull::from(of(self.head())))
    }

    /// Notes who holds pages of one block, whose lock is held.
    #[inline]
    pub(crate) fn note_held(&self, pages: PageRange, held: Held) {
        if let Some(map) = &self.map {
            map.note_held(pages, held, &self.head().blocks_left_out);
        }
    }

    /// Notes why pages stayed where they were.
    #[cold]
    pub(crate) fn note_stayed(&self, pages: PageRange, cause: StayCause) {
        // What is not there, or not to go, is known without.
        let is_known = matches!(
            cause,
            StayCause::NotAdopted | StayCause::NoArea | StayCause::Closed | StayCause::DeviceLost
        );
        if let Some(map) = self.map.as_ref().filter(|_| !is_known) {
            map.note_stayed(pages, cause.number(), &self.head().blocks_left_out);
        }
    }

    /// Notes that a device, or a mirror of none, was given translations of pages of a block to where
    /// they are.
    #[inline]
    pub(crate) fn note_mapped(&self, block: BlockNumber, by: Option<DeviceIndex>) {
        if let Some(map) = &self.map {
            map.note_mapped(block, by, &self.head().blocks_left_out);
        }
    }

    /// Notes that nobody has such translations of a block any more.
    pub(crate) fn note_unmapped(&self, block: BlockNumber) {
        if let Some(map) = &self.map {
            map.note_unmapped(block);
        }
    }

    /// Notes what is adopted. One at a time: who is alone in the gate.
    pub(crate) fn note_adopted(&self, ranges: impl Iterator<Item = PageRange>) {
        let head = self.head();
        let version = head.ranges_version.load(Relaxed);
        head.ranges_version.store(version.wrapping_add(1), Relaxed);
        core::sync::atomic::fence(Release);
        let mut count = 0;
        for pages in ranges {
            if let Some(range) = head.adopted.get(count) {
                range.start.store(pages.start().0, Relaxed);
                range.end.store(pages.end().0, Relaxed);
            }
            count += 1;
        }
        head.ranges.store(count, Relaxed);
        head.ranges_version.store(version.wrapping_add(2), Release);
    }

    /// Notes that a device with so many frames is there, or with none that there is none any more.
    pub(crate) fn note_device(&self, device: DeviceIndex, frames: usize) {
        let shown = &self.head().devices[device.number()];
        shown.lost.store(0, Relaxed);
        shown.frames.store(frames, Release);
    }

    /// Notes that the address space is closed.
    pub(crate) fn close(&self) {
        self.head().open.store(CLOSED, Release);
    }

    /// Notes that a device's memory is gone.
    pub(crate) fn note_lost(&self, device: DeviceIndex) {
        self.head().devices[device.number()].lost.store(1, Relaxed);
    }
}

impl Head {
    /// The ranges that are adopted, and whether these are all. None where they change all the time.
    pub(super) fn adopted_ranges(&self, mut each: impl FnMut(usize, usize)) -> Option<bool> {
        let version = self.ranges_version.load(Acquire);
        let count = self.ranges.load(Relaxed);
        let mut ranges = [(0, 0); RANGES];
        for (range, (start, end)) in self.adopted.iter().zip(&mut ranges) {
            *start = range.start.load(Relaxed);
            *end = range.end.load(Relaxed);
        }
        core::sync::atomic::fence(Acquire);
        if version % 2 == 1 || self.ranges_version.load(Relaxed) != version {
            return None;
        }
        ranges.iter().take(count).for_each(|&(start, end)| each(start, end));
        Some(count <= RANGES)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.close();
        match &self.memory {
            Memory::Own(memory) => {
                // SAFETY: it was made of a box in that memory, and nobody has a part any more.
                drop(unsafe { EngineBox::from_raw(self.head.as_ptr(), memory.clone()) });
            }
            #[cfg(not(any(shuttle, miri)))]
            Memory::Shown { .. } => {}
        }
    }
}
