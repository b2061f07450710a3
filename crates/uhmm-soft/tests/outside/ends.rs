//! A process is killed.

use std::os::unix::process::ExitStatusExt;

use crate::watcher::{Subject, Who};

fn is_killed(test: &str, who: Who) {
    for round in 0..10 {
        let Some(mut subject) = Subject::start(test, "busy", who, None) else { return };
        subject.goes_on();
        if round % 2 == 1 {
            // They are filled, or lack what was away, as their parent ends.
            assert_eq!(subject.ask("children"), "children");
        }
        subject.send(libc::SIGKILL);
        assert_eq!(subject.ended().signal(), Some(libc::SIGKILL));
        subject.all_ended();
    }
}

#[test]
fn with_faults_in_flight_and_children_that_wait() {
    is_killed("ends::with_faults_in_flight_and_children_that_wait", Who::Us);
}

#[test]
fn with_faults_in_flight_as_an_ordinary_user() {
    is_killed("ends::with_faults_in_flight_as_an_ordinary_user", Who::Nobody);
}
