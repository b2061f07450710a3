//! How much happened when: faults by kind and cause, and pages that moved by cause, each second or
//! part of one.

use uhmm::mm::Access;
use uhmm::{Event, Holder, What};

use super::recorded::{Recorded, end_of};

/// Into how many parts the time is divided at most.
const MOST_BINS: u64 = 60;

/// One thing that is counted, part by part of the time.
pub(super) struct Series {
    pub(super) name: String,
    /// How many in each part.
    pub(super) counts: Vec<u64>,
}

/// Several things that are counted over the same time.
pub(super) struct Counts {
    /// Nanoseconds of one part.
    pub(super) part: u64,
    pub(super) series: Vec<Series>,
}

impl Counts {
    fn of(recorded: &Recorded, name_of: impl Fn(&Event) -> Option<(String, u64)>) -> Self {
        let (start, end) = recorded.span();
        let length = (end - start).max(1);
        let part = length.div_ceil(MOST_BINS).max(1);
        let bins = usize::try_from(length.div_ceil(part)).unwrap_or(1);
        let mut series: Vec<Series> = Vec::new();
        for event in &recorded.events {
            let Some((name, count)) = name_of(event) else { continue };
            let at = series.iter().position(|series| series.name == name).unwrap_or_else(|| {
                series.push(Series { name, counts: vec![0; bins] });
                series.len() - 1
            });
            let bin = usize::try_from((end_of(event) - start) / part).unwrap_or(0);
            series[at].counts[bin.min(bins - 1)] += count;
        }
        // The most frequent ones first.
        series.sort_by_key(|series| std::cmp::Reverse(series.counts.iter().sum::<u64>()));
        Self { part, series }
    }

    /// Faults by who and how, and what came of them.
    pub(super) fn of_faults(recorded: &Recorded) -> Self {
        Self::of(recorded, |event| fault_name(event.what).map(|name| (name, 1)))
    }

    /// Pages that moved, by where and why.
    pub(super) fn of_moves(recorded: &Recorded) -> Self {
        Self::of(recorded, |event| {
            move_name(event.what).map(|name| (name, event.pages.len() as u64))
        })
    }
}

/// What a fault is called.
pub(super) fn fault_name(what: What) -> Option<String> {
    let how = |access: Access| match access {
        Access::Read => "read",
        Access::Write => "write",
    };
    match what {
        What::CpuFault { access, outcome } => {
            Some(format!("CPU {}, {}", how(access), outcome.text()))
        }
        What::DeviceFault { device, access, outcome } => {
            let number = device.number();
            Some(format!("device {number} {}, {}", how(access), outcome.text()))
        }
        What::RangeFault { device: Some(device) } => {
            Some(format!("device {}, range fault", device.number()))
        }
        What::RangeFault { device: None } => Some("mirror, range fault".to_owned()),
        _ => None,
    }
}

/// What a move is called.
pub(super) fn move_name(what: What) -> Option<String> {
    match what {
        What::Moved { from, to, cause } => {
            Some(format!("{} to {}, {}", holder_name(from), holder_name(to), cause.text()))
        }
        _ => None,
    }
}

/// What a holder is called.
pub(super) fn holder_name(holder: Holder) -> String {
    match holder {
        Holder::System => "system".to_owned(),
        Holder::Device(device) => format!("device {}", device.number()),
        Holder::Nobody => "nowhere".to_owned(),
    }
}
