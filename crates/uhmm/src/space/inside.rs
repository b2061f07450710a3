//! Which threads are inside the engine, so that a fault by one of them is told from others.
//!
//! Such a thread may hold what serving its fault needs. It never touches memory that can be away;
//! where one does, through a stack that lies in adopted memory for example, the process ends with a
//! message instead of hanging.

use crate::sync::{
    atomic::{
        AtomicU32, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread_id,
};

const PLACES: usize = 64;

/// The threads inside. Where there are more than places, the rest goes unnoticed.
#[derive(Debug)]
pub(crate) struct Inside {
    places: [AtomicU32; PLACES],
    /// No place from here on was ever taken.
    end: AtomicUsize,
}

/// A thread's place, to be given back.
#[derive(Debug)]
pub(crate) struct Place(Option<usize>);

impl Inside {
    pub(crate) fn new() -> Self {
        Self { places: core::array::from_fn(|_| AtomicU32::new(0)), end: AtomicUsize::new(0) }
    }

    pub(crate) fn enter(&self) -> Place {
        let me = thread_id();
        for (number, place) in self.places.iter().enumerate() {
            if place.load(Relaxed) == 0 && place.compare_exchange(0, me, Acquire, Relaxed).is_ok() {
                self.end.fetch_max(number + 1, Release);
                return Place(Some(number));
            }
        }
        Place(None)
    }

    pub(crate) fn leave(&self, place: &Place) {
        if let Place(Some(number)) = *place {
            self.places[number].store(0, Release);
        }
    }

    pub(crate) fn contains(&self, thread: u32) -> bool {
        self.places[..self.end.load(Acquire)].iter().any(|place| place.load(Relaxed) == thread)
    }
}
