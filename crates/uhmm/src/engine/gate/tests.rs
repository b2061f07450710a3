//! One alone or many together; closed ranges are seen by whoever comes after; nobody is forgotten.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use std::sync::Arc;

use super::Gate;
use crate::{
    sync::{
        SignalsBlocked,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    testing::{alone, explore, memory, spawn},
    units::{PageNumber, PageRange},
};

fn range(start: usize, pages: usize) -> PageRange {
    PageRange::of(PageNumber(start), pages)
}

#[test]
fn one_is_alone_or_many_are_together() {
    explore(|| {
        let memory = memory();
        let gate = Arc::new(Gate::new(&memory));
        let inside = Arc::new(AtomicUsize::new(0));
        let threads = (0..4_usize)
            .map(|thread| {
                let (gate, inside) = (Arc::clone(&gate), Arc::clone(&inside));
                spawn(move || {
                    let signals = SignalsBlocked::new();
                    for _ in 0..2 {
                        if thread < 2 {
                            let mut areas = gate.alone(&signals);
                            assert_eq!(inside.fetch_add(100, SeqCst), 0, "alone");
                            areas.adopted.add(range(thread * 4, 1)).unwrap();
                            inside.fetch_sub(100, SeqCst);
                        } else {
                            let areas = gate.share(&signals);
                            assert!(inside.fetch_add(1, SeqCst) < 100, "nobody is alone");
                            let _ = areas.adopted.iter().count();
                            inside.fetch_sub(1, SeqCst);
                        }
                    }
                })
            })
            .collect::<Vec<_>>();
        for thread in threads {
            thread.join().unwrap();
        }
        let signals = SignalsBlocked::new();
        assert_eq!(gate.share(&signals).adopted.iter().count(), 2);
    });
}

#[test]
fn a_change_of_areas_shows_in_their_version() {
    alone(|| {
        let memory = memory();
        let gate = Gate::new(&memory);
        let signals = SignalsBlocked::new();
        let before = gate.share(&signals).version();
        let _ = gate.alone(&signals).adopted.iter().count();
        assert_eq!(gate.share(&signals).version(), before, "a look is no change");
        gate.alone(&signals).close(range(1, 1));
        let closed = gate.share(&signals).version();
        assert_ne!(closed, before);
        gate.open(range(1, 1), &signals);
        assert_ne!(gate.share(&signals).version(), closed);
    });
}

#[test]
fn what_is_closed_waits_for_its_opening() {
    explore(|| {
        let memory = memory();
        let gate = Arc::new(Gate::new(&memory));
        let applied = Arc::new(AtomicBool::new(false));
        let (there, done) = (Arc::clone(&gate), Arc::clone(&applied));
        let signals = SignalsBlocked::new();
        gate.alone(&signals).close(range(2, 4));
        let reader = spawn(move || {
            let signals = SignalsBlocked::new();
            // A second change of the same range, which may come too late to be waited for.
            there.alone(&signals).close(range(2, 4));
            done.store(true, SeqCst);
            there.open(range(2, 4), &signals);
            there.open(range(2, 4), &signals);
        });
        {
            let areas = gate.share(&signals);
            assert!(!areas.is_closed(range(0, 2)) && !areas.is_closed(range(6, 2)));
        }
        gate.settle();
        assert!(applied.load(SeqCst), "settled before the change was applied");
        reader.join().unwrap();
        assert!(!gate.share(&signals).is_closed(range(0, 8)));
    });
}
