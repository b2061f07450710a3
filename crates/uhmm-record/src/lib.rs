//! What was recorded of a run, and what is made of it: a report to look at, a trace to explore.
//!
//! [`Recorder`] gathers events while a program runs, [`Recorded`] is what there is of them. Neither is on a
//! fault's path: the engine pushes events into a queue of its own memory, from which they are taken here.
//!
//! | module | what it is |
//! | --- | --- |
//! | `bars` | how much happened when |
//! | `holdings` | who held which pages, followed through time |
//! | `lanes` | where each event stands in a trace |
//! | [`latencies`] | latencies as people read them |
//! | `picture` | who held which addresses when, as cells |
//! | `report` | the HTML report |
//! | `stats` | the counters of a process, as a file |
//! | `trace` | the trace, as Perfetto reads it |

mod bars;
mod holdings;
mod lanes;
pub mod latencies;
mod picture;
mod report;
mod stats;
mod trace;

use std::io::{self, Write};

use uhmm::units::{PageNumber, PageSize};
use uhmm::{AddressSpace, Event, Histogram, Latency, RecordError, Recording};

pub use report::Facts;
pub use stats::{Stage, Stats};
pub use trace::EMPTY as EMPTY_TRACE;

/// Gathers what happens, in memory that never migrates, so that it does not disturb what it shows.
pub struct Recorder {
    recording: Recording,
    recorded: Recorded,
    most: usize,
}

impl Recorder {
    /// Events that the engine keeps at most, until they are gathered: 40 bytes of engine memory each.
    pub const EVENTS: usize = 1 << 22;

    /// Begins to record. The engine keeps up to `events` that were not gathered; and of what was gathered up to
    /// [`EVENTS`](Self::EVENTS) are kept here. All others are counted as lost.
    ///
    /// # Errors
    /// [`RecordError`], where events are recorded already or there is no memory.
    pub fn start(space: &AddressSpace, events: usize) -> Result<Self, RecordError> {
        let recording = space.record(events)?;
        let latencies = Latency::ALL.map(|latency| recording.histogram(latency));
        let recorded = Recorded {
            events: Vec::new(),
            lost: 0,
            dropped: 0,
            latencies,
            page: space.page_size(),
        };
        Ok(Self { recording, recorded, most: Self::EVENTS })
    }

    /// Takes what has happened since, and shows all that there is.
    pub fn gather(&mut self) -> &Recorded {
        let Self { recording, recorded, most } = self;
        let before = recorded.events.len();
        let mut dropped = 0;
        while let Some(event) = recording.take() {
            if recorded.events.len() < *most {
                recorded.events.push(event);
            } else {
                dropped += 1;
            }
        }
        if recorded.events.len() > before {
            // Outer ones first.
            recorded.events.sort_by_key(|event| (event.began, std::cmp::Reverse(event.took)));
        }
        recorded.dropped += dropped;
        recorded.lost = recording.lost() + recorded.dropped;
        recorded.latencies = Latency::ALL.map(|latency| recording.histogram(latency));
        recorded
    }

    /// Waits for what is under way: [`Recording::settle`].
    pub fn settle(&self) {
        self.recording.settle();
    }

    /// Ends the recording and takes what there is.
    pub fn stop(mut self) -> Recorded {
        self.recording.stop();
        self.gather();
        self.recorded
    }
}

/// What was recorded.
pub struct Recorded {
    /// By when they began, those that contain others before these.
    events: Vec<Event>,
    /// How many more there were.
    lost: u64,
    /// Of these, how many there was no room for here.
    dropped: u64,
    latencies: [Histogram; Latency::ALL.len()],
    page: PageSize,
}

impl Recorded {
    /// How many events there are.
    pub const fn events(&self) -> usize {
        self.events.len()
    }

    /// When the first event began and the last ended, in nanoseconds.
    fn span(&self) -> (u64, u64) {
        let first = self.events.first().map_or(0, |event| event.began);
        (first, self.events.iter().map(end_of).max().unwrap_or(first))
    }

    fn address_of(&self, page: usize) -> usize {
        self.page.address_of(PageNumber(page))
    }

    /// Writes one HTML file that needs nothing else.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write_report(&self, facts: &Facts<'_>, out: &mut dyn Write) -> io::Result<()> {
        report::write(self, facts, out)
    }

    /// Writes a trace as Perfetto and Chrome read it.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write_trace(&self, out: &mut dyn Write) -> io::Result<()> {
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
