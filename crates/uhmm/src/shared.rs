//! A counted reference to a value in engine memory: what `Arc` is for the heap.

use core::{marker::PhantomData, ops::Deref, ptr::NonNull};

use crate::{
    engine_memory::{EngineBox, EngineMemory, EngineMemoryError},
    sync::atomic::{
        AtomicUsize,
        Ordering::{AcqRel, Relaxed},
    },
};

#[derive(Debug)]
struct Counted<T> {
    references: AtomicUsize,
    memory: EngineMemory,
    value: T,
}

/// A reference to a `T` in engine memory that keeps it alive.
///
/// # Invariants
/// `counted` came from `EngineBox::into_raw` and lives while `references` is not zero, which counts
/// the `Shared` that point to it.
#[derive(Debug)]
pub struct Shared<T> {
    counted: NonNull<Counted<T>>,
    owns: PhantomData<Counted<T>>,
}

// SAFETY: as for `Arc`: the value is reached from any thread that has a reference and dropped by
// the last.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Moves `value` into `memory`, with one reference to it.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where the memory cannot be had; the value is dropped then.
    pub fn try_new(value: T, memory: &EngineMemory) -> Result<Self, EngineMemoryError> {
        let counted = Counted { references: AtomicUsize::new(1), memory: memory.clone(), value };
        let (counted, _) = EngineBox::into_raw(EngineBox::try_new(memory, counted)?);
        // SAFETY: a box's pointer is not null.
        let counted = unsafe { NonNull::new_unchecked(counted) };
        Ok(Self { counted, owns: PhantomData })
    }

    fn counted(&self) -> &Counted<T> {
        // SAFETY: by the invariant it lives as long as self.
        unsafe { self.counted.as_ref() }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        self.counted().references.fetch_add(1, Relaxed);
        Self { counted: self.counted, owns: PhantomData }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.counted().value
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if self.counted().references.fetch_sub(1, AcqRel) == 1 {
            // The memory is kept until the value, which lies in it, is gone.
            let memory = self.counted().memory.clone();
            // SAFETY: by the invariant it came from `into_raw`, and this was the last reference.
            drop(unsafe { EngineBox::from_raw(self.counted.as_ptr(), memory) });
        }
    }
}

#[cfg(all(test, not(loom)))]
#[path = "shared/tests.rs"]
mod tests;
