//! What was recorded of a run, and what is made of it: a report to look at, a trace to explore.

mod bars;
mod holdings;
mod lanes;
pub(crate) mod latencies;
mod picture;
mod report;
mod trace;

use std::io::{self, Write};

use uhmm::units::{PageNumber, PageSize};
use uhmm::{AddressSpace, Event, Histogram, Latency, RecordError, Recording};

pub(crate) use latencies as latency_text;
pub(crate) use report::Facts;

/// Events that are kept at most: 40 bytes of engine memory each.
const EVENTS: usize = 1 << 22;

/// A recording under way, in memory that never migrates, so that it does not disturb what it shows.
pub(crate) struct Recorder(Recording);

impl Recorder {
    /// Begins to record.
    pub(crate) fn start(space: &AddressSpace) -> Result<Self, RecordError> {
        space.record(EVENTS).map(Self)
    }

    /// Ends the recording and takes what there is.
    pub(crate) fn stop(self, page: PageSize) -> Recorded {
        let Self(mut recording) = self;
        recording.stop();
        let mut events: Vec<_> = std::iter::from_fn(|| recording.take()).collect();
        // Outer ones first.
        events.sort_by_key(|event| (event.began, std::cmp::Reverse(event.took)));
        let latencies = Latency::ALL.map(|latency| recording.histogram(latency));
        Recorded { events, lost: recording.lost(), latencies, page }
    }
}

/// What was recorded.
pub(crate) struct Recorded {
    /// By when they began, those that contain others before these.
    events: Vec<Event>,
    /// How many more there were.
    lost: u64,
    latencies: [Histogram; Latency::ALL.len()],
    page: PageSize,
}

impl Recorded {
    /// When the first event began and the last ended, in nanoseconds.
    fn span(&self) -> (u64, u64) {
        let first = self.events.first().map_or(0, |event| event.began);
        (first, self.events.iter().map(end_of).max().unwrap_or(first))
    }

    fn address_of(&self, page: usize) -> usize {
        self.page.address_of(PageNumber(page))
    }

    /// Writes one HTML file that needs nothing else.
    pub(crate) fn write_report(&self, facts: &Facts<'_>, out: &mut dyn Write) -> io::Result<()> {
        report::write(self, facts, out)
    }

    /// Writes a trace as Perfetto and Chrome read it.
    pub(crate) fn write_trace(&self, out: &mut dyn Write) -> io::Result<()> {
        trace::write(self, out)
    }
}

/// When an event ended.
fn end_of(event: &Event) -> u64 {
    let took = u64::try_from(event.took.as_nanos()).unwrap_or(u64::MAX);
    event.began.saturating_add(took)
}

#[cfg(test)]
mod tests;
