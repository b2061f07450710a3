//! The fault buffer: where the queues of a device leave what they miss, and from where it is served in
//! batches.
//!
//! A device has many queues of work, and each can miss a page at any time. One after the other served
//! alone, the same page would be brought once for each queue that wants it, and a block be locked once for
//! each of its pages. So a fault is an entry in a buffer, and who serves takes many:
//!
//! | stage | type | what it is |
//! | --- | --- | --- |
//! | entered | [`Fault`] | a queue wants a page: to read, to write, for an atomic operation, or soon |
//! | drained | [`FaultBatch`] | the oldest entries, in their order |
//! | sorted | [`SortedFaults`] | by page, those of one page merged; each is told what became of it |
//! | replayed | | all queues of the batch go on at once: who was served tries again, who cannot be is cancelled |
//!
//! **Who serves.** A queue that waits for its fault serves the buffer itself where nobody does: alone it
//! pays for a few locks and for no other thread. Those that miss meanwhile are the next batch, and one of
//! them serves that. A thread of the device's own ([`FaultBuffer::next_batch`]) serves what nobody waits
//! for: hints of what will be wanted. Or it serves all, where queues are no threads of this process.
//!
//! **Order.** Entries are drained in the order in which they came, so a batch can be bounded, and no queue
//! is passed by. Within the batch they are sorted, and the pages come in the order of their addresses.
//!
//! **Overflow.** A queue that finds no room is held back, with its entry in its hand: it sleeps. As room is made
//! the entries that are held go into the buffer in the order in which they came, ahead of any newer one.
//!
//! **Stale entries** are dropped: those whose page has come meanwhile, as the device's own page table says
//! ([`Device::has`](crate::Device::has)), and those of a queue that was cancelled or closed since.
//!
//! **Cancellation.** A fault that cannot be served ends the work of its queue alone, which is told which
//! address and why ([`QueueCancelled`]). Where queues want one page for different accesses each gets what it
//! can have. A hint is never a reason to cancel.

mod batch;
mod buffer;
mod fault;
mod queue;
mod state;
#[cfg(all(test, not(any(shuttle, miri, loom))))]
mod tests;

pub use batch::{FaultBatch, FaultedPage, Replayed, SortedFaults};
pub use buffer::{FaultBuffer, OpenQueueError};
pub use fault::{Fault, FaultFailure, QueueCancelled, QueueNumber};
pub use queue::{FaultQueue, Serve, ServedElsewhere};
