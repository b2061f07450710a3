//! A check of the lock order in debug builds: one block lock at a time, and nothing that can sleep
//! for another thread's turn inside a gate section.

#[cfg(all(debug_assertions, not(any(shuttle, miri))))]
mod checked {
    use crate::sync::this_thread;

    /// Notes that this thread asks for a block's lock.
    pub(crate) fn block_wanted() {
        let (blocks, sections) = this_thread().held.get();
        if blocks != 0 || sections != 0 {
            crate::abort::abort(b"lock order: a block's lock was asked for under another lock");
        }
    }

    /// Notes that this thread got a block's lock.
    pub(crate) fn block_taken() {
        let (blocks, sections) = this_thread().held.get();
        this_thread().held.set((blocks + 1, sections));
    }

    /// Notes that this thread let a block's lock go.
    pub(crate) fn block_released() {
        let (blocks, sections) = this_thread().held.get();
        this_thread().held.set((blocks.saturating_sub(1), sections));
    }

    /// Notes that this thread asks for a stay inside the gate.
    pub(crate) fn gate_wanted() {
        let (blocks, sections) = this_thread().held.get();
        if sections != 0 {
            crate::abort::abort(b"lock order: the gate was entered twice by one thread");
        }
        this_thread().held.set((blocks, 1));
    }

    /// Notes that this thread left the gate.
    pub(crate) fn gate_left() {
        this_thread().held.set((this_thread().held.get().0, 0));
    }
}

#[cfg(all(debug_assertions, not(any(shuttle, miri))))]
pub(crate) use checked::{block_released, block_taken, block_wanted, gate_left, gate_wanted};

#[cfg(not(all(debug_assertions, not(any(shuttle, miri)))))]
mod unchecked {
    pub(crate) const fn block_wanted() {}
    pub(crate) const fn block_taken() {}
    pub(crate) const fn block_released() {}
    pub(crate) const fn gate_wanted() {}
    pub(crate) const fn gate_left() {}
}

#[cfg(not(all(debug_assertions, not(any(shuttle, miri)))))]
pub(crate) use unchecked::{block_released, block_taken, block_wanted, gate_left, gate_wanted};
