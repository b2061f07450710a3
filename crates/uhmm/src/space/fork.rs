//! A fork sees its moment: what is away comes back before libc forks, and nothing leaves until it
//! has.
//!
//! The kernel copies page tables, and a page that is away is a hole in them: a child would read
//! zeros. Engine memory and staging are not inherited, so a child has no engine to ask. The hook is
//! libc's, which runs it for `fork`; `vfork`, `posix_spawn` and threads share the memory and need
//! none. A process created by the bare system call is not seen here.

#![expect(
    clippy::disallowed_types,
    reason = "the hooks run on the program's threads, with no engine lock held"
)]

use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use crate::{
    mm::{Mm, linux::Linux},
    report::Migration,
    shared::Shared,
    sync::SignalsBlocked,
};

use super::Engine;

type Registered = Option<Shared<Engine<Linux>>>;

/// The engine of this process, and whether a fork is under way.
struct Forking {
    engine: Mutex<Registered>,
    /// Held from before a fork until after it, by the thread that forks.
    under_way: Mutex<Option<MutexGuard<'static, Registered>>>,
}

// SAFETY: the guard in `under_way` is taken, kept and let go by the one thread that forks: libc runs
// the hooks before and after a fork on it, and keeps other forks out meanwhile.
unsafe impl Sync for Forking {}

static FORKING: Forking = Forking { engine: Mutex::new(None), under_way: Mutex::new(None) };
static HOOKS: Once = Once::new();

/// Makes forks of this process wait for `engine`.
pub(super) fn watch(engine: &Shared<Engine<Linux>>) {
    HOOKS.call_once(|| {
        // SAFETY: the hooks are functions of this library, which is not unloaded while it is used.
        let refused =
            unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
        if refused != 0 {
            crate::abort::abort(b"libc has no memory for a fork hook (pthread_atfork)");
        }
    });
    *lock(&FORKING.engine) = Some(engine.clone());
}

/// Lets forks go as if there were no engine. Waits for one that is under way.
pub(super) fn unwatch() {
    let engine = lock(&FORKING.engine).take();
    drop(engine);
}

fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn before() {
    let guard = lock(&FORKING.engine);
    if let Some(engine) = &*guard {
        engine.before_fork();
    }
    *lock(&FORKING.under_way) = Some(guard);
}

extern "C" fn in_parent() {
    let guard = lock(&FORKING.under_way).take();
    if let Some(engine) = guard.as_ref().and_then(|guard| guard.as_ref()) {
        engine.after_fork();
    }
}

extern "C" fn in_child() {
    let guard = lock(&FORKING.under_way).take();
    if let Some(mut guard) = guard {
        // The engine's memory is not here, so its count cannot be touched.
        core::mem::forget(guard.take());
    }
}

impl<M: Mm> Engine<M> {
    fn before_fork(&self) {
        self.gate.alone(&SignalsBlocked::new()).forking = true;
        let mut report = Migration::new(&self.memory);
        self.bring_everything_back(None, &mut report);
        if report.stayed() > 0 {
            crate::abort::abort(
                b"pages that are on a device could not be brought back before a fork: the child \
                  would read zeros",
            );
        }
    }

    fn after_fork(&self) {
        let signals = SignalsBlocked::new();
        self.gate.alone(&signals).forking = false;
        self.gate.tell_opened();
    }
}
