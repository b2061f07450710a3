//! The main job, as people start it.

use std::process::{Command, Stdio};

use serde_json::Value;

#[test]
fn a_small_graph_is_verified() {
    let output = Command::new(env!("CARGO_BIN_EXE_uhmm"))
        .args(["demo", "--scale", "8", "--iterations", "5", "--json"])
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let object: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(object["verified"], true);
    for key in [
        "device_bytes",
        "graph_bytes",
        "cpu_faults",
        "device_faults",
        "migrated_to_device_bytes",
        "migrated_to_system_bytes",
    ] {
        assert!(object[key].is_u64(), "{key} in {object}");
    }
    assert!(object["seconds"].is_f64());
}

#[test]
fn a_report_and_a_trace_are_written() {
    let place = |name: &str| std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let (report, trace) = (place("demo-report.html"), place("demo-trace.json"));
    let output = Command::new(env!("CARGO_BIN_EXE_uhmm"))
        .args(["demo", "--scale", "8", "--iterations", "3", "--json"])
        .arg("--report")
        .arg(&report)
        .arg("--trace")
        .arg(&trace)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let html = std::fs::read_to_string(&report).expect("the report");
    assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
    let faults = told["device_faults"].as_u64().expect("a number");
    assert!(html.contains(&format!("<th>device faults</th><td>{faults}</td>")), "{faults}");
    let trace = std::fs::read(&trace).expect("the trace");
    let trace: Value = serde_json::from_slice(&trace).expect("JSON");
    let by_device = trace["traceEvents"].as_array().expect("events").iter().filter(|event| {
        event["ph"] == "X"
            && event["name"].as_str().is_some_and(|name| name.starts_with("device "))
            && event["name"].as_str().is_some_and(|name| !name.contains(" to "))
    });
    assert_eq!(by_device.count() as u64, faults);
}

#[test]
fn a_report_that_cannot_be_written_is_told_before_the_work() {
    let output = Command::new(env!("CARGO_BIN_EXE_uhmm"))
        .args(["demo", "--scale", "20", "--report", "/nowhere/report.html"])
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("uhmm: cannot write /nowhere/report.html: "), "{stderr}");
}
