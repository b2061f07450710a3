//! A program whose device process means it no good: it writes any word that both have, and any frame, between the
//! steps of the program. Pages that no launch named and nobody moved stay where and what they are, what the process
//! gets is what a launch names, and where it leaves the frames alone no page has another's content.
#![no_main]

use std::{
    ops::Range,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use libfuzzer_sys::fuzz_target;
use uhmm::{
    AddressSpace, Options, PageLocation,
    mm::{
        Backing, Protection,
        model::{Model, ModelOptions},
    },
    ring::{Limits, Order, Report, RingMemory, SLOTS, WORDS, Words},
    units::{AddressRange, BLOCK_PAGES, PageNumber, PageSize},
};
use uhmm_fuzz::Input;
use uhmm_soft::{
    ProcessRunError,
    fuzzing::{Head, Program},
};

const PAGE: usize = 64;

/// The program's pages, of two blocks.
const FIRST: usize = BLOCK_PAGES - 16;
const PAGES: usize = 64;

const KERNELS: usize = 3;

/// One address space for all runs: each has pages and a device of its own.
struct World {
    model: Model,
    space: AddressSpace<Model>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let page_size = PageSize::new(PAGE).expect("a power of two");
    let pages = 4 * BLOCK_PAGES;
    let staging_pages = 32 * BLOCK_PAGES;
    let options = ModelOptions { page_size, pages, staging_pages, ..ModelOptions::default() };
    let model = Model::new(options);
    let space = Options::new().engine_memory(256 << 20).open_on(model.clone());
    World { model, space: space.expect("an address space") }
});

fn content(page: usize) -> [u8; PAGE] {
    let mut content = [0xc0; PAGE];
    content[..8].copy_from_slice(&(page as u64 + 1).to_le_bytes());
    content
}

fn addresses(pages: Range<usize>) -> AddressRange {
    AddressRange::new(pages.start * PAGE, pages.len() * PAGE).expect("pages")
}

/// Some of the program's pages.
fn part(input: &mut Input) -> Range<usize> {
    let first = input.below(PAGES);
    FIRST + first..FIRST + first + 1 + input.below(PAGES - first)
}

struct Run<'w> {
    world: &'w World,
    program: Program<Model>,
    limits: Limits,
    /// Pages that the process may have had.
    had: [bool; PAGES],
    /// What the launch under way names.
    launch: Option<(Range<u64>, Vec<AddressRange>)>,
    times: u32,
    /// How many reports were taken, and how many were made.
    taken: usize,
    made: usize,
    /// Whether the process wrote a frame.
    wrote: bool,
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let world = &*WORLD;
    let protection = Protection { read: true, write: true, execute: false };
    let backing = Backing::PrivateAnonymous;
    let pages = world.model.map(Some(PageNumber(FIRST)), PAGES, protection, backing);
    let pages = pages.expect("they fit");
    for page in FIRST..FIRST + PAGES {
        world.model.store(page * PAGE, &content(page)).expect("it is mapped");
    }
    world.space.adopt(addresses(FIRST..FIRST + PAGES)).expect("they may migrate");
    let frames = 1 + input.below(2 * PAGES);
    let mut run = Run {
        program: Program::new(&world.space, frames, KERNELS),
        world,
        limits: Limits {
            frames,
            kernels: KERNELS,
            pages: world.space.page_limit().0,
            page_bytes: PAGE,
        },
        had: [false; PAGES],
        launch: None,
        times: 0,
        taken: 0,
        made: 0,
        wrote: false,
    };
    let obliges = input.is_set();
    while !input.is_empty() {
        if obliges {
            run.oblige();
        }
        run.step(&mut input);
        assert!(run.program.frames_used() <= frames);
    }
    run.end(obliges);
    world.model.unmap(pages).expect("they were mapped");
});

fn words(ring: &RingMemory) -> &[AtomicU64] {
    let count = size_of::<RingMemory>() / 8;
    // SAFETY: it is atomics, aligned to more than words, whose bytes are all words too.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(ring).cast(), count) }
}

/// The word of a sender's place, of a receiver's, and of a slot's first.
const SENT: usize = 0;
const RECEIVED: usize = 8;
const SLOTS_AT: usize = 16;

fn message(ring: &RingMemory, place: usize) -> Words {
    let slot = SLOTS_AT + place % SLOTS * WORDS;
    std::array::from_fn(|word| words(ring)[slot + word].load(Relaxed))
}

impl Run<'_> {
    /// The process has received all, and says that it has applied more than that.
    fn oblige(&self) {
        let Head { commands, orders, applied, .. } = self.program.head();
        for ring in [commands, orders] {
            let sent = words(ring)[SENT].load(Relaxed);
            words(ring)[RECEIVED].store(u64::from(sent as u32), Relaxed);
        }
        let sent = words(commands)[SENT].load(Relaxed) as u32;
        applied.store(sent.wrapping_add(1 << 20), Relaxed);
    }

    fn step(&mut self, input: &mut Input) {
        match input.byte() % 16 {
            0 => self.meddle(input),
            1 => self.write_frame(input),
            2..5 => self.report(input),
            5..9 => self.serve(),
            9..11 => self.launch(input),
            11 => {
                let pages = part(input);
                self.note(pages.clone());
                let _ = self.program.migrate(addresses(pages));
            }
            12 => {
                let _ = self.program.bring_back(addresses(part(input)));
            }
            13 => self.touch(input),
            _ => {
                self.report(input);
                self.serve();
            }
        }
    }

    fn note(&mut self, pages: Range<usize>) {
        let start = pages.start.clamp(FIRST, FIRST + PAGES) - FIRST;
        let end = pages.end.clamp(FIRST, FIRST + PAGES) - FIRST;
        self.had[start..end].fill(true);
    }

    /// The process writes what it should not.
    fn meddle(&self, input: &mut Input) {
        let Head { commands, orders, reports, applied, words: all } = self.program.head();
        let known = [self.made, self.taken, self.made + SLOTS].map(|known| known as u64);
        let number = input.number(&known);
        match input.byte() % 8 {
            0 => words(commands)[RECEIVED].store(number, Relaxed),
            1 => words(orders)[RECEIVED].store(number, Relaxed),
            2 => words(reports)[SENT].store(number, Relaxed),
            3 => applied.store(number as u32, Relaxed),
            4 => words(reports)[SLOTS_AT + self.taken % SLOTS * WORDS + input.below(WORDS)]
                .store(number, Relaxed),
            _ => all[input.below(all.len())].store(number as u32, Relaxed),
        }
    }

    fn write_frame(&mut self, input: &mut Input) {
        self.wrote = true;
        let (first, len) = self.program.frames();
        let at = input.below(len);
        // SAFETY: it is in the frames, which nobody else touches just now but atomically or by a copy of bytes
        // that may be any.
        unsafe { first.add(at).write(input.byte()) };
    }

    /// The process reports something that makes sense, or nearly.
    fn report(&mut self, input: &mut Input) {
        let report = match input.byte() % 8 {
            0 => Report::Done,
            1 => Report::Failed { item: input.number(&[]), address: input.number(&[]) },
            2 => Report::Fault { address: input.number(&[]) as usize, write: input.is_set() },
            _ => {
                let page = FIRST - 2 + input.below(PAGES + 4);
                Report::Fault { address: page * PAGE + input.below(PAGE), write: input.is_set() }
            }
        };
        let reports = self.program.head().reports;
        let slot = SLOTS_AT + self.made % SLOTS * WORDS;
        for (word, value) in words(reports)[slot..].iter().zip(report.encode()) {
            word.store(value, Relaxed);
        }
        self.made += 1;
        words(reports)[SENT].store(self.made as u64, Relaxed);
    }

    /// The program takes a report, as its thread does while the process lives.
    fn serve(&mut self) {
        if self.program.is_dead() {
            return;
        }
        let said = message(self.program.head().reports, self.taken);
        if !self.program.serve() {
            return;
        }
        self.taken += 1;
        if self.program.is_dead() {
            return;
        }
        // It lives, so it was believed.
        let report = Report::parse(said, &self.limits).expect("what is none ends it");
        match report {
            Report::Fault { address, .. } => {
                let orders = self.program.head().orders;
                let sent = words(orders)[SENT].load(Relaxed) as u32 as usize;
                let order = Order::parse(message(orders, sent.wrapping_sub(1)), &self.limits);
                let Ok(Order::Served { served, .. }) = order else {
                    panic!("a fault is answered, not {order:?}");
                };
                let launch = self.launch.as_ref();
                let given = launch.is_some_and(|(_, given)| {
                    given.iter().any(|range| range.start() <= address && address < range.end())
                });
                assert!(!served || given, "{address:#x} is nothing that a launch names");
            }
            Report::Done | Report::Failed { .. } => {
                self.times += 1;
                assert_eq!(self.program.times_done(), self.times);
                let Some((items, _)) = self.launch.take() else { panic!("nothing is under way") };
                match (report, self.program.end()) {
                    (Report::Done, Ok(())) => {}
                    (
                        Report::Failed { item, address },
                        Err(ProcessRunError::Item { item: told, address: at, .. }),
                    ) => {
                        assert_eq!((item, address), (told, at));
                        assert!(items.contains(&item), "{item} is no item of the launch");
                    }
                    (said, told) => panic!("{told:?} of {said:?}"),
                }
            }
        }
    }

    fn launch(&mut self, input: &mut Input) {
        if self.launch.is_some() {
            return;
        }
        let given: Vec<_> = (0..input.below(4))
            .map(|_| {
                let pages = part(input);
                self.note(pages.clone());
                // Not of whole pages: what has a byte in it may go.
                let (skip, less) = (input.below(PAGE), input.below(PAGE));
                let (start, end) = (pages.start * PAGE + skip, pages.end * PAGE - less);
                AddressRange::new(start, end.saturating_sub(start).max(1)).expect("a range")
            })
            .collect();
        let first = input.number(&[]) / 2;
        let items = first..first + input.number(&[]) / 2;
        self.program.begin(input.below(KERNELS), items.clone(), [1, 2, 3, 4], &given);
        self.launch = Some((items, given));
    }

    /// A thread of the program reads or writes a page, which comes back if it is away.
    fn touch(&self, input: &mut Input) {
        let page = part(input).start;
        let mut read = [0; PAGE];
        // Where it was lost with the process it ends with a signal.
        let seen = self.world.model.load(page * PAGE, &mut read);
        if seen.is_ok() && input.is_set() {
            let _ = self.world.model.store(page * PAGE, &read);
        }
        self.check(page, seen.is_ok().then_some(&read[..]));
    }

    /// What a page is, if it is readable.
    fn check(&self, page: usize, seen: Option<&[u8]>) {
        if !self.had[page - FIRST] {
            assert_eq!(seen, Some(&content(page)[..]), "page {page}, which nobody gave it");
        } else if let (Some(seen), false) = (seen, self.wrote) {
            assert_eq!(seen, content(page), "page {page}, which it left alone");
        }
    }

    fn end(mut self, obliges: bool) {
        if self.program.is_dead() {
            self.program.bury();
        } else if obliges {
            self.oblige();
        }
        for page in FIRST..FIRST + PAGES {
            if !self.had[page - FIRST] {
                assert_eq!(self.world.space.locate(page * PAGE), PageLocation::System);
            }
        }
        let Self { program, world, had, wrote, .. } = self;
        drop(program);
        assert_eq!(world.model.violations(), []);
        for page in FIRST..FIRST + PAGES {
            let mut read = [0; PAGE];
            let seen = world.model.load(page * PAGE, &mut read).is_ok().then_some(&read[..]);
            if !had[page - FIRST] {
                assert_eq!(seen, Some(&content(page)[..]), "page {page}, which nobody gave it");
            } else if let (Some(seen), false) = (seen, wrote) {
                assert_eq!(seen, content(page), "page {page}, which it left alone");
            }
        }
    }
}
