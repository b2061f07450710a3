//! A process is stopped and goes on.

use crate::watcher::{Subject, Who, eventually};

/// Waits until all its threads have stopped.
pub(crate) fn stop(subject: &Subject) {
    subject.send(libc::SIGSTOP);
    eventually("the subject stops", || {
        let stopped = |&(thread, _): &(i32, _)| matches!(subject.state(thread), Some('T') | None);
        subject.threads().iter().all(stopped).then_some(())
    });
}

fn stops_and_goes_on(test: &str, who: Who) {
    let Some(mut subject) = Subject::start(test, "busy", who, None) else { return };
    for _ in 0..30 {
        subject.goes_on();
        stop(&subject);
        subject.send(libc::SIGCONT);
    }
    subject.goes_on();
    subject.end();
}

#[test]
fn with_faults_in_flight() {
    stops_and_goes_on("stops::with_faults_in_flight", Who::Us);
}

#[test]
fn with_faults_in_flight_as_an_ordinary_user() {
    stops_and_goes_on("stops::with_faults_in_flight_as_an_ordinary_user", Who::Nobody);
}
