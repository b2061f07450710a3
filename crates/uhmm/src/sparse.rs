//! A table over a large range of indices, most of which are never used.
//!
//! Two levels of directory in engine memory. What is not touched takes no memory, an entry once made
//! stays where it is until the table goes, and finding one takes no lock: so page tables and the
//! records of blocks can be read while they grow.

use core::{fmt, ptr};

use crate::{
    engine_memory::{EngineBox, EngineMemory, EngineMemoryError, ZeroDefault},
    sync::atomic::{
        AtomicPtr,
        Ordering::{AcqRel, Acquire},
    },
};

const MIDDLE: usize = if cfg!(any(shuttle, miri, loom)) { 4 } else { 4096 };

/// A place of a directory: null, or a value made by `EngineBox::into_raw`.
struct Slot<T>(AtomicPtr<T>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }
}

// SAFETY: a null pointer is all zeros on the systems that this is built for.
unsafe impl<T> ZeroDefault for Slot<T> {}

impl<T> Slot<T> {
    fn get(&self) -> Option<&T> {
        // SAFETY: by the table's invariant it is null or points to a value that lives as long.
        unsafe { self.0.load(Acquire).as_ref() }
    }

    fn get_or_make(
        &self,
        memory: &EngineMemory,
        make: impl FnOnce() -> Result<EngineBox<T>, EngineMemoryError>,
    ) -> Result<&T, EngineMemoryError> {
        if let Some(value) = self.get() {
            return Ok(value);
        }
        let (made, _) = EngineBox::into_raw(make()?);
        match self.0.compare_exchange(ptr::null_mut(), made, AcqRel, Acquire) {
            // SAFETY: it is in the table now.
            Ok(_) => Ok(unsafe { &*made }),
            Err(other) => {
                // SAFETY: made just above and seen by nobody else.
                drop(unsafe { EngineBox::from_raw(made, memory.clone()) });
                // SAFETY: another thread put it there; by the invariant it is valid.
                Ok(unsafe { &*other })
            }
        }
    }

    /// # Safety
    /// Nobody has a reference to the value, and the slot is not used again.
    unsafe fn free(&self, memory: &EngineMemory) {
        let value = self.0.load(Acquire);
        if !value.is_null() {
            // SAFETY: by the invariant it came from `into_raw`; the caller gives it up.
            drop(unsafe { EngineBox::from_raw(value, memory.clone()) });
        }
    }
}

/// A middle directory.
type Middle<T> = [Slot<T>; MIDDLE];

/// A table of `T` in engine memory, for indices below a limit.
///
/// # Invariants
/// A slot is null, or holds a pointer made by `EngineBox::into_raw` that never changes again.
pub struct SparseTable<T> {
    memory: EngineMemory,
    top: EngineBox<[Slot<Middle<T>>]>,
}

// SAFETY: the table owns its entries and hands out shared references.
unsafe impl<T: Send> Send for SparseTable<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for SparseTable<T> {}

impl<T> SparseTable<T> {
    /// An empty table for the indices below `limit`.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where its directory cannot be had.
    pub fn try_new(memory: &EngineMemory, limit: usize) -> Result<Self, EngineMemoryError> {
        let top = EngineBox::try_zeroed(memory, limit.div_ceil(MIDDLE))?;
        Ok(Self { memory: memory.clone(), top })
    }

    /// The entry at `index`, if it was made.
    pub fn get(&self, index: usize) -> Option<&T> {
        self.top.get(index / MIDDLE)?.get()?[index % MIDDLE].get()
    }

    /// The entry at `index`, which `make` makes if it was not; where two threads make it, one is
    /// kept. `None` where the index is beyond the limit.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where memory for it cannot be had.
    pub fn get_or_make(
        &self,
        index: usize,
        make: impl FnOnce() -> Result<T, EngineMemoryError>,
    ) -> Result<Option<&T>, EngineMemoryError> {
        let Some(top) = self.top.get(index / MIDDLE) else { return Ok(None) };
        let middle = top.get_or_make(&self.memory, || {
            let (slots, memory) =
                EngineBox::into_raw(EngineBox::<[Slot<T>]>::try_zeroed(&self.memory, MIDDLE)?);
            // SAFETY: an array has the layout of a slice of its length.
            Ok(unsafe { EngineBox::from_raw(slots.cast::<Middle<T>>(), memory) })
        })?;
        let make = || EngineBox::try_new(&self.memory, make()?);
        middle[index % MIDDLE].get_or_make(&self.memory, make).map(Some)
    }

    /// The entries that were made from index `first` up to, not including, `end`, in order.
    pub fn existing(&self, first: usize, end: usize) -> impl Iterator<Item = (usize, &T)> {
        let tops = first / MIDDLE..end.div_ceil(MIDDLE).min(self.top.len()).max(first / MIDDLE);
        tops.filter_map(|top| Some((top, self.top[top].get()?))).flat_map(move |(top, middle)| {
            let before = top * MIDDLE;
            let places = first.max(before) - before..end.min(before + MIDDLE) - before;
            places.filter_map(move |place| Some((before + place, middle[place].get()?)))
        })
    }
}

impl<T> Drop for SparseTable<T> {
    fn drop(&mut self) {
        for top in self.top.iter() {
            for slot in top.get().into_iter().flatten() {
                // SAFETY: the table is dropped, so no reference into it is left.
                unsafe { slot.free(&self.memory) };
            }
            // SAFETY: as above.
            unsafe { top.free(&self.memory) };
        }
    }
}

impl<T> fmt::Debug for SparseTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SparseTable").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
#[path = "sparse/tests.rs"]
mod tests;
