//! libc's hooks, which it runs for `fork` on the thread that forks.
//!
//! A child has copies of all that is here, but not of the engine, which is in engine memory; one of a
//! bare system call may lack the heap too. So a process looks at statics alone until they say that
//! the engine is its own.

#![expect(
    clippy::disallowed_types,
    reason = "the hooks run on the program's threads, with no engine lock held"
)]

use std::{
    process,
    ptr::null_mut,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicPtr, AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use crate::{engine::Engine, mm::linux::Linux, shared::Shared};

type Registered = Option<Shared<Engine<Linux>>>;

/// The engine of a process, and whether a fork is under way.
struct Forking {
    engine: Mutex<Registered>,
    /// Held from before a fork until after it, by the thread that forks.
    under_way: Mutex<Option<MutexGuard<'static, Registered>>>,
    /// The number of that thread.
    forker: AtomicU32,
}

// SAFETY: the guard in `under_way` is taken, kept and let go by the one thread that forks: libc runs
// the hooks before and after a fork on it, and keeps other forks out meanwhile.
unsafe impl Sync for Forking {}

/// Of the process `OWNER`, and never dropped. A child makes its own: what it has of its parent's may
/// be locked by a thread that it has not.
static FORKING: AtomicPtr<Forking> = AtomicPtr::new(null_mut());
static OWNER: AtomicU32 = AtomicU32::new(0);
/// Whether libc has the hooks. A child of a fork that came between has them twice: so they may run
/// twice for a fork. No [`std::sync::Once`], which such a child would wait at for ever.
static HOOKED: AtomicBool = AtomicBool::new(false);

/// Makes forks of this process wait for `engine`. By who opens the one address space of a process.
pub(in crate::space) fn watch(engine: &Shared<Engine<Linux>>) {
    if !HOOKED.load(Relaxed) {
        // SAFETY: the hooks are functions of this library, which is not unloaded while it is used.
        let refused = unsafe { libc::pthread_atfork(Some(before), Some(in_parent), None) };
        if refused != 0 {
            crate::abort::abort(b"libc has no memory for a fork hook (pthread_atfork)");
        }
        HOOKED.store(true, Relaxed);
    }
    let forking = own().unwrap_or_else(|| {
        let forking: &'static Forking = Box::leak(Box::new(Forking {
            engine: Mutex::new(None),
            under_way: Mutex::new(None),
            forker: AtomicU32::new(0),
        }));
        FORKING.store((&raw const *forking).cast_mut(), Relaxed);
        OWNER.store(process::id(), Release);
        forking
    });
    *lock(&forking.engine) = Some(engine.clone());
}

/// Lets forks go as if there were no engine. Waits for one that is under way.
pub(in crate::space) fn unwatch() {
    if let Some(forking) = own() {
        let engine = lock(&forking.engine).take();
        drop(engine);
    }
}

/// What is kept for this process.
fn own() -> Option<&'static Forking> {
    if OWNER.load(Acquire) != process::id() {
        return None;
    }
    // SAFETY: it was leaked by this process.
    unsafe { FORKING.load(Relaxed).as_ref() }
}

fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn before() {
    let Some(forking) = own() else { return };
    // Not by the number that a thread keeps: the one that forked has its parent's in a child.
    let me = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    if forking.forker.load(Relaxed) == me {
        return;
    }
    let guard = lock(&forking.engine);
    forking.forker.store(me, Relaxed);
    if let Some(engine) = &*guard {
        engine.before_fork();
    }
    *lock(&forking.under_way) = Some(guard);
}

extern "C" fn in_parent() {
    let Some(forking) = own() else { return };
    let Some(guard) = lock(&forking.under_way).take() else { return };
    if let Some(engine) = &*guard {
        engine.after_fork();
    }
    forking.forker.store(0, Relaxed);
}
