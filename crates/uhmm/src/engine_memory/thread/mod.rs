//! Engine threads: threads that use nothing of the program's.
//!
//! A thread's stack and closure are in engine memory, and all signals are blocked on it for good,
//! from before its first instruction. std's threads allocate in the process's heap, so these are
//! the system's own.
//!
//! Two things are exceptions. libc keeps a thread's control block at the top of its stack, on a
//! list that the child of a fork walks: stacks are the one part of engine memory that a fork
//! inherits, as a copy that nobody uses. And the signal by which libc changes the credentials of
//! all threads stays open, or the program's `setuid` would wait for ever; its handler touches only
//! control blocks and the stack of its caller, which never leave main memory.

#[cfg(not(any(shuttle, miri)))]
mod linux;
#[cfg(not(any(shuttle, miri)))]
mod stack;
#[cfg(any(shuttle, miri))]
mod world;

#[cfg(not(any(shuttle, miri)))]
use linux as system;
#[cfg(any(shuttle, miri))]
use world as system;

use core::ffi::CStr;

use super::{EngineMemory, SpawnError};
use crate::sync::SignalsBlocked;

/// Starts a thread on a stack in `memory` that runs `run`, and returns when it has begun.
///
/// The first 15 bytes of `name` are the thread's name. Starting a thread uses the process's heap
/// (libc keeps a table there for each thread): start them before anything is away. A panic in
/// `run` ends the process.
///
/// # Errors
/// [`SpawnError`] where there is no memory for the stack, or the system refuses a thread.
pub fn spawn<F>(
    memory: &EngineMemory,
    name: &'static CStr,
    run: F,
) -> Result<EngineThread, SpawnError>
where
    F: FnOnce(&SignalsBlocked) + Send + 'static,
{
    system::Running::spawn(memory, name, run).map(|running| EngineThread { running })
}

/// Whether the calling thread is an engine thread. Allocates nothing.
pub fn on_engine_thread() -> bool {
    system::on_engine_thread()
}

/// A thread of the engine. Dropping it waits for the thread's end.
#[derive(Debug)]
pub struct EngineThread {
    running: system::Running,
}

impl EngineThread {
    /// Waits for the thread's end.
    pub fn join(self) {
        drop(self);
    }

    /// The system's number of the thread.
    pub fn thread_id(&self) -> u32 {
        self.running.thread_id()
    }
}
