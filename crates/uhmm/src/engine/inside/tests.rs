//! A place has one thread, and a thread without one is not noted.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use std::sync::Arc;

use super::{Inside, PLACES};
use crate::{
    sync::{
        atomic::{AtomicUsize, Ordering::SeqCst},
        thread_id,
    },
    testing::{alone, explore, spawn},
};

#[test]
fn who_has_a_place_is_known_until_it_leaves() {
    alone(|| {
        let inside = Inside::new();
        assert!(!inside.contains(thread_id()));
        let mut places = (0..PLACES).map(|_| inside.enter().unwrap()).collect::<Vec<_>>();
        assert!(inside.enter().is_none(), "all places are taken");
        let mut turns = places.iter().map(|place| inside.turn(place)).collect::<Vec<_>>();
        turns.sort_unstable();
        turns.dedup();
        assert_eq!(turns.len(), PLACES, "each has a turn of its own");
        while let Some(place) = places.pop() {
            assert!(inside.contains(thread_id()));
            inside.leave(&place);
        }
        assert!(!inside.contains(thread_id()));
    });
}

#[test]
fn a_place_has_one_thread() {
    explore(|| {
        let shared = Arc::new((Inside::new(), [const { AtomicUsize::new(0) }; PLACES]));
        let threads = (0..=PLACES.min(8))
            .map(|_| {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    let (inside, threads) = &*shared;
                    if let Some(place) = inside.enter() {
                        assert_eq!(threads[place.0].fetch_add(1, SeqCst), 0, "one thread");
                        assert!(inside.contains(thread_id()));
                        threads[place.0].fetch_sub(1, SeqCst);
                        inside.leave(&place);
                    }
                })
            })
            .collect::<Vec<_>>();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
