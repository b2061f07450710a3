//! Engine threads under the schedule explorer and the interpreter: that tool's own.
#![cfg_attr(miri, expect(clippy::disallowed_methods, reason = "no program has this"))]
#![expect(clippy::disallowed_types, reason = "no program has this")]

use core::{cell::Cell, ffi::CStr};
use std::sync::Arc;

#[cfg(shuttle)]
use shuttle::{thread, thread_local};
#[cfg(miri)]
use std::{thread, thread_local};

use crate::{
    engine_memory::{EngineMemory, SpawnError},
    sync::{
        self, SignalsBlocked, WaitWord,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

thread_local! {
    static ON_ENGINE_THREAD: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn on_engine_thread() -> bool {
    ON_ENGINE_THREAD.with(Cell::get)
}

#[derive(Debug)]
pub(super) struct Running {
    thread: Option<thread::JoinHandle<()>>,
    id: u32,
}

impl Running {
    #[expect(clippy::unnecessary_wraps, reason = "the system's threads can be refused")]
    pub(super) fn spawn<F>(
        _memory: &EngineMemory,
        _name: &'static CStr,
        run: F,
    ) -> Result<Self, SpawnError>
    where
        F: FnOnce(&SignalsBlocked) + Send + 'static,
    {
        let begun = Arc::new((WaitWord::new(0), AtomicU32::new(0)));
        let tell = Arc::clone(&begun);
        let thread = thread::spawn(move || {
            ON_ENGINE_THREAD.with(|flag| flag.set(true));
            tell.1.store(sync::thread_id(), Relaxed);
            tell.0.set(1);
            run(&SignalsBlocked::for_good());
        });
        begun.0.wait_while(0);
        Ok(Self { thread: Some(thread), id: begun.1.load(Relaxed) })
    }

    pub(super) fn thread_id(&self) -> u32 {
        self.id
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            crate::abort::abort(b"an engine thread panicked");
        }
    }
}
