//! Ctrl-C ends the program cleanly.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

#[test]
fn ctrl_c_ends_it_with_130_and_says_so() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_uhmm"))
        .args(["demo", "--scale", "20", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stderr = BufReader::new(program.stderr.take().expect("it is piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("the program speaks");
    assert_eq!(line, "uhmm: generating the graph ...\n");

    let sent = Command::new("kill").args(["-INT", &program.id().to_string()]).status();
    assert!(sent.expect("kill starts").success());
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("the program speaks");
    let output = program.wait_with_output().expect("the program ends");
    assert_eq!(rest, "uhmm: interrupted\n");
    assert_eq!(output.status.code(), Some(130));
    assert!(output.stdout.is_empty());
}
