//! When a wait is over, nobody uses what was taken from the table before it.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use std::sync::Arc;

use super::InFlight;
use crate::{
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
    },
    testing::{alone, explore, memory, spawn},
};

const FRAMES: usize = 3;

struct Shared {
    lanes: InFlight,
    /// The translation: a frame's number and one, or 0.
    entry: AtomicUsize,
    /// Frames that may not be touched any more.
    ended: [AtomicBool; FRAMES],
}

#[test]
fn an_access_ends_before_its_translation_does() {
    explore(|| {
        let memory = memory();
        let shared = Arc::new(Shared {
            lanes: InFlight::new(&memory, 2).unwrap(),
            entry: AtomicUsize::new(1),
            ended: core::array::from_fn(|_| AtomicBool::new(false)),
        });
        let workers = (0..2)
            .map(|worker| {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    for _ in 0..2 {
                        // SAFETY: each thread has its own lane.
                        let mut lane = unsafe { shared.lanes.open(worker) };
                        for _ in 0..2 {
                            lane.access(|| {
                                let entry = shared.entry.load(Acquire);
                                if let Some(frame) = entry.checked_sub(1) {
                                    let ended = shared.ended[frame].load(Relaxed);
                                    assert!(!ended, "frame {frame} was touched after its end");
                                }
                            });
                        }
                    }
                })
            })
            .collect::<Vec<_>>();
        for frame in 0..FRAMES {
            shared.entry.store(0, Relaxed);
            shared.lanes.wait_for_accesses();
            shared.ended[frame].store(true, SeqCst);
            if frame + 1 < FRAMES {
                shared.entry.store(frame + 2, Release);
            }
        }
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

#[test]
fn nobody_is_waited_for_outside_of_an_access() {
    alone(|| {
        let memory = memory();
        let lanes = InFlight::new(&memory, 1).unwrap();
        lanes.wait_for_accesses();
        // SAFETY: nobody else has the lane.
        let mut lane = unsafe { lanes.open(0) };
        lanes.wait_for_accesses();
        assert_eq!(lane.access(|| 7), 7);
        lanes.wait_for_accesses();
    });
}
