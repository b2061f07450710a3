//! Engine memory: all that the fault path touches lives here.
//!
//! While a fault is served, any page of the program may be away, and any lock of the program may be
//! held by a thread that waits for that very fault. So the threads, tables and queues of the fault
//! path use no memory of the program's: [`EngineMemory`] is a mapping of our own with an allocator
//! in it, [`EngineVec`] and [`EngineBox`] are collections on it that report exhaustion as an error,
//! and [`thread`] starts threads whose stacks are in it.
//!
//! The allocator takes a leaf lock for a few instructions, with signals blocked, and makes system
//! calls under it only to grow. Work that cannot be given up has a reserve. What it hands out, it hands out from slabs (small objects of one
//! size on a page) or as runs of pages; memory of large runs goes back to the system when they are
//! freed. Our mappings are registered with no userfaultfd, so none of that raises an event.

mod allocator;
mod backing;
mod boxed;
mod error;
mod memory;
mod pages;
mod slabs;
pub mod thread;
mod urgent;
mod vec;

#[cfg(test)]
mod tests;

pub use boxed::{EngineBox, ZeroDefault};
pub use error::{EngineMemoryError, SpawnError};
pub use memory::{EngineMemory, Refused};
pub use thread::{EngineThread, on_engine_thread};
pub(crate) use urgent::Urgent;
pub use vec::EngineVec;
