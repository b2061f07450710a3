//! What others do to a process whose pages are away: they stop it and have it go on, kill it, trace it,
//! read its memory, and look at what it leaves behind when it crashes.
//!
//! The process is this test, started anew: the *subject*. It does what it is told by a line of its
//! standard input, and answers by a line.

mod dumps;
mod ends;
mod readers;
#[path = "../../../uhmm/tests/support/skip.rs"]
mod skip;
mod stops;
mod subject;
mod tracing;
mod watcher;

#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn subject_of_the_other_tests() {
    subject::run();
}
