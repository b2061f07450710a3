//! The engine's side of what is shown of pages.

use core::{
    ptr::{NonNull, addr_of_mut},
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::layout::{self, ALIKE, PLACES, Place};
use crate::{
    driver::DeviceIndex,
    units::{BLOCK_PAGES, BlockNumber, PageRange},
};

/// Who holds a page, as a byte: zero where nothing was ever noted, or nobody does any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held(pub(super) u8);

/// The bit of what was lost with its device.
pub(super) const LOST: u8 = 1 << 7;
/// The bit of what came back.
pub(super) const CAME_BACK: u8 = 1 << 6;
/// The bit of what a device has alone.
pub(super) const EXCLUSIVE: u8 = 1 << 5;
/// The bits of a device's number, and one.
pub(super) const DEVICE: u8 = EXCLUSIVE - 1;

impl Held {
    /// It is nobody's any more.
    pub(crate) const NOBODY: Self = Self(0);

    /// It came back to system memory.
    pub(crate) const SYSTEM: Self = Self(CAME_BACK);

    /// It was lost with its device.
    pub(crate) const LOST: Self = Self(LOST);

    /// A device has it, and perhaps alone.
    pub(crate) const fn device(device: DeviceIndex, exclusive: bool) -> Self {
        Self((device.0 + 1) | if exclusive { EXCLUSIVE } else { 0 })
    }
}

/// The bit of all mirrors of devices without memory.
pub(super) const MIRRORS: u32 = 1 << 31;

/// Where it is noted who holds pages, if that is shown.
///
/// # Invariants
/// `map` points to a [`layout::Map`] that lives as long as self, of which this process writes and reads
/// what is atomic by that, and what a block holds under the block's lock.
#[derive(Debug)]
pub(crate) struct Map {
    map: NonNull<layout::Map>,
}

// SAFETY: by the invariant all that threads reach at the same time is atomic.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// # Safety
    /// The invariant, from here on.
    pub(super) const unsafe fn new(map: NonNull<layout::Map>) -> Self {
        Self { map }
    }

    fn places(&self) -> &[Place; PLACES] {
        // SAFETY: by the invariant; the reference is to atomics alone.
        unsafe { &(*self.map.as_ptr()).places }
    }

    /// The place of a block, which it gets if it has none. None where there is no room.
    fn place(&self, block: BlockNumber, left_out: &AtomicU64) -> Option<usize> {
        let name = block.0 as u64 + 1;
        for place in layout::places_of(block) {
            let noted = &self.places()[place].block;
            let found = match noted.load(Relaxed) {
                0 => noted
                    .compare_exchange(0, name, Acquire, Relaxed)
                    .map_or_else(|other| other, |_| name),
                other => other,
            };
            if found == name {
                return Some(place);
            }
        }
        left_out.fetch_add(1, Relaxed);
        None
    }

    /// The place of a block that has one.
    fn known_place(&self, block: BlockNumber) -> Option<usize> {
        let name = block.0 as u64 + 1;
        layout::places_of(block)
            .map(|place| (place, self.places()[place].block.load(Relaxed)))
            .take_while(|&(_, noted)| noted != 0)
            .find(|&(_, noted)| noted == name)
            .map(|(place, _)| place)
    }

    /// Notes who holds pages of one block, whose lock is held.
    pub(super) fn note_held(&self, pages: PageRange, held: Held, left_out: &AtomicU64) {
        let block = pages.start().block();
        let first = pages.start().in_block();
        debug_assert!(first + pages.len() <= BLOCK_PAGES, "pages of one block");
        let Some(place) = self.place(block, left_out) else { return };
        let alike = &self.places()[place].alike;
        if pages.len() == BLOCK_PAGES {
            return alike.store(ALIKE | u32::from(held.0), Release);
        }
        // SAFETY: by the invariant the map is there, and the pages are of one block; what a block
        // holds is written under its lock, by the caller, and not read here.
        unsafe {
            let row = addr_of_mut!((*self.map.as_ptr()).held[place]).cast::<u8>();
            let before = alike.load(Relaxed);
            if before != 0 {
                // From here on it is told of each page.
                row.write_bytes(before.to_le_bytes()[0], BLOCK_PAGES);
                alike.store(0, Release);
            }
            row.add(first).write_bytes(held.0, pages.len().min(BLOCK_PAGES - first));
        }
    }

    /// Notes why pages stayed.
    pub(super) fn note_stayed(&self, pages: PageRange, cause: u8, left_out: &AtomicU64) {
        for part in pages.by_block() {
            let Some(place) = self.place(part.start().block(), left_out) else { return };
            // SAFETY: by the invariant; the reference is to atomics alone.
            let stayed = unsafe { &(*self.map.as_ptr()).stayed[place] };
            for page in &stayed[part.start().in_block()..][..part.len()] {
                page.store(cause, Relaxed);
            }
        }
    }

    /// Notes that a device, or a mirror of none, was given translations of a block to where its pages
    /// are.
    pub(super) fn note_mapped(
        &self,
        block: BlockNumber,
        by: Option<DeviceIndex>,
        left_out: &AtomicU64,
    ) {
        let bit = by.map_or(MIRRORS, |device| 1 << device.0);
        if let Some(place) = self.place(block, left_out) {
            let word = &self.places()[place].mapped_by;
            if word.load(Relaxed) & bit == 0 {
                word.fetch_or(bit, Relaxed);
            }
        }
    }

    /// Notes that nobody has such a translation of a block any more.
    pub(super) fn note_unmapped(&self, block: BlockNumber) {
        if let Some(place) = self.known_place(block) {
            self.places()[place].mapped_by.store(0, Relaxed);
        }
    }
}

#[cfg(all(test, not(any(shuttle, miri))))]
mod tests {
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::{super::memfd::Shown, Held, Map, PLACES};
    use crate::units::BlockNumber;

    /// Twice as many neighbours as there are places: each place is somebody's, and who has none is told
    /// so after few looks.
    #[test]
    fn blocks_that_find_no_place_are_left_out() {
        let shown = Shown::new(4096).unwrap();
        // SAFETY: the memory lives to the end of the test, and is written through this alone.
        let map = unsafe { Map::new(shown.map()) };
        let left_out = AtomicU64::new(0);
        for block in (0..2 * PLACES).map(BlockNumber) {
            map.note_held(block.pages(), Held::SYSTEM, &left_out);
        }
        let with_place =
            (0..2 * PLACES).filter(|&block| map.known_place(BlockNumber(block)).is_some());
        let with_place = with_place.count() as u64;
        assert_eq!(left_out.load(Relaxed) + with_place, 2 * PLACES as u64);
        assert!(with_place > PLACES as u64 * 9 / 10, "{with_place} of {PLACES} places");
    }
}
