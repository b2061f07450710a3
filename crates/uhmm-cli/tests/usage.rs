//! What the program says to bad options and bad files, and with which exit status.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn uhmm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_uhmm"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

#[track_caller]
fn assert_refused(arguments: &[&str], parts: &[&str]) {
    let output = uhmm(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty());
    assert!(!stderr.contains('\x1b'), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{part} in\n{stderr}");
    }
}

/// A file of the test's own in the directory that cargo keeps for tests.
fn file(name: &str, content: &[u8]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, content).expect("the directory for tests is writable");
    path
}

#[track_caller]
fn assert_file_refused(name: &str, content: &[u8], expected: &str) {
    let path = file(name, content);
    let path = path.to_str().expect("the path is UTF-8");
    assert_refused(
        &["demo", "--graph", path],
        &[&format!("uhmm: cannot use the graph file {path}: {expected}\n")],
    );
}

#[test]
fn contradicting_options_are_both_named() {
    assert_refused(&["demo", "--graph", "g", "--scale", "4"], &["uhmm: ", "--graph", "--scale"]);
    assert_refused(&["demo", "--graph", "g", "--seed", "4"], &["uhmm: ", "--graph", "--seed"]);
}

#[test]
fn bad_values_are_named() {
    assert_refused(&["demo", "--scale", "0"], &["'0'", "--scale", "1..=31"]);
    assert_refused(&["demo", "--scale", "32"], &["'32'", "--scale"]);
    assert_refused(&["demo", "--iterations", "0"], &["'0'", "--iterations"]);
    assert_refused(&["demo", "--device-memory", "lots"], &["'lots'", "--device-memory", "64MiB"]);
    assert_refused(&["demo", "--device-memory", "0"], &["--device-memory", "needs some memory"]);
    assert_refused(&["demo", "--colour"], &["--colour"]);
    assert_refused(&["frobnicate"], &["frobnicate"]);
    assert_refused(&[], &["Usage: uhmm", "demo"]);
}

#[test]
fn help_goes_to_standard_output() {
    for arguments in [&["--help"][..], &["demo", "--help"], &["--version"]] {
        let output = uhmm(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty());
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    assert_refused(
        &["demo", "--graph", "/no/such/file"],
        &["uhmm: cannot open the graph file /no/such/file: No such file"],
    );
    assert_refused(&["demo", "--graph", "/"], &["uhmm: cannot use the graph file /: "]);
}

#[test]
fn malformed_files_are_refused_by_line() {
    let banner = "%%MatrixMarket matrix coordinate pattern general";
    assert_file_refused("empty", b"", "it has no vertices");
    assert_file_refused(
        "gzip",
        b"\x1f\x8b\x08\x00abc",
        "it is compressed; decompress it first, with gunzip",
    );
    assert_file_refused(
        "snap",
        b"# graph\n1 2\n2 \xff\n",
        "line 3: column 2 (target) is \"\\xff\", not an integer in range",
    );
    assert_file_refused(
        "range",
        format!("{banner}\n% c\n3 3 2\n1 2\n1 4\n").as_bytes(),
        "line 5: column 2 (column) is 4, outside 1 to 3",
    );
    assert_file_refused(
        "few",
        format!("{banner}\n3 3 2\n1 2\n").as_bytes(),
        "it ends after 1 of the 2 entries that its size line promises",
    );
    let mut long = b"1 2\n".to_vec();
    long.resize(1 << 20, b'1');
    assert_file_refused("long", &long, "line 2: longer than 65536 bytes");
}
