//! A launch that outlives the call that began it, over buffers that it owns meanwhile.

use core::fmt;

use uhmm::{
    Shared,
    mm::{Mm, linux::Linux},
};

use crate::{errors::RunError, launch::Begun, queue::Queue};

/// A launch of [`Soft::start_job`](crate::Soft::start_job), with the buffers that it is over.
///
/// Dropping it waits for the launch, and then drops the buffers. Forgetting it leaks them.
#[must_use = "dropping a job waits for it"]
pub struct Job<A, M: Mm = Linux> {
    /// There until it is finished.
    begun: Option<Begun<A, M>>,
    queue: Shared<Queue<M>>,
}

impl<A, M: Mm> Job<A, M> {
    /// A launch that was added to the queue, if there is one.
    pub(crate) const fn new(begun: Begun<A, M>, queue: Shared<Queue<M>>) -> Self {
        Self { begun: Some(begun), queue }
    }

    /// Whether [`join`](Self::join) will not wait.
    pub fn is_finished(&self) -> bool {
        self.begun.as_ref().and_then(Begun::launch).is_none_or(|launch| launch.is_done())
    }

    /// Waits until the launch is done, or has failed, and gives the buffers back. A kernel that calls
    /// it while the launch is not done ends the process.
    pub fn join(mut self) -> (A, Result<(), RunError>) {
        self.wait();
        let Some(begun) = self.begun.take() else { unreachable!("a job is joined once") };
        begun.finish()
    }

    fn wait(&self) {
        if let Some(launch) = self.begun.as_ref().and_then(Begun::launch) {
            self.queue.wait(launch);
        }
    }
}

impl<A, M: Mm> Drop for Job<A, M> {
    fn drop(&mut self) {
        self.wait();
    }
}

impl<A, M: Mm> fmt::Debug for Job<A, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}
