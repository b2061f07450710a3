//! Other programs are started: by a child that borrows this process's memory until it is one.

use std::{process::Command, time::Duration};

use crate::work::Job;

pub(crate) fn run(job: &Job) {
    let this = std::env::current_exe().expect("this test has a name");
    while job.goes_on() {
        let output = Command::new(&this)
            .args(["--list", "--format=terse"])
            .output()
            .expect("this test can start itself");
        assert!(output.status.success(), "{output:?}");
        let listed = String::from_utf8_lossy(&output.stdout);
        assert!(listed.contains("work_in_a_process_of_its_own: test"), "{listed}");
        std::thread::sleep(Duration::from_millis(500));
    }
}
