//! The model and Linux say the same of the same random program.
//!
//! Where they are known to differ nothing is compared: what of a file or of shared memory is mapped
//! just now, and where areas that are alike are one.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use rustix::{
    fd::OwnedFd,
    mm::{Advice, MapFlags, MprotectFlags},
};
use uhmm::{
    mm::{
        Access, Backing, Look, Message, Mm, Presence, Protection, TrapError,
        linux::Linux,
        model::{Model, ModelOptions},
    },
    units::{PageNumber, PageRange},
};

use crate::kinds;
use crate::memory::Memory;
use crate::support::{Child, empty, fact, unmap_staging};

/// Pages of the window in which the program works.
const PAGES: usize = 20;

const READ_WRITE: Protection = Protection { read: true, write: true, execute: false };
const READ_ONLY: Protection = Protection { write: false, ..READ_WRITE };
const NONE: Protection = Protection { read: false, ..READ_ONLY };

#[derive(Clone, Copy, Debug)]
enum Step {
    Map(Backing),
    Unmap,
    Move {
        to: usize,
    },
    Protect(Protection),
    Discard,
    Truncate {
        pages: usize,
    },
    Store(u8),
    Load,
    Fork,
    Watch,
    Untrap,
    Poison,
    Populate(Access),
    Zero(Access),
    /// A page goes to staging and comes back, the protection changing meanwhile.
    Away {
        between: Protection,
        copied: bool,
    },
}

fn step() -> impl Strategy<Value = (Step, usize, usize)> {
    let backing = prop_oneof![
        2 => Just(Backing::PrivateAnonymous),
        1 => Just(Backing::SharedAnonymous),
        2 => Just(Backing::PrivateFile),
        1 => Just(Backing::SharedFile),
    ];
    let protection = prop_oneof![2 => Just(READ_WRITE), 1 => Just(READ_ONLY), 1 => Just(NONE)];
    let access = || prop_oneof![Just(Access::Read), Just(Access::Write)];
    let away = (protection.clone(), any::<bool>())
        .prop_map(|(between, copied)| Step::Away { between, copied });
    let step = prop_oneof![
        4 => backing.prop_map(Step::Map),
        1 => Just(Step::Unmap),
        2 => (0..PAGES).prop_map(|to| Step::Move { to }),
        2 => protection.prop_map(Step::Protect),
        2 => Just(Step::Discard),
        2 => (0..8_usize).prop_map(|pages| Step::Truncate { pages }),
        4 => (1..=255_u8).prop_map(Step::Store),
        2 => Just(Step::Load),
        1 => Just(Step::Fork),
        4 => Just(Step::Watch),
        1 => Just(Step::Untrap),
        1 => Just(Step::Poison),
        4 => access().prop_map(Step::Populate),
        2 => access().prop_map(Step::Zero),
        4 => away,
    ];
    (step, 0..PAGES, 1..8_usize)
        .prop_map(|(step, start, len)| (step, start, len.min(PAGES - start)))
}

fn flags(protection: Protection) -> MprotectFlags {
    let mut flags = MprotectFlags::empty();
    flags.set(MprotectFlags::READ, protection.read);
    flags.set(MprotectFlags::WRITE, protection.write);
    flags
}

/// What was told, in order. The lock is held while it is read, so that whoever was let go on by the
/// reading finds it here.
type Told = Mutex<Vec<Message>>;

fn read_on(mm: &impl Mm, told: &Told, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        mm.wait(None);
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut some = [Message::Discarded(PageRange::default()); 8];
        let count = mm.read(&mut some);
        told.extend(&some[..count]);
    }
}

/// A window of Linux's address space and the start of the model's.
struct Both<'a> {
    linux: &'a Linux,
    memory: Memory,
    model: Model,
    told: [&'a Told; 2],
    /// The file that is mapped at each page.
    files: [Option<usize>; PAGES],
    all_files: Vec<OwnedFd>,
    children: Vec<Child>,
    /// A page of staging of each.
    staging: [PageNumber; 2],
}

impl Both<'_> {
    fn in_model(start: usize, len: usize) -> PageRange {
        PageRange::of(PageNumber(start), len)
    }

    fn mapping(&self, page: usize) -> Option<(Protection, Backing)> {
        let mapping = self.model.mapping_at(PageNumber(page)).unwrap();
        mapping.map(|mapping| (mapping.protection, mapping.backing))
    }

    fn take(&mut self, step: Step, start: usize, len: usize) {
        let (pages, part) = (Self::in_model(start, len), self.memory.part(start, len));
        match step {
            Step::Map(backing) => self.map(backing, start, len),
            Step::Unmap => {
                self.model.unmap(pages).unwrap();
                part.unmap();
                self.files[start..start + len].fill(None);
            }
            Step::Move { to } => self.move_to(start, len, to),
            Step::Protect(protection) => {
                let ours = self.model.protect(pages, protection).is_ok();
                assert_eq!(part.try_protect(flags(protection)).is_ok(), ours);
            }
            Step::Discard => {
                let ours = self.model.discard(pages).is_ok();
                assert_eq!(part.try_advise(Advice::LinuxDontNeed).is_ok(), ours);
            }
            Step::Truncate { pages } => {
                if let Some(file) = self.files[start] {
                    self.model.truncate(PageNumber(start), pages).unwrap();
                    let bytes = self.linux.page_size().bytes_in(pages) as u64;
                    rustix::fs::ftruncate(&self.all_files[file], bytes).unwrap();
                }
            }
            Step::Store(byte) => {
                let at = self.model.page_size().address_of(PageNumber(start));
                if self.model.store(at, &[byte]).is_ok() {
                    self.memory.poke(start, byte);
                }
            }
            Step::Load => {
                let mut byte = [0];
                let at = self.model.page_size().address_of(PageNumber(start));
                if self.model.load(at, &mut byte).is_ok() {
                    assert_eq!(self.memory.peek(start), byte[0], "content of page {start}");
                }
            }
            Step::Fork => {
                if self.children.len() < 3 {
                    self.children.push(Child::fork());
                    self.model.share_by_fork(Self::in_model(0, PAGES));
                }
            }
            Step::Watch => match self.model.watch(pages) {
                Ok(()) => self.linux.watch(part.pages).unwrap(),
                // What precedes the gap may be watched.
                Err(TrapError::NoArea(_)) => {
                    let theirs = self.linux.watch(part.pages);
                    assert!(matches!(theirs, Err(TrapError::NoArea(_))), "{theirs:?}");
                    self.take(Step::Untrap, start, len);
                }
                Err(error) => panic!("{error}"),
            },
            Step::Untrap => {
                self.model.untrap(pages).unwrap();
                self.linux.untrap(part.pages).unwrap();
            }
            Step::Poison => {
                if self.mapping(start).is_some_and(|(_, at)| at == Backing::PrivateAnonymous) {
                    let ours = self.model.poison(PageNumber(start), 1);
                    assert_eq!(self.linux.poison(part.page(0), 1), ours);
                }
            }
            Step::Zero(access) => {
                if self.mapping(start).is_some_and(|(_, at)| at == Backing::PrivateAnonymous) {
                    let ours = self.model.zero(PageNumber(start), 1, access);
                    assert_eq!(self.linux.zero(part.page(0), 1, access), ours);
                }
            }
            Step::Away { between, copied } => {
                if self.mapping(start).is_some_and(|(_, at)| at == Backing::PrivateAnonymous) {
                    self.go_and_come(start, between, copied);
                }
            }
            Step::Populate(access) => {
                let ours = self.model.populate(pages, access);
                assert_eq!(self.linux.populate(part.pages, access), ours);
            }
        }
    }

    /// A page goes to staging, the protection changes, and it comes back, where it may.
    fn go_and_come(&self, page: usize, between: Protection, copied: bool) {
        let part = self.memory.part(page, 1);
        let [ours, theirs] = self.staging;
        let went = self.model.take(PageNumber(page), ours, 1);
        assert_eq!(self.linux.take(part.page(0), theirs, 1), went, "page {page} goes");
        self.model.protect(Self::in_model(page, 1), between).unwrap();
        part.protect(flags(between));
        if went.pages == 0 {
            return;
        }
        let [came, here] = if copied {
            [self.model.copy(ours, PageNumber(page), 1), self.linux.copy(theirs, part.page(0), 1)]
        } else {
            [self.model.give(ours, PageNumber(page), 1), self.linux.give(theirs, part.page(0), 1)]
        };
        assert_eq!(here, came, "page {page} comes, copied: {copied}");
        // SAFETY: nobody uses the model's staging.
        unsafe { self.model.empty_staging(PageRange::of(ours, 1)) }.unwrap();
        empty(self.linux, PageRange::of(theirs, 1)).unwrap();
    }

    fn map(&mut self, backing: Backing, start: usize, len: usize) {
        let part = self.memory.part(start, len);
        self.model.map(Some(PageNumber(start)), len, READ_WRITE, backing).unwrap();
        let private = matches!(backing, Backing::PrivateAnonymous | Backing::PrivateFile);
        let flags = if private { MapFlags::PRIVATE } else { MapFlags::SHARED };
        let mut mapped = None;
        if matches!(backing, Backing::PrivateAnonymous | Backing::SharedAnonymous) {
            part.map_over(flags);
        } else {
            let file = kinds::file(self.linux, len);
            part.try_map_over(flags, &file).unwrap();
            mapped = Some(self.all_files.len());
            self.all_files.push(file.into());
        }
        self.files[start..start + len].fill(mapped);
    }

    fn move_to(&mut self, start: usize, len: usize, to: usize) {
        let (from, part) = (Self::in_model(start, len), self.memory.part(start, len));
        let whole = |mapping: Option<uhmm::mm::Mapping>, pages| {
            mapping.is_some_and(|mapping| mapping.pages.covers(pages))
        };
        let apart = start + len <= to || to + len <= start;
        if to + len <= PAGES
            && apart
            && whole(self.model.mapping_at(from.start()).unwrap(), from)
            && whole(self.linux.mapping_at(part.page(0)).unwrap(), part.pages)
        {
            self.model.remap(from, Some(PageNumber(to)), false).unwrap();
            part.move_to(self.memory.part(to, len));
            let files = self.files;
            self.files[to..to + len].copy_from_slice(&files[start..start + len]);
            self.files[start..start + len].fill(None);
        }
    }

    /// Compares what can be seen.
    fn compare(&self) {
        let base = self.memory.page(0).0;
        let mut presences = [[Presence::default(); PAGES]; 2];
        let note = |into: &mut [Presence; PAGES], run: PageRange, from: usize, what| {
            into[run.start().0 - from..run.end().0 - from].fill(what);
        };
        let [ours, theirs] = &mut presences;
        let all = Self::in_model(0, PAGES);
        self.model.scan(all, &mut |run, what| note(ours, run, 0, what)).unwrap();
        let pages = self.memory.pages;
        self.linux.scan(pages, &mut |run, what| note(theirs, run, base, what)).unwrap();
        let mut may = [[false; PAGES]; 2];
        self.model.may_write(PageNumber(0), PAGES, &mut |at, is| may[0][at] = is).unwrap();
        self.linux.may_write(pages.start(), PAGES, &mut |at, is| may[1][at] = is).unwrap();
        assert_eq!(may[0], may[1], "what may be written");
        let [ours, theirs] = presences;
        for (page, (ours, theirs)) in ours.into_iter().zip(theirs).enumerate() {
            self.compare_presence(page, ours, theirs);
            let theirs = self.linux.mapping_at(self.memory.page(page)).unwrap();
            let theirs = theirs.map(|mapping| (mapping.protection, mapping.backing));
            assert_eq!(self.mapping(page), theirs, "the area of page {page}");
        }
        let [ours, theirs] = self.told.map(|told| {
            joined(core::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner)))
        });
        let moved = theirs.into_iter().map(|message| relative(message, base)).collect::<Vec<_>>();
        assert_eq!(moved, ours, "what is told");
    }

    fn compare_presence(&self, page: usize, ours: Presence, theirs: Presence) {
        // Marks look so to who may not see them.
        let marked = ours.look == Look::Poisoned && theirs.look == Look::Swapped;
        match self.mapping(page) {
            // A load can bring the neighbours of a page of a file.
            Some((_, Backing::PrivateFile)) if ours.look == Look::Hole => {
                assert!(theirs.look == Look::Hole || theirs.file, "page {page}: {theirs:?}");
            }
            Some((_, Backing::SharedAnonymous | Backing::SharedFile)) => {
                assert_eq!(theirs.file, theirs.look == Look::Present, "page {page}");
            }
            _ if marked => {}
            _ => assert_eq!(theirs, ours, "page {page}"),
        }
    }
}

/// The messages, discards of neighbours as one.
fn joined(messages: Vec<Message>) -> Vec<Message> {
    let mut all: Vec<Message> = Vec::new();
    for message in messages {
        if let (Some(Message::Discarded(last)), Message::Discarded(next)) =
            (all.last_mut(), message)
            && last.end() == next.start()
        {
            *last = PageRange::new(last.start(), next.end());
        } else {
            all.push(message);
        }
    }
    all
}

/// The same message with pages counted from `base`.
fn relative(message: Message, base: usize) -> Message {
    let page = |page: PageNumber| PageNumber(page.0 - base);
    let range = |pages: PageRange| PageRange::of(page(pages.start()), pages.len());
    match message {
        Message::Fault { page: at, access, thread } => {
            Message::Fault { page: page(at), access, thread }
        }
        Message::Unmapped(pages) => Message::Unmapped(range(pages)),
        Message::Discarded(pages) => Message::Discarded(range(pages)),
        Message::Remapped { from, to } => Message::Remapped { from: range(from), to: page(to) },
        Message::Forked(child) => Message::Forked(child),
    }
}

fn run(linux: &Linux, steps: &[(Step, usize, usize)]) {
    let memory = Memory::apart(linux, PAGES);
    let model = Model::new(ModelOptions { pages: PAGES, ..Default::default() });
    let (told, over) = ([Told::default(), Told::default()], AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| read_on(&model, &told[0], &over));
        scope.spawn(|| read_on(linux, &told[1], &over));
        // Ends the readers when a comparison fails too.
        let end = End(&over, linux, &model);
        memory.unmap();
        let staged = [model.map_staging(1).unwrap(), linux.map_staging(1).unwrap()];
        let staging = staged.map(PageRange::start);
        let mut both = Both {
            linux,
            memory,
            model: model.clone(),
            told: [&told[0], &told[1]],
            files: [None; PAGES],
            all_files: Vec::new(),
            children: Vec::new(),
            staging,
        };
        for &(step, start, len) in steps {
            both.take(step, start, len);
            both.compare();
        }
        memory.unmap();
        unmap_staging(linux, staged[1]);
        drop(end);
    });
}

struct End<'a>(&'a AtomicBool, &'a Linux, &'a Model);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        self.1.kick();
        self.2.kick();
    }
}

#[test]
fn the_model_and_linux_agree() {
    fact("the_model_and_linux_agree", |linux| {
        let config = ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() };
        TestRunner::new(config)
            .run(&vec(step(), 1..60), |steps| {
                run(linux, &steps);
                Ok(())
            })
            .unwrap();
    });
}
