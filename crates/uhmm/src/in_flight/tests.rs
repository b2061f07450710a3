//! When a wait is over, nobody uses what was taken from the table before it.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use std::sync::Arc;

use super::InFlight;
use crate::{
    mm::{
        AccessorNumber, Backing, Mm as _, Protection, Refused, Width,
        model::{Model, ModelOptions},
    },
    sync::{
        Lock, SignalsBlocked,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
        },
    },
    testing::{alone, explore, memory, spawn},
    units::PageNumber,
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
                            lane.outside(|| ());
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
        let running = || lanes.running.load(Relaxed);
        assert_eq!((lane.outside(running), running()), (0, 1));
        drop(lane);
        assert_eq!(running(), 0);
    });
}

#[test]
fn an_access_that_waits_on_a_hole_ends_though_nobody_reads() {
    const READ_WRITE: Protection = Protection { read: true, write: true, execute: false };
    explore(|| {
        let memory = memory();
        let model = Model::new(ModelOptions { late_refusals: true, ..Default::default() });
        let hole =
            model.map(Some(PageNumber(0)), 1, READ_WRITE, Backing::PrivateAnonymous).unwrap();
        model.trap(hole).unwrap();
        let lanes = Arc::new(InFlight::new(&memory, 1).unwrap());
        let accessor = Arc::new(Lock::new(None::<AccessorNumber>));
        let translated = Arc::new(AtomicBool::new(true));
        let worker = {
            let (model, lanes) = (model.clone(), Arc::clone(&lanes));
            let (number, translated) = (Arc::clone(&accessor), Arc::clone(&translated));
            spawn(move || {
                let accessor = model.open_accessor().unwrap();
                *number.lock(&SignalsBlocked::new()) = Some(accessor.number());
                // SAFETY: the only thread with the lane.
                let mut lane = unsafe { lanes.open(0) };
                let access = || {
                    // SAFETY: the accessor is the model's, and the address is aligned.
                    let load = || unsafe { model.load_in_place(&accessor, 0, Width::Eight) };
                    translated.load(Acquire).then(load)
                };
                while let Some(result) = lane.access(access) {
                    assert_eq!(result, Err(Refused));
                }
                drop(lane);
                model.close_accessor(accessor);
            })
        };
        translated.store(false, Release);
        lanes.wait_for_accesses_or(|_| {
            if let Some(number) = *accessor.lock(&SignalsBlocked::new()) {
                model.refuse(number);
            }
        });
        worker.join().unwrap();
        assert_eq!(model.waiting(hole), 0);
    });
}
