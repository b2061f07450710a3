//! Engine memory that is the heap, and never used up. What is freed twice, or never, fails the test.
#![expect(clippy::unnecessary_wraps, reason = "in the core they can fail")]

use core::{
    convert::Infallible,
    mem,
    ops::Deref,
    ptr::{self, NonNull},
};

use loom::alloc::{self, Layout};

pub type EngineMemoryError = Infallible;

#[derive(Clone, Debug)]
pub struct EngineMemory;

/// As in the core.
///
/// # Safety
/// None here: defaults are made one by one.
pub unsafe trait ZeroDefault: Default {}

/// As in the core.
///
/// # Invariants
/// The pointer is to a value in a block of its layout, which the box owns.
#[derive(Debug)]
pub struct EngineBox<T: ?Sized>(NonNull<T>);

// SAFETY: the box owns its value.
unsafe impl<T: ?Sized + Send> Send for EngineBox<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Sync> Sync for EngineBox<T> {}

/// Room for `len` values, which are not none.
fn obtain<T>(len: usize) -> NonNull<T> {
    let layout = Layout::array::<T>(len).unwrap();
    // SAFETY: the layout is not empty.
    NonNull::new(unsafe { alloc::alloc(layout) }).unwrap().cast()
}

impl<T> EngineBox<T> {
    pub fn try_new(_memory: &EngineMemory, value: T) -> Result<Self, EngineMemoryError> {
        let at = obtain(1);
        // SAFETY: there is room for one.
        unsafe { at.write(value) };
        Ok(Self(at))
    }
}

impl<T: ZeroDefault> EngineBox<[T]> {
    pub fn try_zeroed(_memory: &EngineMemory, len: usize) -> Result<Self, EngineMemoryError> {
        let first = obtain(len);
        for place in 0..len {
            // SAFETY: there is room for so many.
            unsafe { first.add(place).write(T::default()) };
        }
        Ok(Self(NonNull::slice_from_raw_parts(first, len)))
    }
}

impl<T: ?Sized> EngineBox<T> {
    pub fn into_raw(this: Self) -> (*mut T, EngineMemory) {
        let raw = this.0.as_ptr();
        mem::forget(this);
        (raw, EngineMemory)
    }

    /// # Safety
    /// As in the core.
    pub unsafe fn from_raw(value: *mut T, _memory: EngineMemory) -> Self {
        Self(NonNull::new(value).unwrap())
    }
}

impl<T: ?Sized> Deref for EngineBox<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: by the invariant.
        unsafe { self.0.as_ref() }
    }
}

impl<T: ?Sized> Drop for EngineBox<T> {
    fn drop(&mut self) {
        let layout = Layout::for_value::<T>(self);
        // SAFETY: by the invariant; it is not used again.
        unsafe {
            ptr::drop_in_place(self.0.as_ptr());
            alloc::dealloc(self.0.cast().as_ptr(), layout);
        }
    }
}

#[derive(Debug)]
pub struct EngineVec<T>(Vec<T>);

impl<T> EngineVec<T> {
    pub(crate) fn try_with_capacity(
        _memory: &EngineMemory,
        capacity: usize,
    ) -> Result<Self, EngineMemoryError> {
        Ok(Self(Vec::with_capacity(capacity)))
    }

    pub(crate) fn try_push(&mut self, value: T) -> Result<(), EngineMemoryError> {
        self.0.push(value);
        Ok(())
    }
}

impl<T> Deref for EngineVec<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}
