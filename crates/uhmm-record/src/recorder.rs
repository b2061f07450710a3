//! Events are gathered while a program runs.

use uhmm::{AddressSpace, Latency, RecordError, Recording};

use super::recorded::Recorded;

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
