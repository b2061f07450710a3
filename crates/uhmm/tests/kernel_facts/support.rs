//! What the tests share.

use std::{
    cell::Cell,
    io::Write,
    ptr,
    sync::{
        Mutex, PoisonError,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

pub(crate) use crate::skip::skip;
use uhmm::{
    mm::{Done, Errno, Look, Message, Mm, Stop, linux::Linux},
    units::{PageNumber, PageRange},
};

/// Runs a test, one at a time, as a fork by one would share the pages of another; ends the process
/// where it hangs. A test that needs two descriptors calls it within.
pub(crate) fn fact(name: &'static str, body: impl FnOnce(&Linux)) {
    static ONE: Mutex<()> = Mutex::new(());
    thread_local! {
        static WITHIN: Cell<bool> = const { Cell::new(false) };
    }
    // A thread runs one test, or all of them one after the other.
    let outer = !WITHIN.replace(true);
    let _alone = outer.then(|| ONE.lock().unwrap_or_else(PoisonError::into_inner));
    let (done, ended) = channel::<()>();
    thread::spawn(move || {
        if ended.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
            // Not by a macro, whose output is the test's, and lost as the process ends.
            let _ = writeln!(std::io::stderr(), "{name} hangs");
            std::process::abort();
        }
    });
    match Linux::open() {
        Ok(linux) => body(&linux),
        Err(error) => skip(name, error),
    }
    drop(done);
}

/// What `Memory::fill` puts into page `i`.
pub(crate) fn value(i: usize) -> u8 {
    u8::try_from(i % 251 + 1).unwrap()
}

pub(crate) fn look(linux: &Linux, pages: PageRange) -> Vec<Look> {
    let mut out = vec![Look::Hole; pages.len()];
    linux.look(pages.start(), &mut out).unwrap();
    out
}

pub(crate) const fn all(pages: usize) -> Done {
    Done { pages, stop: None }
}

pub(crate) const fn stopped(pages: usize, stop: Stop) -> Done {
    Done { pages, stop: Some(stop) }
}

/// Does `action` on another thread, reads what is told meanwhile, and returns that.
pub(crate) fn told(linux: &Linux, action: impl FnOnce() + Send) -> Vec<Message> {
    let mut told = Vec::new();
    thread::scope(|scope| {
        let actor = scope.spawn(action);
        while !actor.is_finished() {
            linux.wait(Some(Duration::from_millis(5)));
            told.append(&mut unread(linux));
        }
        actor.join().unwrap();
    });
    told.append(&mut unread(linux));
    told
}

/// Messages that are there to be read.
pub(crate) fn unread(linux: &Linux) -> Vec<Message> {
    let mut out = [Message::Discarded(PageRange::default()); 16];
    let count = linux.read(&mut out);
    out[..count].to_vec()
}

/// Waits until a change is pending, that another thread makes.
pub(crate) fn wait_for_change(linux: &Linux) {
    while !linux.changing() {
        thread::yield_now();
    }
}

/// Waits until no change is pending.
pub(crate) fn wait_for_calm(linux: &Linux) {
    while linux.changing() {
        thread::yield_now();
    }
}

/// Makes a part of staging holes again.
pub(crate) fn empty(linux: &Linux, pages: PageRange) -> Result<(), Errno> {
    // SAFETY: the tests hold no references into staging.
    unsafe { linux.empty_staging(pages) }
}

/// Ends staging.
pub(crate) fn unmap_staging(linux: &Linux, pages: PageRange) {
    // SAFETY: the tests hold no references into staging, and pass all of it.
    unsafe { linux.unmap_staging(pages) }
}

/// The first byte of a page of staging that is no hole.
pub(crate) fn staged(linux: &Linux, page: PageNumber) -> u8 {
    // SAFETY: the page is staging and there, as the caller says; or it is gone, and the test ends.
    unsafe { linux.staging_pointer(page).read_volatile() }
}

/// A child that lives until the value is gone, and does nothing.
pub(crate) struct Child(libc::pid_t);

impl Child {
    pub(crate) fn fork() -> Self {
        // SAFETY: the child makes nothing but system calls.
        match unsafe { libc::fork() } {
            0 => loop {
                // SAFETY: it goes with the test's thread, should that end without a word.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                // SAFETY: waiting for a signal touches no memory.
                unsafe { libc::pause() };
            },
            child => Self(child),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: our own child, not waited for yet; a status is not asked for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, ptr::null_mut(), 0);
        }
    }
}

/// Runs `body` in a child and returns how it ended: its exit status, or the signal below zero. The
/// body uses no heap, as a lock of it can be held by a thread that the child does not have.
pub(crate) fn in_child(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs code that keeps to what is said above, then ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let status = body();
        // SAFETY: ending a process is always sound.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: the status is ours to be written.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}
