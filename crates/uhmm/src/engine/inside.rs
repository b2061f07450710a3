//! Which threads are inside the engine, so that a fault by one of them is told from others.
//!
//! Such a thread may hold what serving its fault needs. It never touches memory that can be away;
//! where one does, through a stack that lies in adopted memory for example, the process ends with a
//! message instead of hanging.
//!
//! A place has a turn, which is whose the place is: to enter is one compare-exchange.

use core::ptr::NonNull;

use crate::{
    block::Turn,
    sync::{
        atomic::{
            AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
        thread_id,
    },
};

const PLACES: usize = if cfg!(any(shuttle, miri)) { 4 } else { 64 };

/// The threads inside. Where there are more than places, the rest goes unnoticed.
#[derive(Debug)]
pub(crate) struct Inside {
    threads: [AtomicU32; PLACES],
    turns: [Turn; PLACES],
}

/// A thread's place, to be given back.
#[derive(Debug)]
pub(crate) struct Place(usize);

impl Inside {
    pub(crate) fn new() -> Self {
        Self {
            threads: core::array::from_fn(|_| AtomicU32::new(0)),
            turns: core::array::from_fn(|_| Turn::new()),
        }
    }

    /// Notes the calling thread, if there is a place. Threads look for one from different places
    /// on, so that they seldom meet.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Place> {
        let me = thread_id();
        for step in 0..PLACES {
            let place = (me as usize + step) % PLACES;
            let thread = &self.threads[place];
            if thread.load(Relaxed) == 0 && thread.compare_exchange(0, me, Acquire, Relaxed).is_ok()
            {
                return Some(Place(place));
            }
        }
        None
    }

    /// The turn of a place: in no queue when the place is taken, and when it is given back.
    #[inline]
    pub(crate) fn turn(&self, place: &Place) -> NonNull<Turn> {
        NonNull::from(&self.turns[place.0])
    }

    #[inline]
    pub(crate) fn leave(&self, place: &Place) {
        self.threads[place.0].store(0, Release);
    }

    pub(crate) fn contains(&self, thread: u32) -> bool {
        self.threads.iter().any(|place| place.load(Relaxed) == thread)
    }
}

#[cfg(test)]
mod tests;
