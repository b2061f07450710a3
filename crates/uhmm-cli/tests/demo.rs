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
