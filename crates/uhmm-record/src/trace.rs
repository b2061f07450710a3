//! A trace in the JSON format of Chrome, which Perfetto reads: a track for each processor and each
//! device, and for each device a counter of the bytes that it holds.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde_json::json;
use uhmm::Event;

use super::bars::{fault_name, move_name};
use super::holdings::{self, Pages};
use super::lanes::{self, Group, Lane};
use super::recorded::{Recorded, end_of};

/// A trace in which nothing happened.
pub const EMPTY: &str =
    "{\"displayTimeUnit\":\"ns\",\"otherData\":{\"lost\":0},\"traceEvents\":[]}\n";

const PROCESSORS: u32 = 1;
const DEVICES: u32 = 2;

/// Lanes that a group has room for in the numbers of tracks.
const LANES: usize = 1000;

fn track(lane: Lane) -> (u32, usize) {
    match lane.group {
        Group::Processor(number) => (PROCESSORS, usize::from(number) * LANES + lane.number),
        Group::Device(number) => (DEVICES, number * LANES + lane.number),
    }
}

fn track_name(lane: Lane) -> String {
    let name = match lane.group {
        Group::Processor(number) => format!("CPU {number}"),
        Group::Device(number) => format!("device {number}"),
    };
    if lane.number == 0 { name } else { format!("{name}, at the same time ({})", lane.number + 1) }
}

impl Recorded {
    /// Writes a trace as Perfetto and Chrome read it.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write_trace(&self, out: &mut dyn Write) -> io::Result<()> {
        write(self, out)
    }
}

/// Writes the trace.
fn write(recorded: &Recorded, out: &mut dyn Write) -> io::Result<()> {
    let (start, _) = recorded.span();
    // A microsecond and its thousandths, from the start on.
    let time = |nanoseconds: u64| Microseconds(nanoseconds - start);
    let lanes = lanes::assign(recorded);
    write!(out, "{{\"displayTimeUnit\":\"ns\",\"otherData\":{{\"lost\":{}}}", recorded.lost)?;
    write!(out, ",\"traceEvents\":[")?;
    for (number, (process, name)) in [(PROCESSORS, "CPUs"), (DEVICES, "devices")].iter().enumerate()
    {
        let comma = if number == 0 { "" } else { "," };
        let args = json!({ "name": name });
        write!(
            out,
            "{comma}\n{{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":{process},\"args\":{args}}}"
        )?;
    }
    for lane in lanes.iter().collect::<BTreeSet<_>>() {
        let (process, thread) = track(*lane);
        let args = json!({ "name": track_name(*lane) });
        write!(
            out,
            ",\n{{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":{process},\"tid\":{thread},\"args\":{args}}}"
        )?;
        let args = json!({ "sort_index": thread });
        write!(
            out,
            ",\n{{\"ph\":\"M\",\"name\":\"thread_sort_index\",\"pid\":{process},\"tid\":{thread},\"args\":{args}}}"
        )?;
    }
    for (event, lane) in recorded.events.iter().zip(&lanes) {
        let (process, thread) = track(*lane);
        let name = json!(name(event));
        let (ts, dur) = (time(event.began), Microseconds(end_of(event) - event.began));
        let address = recorded.address_of(event.pages.start().0);
        let pages = event.pages.len();
        write!(
            out,
            ",\n{{\"ph\":\"X\",\"name\":{name},\"pid\":{process},\"tid\":{thread},\"ts\":{ts},\
             \"dur\":{dur},\"args\":{{\"address\":\"{address:#x}\",\"pages\":{pages},\
             \"thread\":{}}}}}",
            event.thread
        )?;
    }
    write_held(recorded, out, &time)?;
    writeln!(out, "\n]}}")
}

/// Writes how much each device held, whenever that changed.
fn write_held(
    recorded: &Recorded,
    out: &mut dyn Write,
    time: &dyn Fn(u64) -> Microseconds,
) -> io::Result<()> {
    let mut held = vec![0_usize; usize::from(u8::MAX) + 1];
    let mut changes: Vec<(u64, u8, usize)> = Vec::new();
    holdings::follow(recorded, &Pages::of(recorded), |time, _, before, after| {
        for (holder, more) in [(before, false), (after, true)] {
            if holder == 0 {
                continue;
            }
            let pages = &mut held[usize::from(holder)];
            *pages = if more { *pages + 1 } else { pages.saturating_sub(1) };
            match changes.iter_mut().rev().take(2).find(|last| (last.0, last.1) == (time, holder)) {
                Some(last) => last.2 = *pages,
                None => changes.push((time, holder, *pages)),
            }
        }
    });
    for (at, holder, pages) in changes {
        let (ts, bytes) = (time(at), recorded.page.bytes_in(pages));
        let number = holder - 1;
        write!(
            out,
            ",\n{{\"ph\":\"C\",\"name\":\"held by device {number}\",\"pid\":{DEVICES},\"ts\":{ts},\
             \"args\":{{\"bytes\":{bytes}}}}}"
        )?;
    }
    Ok(())
}

fn name(event: &Event) -> String {
    fault_name(event.what).or_else(|| move_name(event.what)).unwrap_or_else(|| "event".to_owned())
}

/// Nanoseconds, written as microseconds, exactly.
struct Microseconds(u64);

impl std::fmt::Display for Microseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}
