//! A bare handler of faults: what stands for the floor where a thread touches what is away.
//!
//! The pages of one area were moved to another. A thread polls the descriptor, reads one message, has
//! the page answered for, which wakes who waits, and begins again.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use super::memory::{Area, Backing};
use super::userfault::Userfault;
use super::{BenchError, Context};

/// Two areas of the same size, and the descriptor on which both are registered.
pub(super) struct Handler {
    pub(super) descriptor: Userfault,
    /// Where the program touches pages.
    pub(super) system: Area,
    /// Where they are while they are away.
    pub(super) device: Area,
    over: AtomicBool,
}

impl Handler {
    /// Of a filled area, all of whose pages are away then.
    pub(super) fn open(system: Area, context: &Context<'_>) -> Result<Self, BenchError> {
        let pages = system.pages();
        let device = Area::map(pages, context.page, Backing::BasePages)?;
        let descriptor = Userfault::open()?;
        descriptor.register(&system)?;
        descriptor.register(&device)?;
        descriptor.move_pages(&system, &device, 0, pages)?;
        Ok(Self { descriptor, system, device, over: AtomicBool::new(false) })
    }

    /// Does `work` while a thread has `answer` bring back what is touched. The page `last` is away as
    /// the work is done, and stays away until then.
    pub(super) fn served<T>(
        &self,
        last: usize,
        answer: impl Fn(usize) -> Result<(), BenchError> + Send,
        work: impl FnOnce() -> Result<T, BenchError>,
    ) -> Result<T, BenchError> {
        thread::scope(|scope| {
            let handler = scope.spawn(|| self.handle(answer));
            let done = work();
            self.end(last);
            let handled = handler.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            handled.and(done)
        })
    }

    /// The handler's work. When it ends nobody is left waiting.
    fn handle(&self, answer: impl Fn(usize) -> Result<(), BenchError>) -> Result<(), BenchError> {
        let handled = self.serve(answer);
        self.descriptor.unregister(&self.system);
        handled
    }

    fn serve(&self, answer: impl Fn(usize) -> Result<(), BenchError>) -> Result<(), BenchError> {
        let failed = BenchError::while_doing("faults of the floor cannot be read");
        let first = self.system.pointer(0, self.system.pages()).addr().get();
        while !self.over.load(Relaxed) {
            let address = self.descriptor.next_fault().map_err(failed)?;
            answer(self.system.page_size().page_of(address - first).0)?;
        }
        Ok(())
    }

    /// Ends the handler, which looks whether it is over after each fault, by one more.
    fn end(&self, last: usize) {
        self.over.store(true, Relaxed);
        // What it holds does not matter any more.
        let _ = self.system.touch(last);
    }
}
