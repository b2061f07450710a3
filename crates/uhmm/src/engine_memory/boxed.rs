//! One value, or a slice of fixed length, in engine memory.

use core::{
    alloc::Layout,
    fmt,
    ops::{Deref, DerefMut},
    ptr,
};

use allocator_api2::boxed::Box;

use super::{EngineMemory, EngineMemoryError};

/// A value in engine memory, owned: a sized one, a slice, or a trait object.
///
/// A trait object is made from a sized value with [`engine_box_as!`](crate::engine_box_as).
pub struct EngineBox<T: ?Sized>(Box<T, EngineMemory>);

/// Types whose default value is all zero bytes, so that zeroed memory holds defaults.
///
/// # Safety
/// All bytes of the value of `Self::default()` are zero, or padding. (Under the schedule explorer
/// that is not relied upon: its atomics are none such.)
pub unsafe trait ZeroDefault: Default {}

macro_rules! zero_default {
    ($($type:ty)*) => {
        $(
            // SAFETY: the default of a number, a flag and an atomic of either is zero.
            unsafe impl ZeroDefault for $type {}
        )*
    };
}

zero_default! { bool u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize }
zero_default! {
    crate::sync::atomic::AtomicBool crate::sync::atomic::AtomicU8 crate::sync::atomic::AtomicU16
    crate::sync::atomic::AtomicU32 crate::sync::atomic::AtomicU64
    crate::sync::atomic::AtomicUsize
}

impl<T> EngineBox<T> {
    /// Moves `value` into `memory`.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where the memory cannot be had; the value is dropped then.
    pub fn try_new(memory: &EngineMemory, value: T) -> Result<Self, EngineMemoryError> {
        let at = memory.obtain(Layout::new::<T>(), false)?.cast::<T>();
        // SAFETY: the block is ours, for one `T`.
        unsafe {
            at.write(value);
            Ok(Self::from_raw(at.as_ptr(), memory.clone()))
        }
    }

    /// Moves the value out.
    pub fn into_value(this: Self) -> T {
        Box::into_inner(this.0)
    }
}

impl<T> EngineBox<[T]> {
    /// A slice of `len` defaults, which are zeros: for large tables the memory that they take is
    /// zero already, and pages of it that are not touched take none.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where the memory cannot be had.
    pub fn try_zeroed(memory: &EngineMemory, len: usize) -> Result<Self, EngineMemoryError>
    where
        T: ZeroDefault,
    {
        let layout = array::<T>(memory, len)?;
        let at = memory.obtain(layout, true)?.cast::<T>();
        #[cfg(shuttle)]
        for index in 0..len {
            // SAFETY: the block has room for `len` values.
            unsafe { at.add(index).write(T::default()) };
        }
        let slice = ptr::slice_from_raw_parts_mut(at.as_ptr(), len);
        // SAFETY: the block is ours, for `len` values, all zero bytes: the trait says that these
        // are values.
        Ok(unsafe { Self::from_raw(slice, memory.clone()) })
    }
}

/// The layout of `len` values.
pub(super) fn array<T>(memory: &EngineMemory, len: usize) -> Result<Layout, EngineMemoryError> {
    Layout::array::<T>(len).map_err(|_| memory.refused(usize::MAX, super::pages::Refusal::Full))
}

impl<T: ?Sized> EngineBox<T> {
    /// Takes the box apart; [`from_raw`](Self::from_raw) puts it together again.
    pub fn into_raw(this: Self) -> (*mut T, EngineMemory) {
        Box::into_raw_with_allocator(this.0)
    }

    /// A box from its parts.
    ///
    /// # Safety
    /// `value` points to a value in a block of `memory` for exactly its layout, and is nobody
    /// else's: what [`into_raw`](Self::into_raw) returned, or that unsized.
    pub unsafe fn from_raw(value: *mut T, memory: EngineMemory) -> Self {
        // SAFETY: the contracts are the same.
        Self(unsafe { Box::from_raw_in(value, memory) })
    }
}

/// Turns an [`EngineBox`](crate::engine_memory::EngineBox) of a sized value into one of a trait
/// object, or of an array into one of a slice: `engine_box_as!(boxed, dyn Trait)`.
#[macro_export]
macro_rules! engine_box_as {
    ($boxed:expr, $type:ty) => {{
        let (value, memory) = $crate::engine_memory::EngineBox::into_raw($boxed);
        // A coercion, not a cast: it compiles for unsizing only.
        let value: *mut $type = value;
        // SAFETY: both come from the same box, and unsizing keeps the layout.
        unsafe { $crate::engine_memory::EngineBox::from_raw(value, memory) }
    }};
}

impl<T: ?Sized> Deref for EngineBox<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> DerefMut for EngineBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for EngineBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
