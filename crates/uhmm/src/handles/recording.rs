//! The program's side: a recording, from which events are taken.

use core::fmt;

use thiserror::Error;

use crate::{
    engine::SpaceRef,
    engine_memory::{EngineBox, EngineMemory, EngineMemoryError},
    events::{Event, Queue, Taker},
    latency::{Histogram, Latency},
    mm::{Mm, linux::Linux},
    sync::SignalsBlocked,
};

/// Why events cannot be recorded.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// there is a recording already
    #[error("events are recorded already: end that recording first")]
    AlreadyRecording,
    /// No engine memory for so many.
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
}

/// Events are recorded while this lives: [`AddressSpace::record`](crate::AddressSpace::record).
///
/// It holds up to a number of events that were not taken yet. What finds no room is dropped and
/// counted ([`lost`](Self::lost)): take events often enough, or make room for more. Latencies are
/// counted apart and lose nothing.
///
/// Not to be used, nor dropped, in the child of a fork.
pub struct Recording<M: Mm = Linux> {
    space: SpaceRef<M>,
    /// Made of a box, and made one again as this is dropped.
    queue: (*mut Queue, EngineMemory),
    taker: Taker,
    before: [Histogram; Latency::ALL.len()],
    is_on: bool,
}

// SAFETY: the queue is this value's but for the recorder, which reaches it through a shared reference,
// as this does; queues can be sent and shared.
unsafe impl<M: Mm> Send for Recording<M> {}
// SAFETY: as above. Events are taken through an exclusive reference.
unsafe impl<M: Mm> Sync for Recording<M> {}

impl<M: Mm> Recording<M> {
    pub(crate) fn start(space: &SpaceRef<M>, events: usize) -> Result<Self, RecordError> {
        let engine = &space.engine;
        let queue = EngineBox::try_new(&engine.memory, Queue::new(&engine.memory, events)?)?;
        let queue = EngineBox::into_raw(queue);
        let before = Latency::ALL.map(|latency| engine.recorder.histogram(latency));
        // SAFETY: the queue is freed by drop alone, which stops before.
        let is_on = unsafe { engine.recorder.outlet.start(queue.0) };
        let recording =
            Self { space: space.clone(), queue, taker: Taker::default(), before, is_on };
        if is_on { Ok(recording) } else { Err(RecordError::AlreadyRecording) }
    }

    fn queue(&self) -> &Queue {
        // SAFETY: it lives as long as self, and nobody has it exclusively.
        unsafe { &*self.queue.0 }
    }

    /// Takes the oldest event that was not taken yet. Events come in the order in which they ended, but
    /// for those that ended at nearly the same time.
    pub fn take(&mut self) -> Option<Event> {
        loop {
            // SAFETY: as in `queue`, which would borrow all of self.
            let words = unsafe { &*self.queue.0 }.take(&mut self.taker)?;
            if let Some(event) = Event::unpack(words) {
                return Some(event);
            }
        }
    }

    /// How many events were dropped so far because there was no room for them.
    pub fn lost(&self) -> u64 {
        self.queue().lost()
    }

    /// How long things took since the recording began.
    pub fn histogram(&self, latency: Latency) -> Histogram {
        let now = self.space.engine.recorder.histogram(latency);
        now.since(&self.before[latency as usize])
    }

    /// Waits for what is under way, so that all is recorded of which the caller can know: whoever serves a
    /// fault tells of it after the thread that waited has gone on. Not for long, as nobody waits for a fault
    /// there.
    pub fn settle(&self) {
        let signals = SignalsBlocked::new();
        // What moves pages for others is within a section, and tells of it there.
        drop(self.space.engine.gate.alone(&signals));
    }

    /// [Settles](Self::settle) and ends the recording. What was recorded can still be taken.
    pub fn stop(&mut self) {
        if core::mem::take(&mut self.is_on) {
            self.settle();
            self.space.engine.recorder.outlet.stop();
        }
    }
}

impl<M: Mm> Drop for Recording<M> {
    fn drop(&mut self) {
        self.stop();
        let (queue, memory) = &self.queue;
        // SAFETY: it was made of a box in that memory; the recorder is done with it, or never had it.
        drop(unsafe { EngineBox::from_raw(*queue, memory.clone()) });
    }
}

impl<M: Mm> fmt::Debug for Recording<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording")
            .field("is_on", &self.is_on)
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}
