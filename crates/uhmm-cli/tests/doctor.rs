//! `uhmm doctor`, as people start it.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn doctor() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uhmm"));
    command.arg("doctor").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

fn findings(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("a JSON object")
}

#[test]
fn it_says_what_is_here() {
    let output = run(&mut doctor());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains('\x1b'), "no colour but on a terminal: {text}");
    for name in ["kernel", "UFFDIO_MOVE", "/dev/userfaultfd", "vm.max_map_count", "It "] {
        assert!(text.contains(name), "{name} in\n{text}");
    }
}

#[test]
fn json_says_the_same() {
    let output = run(doctor().arg("--json"));
    let findings = findings(&output);
    let works = findings["works"].as_bool().expect("a verdict");
    assert_eq!(output.status.code(), Some(i32::from(!works)));
    let checks = findings["checks"].as_array().expect("a list");
    assert!(checks.len() > 15);
    for check in checks {
        let state = check["state"].as_str().expect("a state");
        assert!(["ok", "less", "missing"].contains(&state), "{check}");
        assert!(check["found"].is_string() && check["means"].is_string(), "{check}");
        let how = check["get"].as_array().expect("a list");
        assert_eq!(how.is_empty(), state == "ok", "how to get what is not there: {check}");
    }
    let missing = checks.iter().any(|check| check["state"] == "missing");
    assert!(!(works && missing), "what works misses nothing: {findings}");
}

/// A process that may have no descriptor more than the three it begins with gets no userfaultfd.
#[test]
fn it_works_where_nothing_does() {
    let mut command = doctor();
    command.arg("--json");
    // SAFETY: the call takes a limit, and may be made between a fork and the program's start.
    unsafe {
        command.pre_exec(|| {
            let few = libc::rlimit { rlim_cur: 4, rlim_max: 4 };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const few) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let findings = findings(&output);
    assert_eq!(findings["works"], false);
    assert!(findings["trial"].as_str().expect("a reason").contains("open files"), "{findings}");
}
