//! Which mirror's callback the calling thread runs, if any: who drops that very mirror from within
//! must not wait for the callback to end.

use core::cell::Cell;

#[cfg(shuttle)]
shuttle::thread_local! {
    static CALLING: Cell<u64> = Cell::new(0);
}

/// What `look` answers of the note of this thread.
fn with_note<R>(look: impl FnOnce(&Cell<u64>) -> R) -> R {
    #[cfg(shuttle)]
    return CALLING.with(look);
    #[cfg(not(shuttle))]
    look(&crate::sync::this_thread().calling)
}

/// Runs a callback of the mirror with this number, which is not 0.
pub(super) fn call(mirror: u64, callback: impl FnOnce()) {
    with_note(|calling| calling.set(mirror));
    callback();
    with_note(|calling| calling.set(0));
}

/// Whether the calling thread runs a callback of the mirror with this number.
pub(super) fn is_calling(mirror: u64) -> bool {
    with_note(Cell::get) == mirror
}
