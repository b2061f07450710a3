//! Reports and traces of what was really recorded, and of what was made up.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use uhmm::units::AddressRange;
use uhmm::{AddressSpace, PageLocation};
use uhmm_soft::{Options, Soft};

use super::holdings::{Pages, follow};
use super::picture::Picture;
use super::*;

/// A run with faults of both sides, moves by request and by eviction.
fn record() -> Recorded {
    /// A process has one address space.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let space = AddressSpace::open().unwrap();
    let page = space.page_size();
    let mut numbers = vec![1_u64; page.bytes() / 8 * 600];
    let start = numbers.as_ptr().addr().next_multiple_of(page.bytes());
    let whole = AddressRange::new(start, page.bytes() * 598).unwrap();
    space.adopt(whole).unwrap();
    let device = Soft::start(&space, Options::new(page.bytes() * 128).workers(2)).unwrap();
    let recorder = Recorder::start(&space, Recorder::EVENTS).unwrap();
    for _ in 0..2 {
        device
            .launch(
                0..numbers.len() / 64,
                |worker, item, numbers| {
                    let number: u64 = numbers.get(worker, item * 64)?;
                    numbers.set(worker, item * 64, number + 1)
                },
                &mut numbers[..],
            )
            .unwrap();
        assert!(numbers.iter().step_by(64 * 8).all(|&number| number > 1));
    }
    let range = AddressRange::new(start, page.bytes() * 16).unwrap();
    device.migrate(range).unwrap();
    assert!(matches!(space.locate(start), PageLocation::Device(_)));
    let recorded = recorder.stop();
    drop(device);
    space.close().unwrap();
    recorded
}

fn report(recorded: &Recorded) -> String {
    let mut out = Vec::new();
    let rows = [("graph", "<b>".to_owned())];
    let facts =
        Facts { title: "a run", verdict: "right", rows: &rows, counters: &[("cpu_faults", 3)] };
    recorded.write_report(&facts, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Checks that slices of each track lie side by side or within one another, and returns how many
/// events of each kind there are.
fn check_trace(trace: &Value) -> HashMap<String, usize> {
    let mut kinds = HashMap::new();
    let mut open: HashMap<(u64, u64), Vec<(f64, f64)>> = HashMap::new();
    for event in trace["traceEvents"].as_array().unwrap() {
        let kind = event["ph"].as_str().unwrap();
        *kinds.entry(kind.to_owned()).or_insert(0) += 1;
        if kind != "X" {
            continue;
        }
        let number = |key: &str| event[key].as_f64().unwrap_or_else(|| panic!("{key}: {event}"));
        let (start, end) = (number("ts"), number("ts") + number("dur"));
        let track = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
        let open = open.entry(track).or_default();
        // Sums of such numbers are exact to less than a nanosecond.
        open.retain(|&(_, until)| until > start + 0.0001);
        if let Some(&(since, until)) = open.last() {
            assert!(since <= start + 0.0001 && end <= until + 0.0001, "{event} in {open:?}");
        }
        open.push((start, end));
        assert!(!event["name"].as_str().unwrap().is_empty());
        assert!(event["args"]["address"].as_str().unwrap().starts_with("0x"));
    }
    kinds
}

#[test]
fn what_was_recorded_is_in_the_report_and_the_trace() {
    let recorded = record();
    assert_eq!(recorded.lost, 0);
    let html = report(&recorded);
    for part in [
        "<title>uhmm: a run</title>",
        "&lt;b&gt;",
        "cpu faults",
        "id=\"data\"",
        "CPU read, brought back",
        "device 0 read, migrated",
        "device 0 to system, eviction",
        "system to device 0, request",
        "half below",
    ] {
        assert!(html.contains(part), "{part}");
    }
    // It names no other place but that of a standard.
    assert!(!html.contains("http"), "something is loaded from elsewhere");
    let data = html.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    let rows = usize::try_from(data["rows"].as_u64().unwrap()).unwrap();
    assert_eq!(data["addresses"].as_array().unwrap().len(), rows);

    let mut out = Vec::new();
    recorded.write_trace(&mut out).unwrap();
    let trace: Value = serde_json::from_slice(&out).unwrap();
    let kinds = check_trace(&trace);
    assert_eq!(kinds["X"], recorded.events.len());
    assert!(kinds["C"] > 0 && kinds["M"] > 4);
    let names: Vec<_> = trace["traceEvents"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["name"] == "thread_name")
        .map(|event| event["args"]["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"device 0") && names.iter().any(|name| name.starts_with("CPU ")));
}

#[test]
fn the_picture_shows_as_much_as_was_held() {
    let recorded = record();
    let (start, end) = recorded.span();
    let pages = Pages::of(&recorded);
    // Pages times nanoseconds, summed up move by move and cell by cell.
    let mut exact = 0_i128;
    follow(&recorded, &pages, |time, place, before, after| {
        assert_eq!(pages.place_of(pages.page_at(place).unwrap()), Some(place));
        let rest = i128::from(end - time);
        exact += i128::from(after > 0) * rest - i128::from(before > 0) * rest;
    });
    let picture = Picture::of(&recorded);
    let [(0, cells)] = &picture.devices[..] else { panic!("one device") };
    assert_eq!(cells.len(), picture.rows * picture.columns);
    let shown: u64 = cells.iter().map(|&cell| u64::from(cell)).sum();
    #[expect(clippy::cast_precision_loss, reason = "they need not be equal")]
    let (shown, exact) = (
        shown as f64 / 255.0 / picture.columns as f64 * picture.pages_a_row as f64,
        exact as f64 / (end - start) as f64,
    );
    // Each cell is rounded down, and the last row may have fewer pages.
    assert!(shown > 0.0 && (shown - exact).abs() < exact / 4.0 + 1.0, "{shown} of {exact}");
}

#[test]
fn nothing_recorded_makes_a_report_and_a_trace_too() {
    let mut recorded = record();
    recorded.events.clear();
    recorded.lost = 7;
    assert!(report(&recorded).contains("No page moved."));
    assert!(report(&recorded).contains("7 events are missing"));
    let mut out = Vec::new();
    recorded.write_trace(&mut out).unwrap();
    let trace: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(trace["otherData"]["lost"], 7);
}

#[test]
fn events_that_overlap_stand_in_lanes_of_their_own() {
    let mut recorded = record();
    // As if all had been served by one processor, and lasted longer.
    for (number, event) in recorded.events.iter_mut().enumerate() {
        event.processor = 0;
        event.took += Duration::from_micros(number as u64 % 50);
    }
    recorded.events.sort_by_key(|event| (event.began, std::cmp::Reverse(event.took)));
    let mut out = Vec::new();
    recorded.write_trace(&mut out).unwrap();
    let trace: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(check_trace(&trace)["X"], recorded.events.len());
}

#[test]
fn times_have_three_digits() {
    let text = |nanoseconds| latencies::text(Duration::from_nanos(nanoseconds));
    assert_eq!(text(7), "7.00 ns");
    assert_eq!(text(1234), "1.23 µs");
    assert_eq!(text(45_678_901), "45.7 ms");
    assert_eq!(text(12_000_000_000), "12.0 s");
}
