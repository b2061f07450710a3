//! Shared memory: aliases of it, what ends the program's mapping, and what is told.

use std::{ptr, thread};

use rustix::mm::{Advice, MapFlags, ProtFlags};
use uhmm::{
    mm::{
        Access, Errno, Look, Message, Mm, PopulateFailure, Populated, Stop, TrapError, linux::Linux,
    },
    units::{PageNumber, PageRange},
};

use crate::{
    kinds::{self, Kind},
    memory::Memory,
    small_tmpfs,
    support::{all, fact, in_child, look, skip, stopped, told, unread, value},
    swap::Swap,
};

/// Shared anonymous memory, in which page `i` is filled with `value(i)`.
fn shared(linux: &Linux, pages: usize) -> Memory {
    let memory = Memory::with(linux, pages, MapFlags::SHARED);
    memory.fill();
    memory
}

/// An alias of all of it.
struct Alias<'a> {
    linux: &'a Linux,
    window: PageRange,
}

impl<'a> Alias<'a> {
    fn of(linux: &'a Linux, memory: Memory) -> Self {
        let alias = Self { linux, window: linux.reserve_aliases().unwrap() };
        // SAFETY: the addresses were reserved just now.
        unsafe { linux.alias(memory.pages, alias.start()) }.unwrap();
        alias
    }

    fn start(&self) -> PageNumber {
        self.window.start()
    }

    fn byte(&self, i: usize) -> *mut u8 {
        self.linux.staging_pointer(self.start().plus(i)).as_ptr()
    }

    fn read(&self, i: usize) -> u8 {
        // SAFETY: the alias is mapped, and its file has the page or can have it.
        unsafe { self.byte(i).read_volatile() }
    }

    fn write(&self, i: usize, value: u8) {
        // SAFETY: as above.
        unsafe { self.byte(i).write_volatile(value) }
    }

    /// Has the system write its first pages out, of which each is touched before.
    fn page_out(&self, pages: usize) {
        for i in 0..pages {
            self.read(i);
        }
        let bytes = self.linux.page_size().bytes_in(pages);
        // SAFETY: the advice changes no content.
        unsafe { rustix::mm::madvise(self.byte(0).cast(), bytes, Advice::LinuxPageOut) }.unwrap();
    }
}

impl Drop for Alias<'_> {
    fn drop(&mut self) {
        // SAFETY: the test is over, and holds no references.
        unsafe { self.linux.release_aliases(self.window) };
    }
}

/// A page of memory, trapped, that is vacated and has an alias.
fn with_vacated(name: &'static str, body: impl FnOnce(&Linux, Memory, &Alias<'_>)) {
    fact(name, |linux| {
        let memory = shared(linux, 8);
        let alias = Alias::of(linux, memory);
        linux.trap(memory.pages).unwrap();
        linux.vacate(memory.pages, alias.start()).unwrap();
        assert_eq!(look(linux, memory.pages), [Look::Hole; 8]);
        body(linux, memory, &alias);
    });
}

#[test]
fn an_alias_shows_what_the_view_shows() {
    fact("an_alias_shows_what_the_view_shows", |linux| {
        let memory = shared(linux, 4);
        let alias = Alias::of(linux, memory);
        assert_eq!(linux.is_alias(memory.pages, alias.start()), Ok(true));
        assert_eq!(linux.is_alias(memory.part(1, 2).pages, alias.start().plus(1)), Ok(true));
        assert_eq!(linux.is_alias(memory.part(1, 2).pages, alias.start()), Ok(false));
        assert!((0..4).all(|i| alias.read(i) == value(i)));
        alias.write(2, 99);
        // SAFETY: the test's own memory.
        assert_eq!(unsafe { memory.at(2).read_volatile() }, 99);
        // It outlives the view, whose addresses show something else then.
        memory.map_over(MapFlags::SHARED);
        assert_eq!(linux.is_alias(memory.pages, alias.start()), Ok(false));
        assert_eq!(alias.read(2), 99);
        memory.unmap();
        assert_eq!(linux.is_alias(memory.pages, alias.start()), Ok(false));
    });
}

#[test]
fn private_memory_has_no_alias() {
    fact("private_memory_has_no_alias", |linux| {
        let memory = Memory::new(linux, 4);
        memory.fill();
        let window = linux.reserve_aliases().unwrap();
        // SAFETY: the addresses were reserved just now.
        let refused = unsafe { linux.alias(memory.pages, window.start()) };
        assert_eq!(refused, Err(Errno(libc::EINVAL)));
        assert_eq!(memory.read(3), value(3));
        // SAFETY: as above.
        unsafe { linux.release_aliases(window) };
    });
}

#[test]
fn an_alias_of_a_registered_area_is_told_and_not_registered() {
    fact("an_alias_of_a_registered_area_is_told_and_not_registered", |linux| {
        for trapped in [false, true] {
            let memory = shared(linux, 4);
            if trapped {
                linux.trap(memory.pages).unwrap();
            } else {
                linux.watch(memory.pages).unwrap();
            }
            let window = linux.reserve_aliases().unwrap();
            let at = window.start();
            let messages = told(linux, || {
                // SAFETY: the addresses were reserved just now.
                unsafe { linux.alias(memory.pages, at) }.unwrap();
            });
            let from = PageRange::of(memory.page(0), 0);
            assert_eq!(messages, [Message::Remapped { from, to: at }]);
            let alias = Alias { linux, window };
            assert_eq!(alias.read(1), value(1), "it waits for nobody");
            // SAFETY: nobody uses it.
            unsafe { linux.end_alias(PageRange::of(at, 4)) }.unwrap();
            assert_eq!(unread(linux), []);
            linux.untrap(memory.pages).unwrap();
        }
    });
}

#[test]
fn a_child_does_not_inherit_an_alias() {
    fact("a_child_does_not_inherit_an_alias", |linux| {
        let memory = shared(linux, 4);
        let alias = Alias::of(linux, memory);
        let ends = in_child(|| i32::from(alias.read(0)));
        assert_eq!(ends, -libc::SIGSEGV);
    });
}

#[test]
fn a_vacated_page_is_a_trapped_hole_and_keeps_its_content() {
    with_vacated(
        "a_vacated_page_is_a_trapped_hole_and_keeps_its_content",
        |linux, memory, alias| {
            assert_eq!(unread(linux), [], "nothing is told of it");
            alias.write(1, 200);
            thread::scope(|scope| {
                // SAFETY: the test's own memory.
                let reader = scope.spawn(|| unsafe { memory.at(1).read_volatile() });
                let fault = loop {
                    linux.wait(None);
                    if let [message] = unread(linux)[..] {
                        break message;
                    }
                };
                assert!(matches!(fault, Message::Fault { page, .. } if page == memory.page(1)));
                alias.write(1, 201);
                assert_eq!(linux.zero(memory.page(1), 1, Access::Read), all(1));
                assert_eq!(reader.join().unwrap(), 201);
            });
            for access in [Access::Read, Access::Write] {
                let page = memory.page(2 + usize::from(access == Access::Write));
                assert_eq!(linux.zero(page, 1, access), all(1));
            }
            assert_eq!((memory.read(2), memory.read(3)), (value(2), value(3)));
        },
    );
}

#[test]
fn what_the_file_has_not_is_filled_with_zeros() {
    fact("what_the_file_has_not_is_filled_with_zeros", |linux| {
        for access in [Access::Read, Access::Write] {
            let memory = Memory::with(linux, 6, MapFlags::SHARED);
            let alias = Alias::of(linux, memory);
            for i in [1, 2, 4] {
                alias.write(i, 7);
            }
            linux.trap(memory.pages).unwrap();
            assert_eq!(look(linux, memory.pages), [Look::Hole; 6]);
            assert_eq!(linux.zero(memory.page(0), 6, access), all(6), "in one call");
            // SAFETY: the test's own memory.
            let bytes = [0, 1, 2, 3, 4, 5].map(|i| unsafe { memory.at(i).read_volatile() });
            assert_eq!(bytes, [0, 7, 7, 0, 7, 0]);
            assert_eq!(alias.read(5), 0);
        }
    });
}

#[test]
fn what_the_file_has_is_mapped_across_areas() {
    fact("what_the_file_has_is_mapped_across_areas", |linux| {
        let memory = shared(linux, 8);
        let (first, second) = (memory.part(0, 3), memory.part(3, 5));
        second.map_over(MapFlags::SHARED);
        second.fill();
        let alias = Alias::of(linux, first);
        for part in [first, second] {
            linux.trap(part.pages).unwrap();
            linux.vacate(part.pages, alias.start()).unwrap();
        }
        assert_eq!(look(linux, memory.pages), [Look::Hole; 8]);
        assert_eq!(linux.zero(memory.page(0), 8, Access::Write), all(8));
        assert_eq!((memory.read(2), memory.read(4)), (value(2), value(1)));
    });
}

#[test]
fn an_alias_is_populated() {
    fact("an_alias_is_populated", |linux| {
        let memory = Memory::with(linux, 4, MapFlags::SHARED);
        let alias = Alias::of(linux, memory);
        alias.write(1, 5);
        linux.trap(memory.pages).unwrap();
        let pages = PageRange::of(alias.start(), 4);
        assert_eq!(linux.populate_alias(pages), Populated { pages: 4, failure: None });
        assert_eq!(look(linux, pages), [Look::Present; 4]);
        assert_eq!(look(linux, memory.pages), [Look::Hole; 4]);
        assert_eq!((alias.read(0), alias.read(1)), (0, 5));
    });
}

#[test]
fn what_is_in_swap_is_vacated_and_told_alike() {
    const NAME: &str = "what_is_in_swap_is_vacated_and_told_alike";
    // SAFETY: asking who runs this is always sound.
    if unsafe { libc::geteuid() } != 0 {
        return eprintln!("skipped: {NAME}: an ordinary user cannot give the system swap");
    }
    let _swap = match Swap::found_or_made() {
        Ok(swap) => swap,
        Err(reason) => return skip(NAME, reason),
    };
    a_vacated_page_is_a_trapped_hole_and_keeps_its_content();
    fact(NAME, |linux| {
        let memory = shared(linux, 64);
        let alias = Alias::of(linux, memory);
        linux.trap(memory.pages).unwrap();
        linux.vacate(memory.pages, alias.start()).unwrap();
        // Neither view has them now, and the file has them where they were written to.
        alias.page_out(64);
        assert_eq!(look(linux, memory.pages), [Look::Hole; 64]);
        assert_eq!(unread(linux), [], "nothing is told of it");
        assert_eq!(linux.zero(memory.page(0), 32, Access::Write), all(32));
        let rest = PageRange::of(alias.start().plus(32), 32);
        assert_eq!(linux.populate_alias(rest), Populated { pages: 32, failure: None });
        assert!((0..32).all(|i| memory.read(i) == value(i)));
        assert!((32..64).all(|i| alias.read(i) == value(i)));
    });
}

#[test]
fn vacating_drops_nothing_of_private_memory() {
    fact("vacating_drops_nothing_of_private_memory", |linux| {
        let memory = shared(linux, 8);
        let alias = Alias::of(linux, memory);
        memory.map_over(MapFlags::PRIVATE);
        memory.fill();
        linux.vacate(memory.pages, alias.start()).unwrap();
        let looks = look(linux, memory.pages);
        assert!(
            looks.iter().all(|look| matches!(look, Look::Present | Look::Swapped)),
            "{looks:?}"
        );
        assert!((0..8).all(|i| memory.read(i) == value(i)));
    });
}

#[test]
fn pages_that_another_processor_has_just_made_are_vacated() {
    const NAME: &str = "pages_that_another_processor_has_just_made_are_vacated";
    fact(NAME, |linux| {
        let memory = Memory::with(linux, 64, MapFlags::SHARED);
        let alias = Alias::of(linux, memory);
        for i in 0..64 {
            thread::scope(|scope| {
                scope.spawn(move || memory.write(i, value(i)));
            });
            linux.vacate(memory.part(i, 1).pages, alias.start().plus(i)).unwrap();
            assert_eq!(look(linux, memory.part(i, 1).pages), [Look::Hole], "page {i}");
        }
    });
}

#[test]
fn what_another_process_has_mapped_stays() {
    const NAME: &str = "what_another_process_has_mapped_stays";
    fact(NAME, |linux| {
        // A load maps the page's neighbours along, but not those of another 64 KiB.
        let memory = shared(linux, 32);
        let alias = Alias::of(linux, memory);
        let (mut ready, mut go_on) = ([0; 2], [0; 2]);
        // SAFETY: pipes of the test's own.
        unsafe {
            assert_eq!(libc::pipe(ready.as_mut_ptr()), 0);
            assert_eq!(libc::pipe(go_on.as_mut_ptr()), 0);
        }
        // SAFETY: the child makes system calls and loads alone.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let mut byte = [memory.peek(31)];
            // SAFETY: as above.
            unsafe {
                libc::write(ready[1], byte.as_ptr().cast(), 1);
                libc::read(go_on[0], byte.as_mut_ptr().cast(), 1);
                libc::_exit(0);
            }
        }
        let mut byte = [0_u8];
        // SAFETY: the byte is ours.
        assert_eq!(unsafe { libc::read(ready[0], byte.as_mut_ptr().cast(), 1) }, 1);
        linux.vacate(memory.pages, alias.start()).unwrap();
        let seen = look(linux, memory.pages);
        // SAFETY: our own child and pipes.
        unsafe {
            libc::write(go_on[1], byte.as_ptr().cast(), 1);
            libc::waitpid(child, ptr::null_mut(), 0);
            for end in ready.into_iter().chain(go_on) {
                libc::close(end);
            }
        }
        assert_eq!((seen[0], seen[31]), (Look::Hole, Look::Present), "{seen:?}");
    });
}

#[test]
fn a_page_that_is_held_stays_the_same_page() {
    with_vacated("a_page_that_is_held_stays_the_same_page", |linux, memory, alias| {
        assert_eq!(linux.zero(memory.page(0), 1, Access::Write), all(1));
        let mut pipe = [0; 2];
        // SAFETY: a pipe of the test's own, into which a page of its memory is put.
        unsafe {
            assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
            let part = libc::iovec { iov_base: memory.at(0).cast(), iov_len: 1 };
            assert_eq!(libc::vmsplice(pipe[1], &raw const part, 1, 0), 1);
        }
        linux.vacate(memory.part(0, 1).pages, alias.start()).unwrap();
        assert_eq!(look(linux, memory.part(0, 1).pages), [Look::Hole]);
        alias.write(0, 123);
        let mut byte = [0_u8];
        // SAFETY: the pipe of above, and a byte of ours.
        unsafe {
            assert_eq!(libc::read(pipe[0], byte.as_mut_ptr().cast(), 1), 1);
            libc::close(pipe[0]);
            libc::close(pipe[1]);
        }
        assert_eq!(byte, [123], "who holds it sees what the alias does");
    });
}

#[test]
fn discards_are_told_and_only_removing_drops_content() {
    with_vacated("discards_are_told_and_only_removing_drops_content", |linux, memory, alias| {
        let part = memory.part(2, 2);
        let messages = told(linux, || part.advise(Advice::LinuxDontNeed));
        assert_eq!(messages, [Message::Discarded(part.pages)]);
        assert_eq!(alias.read(2), value(2));
        let messages = told(linux, || part.advise(Advice::LinuxRemove));
        assert_eq!(messages, [Message::Discarded(part.pages)]);
        assert_eq!((alias.read(2), alias.read(4)), (0, value(4)));
    });
}

#[test]
fn a_child_has_the_content_of_what_is_vacated() {
    with_vacated("a_child_has_the_content_of_what_is_vacated", |_, memory, alias| {
        alias.write(5, 77);
        // SAFETY: the test's own memory.
        assert_eq!(in_child(|| i32::from(unsafe { memory.at(5).read_volatile() })), 77);
    });
}

#[test]
fn files_in_memory_are_vacated_and_cut_short() {
    const NAME: &str = "files_in_memory_are_vacated_and_cut_short";
    const EFAULT: Stop = Stop::Other(Errno(libc::EFAULT));
    fact(NAME, |linux| {
        for kind in [Kind::SharedMemfd, Kind::Tmpfs] {
            let Some(mapped) = kinds::map(linux, kind, 8) else { continue };
            let (memory, file) = (mapped.memory, mapped.file.as_ref().unwrap());
            memory.fill();
            let alias = Alias::of(linux, memory);
            linux.trap(memory.pages).unwrap();
            linux.vacate(memory.pages, alias.start()).unwrap();
            assert_eq!(look(linux, memory.pages), [Look::Hole; 8], "{kind:?}");
            assert!((0..8).all(|i| alias.read(i) == value(i)));
            let bytes = |pages| linux.page_size().bytes_in(pages) as u64;
            rustix::fs::ftruncate(file, bytes(4)).unwrap();
            assert_eq!(unread(linux), [], "nobody is told");
            // Of the last page that the file has up to the first that it has not.
            let populated = linux.populate_alias(PageRange::of(alias.start().plus(3), 2));
            let failure = Some(PopulateFailure::BeyondEnd);
            assert_eq!(populated, Populated { pages: 1, failure });
            for done in [
                linux.zero(memory.page(4), 1, Access::Write),
                linux.zero(memory.page(4), 1, Access::Read),
                linux.poison(memory.page(4), 1),
            ] {
                assert_eq!(done, stopped(0, EFAULT), "{kind:?}");
            }
            assert_eq!(linux.zero(memory.page(3), 1, Access::Write), all(1));
            assert_eq!(memory.read(3), value(3));
            // As long as before it has zeros there.
            rustix::fs::ftruncate(file, bytes(8)).unwrap();
            assert_eq!(linux.zero(memory.page(4), 4, Access::Write), all(4));
            assert_eq!((memory.read(4), alias.read(7)), (0, 0));
        }
        if let Some(mapped) = kinds::map(linux, Kind::SharedFile, 8) {
            let pages = mapped.memory.pages;
            assert_eq!(linux.trap(pages), Err(TrapError::Unsupported(pages)));
        }
    });
}

#[test]
fn what_the_file_has_is_mapped_where_its_file_system_is_full() {
    const NAME: &str = "what_the_file_has_is_mapped_where_its_file_system_is_full";
    fact(NAME, |linux| {
        for access in [Access::Read, Access::Write] {
            let Some(file) = small_tmpfs::file_with_room_for(8) else {
                return skip(NAME, small_tmpfs::NEEDED);
            };
            rustix::fs::ftruncate(&file, linux.page_size().bytes_in(16) as u64).unwrap();
            let memory = Memory::new(linux, 16);
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            memory.map_file(MapFlags::SHARED, protection, &file).unwrap();
            memory.part(0, 8).fill();
            memory.advise(Advice::LinuxDontNeed);
            linux.trap(memory.pages).unwrap();
            assert_eq!(linux.zero(memory.page(2), 1, access), all(1));
            assert_eq!(linux.zero(memory.page(2), 1, access), stopped(0, Stop::Present));
            assert_eq!(linux.zero(memory.page(3), 13, access), stopped(5, Stop::NoMemory));
            assert_eq!(linux.zero(memory.page(8), 1, access), stopped(0, Stop::NoMemory));
            assert!((2..8).all(|i| memory.read(i) == value(i)));
        }
    });
}
