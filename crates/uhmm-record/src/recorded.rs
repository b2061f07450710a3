//! What there is of a recording: events, and how many of them are missing.

use uhmm::units::{PageNumber, PageSize};
use uhmm::{Event, Histogram, Latency};

/// What was recorded.
pub struct Recorded {
    /// By when they began, those that contain others before these.
    pub(super) events: Vec<Event>,
    /// How many more there were.
    pub(super) lost: u64,
    /// Of these, how many there was no room for here.
    pub(super) dropped: u64,
    pub(super) latencies: [Histogram; Latency::ALL.len()],
    pub(super) page: PageSize,
}

impl Recorded {
    /// How many events there are.
    pub const fn events(&self) -> usize {
        self.events.len()
    }

    /// When the first event began and the last ended, in nanoseconds.
    pub(super) fn span(&self) -> (u64, u64) {
        let first = self.events.first().map_or(0, |event| event.began);
        (first, self.events.iter().map(end_of).max().unwrap_or(first))
    }

    pub(super) fn address_of(&self, page: usize) -> usize {
        self.page.address_of(PageNumber(page))
    }
}

/// When an event ended.
pub(super) fn end_of(event: &Event) -> u64 {
    let took = u64::try_from(event.took.as_nanos()).unwrap_or(u64::MAX);
    event.began.saturating_add(took)
}
