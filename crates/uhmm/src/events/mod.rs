//! Events: what happened when, to which pages, by whom and why. Counters say how often; events say in
//! which order.
//!
//! Nothing is recorded until a [`Recording`](crate::Recording) is made. Until then each place that could tell
//! something looks at one pointer, which nobody writes, and goes on. While there is a recording, who has
//! something to tell reads the clock before and after, and pushes four words into a bounded queue in
//! engine memory: no lock, no call of the system, no waiting. Whoever has the recording takes events
//! out of the queue, at any time and from any thread. Where the queue is full an event is dropped and
//! counted. Latencies go into histograms too, which drop nothing.
//!
//! # The end of a recording
//! Its queue is freed, and somebody may be pushing. Who pushes counts itself, then looks for the
//! queue; who ends takes the queue away, then waits until nobody is counted. A fence on either side
//! makes one of the two see the other. Pushing is a few dozen instructions, and nobody begins to push
//! once there is no queue.

mod event;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod outlet;
mod queue;
mod recorder;

pub use event::{CpuFaultOutcome, DeviceFaultOutcome, Event, Holder, MoveCause, What};
pub(crate) use queue::{Queue, Taker};
pub(crate) use recorder::Recorder;
