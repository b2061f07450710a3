//! A queue's side of the buffer: it enters what it misses, and waits.

use core::fmt;

use super::{
    batch::FaultBatch,
    buffer::{FaultBuffer, Next},
    fault::{QueueCancelled, QueueNumber},
};
use crate::driver::FaultAccess;

/// How a queue serves the buffer where nobody else does. Closures that take a batch are.
pub trait Serve {
    /// Whether it serves at all.
    const LEADS: bool;

    /// Serves a batch. Waits for no queue of the buffer.
    fn serve(&mut self, batch: FaultBatch<'_>);
}

impl<F: FnMut(FaultBatch<'_>)> Serve for F {
    const LEADS: bool = true;

    fn serve(&mut self, batch: FaultBatch<'_>) {
        self(batch);
    }
}

/// The queue serves nothing: others do, or a thread that asks for [batches](FaultBuffer::next_batch).
#[derive(Clone, Copy, Debug)]
pub struct ServedElsewhere;

impl Serve for ServedElsewhere {
    const LEADS: bool = false;

    fn serve(&mut self, batch: FaultBatch<'_>) {
        drop(batch);
    }
}

/// A queue of a fault buffer, for the one thread that works it off. What is left of it in the buffer as it is
/// dropped is dropped too.
pub struct FaultQueue<'a, S: Serve> {
    buffer: &'a FaultBuffer,
    number: QueueNumber,
    serve: S,
}

impl<'a, S: Serve> FaultQueue<'a, S> {
    pub(super) const fn new(buffer: &'a FaultBuffer, number: QueueNumber, serve: S) -> Self {
        Self { buffer, number, serve }
    }

    /// Its number.
    pub const fn number(&self) -> QueueNumber {
        self.number
    }

    /// Enters a fault, and returns when it is in the buffer. Where there is no room the queue is held back.
    ///
    /// # Errors
    /// [`QueueCancelled`] where an earlier fault could not be served: the queue's entries are gone, this one
    /// included. That is told once, and the queue can be used again.
    pub fn enter(&mut self, address: usize, access: FaultAccess) -> Result<(), QueueCancelled> {
        if self.buffer.enter(self.number, address, access)? {
            return Ok(());
        }
        self.wait_for(true)
    }

    /// Waits until all that the queue entered, but for hints, was replayed.
    ///
    /// # Errors
    /// [`QueueCancelled`] where one could not be served, as of [`enter`](Self::enter).
    pub fn wait(&mut self) -> Result<(), QueueCancelled> {
        self.wait_for(false)
    }

    /// Enters a fault and waits until it was replayed: what a thread does that misses one page at a time.
    ///
    /// # Errors
    /// [`QueueCancelled`], as of [`enter`](Self::enter).
    pub fn fault(&mut self, address: usize, access: FaultAccess) -> Result<(), QueueCancelled> {
        // Held back or not, it is waited for once.
        self.buffer.enter(self.number, address, access)?;
        self.wait_for(access.is_hint())
    }

    fn wait_for(&mut self, room: bool) -> Result<(), QueueCancelled> {
        loop {
            match self.buffer.next(self.number, room, S::LEADS) {
                Next::Over => return Ok(()),
                Next::Cancelled(cancelled) => return Err(cancelled),
                Next::Serve(batch) => self.serve.serve(batch),
                Next::Again => {}
            }
        }
    }
}

impl<S: Serve> Drop for FaultQueue<'_, S> {
    fn drop(&mut self) {
        self.buffer.close(self.number);
    }
}

impl<S: Serve> fmt::Debug for FaultQueue<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultQueue").field("number", &self.number).finish_non_exhaustive()
    }
}
