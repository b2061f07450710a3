//! A stack in engine memory.

use core::{alloc::Layout, ptr::NonNull};

use crate::engine_memory::{EngineMemory, EngineMemoryError, backing::page_size};

/// Bytes of a stack, the guard not counted. libc keeps the thread's control block and thread-local
/// variables in it too.
pub(super) const STACK_BYTES: usize = 256 << 10;

/// A stack with a guard page below it.
///
/// # Invariants
/// `start` is a block of `memory` for `layout`, ours alone. Its first page is a guard, and the rest
/// is inherited by a fork, until it is dropped.
#[derive(Debug)]
pub(super) struct Stack {
    memory: EngineMemory,
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its block, and only names it.
unsafe impl Send for Stack {}
// SAFETY: as above.
unsafe impl Sync for Stack {}

impl Stack {
    /// A stack in `memory`.
    pub(super) fn new(memory: &EngineMemory) -> Result<Self, EngineMemoryError> {
        let guard = page_size().bytes();
        let bytes = guard + STACK_BYTES.next_multiple_of(guard);
        let Ok(layout) = Layout::from_size_align(bytes, guard) else {
            return Err(EngineMemoryError::Limit { asked: bytes, most: memory.limit() });
        };
        let start = memory.obtain(layout, false)?.cast::<u8>();
        let stack = Self { memory: memory.clone(), start, layout };
        let refused = |errno| EngineMemoryError::Protect {
            address: start.addr().get(),
            bytes: layout.size(),
            errno,
        };
        let offset = memory.offset_of(start);
        let backing = memory.backing();
        // SAFETY: the block is ours alone, and its first page stays unused.
        unsafe { backing.guard(offset, guard) }.map_err(refused)?;
        backing.inherit(offset + guard, layout.size() - guard, true).map_err(refused)?;
        Ok(stack)
    }

    /// Where the usable part starts, and its length.
    pub(super) fn usable(&self) -> (NonNull<u8>, usize) {
        let guard = page_size().bytes();
        // SAFETY: by the invariant the block is larger than its guard.
        (unsafe { self.start.add(guard) }, self.layout.size() - guard)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let offset = self.memory.offset_of(self.start);
        let backing = self.memory.backing();
        let bytes = self.layout.size();
        // Where the system refuses, the block cannot be used for anything else: it is left.
        if backing.inherit(offset, bytes, false).is_ok() && backing.commit(offset, bytes).is_ok() {
            // SAFETY: by the invariant the block is ours, and it is as it was handed out.
            unsafe { self.memory.release(self.start, self.layout) };
        }
    }
}
