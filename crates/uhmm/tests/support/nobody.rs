//! The tests of a file run once more, as an ordinary user, for whom only faults of user mode are served.

use std::{
    env,
    io::ErrorKind,
    process::{Command, Stdio},
};

/// Runs all tests of this file but the one that calls this, which names itself.
pub(crate) fn run_all_but(this: &str) {
    // SAFETY: asking who runs this is always sound.
    if unsafe { libc::geteuid() } != 0 {
        // All of them were run by one.
        return eprintln!("skipped: {this}: this user is an ordinary one");
    }
    // By a program, so that this process, in which others open address spaces, need not fork.
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(env::current_exe().expect("this test has a name"));
    command.args(["--skip", this]).stdin(Stdio::null());
    let output = match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            assert!(env::var_os("CI").is_none(), "in CI nothing is skipped: no setpriv");
            return eprintln!("skipped: {this}: no setpriv");
        }
        output => output.expect("this test can start itself"),
    };
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && !said.contains(" 0 passed"),
        "as an ordinary user they end with {}:\n{said}\n{errors}",
        output.status
    );
}
