//! Accesses in flight: how an invalidation waits for the few instructions between a device's look
//! into its page table and its access.
//!
//! Each worker of a device has a lane, and enters and leaves it around each access by two plain
//! stores. Whoever ends translations first changes the page table, then makes every processor of
//! the process pass a barrier (membarrier(2), private expedited), and then waits for those lanes
//! that are entered. The barrier is paid by the side that runs seldom, and only where a worker may enter just
//! then: one that waits for a page says so. Where the system has none, and in the tools that try orders of
//! steps, each entry pays a fence instead.

use core::sync::atomic::compiler_fence;

use crate::{
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    sync::atomic::{
        AtomicU32, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
        fence,
    },
};

/// How often an access in flight is looked at before others may have the processor.
const SPINS: u32 = if cfg!(any(shuttle, miri, loom)) { 2 } else { 64 };

/// The lanes of a device's workers.
#[derive(Debug)]
pub struct InFlight {
    lanes: EngineVec<LaneState>,
    /// How many workers may enter at all just now.
    running: AtomicUsize,
    barrier: bool,
}

/// A worker's count of entries and leavings: odd while it is inside. On a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
struct LaneState(AtomicU32);

impl InFlight {
    /// Lanes for `workers` workers.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where memory for them cannot be had.
    pub fn new(memory: &EngineMemory, workers: usize) -> Result<Self, EngineMemoryError> {
        let mut lanes = EngineVec::try_with_capacity(memory, workers)?;
        for _ in 0..workers {
            lanes.try_push(LaneState(AtomicU32::new(0)))?;
        }
        Ok(Self { lanes, running: AtomicUsize::new(0), barrier: barrier::register() })
    }

    /// Opens a worker's lane for a run of accesses.
    ///
    /// # Panics
    /// `worker` is not one of those that there are lanes for.
    ///
    /// # Safety
    /// No other thread has the lane of `worker` open.
    pub unsafe fn open(&self, worker: usize) -> Lane<'_> {
        self.run();
        Lane { all: self, state: &self.lanes[worker] }
    }

    /// From here on one worker more may enter.
    fn run(&self) {
        self.running.fetch_add(1, SeqCst);
        // What was invalidated before this is seen by accesses after it.
        fence(SeqCst);
    }

    /// Returns when every access has ended that looked into the page table before the caller
    /// changed it.
    #[inline]
    pub fn wait_for_accesses(&self) {
        self.wait_for_accesses_or(|_| ());
    }

    /// As [`wait_for_accesses`](Self::wait_for_accesses), for a device whose accesses can last: with
    /// each worker whose access does, `lasts` is called, again and again.
    ///
    /// An access in place that meets a trapped hole waits until the message about it is read, and
    /// who reads may wait for a lock that the caller holds. So `lasts` has it refused
    /// ([`Mm::refuse`](crate::mm::Mm::refuse)).
    pub fn wait_for_accesses_or(&self, mut lasts: impl FnMut(usize)) {
        fence(SeqCst);
        if self.running.load(SeqCst) == 0 {
            return;
        }
        if self.barrier {
            barrier::pass();
        }
        for (worker, lane) in self.lanes.iter().enumerate() {
            let seen = lane.0.load(Acquire);
            if seen % 2 == 0 {
                continue;
            }
            let mut looks = 0_u32;
            while lane.0.load(Acquire) == seen {
                // The worker is a few instructions from leaving, unless it lost its processor, or
                // waits on a hole.
                looks += 1;
                if looks > SPINS {
                    lasts(worker);
                    crate::sync::yield_now();
                } else {
                    crate::sync::spin();
                }
            }
        }
    }
}

/// A worker's lane, open.
#[derive(Debug)]
pub struct Lane<'a> {
    all: &'a InFlight,
    state: &'a LaneState,
}

impl Lane<'_> {
    /// Runs one access: `access` looks into the page table and touches what it found there, and
    /// does nothing that can wait.
    pub fn access<R>(&mut self, access: impl FnOnce() -> R) -> R {
        let count = self.state.0.load(Relaxed);
        // Who waits for the access before may see this one instead, and goes on all the same.
        self.state.0.store(count.wrapping_add(1), Release);
        if self.all.barrier {
            compiler_fence(SeqCst);
        } else {
            fence(SeqCst);
        }
        let result = access();
        self.state.0.store(count.wrapping_add(2), Release);
        result
    }

    /// Does something that may take long, a wait for a page that was missed above all, in which the worker
    /// accesses nothing: meanwhile nobody pays a barrier for it.
    pub fn outside<R>(&mut self, meanwhile: impl FnOnce() -> R) -> R {
        self.all.running.fetch_sub(1, SeqCst);
        // Also where it unwinds.
        let _inside = Inside(self.all);
        meanwhile()
    }
}

/// Lets a worker enter again at its end.
struct Inside<'a>(&'a InFlight);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.run();
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.all.running.fetch_sub(1, SeqCst);
    }
}

#[cfg(not(any(shuttle, miri, loom)))]
mod barrier {
    /// Makes ready for [`pass`]. Answers whether the system can.
    pub(super) fn register() -> bool {
        call(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
    }

    /// Makes every processor that runs a thread of this process pass a full barrier.
    pub(super) fn pass() {
        if !call(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
            crate::abort::abort(b"the system refuses a barrier that it has promised (membarrier)");
        }
    }

    fn call(command: i32) -> bool {
        // SAFETY: membarrier(2) touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }
}

#[cfg(any(shuttle, miri, loom))]
mod barrier {
    pub(super) fn register() -> bool {
        false
    }

    pub(super) fn pass() {}
}

#[cfg(all(test, not(loom)))]
#[path = "in_flight/tests.rs"]
mod tests;
