//! When a wait for accesses is over, what was translated to is the waiter's alone.

use loom::{sync::Arc, thread};

use super::Owned;
use crate::{
    engine_memory::EngineMemory,
    in_flight::InFlight,
    sync::atomic::{
        AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

struct Shared {
    lanes: InFlight,
    /// The translation: a frame's number and one, or 0.
    entry: AtomicUsize,
    /// One for each worker and frame, so that workers do not race with each other.
    frames: [[Owned; 2]; 2],
}

impl Shared {
    fn new(workers: usize) -> Arc<Self> {
        let Ok(lanes) = InFlight::new(&EngineMemory, workers);
        let frames = [0, 1].map(|_| [Owned::new(0), Owned::new(0)]);
        Arc::new(Self { lanes, entry: AtomicUsize::new(1), frames })
    }

    /// So many accesses of a worker, in one run.
    fn accesses(&self, worker: usize, count: usize) {
        // SAFETY: each worker is one thread.
        let mut lane = unsafe { self.lanes.open(worker) };
        for _ in 0..count {
            lane.access(|| {
                if let Some(frame) = self.entry.load(Acquire).checked_sub(1) {
                    self.frames[frame][worker].replace(|value| value + 1);
                }
            });
        }
    }

    /// Ends the translation to frame 0, uses the frame for something else, and translates to frame 1, if `again`.
    fn invalidate(&self, again: bool) {
        self.entry.store(0, Relaxed);
        self.lanes.wait_for_accesses();
        for part in &self.frames[0] {
            part.replace(|_| 0);
        }
        if again {
            self.entry.store(2, Release);
        }
    }
}

#[test]
fn an_access_ends_before_its_frame_is_used_again() {
    loom::model(|| {
        let shared = Shared::new(1);
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.accesses(0, 2))
        };
        shared.invalidate(false);
        worker.join().unwrap();
    });
}

#[test]
fn a_worker_that_opens_its_lane_late_sees_what_ended() {
    loom::model(|| {
        let shared = Shared::new(1);
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.accesses(0, 1);
                shared.accesses(0, 1);
            })
        };
        shared.invalidate(true);
        worker.join().unwrap();
    });
}

#[test]
fn accesses_of_all_workers_end() {
    loom::model(|| {
        let shared = Shared::new(2);
        let workers = [0, 1].map(|worker| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.accesses(worker, 1))
        });
        shared.invalidate(false);
        for worker in workers {
            worker.join().unwrap();
        }
    });
}
