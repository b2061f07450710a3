//! The engine's side: what happens is told here.

use core::time::Duration;

use super::{Event, What, outlet::Outlet};
use crate::{
    clock::{self, Began},
    latency::{Bins, Histogram, Latency},
    sync::thread_id,
    units::PageRange,
    view::Part,
};

/// Where events are told.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) outlet: Outlet,
    latencies: Part<[Bins; Latency::ALL.len()]>,
}

impl Recorder {
    /// A recorder that counts latencies there.
    pub(crate) fn new(latencies: Part<[Bins; Latency::ALL.len()]>) -> Self {
        Self { outlet: Outlet::new(), latencies }
    }

    /// Notes that something begins, if events are recorded.
    #[inline]
    pub(crate) fn begin(&self) -> Began {
        if self.outlet.is_on() { Began(clock::now()) } else { Began(0) }
    }

    /// Tells what began then and is over now.
    #[inline]
    pub(crate) fn tell(&self, began: Began, pages: PageRange, what: What) {
        if began != Began(0) {
            self.record(began, pages, what, None);
        }
    }

    /// Tells what began then and is over now, and how long it took.
    #[inline]
    pub(crate) fn tell_timed(&self, began: Began, pages: PageRange, what: What, latency: Latency) {
        if began != Began(0) {
            self.record(began, pages, what, Some(latency));
        }
    }

    #[cold]
    fn record(&self, Began(began): Began, pages: PageRange, what: What, latency: Option<Latency>) {
        let took = clock::now().saturating_sub(began);
        if let Some(latency) = latency {
            self.latencies[latency as usize].add(took);
        }
        let event = Event {
            began,
            took: Duration::from_nanos(took),
            thread: thread_id(),
            processor: clock::processor(),
            pages,
            what,
        };
        self.outlet.push(event.pack());
    }

    pub(crate) fn histogram(&self, latency: Latency) -> Histogram {
        self.latencies[latency as usize].values()
    }
}
