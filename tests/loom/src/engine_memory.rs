//! Engine memory that is the heap, and never used up.
#![expect(clippy::unnecessary_wraps, reason = "in the core they can fail")]

use core::{convert::Infallible, ops::Deref};

pub type EngineMemoryError = Infallible;

#[derive(Clone, Debug)]
pub struct EngineMemory;

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
