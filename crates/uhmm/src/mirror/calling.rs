//! Which mirror's callback the calling thread runs, if any: who drops that very mirror from within
//! must not wait for the callback to end.

use core::cell::Cell;

#[cfg(not(shuttle))]
std::thread_local! {
    static CALLING: Cell<u64> = const { Cell::new(0) };
}

#[cfg(shuttle)]
shuttle::thread_local! {
    static CALLING: Cell<u64> = Cell::new(0);
}

/// Runs a callback of the mirror with this number, which is not 0.
pub(super) fn call(mirror: u64, callback: impl FnOnce()) {
    CALLING.with(|calling| calling.set(mirror));
    callback();
    CALLING.with(|calling| calling.set(0));
}

/// Whether the calling thread runs a callback of the mirror with this number.
pub(super) fn is_calling(mirror: u64) -> bool {
    CALLING.with(Cell::get) == mirror
}
