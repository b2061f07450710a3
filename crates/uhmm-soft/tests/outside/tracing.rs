//! A debugger attaches: it stops threads, looks at memory, steps, and lets go.

use std::{ffi::c_uint, io, ptr, thread, time::Duration};

use crate::{
    subject::content,
    watcher::{Subject, Who, eventually},
};

/// Makes a request about a thread, of this thread, which is the only one that may.
fn request(what: c_uint, thread: i32, address: usize, data: usize) -> io::Result<i64> {
    // SAFETY: the thread is another process's, and addresses are in that.
    let answer = unsafe {
        *libc::__errno_location() = 0;
        libc::ptrace(what, thread, ptr::without_provenance_mut::<u8>(address), data)
    };
    let error = io::Error::last_os_error();
    if answer == -1 && error.raw_os_error() != Some(0) { Err(error) } else { Ok(answer) }
}

/// Whether a thread has stopped since it was looked at last; with what signal.
fn has_stopped(thread: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: there is room for the status.
    let found = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL | libc::WNOHANG) };
    assert!(found >= 0, "waitpid: {}", io::Error::last_os_error());
    (found == thread).then(|| {
        assert!(libc::WIFSTOPPED(status), "the thread ended with {status:#x}");
        libc::WSTOPSIG(status)
    })
}

fn attach(thread: i32) {
    request(libc::PTRACE_SEIZE, thread, 0, 0).expect("it can be traced");
    request(libc::PTRACE_INTERRUPT, thread, 0, 0).expect("it is traced");
}

fn wait(thread: i32) -> i32 {
    eventually("a traced thread stops", || has_stopped(thread))
}

fn detach(thread: i32) {
    request(libc::PTRACE_DETACH, thread, 0, 0).expect("it is stopped");
}

/// Attaches to all threads, looks, and lets go, again and again.
fn attaches_and_detaches(test: &str, who: Who) {
    let Some(mut subject) = Subject::start(test, "busy", who, None) else { return };
    for round in 0..20 {
        subject.goes_on();
        let threads = subject.threads();
        for &(thread, _) in &threads {
            attach(thread);
        }
        for &(thread, _) in &threads {
            wait(thread);
        }
        for page in 0..30 {
            // What is away is refused at once, and what is there is right.
            let address = subject.address((page * 7 + round) % 256) + 8;
            match request(libc::PTRACE_PEEKDATA, threads[0].0, address, 0) {
                Ok(word) => {
                    assert_eq!(word.cast_unsigned(), content((page * 7 + round) % 256, 1));
                }
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EIO)),
            }
        }
        for &(thread, _) in &threads {
            detach(thread);
        }
    }
    subject.goes_on();
    subject.end();
}

#[test]
fn all_threads_with_faults_in_flight() {
    attaches_and_detaches("tracing::all_threads_with_faults_in_flight", Who::Us);
}

#[test]
fn all_threads_of_an_ordinary_user() {
    attaches_and_detaches("tracing::all_threads_of_an_ordinary_user", Who::Nobody);
}

#[test]
fn a_thread_peeks_and_pokes_at_what_is_away() {
    let test = "tracing::a_thread_peeks_and_pokes_at_what_is_away";
    let Some(mut subject) = Subject::start(test, "still", Who::Us, None) else { return };
    let thread = subject.thread;
    attach(thread);
    wait(thread);
    let address = subject.address(5) + 8;
    let peeked = request(libc::PTRACE_PEEKDATA, thread, address, 0);
    assert_eq!(peeked.expect_err("it is away").raw_os_error(), Some(libc::EIO));
    let poked = request(libc::PTRACE_POKEDATA, thread, address, 17);
    assert_eq!(poked.expect_err("it is away").raw_os_error(), Some(libc::EIO));
    assert_eq!(subject.present(), 0, "looking brings nothing back");
    detach(thread);
    assert_eq!(subject.ask("check"), "right");
    attach(thread);
    wait(thread);
    let peeked = request(libc::PTRACE_PEEKDATA, thread, address, 0).expect("it is there");
    assert_eq!(peeked.cast_unsigned(), content(5, 1));
    // Poked where nobody looks, it goes along.
    let place = subject.address(5) + 80;
    request(libc::PTRACE_POKEDATA, thread, place, 17).expect("it is there");
    detach(thread);
    assert_eq!(subject.ask("away"), "away");
    assert_eq!(subject.ask("check"), "right");
    attach(thread);
    wait(thread);
    assert_eq!(request(libc::PTRACE_PEEKDATA, thread, place, 0).expect("it is there"), 17);
    detach(thread);
    subject.end();
}

/// Steps over every instruction that a thread makes while it touches pages that are away.
fn steps(test: &str, who: Who) {
    let Some(mut subject) = Subject::start(test, "still", who, None) else { return };
    let thread = subject.thread;
    attach(thread);
    wait(thread);
    assert_eq!(subject.present(), 0);
    subject.tell("check");
    let mut faults = 0;
    let mut before = 0;
    for step in 0..1_000_000 {
        request(libc::PTRACE_SINGLESTEP, thread, 0, 0).expect("it is stopped");
        wait_closely(thread);
        if step % 16 == 0 {
            let present = subject.present();
            faults += usize::from(present > before);
            before = present;
        }
        // Each brings more than the one before, and so there are few.
        if faults >= 4 {
            break;
        }
    }
    assert!(faults >= 4, "{faults} faults met, {before} pages are there");
    detach(thread);
    assert_eq!(subject.hear(), "right");
    subject.end();
}

/// Waits for a thread that stops in a moment.
fn wait_closely(thread: i32) {
    for _ in 0..200 {
        if has_stopped(thread).is_some() {
            return;
        }
        thread::yield_now();
    }
    wait(thread);
}

#[test]
fn a_thread_step_by_step_over_faults() {
    steps("tracing::a_thread_step_by_step_over_faults", Who::Us);
}

#[test]
fn a_thread_of_an_ordinary_user_step_by_step_over_faults() {
    steps("tracing::a_thread_of_an_ordinary_user_step_by_step_over_faults", Who::Nobody);
}

#[test]
fn a_thread_whose_system_call_waits_stops_when_it_is_served() {
    let test = "tracing::a_thread_whose_system_call_waits_stops_when_it_is_served";
    let Some(mut subject) = Subject::start(test, "still", Who::Us, None) else { return };
    if !subject.serves_system_calls {
        return subject.end();
    }
    let threads = subject.threads();
    let handlers: Vec<_> = threads
        .iter()
        .filter(|(_, name)| name.starts_with("uhmm-handler"))
        .map(|&(thread, _)| thread)
        .collect();
    assert!(!handlers.is_empty(), "{threads:?}");
    for &thread in &handlers {
        attach(thread);
    }
    for &thread in &handlers {
        wait(thread);
    }
    subject.tell("call");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(subject.has_said(), None, "who could serve it is stopped");
    attach(subject.thread);
    thread::sleep(Duration::from_millis(200));
    // It is in the system, where it cannot stop, until it has what it waits for.
    assert_eq!(has_stopped(subject.thread), None, "it stops in the midst of a system call");
    for &thread in &handlers {
        detach(thread);
    }
    wait(subject.thread);
    detach(subject.thread);
    assert_eq!(subject.hear(), "called");
    assert_eq!(subject.ask("check"), "right");
    subject.end();
}
