//! Another process reads and writes the memory of a subject.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::FileExt,
    thread,
    time::{Duration, Instant},
};

use crate::{
    stops::stop,
    subject::content,
    watcher::{PATIENCE, Subject, Who, eventually},
};

/// Reads a word of another process by `process_vm_readv`.
fn read(process: i32, address: usize) -> io::Result<u64> {
    let mut word = 0_u64;
    let local = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: 8 };
    // SAFETY: there is room for the word; the other address is another process's.
    let read =
        unsafe { libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0) };
    if read == 8 { Ok(word) } else { Err(io::Error::last_os_error()) }
}

/// Writes a word of another process by `process_vm_writev`.
fn write(process: i32, address: usize, word: u64) -> io::Result<()> {
    let local = libc::iovec { iov_base: (&raw const word).cast_mut().cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: 8 };
    // SAFETY: the word is there; the other address is another process's.
    let written =
        unsafe { libc::process_vm_writev(process, &raw const local, 1, &raw const remote, 1, 0) };
    if written == 8 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads it on a thread of its own, as it may have to wait.
fn start_reading(subject: &Subject, page: usize) -> thread::JoinHandle<io::Result<u64>> {
    let (process, address) = (subject.id(), subject.address(page) + 8);
    thread::spawn(move || read(process, address))
}

fn finish<T>(what: &str, reader: thread::JoinHandle<T>) -> T {
    eventually(what, || reader.is_finished().then_some(()));
    reader.join().expect("no panic")
}

#[test]
fn by_process_vm_readv_get_the_page() {
    let test = "readers::by_process_vm_readv_get_the_page";
    let Some(mut subject) = Subject::start(test, "still", Who::Us, None) else { return };
    assert_eq!(subject.present(), 0);
    for page in [0, 9, 200] {
        let word = finish("a reader gets a page", start_reading(&subject, page));
        if subject.serves_system_calls {
            assert_eq!(word.expect("it is served"), content(page, 1));
        } else {
            assert_eq!(word.expect_err("it is not served").raw_os_error(), Some(libc::EFAULT));
        }
    }
    // What is written goes along with its page.
    let (process, address) = (subject.id(), subject.address(30) + 160);
    if subject.serves_system_calls {
        let writer = thread::spawn(move || write(process, address, 77));
        finish("a writer gets a page", writer).expect("it is served");
        assert_eq!(subject.ask("away"), "away");
        assert_eq!(read(process, address).expect("it is served"), 77);
    }
    assert_eq!(subject.ask("check"), "right");
    subject.end();
}

#[test]
fn of_an_ordinary_user_s_process_are_refused_what_is_away() {
    let test = "readers::of_an_ordinary_user_s_process_are_refused_what_is_away";
    let Some(mut subject) = Subject::start(test, "still", Who::Nobody, None) else { return };
    let word = finish("a reader is refused", start_reading(&subject, 9));
    assert_eq!(word.expect_err("it is not served").raw_os_error(), Some(libc::EFAULT));
    assert_eq!(subject.ask("check"), "right");
    let word = finish("a reader gets what is there", start_reading(&subject, 9));
    assert_eq!(word.expect("it is there"), content(9, 1));
    subject.end();
}

#[test]
fn of_a_stopped_process_wait_until_it_goes_on() {
    let test = "readers::of_a_stopped_process_wait_until_it_goes_on";
    let Some(mut subject) = Subject::start(test, "still", Who::Us, None) else { return };
    if !subject.serves_system_calls {
        return subject.end();
    }
    stop(&subject);
    let reader = start_reading(&subject, 4);
    thread::sleep(Duration::from_millis(300));
    assert!(!reader.is_finished(), "who could serve it is stopped");
    subject.send(libc::SIGCONT);
    let word = finish("a reader gets a page of who goes on", reader);
    assert_eq!(word.expect("it is served"), content(4, 1));
    assert_eq!(subject.ask("check"), "right");
    subject.end();
}

#[test]
fn of_a_process_that_is_killed_do_not_hang() {
    let test = "readers::of_a_process_that_is_killed_do_not_hang";
    let Some(mut subject) = Subject::start(test, "still", Who::Us, None) else { return };
    stop(&subject);
    let reader = start_reading(&subject, 4);
    thread::sleep(Duration::from_millis(100));
    subject.send(libc::SIGKILL);
    subject.ended();
    // What it gets is the content of nobody: zeros, or an error.
    let word = finish("a reader of who was killed ends", reader);
    assert!(matches!(word, Err(_) | Ok(0)), "{word:?}");
}

#[test]
fn that_wait_can_be_killed() {
    let test = "readers::that_wait_can_be_killed";
    let Some(subject) = Subject::start(test, "still", Who::Us, None) else { return };
    stop(&subject);
    // SAFETY: the child makes one system call, and ends.
    let reader = unsafe { libc::fork() };
    assert!(reader >= 0, "fork: {}", io::Error::last_os_error());
    if reader == 0 {
        let _ = read(subject.id(), subject.address(4));
        // SAFETY: the child ends here.
        unsafe { libc::_exit(0) }
    }
    thread::sleep(Duration::from_millis(200));
    // SAFETY: a signal to a child of ours.
    assert_eq!(unsafe { libc::kill(reader, libc::SIGKILL) }, 0);
    eventually("a reader that is killed ends", || {
        // SAFETY: a child of ours, whose status is not asked for.
        let ended = unsafe { libc::waitpid(reader, std::ptr::null_mut(), libc::WNOHANG) };
        (ended == reader).then_some(())
    });
    subject.send(libc::SIGCONT);
    subject.end();
}

#[test]
fn by_the_file_of_memory_are_refused_what_is_away_at_once() {
    let test = "readers::by_the_file_of_memory_are_refused_what_is_away_at_once";
    let Some(mut subject) = Subject::start(test, "still", Who::Us, None) else { return };
    let path = format!("/proc/{}/mem", subject.id());
    let memory = OpenOptions::new().read(true).write(true).open(path).expect("its memory");
    let place = (subject.address(3) + 8) as u64;
    let mut word = [0; 8];
    let since = Instant::now();
    let read = memory.read_exact_at(&mut word, place).expect_err("it is away");
    assert_eq!(read.raw_os_error(), Some(libc::EIO));
    let written = memory.write_all_at(&word, place).expect_err("it is away");
    assert_eq!(written.raw_os_error(), Some(libc::EIO));
    assert!(since.elapsed() < PATIENCE / 2);
    assert_eq!(subject.ask("check"), "right");
    memory.read_exact_at(&mut word, place).expect("it is there");
    assert_eq!(u64::from_ne_bytes(word), content(3, 1));
    subject.end();
}
