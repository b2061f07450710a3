//! Latencies as people read them.

use std::time::Duration;

use uhmm::{Histogram, Latency};

/// What is timed, in few words.
pub const fn name(latency: Latency) -> &'static str {
    match latency {
        Latency::CpuFault => "CPU fault, from read to served",
        Latency::DeviceFault => "device fault, as the device waits",
        Latency::ToDevice => "move to a device, within a block",
        Latency::ToSystem => "move to system memory, within a block",
    }
}

/// A time with three digits and its unit.
pub fn text(time: Duration) -> String {
    let nanoseconds = time.as_secs_f64() * 1e9;
    let (value, unit) = match nanoseconds {
        less if less < 1e3 => (less, "ns"),
        less if less < 1e6 => (less / 1e3, "µs"),
        less if less < 1e9 => (less / 1e6, "ms"),
        more => (more / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// One bar of a histogram over powers of two: the longest time, and how many.
pub(super) struct Bar {
    pub(super) up_to: Duration,
    pub(super) count: u64,
}

/// The counts, a bar for each power of two of nanoseconds from the first to the last that has any.
pub(super) fn bars(histogram: &Histogram) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    for (times, count) in histogram.counts() {
        let nanoseconds = u64::try_from(times.start.as_nanos()).unwrap_or(u64::MAX >> 1);
        let up_to = Duration::from_nanos((nanoseconds + 1).next_power_of_two());
        while bars.last().is_some_and(|last| last.up_to * 2 < up_to) {
            let up_to = bars.last().map_or(up_to, |last| last.up_to * 2);
            bars.push(Bar { up_to, count: 0 });
        }
        match bars.last_mut() {
            Some(last) if last.up_to == up_to => last.count += count,
            _ => bars.push(Bar { up_to, count }),
        }
    }
    bars
}
