//! The primitives on which threads meet: atomics, a word to wait on, a small lock, and the state in
//! which a thread may hold one.
//!
//! Three worlds share one interface. In a program they are the processor's atomics and the
//! kernel's futex; under the schedule explorer (`--cfg shuttle`) and the interpreter (Miri) they
//! are that tool's own, so that every order of the core's steps can be tried. Nothing here uses the
//! process's heap in a program, and no lock here can be held by code that is not ours.
//!
//! # Lock order
//! Whoever finds a range closed by the area gate waits before it takes any lock. Then: one block;
//! inside it a section of the gate, for the few calls of a commit; inside that the small [`Lock`]s
//! of one device, of pools and of the allocator, which are leaves. Never two of one kind at once.
//! Debug builds check it.

mod lock;
pub(crate) mod order;
mod patience;
mod signals;
mod this_thread;
mod wait_word;

/// What has one owner at a time. Another type in `tests/loom`, which finds two at a time.
pub(crate) use core::cell::UnsafeCell;
#[cfg(not(shuttle))]
pub use core::sync::atomic;
#[cfg(shuttle)]
pub use shuttle::sync::atomic;

pub use lock::{Lock, LockGuard};
pub(crate) use patience::Patience;
pub use signals::SignalsBlocked;
#[cfg_attr(
    any(shuttle, miri),
    allow(unused_imports, reason = "there are no signals in this world")
)]
pub(crate) use signals::{Blocked, change_blocked};
pub(crate) use this_thread::{ThisThread, this_thread};
pub use wait_word::WaitWord;

/// Lets other threads run.
pub fn yield_now() {
    #[cfg(not(any(shuttle, miri)))]
    rustix::thread::sched_yield();
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
    #[cfg(miri)]
    std::thread::yield_now();
}

/// Waits for a moment that is too short to let others run, where one can.
pub fn spin() {
    #[cfg(not(any(shuttle, miri)))]
    core::hint::spin_loop();
    #[cfg(any(shuttle, miri))]
    yield_now();
}

/// The system's number of the calling thread, which is not zero. (In the child of a fork it is the number that its
/// thread had in the parent, if that ever asked.)
#[cfg(not(any(shuttle, miri)))]
#[inline]
pub fn thread_id() -> u32 {
    let noted = &this_thread().id;
    let known = noted.get();
    if known != 0 {
        return known;
    }
    let id = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    noted.set(id);
    id
}

/// A number of the calling thread, distinct among those that live, and not zero.
#[cfg(any(shuttle, miri))]
pub fn thread_id() -> u32 {
    use core::hash::{Hash, Hasher};
    #[cfg(shuttle)]
    use shuttle::thread::current;
    #[cfg(miri)]
    use std::thread::current;
    struct Fold(u32);
    impl Hasher for Fold {
        fn finish(&self) -> u64 {
            self.0.into()
        }
        fn write(&mut self, bytes: &[u8]) {
            for &byte in bytes {
                self.0 = self.0.rotate_left(8) ^ u32::from(byte);
            }
        }
    }
    let mut fold = Fold(0);
    current().id().hash(&mut fold);
    fold.0.wrapping_add(1).max(1)
}
