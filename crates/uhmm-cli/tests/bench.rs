//! The measurements, as people start them; with few rounds, so the figures mean nothing.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn bench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uhmm"));
    command.arg("bench").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    bench().args(arguments).output().expect("the program starts")
}

#[test]
fn every_measure_has_its_rows() {
    let output = run(&["--rounds", "2", "--json"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a JSON array");
    for (name, setting) in [
        ("migrate_4k", "quiet"),
        ("migrate_4k", "busy"),
        ("migrate_huge", "quiet"),
        ("migrate_huge", "busy"),
        ("migrate_copy", "quiet"),
        ("migrate_copy_huge", "quiet"),
        ("cpu_fault", "quiet"),
        ("cpu_fault", "busy"),
        ("cpu_scan", "quiet"),
        ("cpu_scan", "busy"),
        ("oversubscribe_stream", "quiet"),
        ("oversubscribe_stream", "busy"),
        ("oversubscribe_random", "quiet"),
        ("oversubscribe_random", "busy"),
        ("range_fault_first", "quiet"),
        ("range_fault_first", "busy"),
        ("range_fault_again", "quiet"),
        ("invalidate_1m", "quiet"),
        ("contention", "quiet"),
        ("metadata", "quiet"),
    ] {
        assert!(stderr.contains(&format!("uhmm: {name}, {setting}")), "{stderr}");
        let mut of_name =
            rows.iter().filter(|row| row["name"] == name && row["setting"] == setting);
        assert!(of_name.next().is_some(), "{name}, {setting} in {rows:?}");
    }
    assert!(stderr.contains("uhmm: break-even of this machine: "), "{stderr}");
    // The keys that every reader may count on come first.
    let text = String::from_utf8_lossy(&output.stdout);
    for row in text.trim_end().trim_matches(['[', ']']).split("},{\"name\"") {
        let mut at = 0;
        for key in ["ours", "floor", "unit", "ratio", "better", "case"] {
            let key = format!("\"{key}\":");
            at += row[at..].find(&key).unwrap_or_else(|| panic!("{key} in its place in {row}"));
        }
    }
    for row in &rows {
        assert!(row["case"].is_string() && row["unit"].is_string(), "{row}");
        let unbounded = row["name"] == "contention" && row["unit"] != "turns"
            || row["name"] == "migrate_huge"
                && row["case"].as_str().is_some_and(|case| case.contains("8 a call"))
            || row["case"].as_str().is_some_and(|case| case.ends_with("unwritten"))
            || row["unit"] == "ns a mirror"
            || row["unit"] == "ns a fault" && row["name"] == "range_fault_first";
        assert!(
            if unbounded { row["at_most"].is_null() } else { row["at_most"].is_f64() },
            "{row}"
        );
        assert_eq!(row["better"], "lower");
        if row["skipped"].is_string() {
            assert!(row["ours"].is_null() && row["floor"].is_null() && row["ratio"].is_null());
            continue;
        }
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"));
        assert!((number("ratio") - number("ours") / number("floor")).abs() < 1e-9);
        for spread in ["ours_spread", "floor_spread"] {
            let part = |key: &str| row[spread][key].as_f64().expect("a number");
            assert!(part("lower_quartile") <= part("median"), "{row}");
            assert!(part("median") <= part("upper_quartile"), "{row}");
        }
    }
}

#[test]
fn what_is_named_is_measured_and_nothing_else() {
    let output = run(&["metadata"]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout.contains("metadata") && stdout.contains("at most"), "{stdout}");
    assert!(!stdout.contains("cpu_fault"), "{stdout}");
    let last = stdout.lines().last().expect("lines");
    assert!(last.starts_with("break-even of this machine: ") && last.contains(" KiB"), "{last}");
}

#[test]
fn unknown_names_are_refused_and_the_known_ones_listed() {
    let output = run(&["cpu_fault", "cpu_scam"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty());
    for part in [
        "uhmm: ",
        "cpu_scam",
        "cpu_scan",
        "oversubscribe_stream",
        "oversubscribe_random",
        "migrate_4k",
        "migrate_huge",
        "cpu_fault",
        "range_fault_first",
        "range_fault_again",
        "invalidate_1m",
        "contention",
        "metadata",
    ] {
        assert!(stderr.contains(part), "{part} in\n{stderr}");
    }
}

#[test]
fn no_rounds_are_refused() {
    let output = run(&["--rounds", "0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}

#[test]
fn ctrl_c_ends_it_with_130() {
    for name in ["migrate_4k", "cpu_fault"] {
        let mut program = bench()
            .args([name, "--rounds", "100000000", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stderr = BufReader::new(program.stderr.take().expect("it is piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("the program speaks");
        assert_eq!(line, format!("uhmm: {name}, quiet ...\n"));

        let sent = Command::new("kill").args(["-INT", &program.id().to_string()]).status();
        assert!(sent.expect("kill starts").success());
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).expect("the program speaks");
        let output = program.wait_with_output().expect("the program ends");
        assert_eq!(rest, "uhmm: interrupted\n");
        assert_eq!(output.status.code(), Some(130));
        assert!(output.stdout.is_empty());
    }
}
