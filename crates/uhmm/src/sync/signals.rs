//! The state of a thread in which no signal handler runs on it.
//!
//! A handler that ran while its thread holds an engine lock could touch a page that is away, and
//! wait for a fault that needs that lock. So a lock can be taken only by who shows that signals are
//! blocked, and the proof is a type.

use core::marker::PhantomData;

use crate::processor::system_call;

/// Proof that all signals are blocked on this thread while the value lives.
///
/// Proofs nest, and only the outermost makes system calls. They are made directly: libc's own
/// function leaves the two signals out that libc sends itself, and those have handlers too.
#[derive(Debug)]
pub struct SignalsBlocked {
    this_thread: PhantomData<*mut ()>,
}

#[cfg(not(any(shuttle, miri)))]
mod nesting {
    use crate::sync::this_thread;

    #[inline]
    pub(super) fn enter(block: impl FnOnce() -> u64) {
        let noted = &this_thread().signals_blocked;
        let (proofs, before) = noted.get();
        let before = if proofs == 0 { block() } else { before };
        noted.set((proofs + 1, before));
    }

    #[inline]
    pub(super) fn leave(restore: impl FnOnce(u64)) {
        let noted = &this_thread().signals_blocked;
        let (proofs, before) = noted.get();
        noted.set((proofs - 1, before));
        if proofs == 1 {
            restore(before);
        }
    }
}

#[cfg(not(any(shuttle, miri)))]
impl SignalsBlocked {
    /// Blocks all signals on this thread until the value, and every other proof on this thread, is
    /// dropped.
    #[inline]
    pub fn new() -> Self {
        nesting::enter(|| change_blocked(Blocked::Only, u64::MAX));
        Self { this_thread: PhantomData }
    }

    /// Blocks all signals on this thread for good: for threads of the engine. Later proofs cost
    /// nothing.
    pub fn for_good() -> Self {
        core::mem::forget(Self::new());
        Self::new()
    }

    /// Whether there is such a proof on the calling thread: the engine is at work on it, or calls a
    /// device from there, and a lock of the engine may be held.
    pub fn are_here() -> bool {
        crate::sync::this_thread().signals_blocked.get().0 > 0
    }
}

/// How the set of a thread's blocked signals changes, by the numbers of `sigprocmask(2)`.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(any(shuttle, miri), allow(dead_code, reason = "there are no signals in this world"))]
pub(crate) enum Blocked {
    /// These too.
    With = libc::SIG_BLOCK as isize,
    /// Not these.
    Without = libc::SIG_UNBLOCK as isize,
    /// Just these.
    Only = libc::SIG_SETMASK as isize,
}

/// Changes which signals are blocked on this thread, a bit for each. Returns which were.
#[inline]
#[cfg_attr(any(shuttle, miri), allow(dead_code, reason = "there are no signals in this world"))]
pub(crate) fn change_blocked(how: Blocked, signals: u64) -> u64 {
    let mut before = 0_u64;
    let (set, old) = ((&raw const signals).addr(), (&raw mut before).addr());
    // SAFETY: both pointers are valid for the eight bytes of a kernel signal set, which the last
    // argument states; which signals are blocked is no invariant of code that runs on this thread.
    let result = unsafe {
        system_call(libc::SYS_rt_sigprocmask, [how as usize, set, old, size_of::<u64>()])
    };
    if result != 0 {
        crate::abort::abort(
            b"the system refuses to change which signals are blocked (rt_sigprocmask)",
        );
    }
    before
}

#[cfg(not(any(shuttle, miri)))]
impl Drop for SignalsBlocked {
    #[inline]
    fn drop(&mut self) {
        nesting::leave(|before| {
            change_blocked(Blocked::Only, before);
        });
    }
}

#[cfg(any(shuttle, miri))]
impl SignalsBlocked {
    /// There are no signals in this world.
    pub fn new() -> Self {
        Self { this_thread: PhantomData }
    }

    /// There are no signals in this world.
    pub fn for_good() -> Self {
        Self::new()
    }
}

impl Default for SignalsBlocked {
    fn default() -> Self {
        Self::new()
    }
}
