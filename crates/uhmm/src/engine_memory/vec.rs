//! A growing array in engine memory.

use core::{
    fmt, mem,
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use allocator_api2::vec::Vec;

use super::{EngineMemory, EngineMemoryError, boxed::array};

/// A vector in engine memory: what grows it can fail, and says why.
pub struct EngineVec<T>(Vec<T, EngineMemory>);

impl<T> EngineVec<T> {
    /// An empty vector, which takes no memory yet.
    pub const fn new(memory: EngineMemory) -> Self {
        Self(Vec::new_in(memory))
    }

    /// An empty vector with room for `capacity` values.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where the memory cannot be had.
    pub fn try_with_capacity(
        memory: &EngineMemory,
        capacity: usize,
    ) -> Result<Self, EngineMemoryError> {
        let mut vec = Self::new(memory.clone());
        vec.resize_to(capacity)?;
        Ok(vec)
    }

    /// Makes room for `additional` values more.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where the memory cannot be had; the vector is as it was.
    pub fn try_reserve(&mut self, additional: usize) -> Result<(), EngineMemoryError> {
        if self.0.capacity() - self.0.len() >= additional {
            return Ok(());
        }
        let needed = self.0.len().saturating_add(additional);
        let doubled = self.0.capacity().saturating_mul(2).max(4);
        self.resize_to(needed.max(doubled)).or_else(|_| self.resize_to(needed))
    }

    /// Makes room for `capacity` values, which is no less than there is room for now.
    fn resize_to(&mut self, capacity: usize) -> Result<(), EngineMemoryError> {
        if size_of::<T>() == 0 || capacity <= self.0.capacity() {
            return Ok(());
        }
        let memory = self.0.allocator().clone();
        let new = array::<T>(&memory, capacity)?;
        let old = array::<T>(&memory, self.0.capacity())?;
        let vec = mem::replace(&mut self.0, Vec::new_in(memory.clone()));
        let (at, len, before, owner) = vec.into_raw_parts_with_alloc();
        // SAFETY: the pointer of a vector is not null.
        let at = unsafe { NonNull::new_unchecked(at) };
        let resized = if before == 0 {
            memory.obtain(new, false)
        } else {
            // SAFETY: the block is the vector's, for `before` values, and the new size is larger.
            unsafe { memory.resize(at.cast(), old, new) }
        };
        let (at, capacity) = match &resized {
            Ok(block) => (block.cast::<T>(), block.len() / size_of::<T>()),
            Err(_) => (at, before),
        };
        // SAFETY: the block has room for `capacity` values, the first `len` were moved or are still
        // there; where nothing was resized these are the parts as they were.
        self.0 = unsafe { Vec::from_raw_parts_in(at.as_ptr(), len, capacity, owner) };
        resized.map(|_| ())
    }

    /// Gives back what is not needed to have room for `capacity` values, or for those that there are.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where they cannot be moved for want of memory; the vector is as it was.
    pub fn try_shrink(&mut self, capacity: usize) -> Result<(), EngineMemoryError> {
        let mut smaller = Self::try_with_capacity(self.memory(), capacity.max(self.len()))?;
        smaller.0.append(&mut self.0);
        *self = smaller;
        Ok(())
    }

    /// How many values there is room for.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// The memory that it is in.
    pub fn memory(&self) -> &EngineMemory {
        self.0.allocator()
    }

    /// Appends `value`.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where the memory cannot be had; the value is dropped then, and the
    /// vector is as it was.
    pub fn try_push(&mut self, value: T) -> Result<(), EngineMemoryError> {
        self.try_reserve(1)?;
        self.0.push(value);
        Ok(())
    }

    /// Puts `value` at `index`, before what is there now; at the end where `index` is the length.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where the memory cannot be had; the value is dropped then, and the
    /// vector is as it was.
    ///
    /// # Panics
    /// Where `index` is past the length.
    pub fn try_insert(&mut self, index: usize, value: T) -> Result<(), EngineMemoryError> {
        self.try_reserve(1)?;
        self.0.insert(index, value);
        Ok(())
    }

    /// Appends clones of `values`.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where the memory cannot be had; the vector is as it was then.
    pub fn try_extend_from_slice(&mut self, values: &[T]) -> Result<(), EngineMemoryError>
    where
        T: Clone,
    {
        self.try_reserve(values.len())?;
        self.0.extend_from_slice(values);
        Ok(())
    }

    /// Takes the last value out; `None` where there is none.
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// Takes the value at `index` out and moves those behind it up; `None` where there is none.
    pub fn remove(&mut self, index: usize) -> Option<T> {
        (index < self.0.len()).then(|| self.0.remove(index))
    }

    /// Takes the value at `index` out and puts the last one there; `None` where there is none.
    pub fn swap_remove(&mut self, index: usize) -> Option<T> {
        (index < self.0.len()).then(|| self.0.swap_remove(index))
    }

    /// Drops all values from the place `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Drops all values. The room stays.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl<T> Deref for EngineVec<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for EngineVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for EngineVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
