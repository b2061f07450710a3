//! Areas watched: told of as trapped ones are, and touched as if nobody looked.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd},
    thread,
};

use rustix::{
    io::Errno as E,
    mm::{Advice, MapFlags, MprotectFlags, ProtFlags},
};
use uhmm::{
    mm::{Access, Backing, Look, Message, Mm, TrapError, linux::Linux},
    units::PageRange,
};

use crate::kinds::{self, Kind, PAGES};
use crate::memory::Memory;
use crate::support::{
    all, fact, in_child, look, skip, told, unread, wait_for_calm, wait_for_change,
};

/// How the area at an address is registered: for its holes, for write protection.
fn modes(memory: Memory) -> (bool, bool) {
    let address = memory.at(0).addr();
    let smaps = BufReader::new(File::open("/proc/thread-self/smaps").unwrap());
    let mut within = false;
    for line in smaps.lines().map(Result::unwrap) {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if within {
                let has = |flag| flags.split_whitespace().any(|other| other == flag);
                return (has("um"), has("uw"));
            }
        } else if let Some((start, rest)) = line.split_once('-')
            && let Some((end, _)) = rest.split_once(' ')
            && let Ok(start) = usize::from_str_radix(start, 16)
            && let Ok(end) = usize::from_str_radix(end, 16)
        {
            within = (start..end).contains(&address);
        }
    }
    panic!("no area at {address:#x}");
}

const TRAPPED: (bool, bool) = (true, true);
const WATCHED: (bool, bool) = (false, true);
const NEITHER: (bool, bool) = (false, false);

/// The calls of userfaultfd(2), as they are.
struct Raw(OwnedFd);

impl Raw {
    const API: libc::c_ulong = 0xc018_aa3f;
    const REGISTER: libc::c_ulong = 0xc020_aa00;
    const MISSING: u64 = 1;
    const WP: u64 = 2;

    /// A descriptor with the features, where the kernel has them.
    fn with(features: u64) -> Option<Self> {
        // SAFETY: a descriptor on which nothing is registered changes no memory.
        let number = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | 1) };
        let number = i32::try_from(number).ok().filter(|&number| number >= 0)?;
        // SAFETY: the descriptor was made just now and is nobody else's.
        let file = unsafe { OwnedFd::from_raw_fd(number) };
        let mut api = [0xaa, features, 0];
        // SAFETY: the structure of the call has three words.
        let agreed = unsafe { libc::ioctl(file.as_raw_fd(), Self::API, api.as_mut_ptr()) };
        (agreed == 0).then_some(Self(file))
    }

    fn register(&self, memory: Memory, mode: u64) -> Result<(), E> {
        let mut register = [memory.at(0).addr() as u64, memory.bytes() as u64, mode, 0];
        // SAFETY: the structure of the call has four words; nobody touches a hole meanwhile.
        let done =
            unsafe { libc::ioctl(self.0.as_raw_fd(), Self::REGISTER, register.as_mut_ptr()) };
        if done == 0 {
            return Ok(());
        }
        let error = std::io::Error::last_os_error().raw_os_error().unwrap();
        Err(E::from_raw_os_error(error))
    }
}

const WP_ASYNC: u64 = 1 << 15;

#[test]
fn registering_again_replaces_the_mode() {
    fact("registering_again_replaces_the_mode", |linux| {
        let Some(raw) = Raw::with(WP_ASYNC) else {
            return skip("registering_again_replaces_the_mode", "no WP_ASYNC");
        };
        let memory = Memory::new(linux, 4);
        memory.fill();
        for (mode, expected) in [
            (Raw::MISSING, (true, false)),
            (Raw::WP, (false, true)),
            (Raw::MISSING, (true, false)),
            (Raw::MISSING | Raw::WP, (true, true)),
            (Raw::WP, (true, true)),
            (Raw::MISSING, (true, true)),
        ] {
            raw.register(memory, mode).unwrap();
            assert_eq!(modes(memory), expected, "after {mode}");
        }
    });
}

#[test]
fn without_async_protection_files_are_not_watched() {
    fact("without_async_protection_files_are_not_watched", |linux| {
        let Some(raw) = Raw::with(0) else {
            return skip("without_async_protection_files_are_not_watched", "no userfaultfd");
        };
        for mapped in kinds::each(linux) {
            let result = raw.register(mapped.memory, Raw::WP);
            match mapped.kind {
                Kind::PrivateAnonymous => assert_eq!(result, Ok(())),
                Kind::SharedFile | Kind::PrivateFile => assert_eq!(result, Err(E::INVAL)),
                // As the kernel was configured.
                _ => eprintln!("{:?}: {result:?}", mapped.kind),
            }
        }
    });
}

#[test]
fn each_kind_is_watched_and_not_trapped() {
    fact("each_kind_is_watched_and_not_trapped", |linux| {
        for kind in Kind::ALL {
            let Some(mapped) = kinds::map(linux, kind, PAGES) else { continue };
            let memory = mapped.memory;
            linux.watch(memory.pages).unwrap();
            assert_eq!(modes(memory), WATCHED, "{kind:?}");
            linux.watch(memory.pages).unwrap();
            // Holes are the kernel's to fill, or this would wait for us.
            assert_eq!(memory.peek(3), 0);
            memory.poke(3, 5);
            memory.poke(PAGES - 1, 6);
            assert_eq!((memory.peek(3), memory.peek(PAGES - 1)), (5, 6));
            assert_eq!(unread(linux), []);
            linux.untrap(memory.pages).unwrap();
            assert_eq!(modes(memory), NEITHER, "{kind:?}");
            // No longer told, or this would wait for a reader.
            memory.advise(Advice::LinuxDontNeed);
            memory.unmap();
        }
    });
}

#[test]
fn watching_what_is_trapped_leaves_it_trapped() {
    fact("watching_what_is_trapped_leaves_it_trapped", |linux| {
        for mapped in kinds::each(linux).filter(|mapped| mapped.kind.traps()) {
            let (kind, memory) = (mapped.kind, mapped.memory);
            linux.trap(memory.pages).unwrap();
            linux.watch(memory.pages).unwrap();
            assert_eq!(modes(memory), TRAPPED, "{kind:?}");
            linux.untrap(memory.pages).unwrap();
        }
        // A part that is trapped, beside one that is not.
        let memory = Memory::new(linux, 16);
        memory.fill();
        linux.trap(memory.part(4, 4).pages).unwrap();
        linux.watch(memory.pages).unwrap();
        let parts = [0, 4, 8].map(|start| modes(memory.part(start, 4)));
        assert_eq!(parts, [WATCHED, TRAPPED, WATCHED]);
        linux.untrap(memory.pages).unwrap();
        assert_eq!(modes(memory), NEITHER);
    });
}

#[test]
fn trapping_what_is_watched_traps_it() {
    fact("trapping_what_is_watched_traps_it", |linux| {
        let memory = Memory::new(linux, 4);
        linux.watch(memory.pages).unwrap();
        linux.trap(memory.pages).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| memory.poke(2, 1));
            while !matches!(unread(linux)[..], [Message::Fault { .. }]) {
                linux.wait(None);
            }
            assert_eq!(linux.zero(memory.page(0), 4, Access::Write), all(4));
        });
        let messages = told(linux, || memory.unmap());
        assert_eq!(messages, [Message::Unmapped(memory.pages)]);
    });
}

#[test]
fn no_change_is_missed_as_watched_areas_become_trapped() {
    fact("no_change_is_missed_as_watched_areas_become_trapped", |linux| {
        const DISCARDS: usize = 10;
        for _ in 0..100 {
            let memory = Memory::new(linux, 8);
            memory.fill();
            linux.watch(memory.pages).unwrap();
            let messages = told(linux, || {
                thread::scope(|scope| {
                    scope.spawn(|| {
                        for _ in 0..DISCARDS {
                            memory.advise(Advice::LinuxDontNeed);
                        }
                    });
                    linux.trap(memory.pages).unwrap();
                });
            });
            assert_eq!(messages, [Message::Discarded(memory.pages); DISCARDS]);
            assert_eq!(modes(memory), TRAPPED);
            linux.untrap(memory.pages).unwrap();
            memory.unmap();
        }
    });
}

#[test]
fn watching_works_while_a_change_is_unread() {
    fact("watching_works_while_a_change_is_unread", |linux| {
        let (trapped, watched) = (Memory::trapped(linux, 4), Memory::new(linux, 4));
        let neither = Memory::new(linux, 4);
        linux.watch(watched.pages).unwrap();
        let changing = Memory::trapped(linux, 4);
        thread::scope(|scope| {
            scope.spawn(|| changing.unmap());
            wait_for_change(linux);
            for memory in [trapped, watched, neither] {
                linux.watch(memory.pages).unwrap();
            }
            assert_eq!([trapped, watched, neither].map(modes), [TRAPPED, WATCHED, WATCHED]);
            assert!(linux.changing());
            while unread(linux).is_empty() {}
            wait_for_calm(linux);
        });
    });
}

#[test]
fn what_cannot_be_watched_says_so() {
    fact("what_cannot_be_watched_says_so", |linux| {
        let gone = Memory::new(linux, 4);
        gone.unmap();
        assert_eq!(linux.watch(gone.pages), Err(TrapError::NoArea(gone.pages)));
        let partly = Memory::new(linux, 4);
        partly.part(2, 1).unmap();
        let gap = PageRange::of(partly.page(2), 2);
        assert_eq!(linux.watch(partly.pages), Err(TrapError::NoArea(gap)));
        assert_eq!(linux.watch(PageRange::default()), Ok(()));
        // What can never be written to: the kernel has no write protection to offer for it.
        let file = kinds::file(linux, 4);
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let read_only = File::open(path).unwrap();
        let shared = Memory::new(linux, 4);
        shared.map_file(MapFlags::SHARED, ProtFlags::READ, &read_only).unwrap();
        assert_eq!(linux.watch(shared.pages), Err(TrapError::Unsupported(shared.pages)));
        let private = Memory::new(linux, 4);
        private.map_file_over(&read_only);
        assert_eq!(linux.watch(private.pages), Ok(()));
        if let Some(special) = special_area(linux) {
            assert_eq!(linux.watch(special), Err(TrapError::Unsupported(special)));
        }
        fact("what_cannot_be_watched_says_so", |second| {
            for memory in [Memory::trapped(second, 2), Memory::new(second, 2)] {
                second.watch(memory.pages).unwrap();
                assert_eq!(linux.watch(memory.pages), Err(TrapError::Foreign(memory.pages)));
            }
        });
    });
}

/// The code that the kernel maps into every process.
pub(crate) fn special_area(linux: &Linux) -> Option<PageRange> {
    // SAFETY: asking for a word of the auxiliary vector is always sound.
    let start = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    let page = linux.page_size().page_of(usize::try_from(start).ok().filter(|&at| at != 0)?);
    let mapping = linux.mapping_at(page).unwrap().unwrap();
    assert_eq!(mapping.backing, Backing::Special);
    Some(mapping.pages)
}

/// What the program does to memory, and whether the system lets it.
fn change(
    linux: &Linux,
    action: impl Fn(Memory) -> bool + Sync,
) -> Vec<(Kind, bool, Vec<Message>)> {
    kinds::each(linux)
        .map(|mapped| {
            let memory = mapped.memory;
            linux.watch(memory.pages).unwrap();
            let mut worked = false;
            let messages = told(linux, || worked = action(memory));
            let _ = linux.untrap(memory.pages);
            (mapped.kind, worked, messages)
        })
        .collect()
}

/// The pages that messages name, counted from those of the memory that [`change`] uses.
fn expect(found: &[(Kind, bool, Vec<Message>)], expected: impl Fn(Kind) -> (bool, usize)) {
    for (kind, worked, messages) in found {
        let (works, count) = expected(*kind);
        assert_eq!((*worked, messages.len()), (works, count), "{kind:?}: {messages:?}");
    }
}

#[test]
fn unmapping_and_mapping_over_are_told_of_every_kind() {
    fact("unmapping_and_mapping_over_are_told_of_every_kind", |linux| {
        let unmap = |memory: Memory| {
            memory.unmap();
            true
        };
        let map_over = |memory: Memory| {
            memory.map_over(MapFlags::PRIVATE);
            true
        };
        for found in [change(linux, unmap), change(linux, map_over)] {
            expect(&found, |_| (true, 1));
            for (kind, _, messages) in found {
                let [Message::Unmapped(pages)] = messages[..] else { panic!("{kind:?}") };
                assert_eq!(pages.len(), PAGES, "{kind:?}");
            }
        }
    });
}

#[test]
fn moves_of_every_kind_are_told_and_stay_watched() {
    fact("moves_of_every_kind_are_told_and_stay_watched", |linux| {
        for mapped in kinds::each(linux) {
            let (memory, target) = (mapped.memory, Memory::new(linux, PAGES));
            linux.watch(memory.pages).unwrap();
            let messages = told(linux, || memory.move_to(target));
            let expected = [
                Message::Remapped { from: memory.pages, to: target.page(0) },
                Message::Unmapped(memory.pages),
            ];
            assert_eq!(messages, expected, "{:?}", mapped.kind);
            assert_eq!(modes(target), WATCHED, "{:?}", mapped.kind);
            linux.untrap(target.pages).unwrap();
            target.unmap();
        }
    });
}

#[test]
fn discards_of_every_kind_are_told() {
    fact("discards_of_every_kind_are_told", |linux| {
        let advise = |advice| move |memory: Memory| memory.try_advise(advice).is_ok();
        expect(&change(linux, advise(Advice::LinuxDontNeed)), |_| (true, 1));
        // It comes to nothing but for private anonymous memory, and is told all the same.
        expect(&change(linux, advise(Advice::LinuxFree)), |kind| {
            (kind == Kind::PrivateAnonymous, usize::from(!kind.is_hugetlb()))
        });
        // A hole in a file by way of a mapping that may write to it.
        expect(&change(linux, advise(Advice::LinuxRemove)), |kind| {
            (!kind.is_private(), usize::from(!kind.is_private()))
        });
    });
}

#[test]
fn what_takes_pages_out_of_a_mapping_without_a_word() {
    fact("what_takes_pages_out_of_a_mapping_without_a_word", |linux| {
        let guarded = Memory::new(linux, 4);
        guarded.fill();
        linux.watch(guarded.pages).unwrap();
        if guarded.guard() {
            let gone = look(linux, guarded.pages);
            assert!(gone == [Look::Poisoned; 4] || gone == [Look::Swapped; 4], "{gone:?}");
        }
        let protected = Memory::new(linux, 4);
        linux.watch(protected.pages).unwrap();
        protected.protect(MprotectFlags::READ);
        for mapped in kinds::each(linux) {
            let Some(file) = &mapped.file else { continue };
            let memory = mapped.memory;
            linux.watch(memory.pages).unwrap();
            rustix::fs::ftruncate(file, 0).unwrap();
            let gone = look(linux, memory.pages);
            assert!(gone.iter().all(|&look| look == Look::Hole), "{:?}", mapped.kind);
            linux.untrap(memory.pages).unwrap();
        }
        assert_eq!(unread(linux), []);
    });
}

#[test]
fn watched_memory_gets_huge_pages_on_first_touch() {
    fact("watched_memory_gets_huge_pages_on_first_touch", |linux| {
        let touch = |watched: bool| {
            let memory = Memory::new(linux, 512);
            memory.advise(Advice::LinuxHugepage);
            if watched {
                linux.watch(memory.pages).unwrap();
            }
            memory.poke(7, 1);
            look(linux, memory.pages)[0]
        };
        if touch(false) != Look::PresentHuge {
            return skip(
                "watched_memory_gets_huge_pages_on_first_touch",
                "no huge page is to be had",
            );
        }
        assert_eq!(touch(true), Look::PresentHuge);
    });
}

#[test]
fn a_load_of_a_watched_file_maps_one_page() {
    fact("a_load_of_a_watched_file_maps_one_page", |linux| {
        let file = kinds::file(linux, 64);
        rustix::fs::fallocate(
            &file,
            rustix::fs::FallocateFlags::empty(),
            0,
            64 * linux.page_size().bytes() as u64,
        )
        .unwrap();
        let present = |watched: bool| {
            let memory = Memory::new(linux, 64);
            memory.map_file(MapFlags::SHARED, ProtFlags::READ | ProtFlags::WRITE, &file).unwrap();
            // All of it is in the page cache then, and not mapped.
            memory.fill();
            memory.advise(Advice::LinuxDontNeed);
            if watched {
                linux.watch(memory.pages).unwrap();
            }
            memory.peek(20);
            look(linux, memory.pages).iter().filter(|&&look| look != Look::Hole).count()
        };
        assert_eq!(present(true), 1);
        eprintln!("pages mapped by one load of a file that is not watched: {}", present(false));
    });
}

#[test]
fn a_child_has_nothing_watched() {
    fact("a_child_has_nothing_watched", |linux| {
        let memory = Memory::new(linux, 4);
        memory.fill();
        linux.watch(memory.pages).unwrap();
        let status = in_child(|| {
            // SAFETY: the child's own copy of the test's memory, which no reference is into.
            let done = unsafe { libc::munmap(memory.at(0).cast(), memory.bytes()) };
            i32::from(done != 0)
        });
        assert_eq!(status, 0);
        assert_eq!(unread(linux), []);
    });
}
