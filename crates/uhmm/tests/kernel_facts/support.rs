//! What the tests share.

use std::{
    ptr,
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use rustix::mm::{Advice, MapFlags, ProtFlags};
use uhmm::{
    mm::{Done, Look, Message, Mm, Stop, linux::Linux},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

/// Runs a test; ends the process where it hangs.
pub(crate) fn fact(name: &'static str, body: impl FnOnce(&Linux)) {
    let (done, ended) = channel::<()>();
    thread::spawn(move || {
        if ended.recv_timeout(Duration::from_mins(1)) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs");
            std::process::abort();
        }
    });
    match Linux::open() {
        Ok(linux) => body(&linux),
        Err(error) => skip(name, &error.to_string()),
    }
    drop(done);
}

/// Says that a test cannot be made here.
pub(crate) fn skip(name: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{name} needs what is not here: {reason}");
    eprintln!("skipped: {name}: {reason}");
}

/// Memory as a program maps it. It stays mapped when the value is gone.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) pages: PageRange,
    pub(crate) page_bytes: usize,
}

impl Memory {
    /// `pages` pages aligned to a block, private and anonymous, and unlike their neighbours, so
    /// that they are an area.
    pub(crate) fn new(linux: &Linux, pages: usize) -> Self {
        Self::with(linux, pages, MapFlags::PRIVATE)
    }

    pub(crate) fn with(linux: &Linux, pages: usize, flags: MapFlags) -> Self {
        let size = linux.page_size();
        let len = size.bytes_in(pages + 2 * BLOCK_PAGES);
        let start = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags).unwrap()
        };
        let first = size.page_of(start.addr()).plus(1).0.next_multiple_of(BLOCK_PAGES);
        let memory =
            Self { pages: PageRange::of(PageNumber(first), pages), page_bytes: size.bytes() };
        unsafe {
            rustix::mm::mmap_anonymous(
                memory.at(0).cast(),
                memory.bytes(),
                ProtFlags::READ | ProtFlags::WRITE,
                flags | MapFlags::FIXED,
            )
            .unwrap();
        }
        memory
    }

    /// Such memory, in which page `i` is filled with `i + 1`, trapped.
    pub(crate) fn trapped(linux: &Linux, pages: usize) -> Self {
        let memory = Self::new(linux, pages);
        memory.fill();
        linux.trap(memory.pages).unwrap();
        memory
    }

    pub(crate) fn fill(self) {
        for i in 0..self.pages.len() {
            self.write(i, value(i));
        }
    }

    pub(crate) fn bytes(self) -> usize {
        self.pages.len() * self.page_bytes
    }

    pub(crate) fn page(self, i: usize) -> PageNumber {
        self.pages.start().plus(i)
    }

    pub(crate) fn at(self, i: usize) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.page(i).0 * self.page_bytes)
    }

    pub(crate) fn write(self, i: usize, value: u8) {
        unsafe { self.at(i).write_bytes(value, self.page_bytes) }
    }

    /// The one value that all bytes of the page have.
    pub(crate) fn read(self, i: usize) -> u8 {
        let first = unsafe { self.at(i).read_volatile() };
        for offset in 0..self.page_bytes {
            assert_eq!(unsafe { self.at(i).add(offset).read_volatile() }, first, "page {i}");
        }
        first
    }

    pub(crate) fn advise(self, advice: Advice) {
        unsafe { rustix::mm::madvise(self.at(0).cast(), self.bytes(), advice).unwrap() }
    }

    pub(crate) fn unmap(self) {
        unsafe { rustix::mm::munmap(self.at(0).cast(), self.bytes()).unwrap() }
    }
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

/// A child that lives until the value is gone, and does nothing.
pub(crate) struct Child(libc::pid_t);

impl Child {
    pub(crate) fn fork() -> Self {
        match unsafe { libc::fork() } {
            0 => loop {
                unsafe { libc::pause() };
            },
            child => Self(child),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, ptr::null_mut(), 0);
        }
    }
}

/// Runs `body` in a child and returns how it ended: its exit status, or the signal below zero.
pub(crate) fn in_child(body: impl FnOnce() -> i32) -> i32 {
    let child = unsafe { libc::fork() };
    if child == 0 {
        let status = body();
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}
