//! Pages of a private mapping of a file that were written: they are the process's own, and yet cannot go.
//! And what could be done instead, with the window that it has.

use std::os::fd::AsRawFd;

use rustix::mm::MprotectFlags;
use uhmm::mm::{Access, Look, Mm, Stop, TrapError, linux::Linux};

use crate::kinds::{Kind, Mapped, map};
use crate::memory::Memory;
use crate::support::{all, fact, look, skip, stopped, unread, value};
use crate::touch::ends_with_a_signal;

const PAGES: usize = 4;

/// A private mapping of a file of zeros whose pages are all written.
fn written<'a>(name: &str, linux: &'a Linux) -> Option<Mapped<'a>> {
    let Some(mapped) = map(linux, Kind::PrivateFile, PAGES) else {
        skip(name, "a file that is not in memory");
        return None;
    };
    mapped.memory.fill();
    let mut own = Vec::new();
    linux.may_write(mapped.memory.page(0), PAGES, &mut |_, alone| own.push(alone)).unwrap();
    assert_eq!(own, [true; PAGES], "they are this process's own");
    Some(mapped)
}

#[test]
fn their_written_pages_do_not_move() {
    let name = "their_written_pages_do_not_move";
    fact(name, |linux| {
        let Some(mapped) = written(name, linux) else { return };
        let memory = mapped.memory;
        let staging = linux.map_staging(PAGES).unwrap();
        assert_eq!(linux.take(memory.page(0), staging.start(), 1), stopped(0, Stop::Refused));
        assert_eq!(look(linux, staging), [Look::Hole; PAGES]);
        assert_eq!(memory.read(0), value(0));
    });
}

#[test]
fn their_holes_are_the_file_s_and_cannot_be_trapped() {
    let name = "their_holes_are_the_file_s_and_cannot_be_trapped";
    fact(name, |linux| {
        let Some(mapped) = written(name, linux) else { return };
        let memory = mapped.memory;
        assert_eq!(linux.trap(memory.pages), Err(TrapError::Unsupported(memory.pages)));
        linux.watch(memory.pages).unwrap();
        // Once dropped the file shows, and nobody is told of the access.
        linux.untrap(memory.pages).unwrap();
        memory.part(1, 1).advise(rustix::mm::Advice::LinuxDontNeed);
        assert_eq!(memory.read(1), 0, "the file's content, without a word");
        assert_eq!(unread(linux), []);
    });
}

/// The kernel reads zeros into a byte; answers whether it could.
fn written_by_a_call(at: *mut u8) -> bool {
    let zeros = std::fs::File::open("/dev/zero").unwrap();
    // SAFETY: the kernel writes a byte of the test's own, or says that it cannot.
    unsafe { libc::read(zeros.as_raw_fd(), at.cast(), 1) == 1 }
}

#[test]
fn anonymous_memory_that_takes_their_place_moves() {
    let name = "anonymous_memory_that_takes_their_place_moves";
    fact(name, |linux| {
        let Some(mapped) = written(name, linux) else { return };
        let memory = mapped.memory;
        let copy = Memory::new(linux, PAGES);
        // From here on nobody writes. Who reads goes on.
        memory.protect(MprotectFlags::READ);
        for page in 0..PAGES {
            copy.write(page, memory.read(page));
        }
        // The window: a store ends with a signal, which a handler could have wait. A system call that
        // writes there is refused, which nobody can have wait.
        assert!(ends_with_a_signal(memory.at(2), Access::Write));
        assert!(!written_by_a_call(memory.at(2)));
        // One step, in which who reads finds the one or the other, which are the same.
        copy.move_to(memory);
        assert!(written_by_a_call(memory.at(3)));
        memory.write(3, value(3));
        linux.trap(memory.pages).unwrap();
        let staging = linux.map_staging(PAGES).unwrap();
        assert_eq!(linux.take(memory.page(0), staging.start(), PAGES), all(PAGES));
        assert_eq!(linux.copy(staging.start(), memory.page(0), PAGES), all(PAGES));
        for page in 0..PAGES {
            assert_eq!(memory.read(page), value(page));
        }
    });
}
