//! A run: what the program does, and that it goes as it should.

use std::ops::Range;

use uhmm::{
    PageLocation,
    mm::model::{Model, Signal},
    ring::{Limits, Order, Report, SLOTS, Words},
    units::AddressRange,
};
use uhmm_fuzz::{
    Input,
    rings::{SENT, message, place},
};
use uhmm_soft::{
    ARGUMENTS, KernelRunError, RunError,
    fuzzing::{Between, Head, Program},
};

use crate::{
    MOST_WORKERS,
    memory::{ADOPTED, KNOWN_BY, MASK, Memory, PAGE, PLACES, address, places, range, some_places},
    process::{GAVE_UP, Process, with},
};

/// A launch, as it should go on.
struct Launch {
    /// By places.
    given: Vec<Range<usize>>,
    items: Range<usize>,
    working: u64,
    failed: Vec<usize>,
}

/// For each worker, the room in the buffer of its faults.
const ENTRIES_PER_WORKER: usize = 16;

/// What became of the process by a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Kept,
    Lost,
    Either,
}

/// What the input decides.
fn decided<R>(then: impl FnOnce(&mut Input<'static>) -> R) -> R {
    with(|process| then(&mut process.input))
}

pub struct Run<'r, 'f> {
    program: &'r mut Program<'f, Model>,
    memory: &'r mut Memory,
    between: &'r Between,
    limits: Limits,
    launch: Option<Launch>,
    /// How many reports were heard.
    heard: u32,
    /// How many faults were heard that were not served yet.
    entered: usize,
    /// Which workers wait for an answer, and what for.
    waits: [Option<usize>; MOST_WORKERS],
    /// How many commands there were when it was last looked where the pages are.
    commands: u32,
    /// Which pages were on the device by then.
    away: [bool; PLACES],
    dead: bool,
    buried: bool,
}

impl<'r, 'f> Run<'r, 'f> {
    pub fn new(
        program: &'r mut Program<'f, Model>,
        memory: &'r mut Memory,
        between: &'r Between,
        limits: Limits,
    ) -> Self {
        Self {
            program,
            memory,
            between,
            limits,
            launch: None,
            heard: 0,
            entered: 0,
            waits: [None; _],
            commands: 0,
            away: [false; _],
            dead: false,
            buried: false,
        }
    }

    fn head(&self) -> Head<'_> {
        self.between.head()
    }

    pub fn step(&mut self) {
        match decided(|input| input.byte() % 16) {
            0..3 => with(Process::act),
            3..7 => self.serve(),
            7..9 => {
                with(Process::act);
                self.serve();
            }
            9 => self.launch(),
            10 => {
                let (pages, other) = decided(|input| (some_places(input), input.byte()));
                let others = &self.memory.world.others;
                let _ = others[usize::from(other % 2)].migrate(range(pages));
                self.look(|_, _| false);
            }
            11 => {
                let pages = decided(some_places);
                self.memory.note(pages.clone());
                let _ = self.program.migrate(range(pages.clone()));
                self.look(|_, page| pages.contains(&page));
            }
            12 => {
                let pages = decided(some_places);
                let _ = self.program.bring_back(range(pages));
                self.look(|_, _| false);
            }
            13 | 14 => self.touch(),
            _ => self.replace(),
        }
        assert!(self.program.frames_used() <= self.limits.frames);
        self.peek();
    }

    /// The program launches, unless a launch is under way.
    fn launch(&mut self) {
        if self.launch.is_some() {
            return;
        }
        let (given, items, arguments) = decided(|input| {
            let given: Vec<_> = (0..input.below(4))
                .map(|_| {
                    let pages = some_places(input);
                    // Not of whole pages: what has a byte in it may go.
                    (pages, input.below(PAGE), input.below(PAGE))
                })
                .collect();
            let first = input.below(1000);
            (given, first..first + input.below(1000), [input.number(&[]); ARGUMENTS])
        });
        let ranges = given.iter().map(|(pages, skip, less)| {
            let (start, end) = (address(pages.start) + skip, address(pages.end) - less);
            AddressRange::new(start, end.saturating_sub(start).max(1)).expect("a range")
        });
        let ranges: Vec<_> = ranges.collect();
        let given: Vec<_> = given.into_iter().map(|(pages, ..)| pages).collect();
        for pages in &given {
            self.memory.note(pages.clone());
        }
        with(|process| process.items = items.clone());
        let working = (1 << self.limits.workers) - 1;
        self.launch = Some(Launch { given, items: items.clone(), working, failed: Vec::new() });
        self.program.begin(self.limits.kernels - 1, items, arguments, &ranges);
        self.look(|_, _| false);
    }

    fn is_given(&self, page: usize) -> bool {
        let given = |launch: &Launch| launch.given.iter().any(|pages| pages.contains(&page));
        self.launch.as_ref().is_some_and(given)
    }

    /// The program's thread that serves hears a report, or answers who waits.
    fn serve(&mut self) {
        if with(|process| process.is_honest) {
            // Else what it is told has no room some time.
            with(Process::oblige);
        }
        let was_dead = self.program.is_dead();
        let was_buried = self.program.is_buried();
        let sent = self.orders_sent();
        let reports = self.head().reports;
        let there = place(reports, SENT).wrapping_sub(self.heard) as usize;
        let said = (1..=SLOTS).contains(&there).then(|| message(reports, self.heard));
        self.program.serve();
        if !was_buried {
            let mut orders = [0; MOST_WORKERS];
            let trust = match said {
                Some(said) => {
                    self.heard = self.heard.wrapping_add(1);
                    self.hear(said, &mut orders)
                }
                None if there > SLOTS => Trust::Lost,
                None => {
                    self.answered(&mut orders);
                    Trust::Kept
                }
            };
            let dead = self.program.is_dead();
            match trust {
                Trust::Kept if with(|process| process.is_honest) => {
                    assert!(!dead, "{said:x?} makes sense, and was not believed");
                }
                Trust::Kept => {}
                Trust::Lost => {
                    assert!(dead, "{said:x?} makes no sense, and was believed");
                    with(|process| process.is_honest = false);
                }
                Trust::Either => with(|process| process.is_honest &= !dead),
            }
            if !was_dead && !dead && !with(|process| process.wrote_theirs) {
                self.check_orders(&sent, &orders);
            }
        }
        self.look(Self::is_given);
        self.end_launch();
    }

    fn orders_sent(&self) -> [u32; MOST_WORKERS] {
        let orders = self.head().orders;
        std::array::from_fn(|worker| place(&orders[worker], SENT))
    }

    /// Notes what a report says. Answers whether the process is trusted then.
    fn hear(&mut self, said: Words, orders: &mut [u32]) -> Trust {
        let Ok(report) = Report::parse(said, &self.limits) else { return Trust::Lost };
        let (Report::Fault { worker, .. }
        | Report::Done { worker }
        | Report::Failed { worker, .. }) = report;
        if self.waits[worker].is_some() {
            return Trust::Lost;
        }
        let failed = match report {
            Report::Fault { address: at, access, .. } => {
                let first = address(0);
                let page = at.checked_sub(first).map(|past| past / PAGE);
                if page.is_some_and(|page| self.is_given(page)) {
                    if self.entered == self.limits.workers * ENTRIES_PER_WORKER {
                        self.answered(orders);
                    }
                    self.entered += 1;
                    self.waits[worker] = (!access.is_hint()).then_some(at);
                } else if !access.is_hint() {
                    orders[worker] += 1;
                }
                return Trust::Kept;
            }
            Report::Done { .. } => None,
            Report::Failed { item, error, .. } => Some((item, error)),
        };
        self.answered(orders);
        let Some(launch) = &mut self.launch else { return Trust::Lost };
        if launch.working & 1 << worker == 0 {
            return Trust::Lost;
        }
        let mut trust = Trust::Kept;
        if let Some((item, error)) = failed {
            let item = usize::try_from(item).ok().filter(|item| launch.items.contains(item));
            let Some(item) = item else { return Trust::Lost };
            if !matches!(error, [GAVE_UP, _, 0, 0, 0]) {
                trust = Trust::Either;
            }
            launch.failed.push(item);
        }
        launch.working &= !(1 << worker);
        trust
    }

    /// All that was entered is served, and who waits is told.
    fn answered(&mut self, orders: &mut [u32]) {
        self.entered = 0;
        for (waits, orders) in self.waits.iter_mut().zip(orders) {
            *orders += u32::from(waits.take().is_some());
        }
    }

    /// Each worker was told as much as it is to be, of faults alone.
    fn check_orders(&self, before: &[u32], expected: &[u32]) {
        for (worker, ring) in self.head().orders.iter().take(self.limits.workers).enumerate() {
            let told = place(ring, SENT).wrapping_sub(before[worker]);
            assert_eq!(told, expected[worker], "answers to worker {worker}");
            for which in 0..told {
                let order = Order::parse(message(ring, before[worker] + which), &self.limits);
                assert!(
                    matches!(order, Ok(Order::Served { .. } | Order::Refused { .. })),
                    "{order:?} is no answer"
                );
            }
        }
    }

    /// Who launched hears of the end, and of the end that there was.
    fn end_launch(&mut self) {
        let (done, dead) = (self.program.is_done(), self.program.is_dead());
        let Some(launch) = &self.launch else { return };
        if dead {
            // Before or after all had left it.
            assert!(done || !self.program.is_buried(), "who launched hears that it is gone");
        } else {
            assert_eq!(done, launch.working == 0, "all have left the launch");
        }
        if !done {
            return;
        }
        let result = self.program.end();
        match result {
            Err(KernelRunError::Lost) => assert!(dead, "it is there"),
            Ok(()) => assert!(launch.working == 0 && launch.failed.is_empty()),
            Err(KernelRunError::Run(RunError::Item { item, .. })) => {
                assert_eq!(launch.working, 0);
                assert_eq!(Some(&item), launch.failed.iter().min());
            }
            Err(error) => panic!("{error}"),
        }
        self.launch = None;
        with(|process| process.items = 0..0);
    }

    /// A thread of the program reads a page, which comes back if it is away, and perhaps writes it.
    fn touch(&mut self) {
        let (page, writes) = decided(|input| (input.below(PLACES), input.is_set()));
        let mut read = [0; PAGE];
        let seen = self.memory.world.model.load(address(page), &mut read);
        self.look(|_, _| false);
        match seen {
            Err(Signal::Bus(_)) => {
                assert!(self.dead && self.memory.is_lost(page), "page {page} ends with a signal");
            }
            Err(other) => panic!("page {page}: {other}"),
            Ok(()) => {
                let wrote = with(|process| process.wrote);
                self.memory.check(page, &read, wrote);
                if writes {
                    let may_have = self.is_given(page);
                    self.memory.write(page, may_have);
                    self.look(|_, _| false);
                }
            }
        }
    }

    /// The program unmaps some pages, and maps others there.
    fn replace(&mut self) {
        let pages = decided(some_places);
        self.memory.map_anew(pages.clone());
        for page in pages.clone() {
            let may_have = self.is_given(page);
            self.memory.write(page, may_have);
        }
        let adopted = pages.start.max(ADOPTED.start)..pages.end.min(ADOPTED.end);
        if !adopted.is_empty() {
            self.memory.world.space.adopt(range(adopted)).expect("they may migrate");
        }
        self.look(|_, _| false);
    }

    /// Looks where the pages are after a step in which those could come to the device of which `comes` says so.
    fn look(&mut self, comes: impl Fn(&Self, usize) -> bool) {
        let commands = place(self.head().commands, SENT);
        let (dead, buried) = (self.program.is_dead(), self.program.is_buried());
        let wrote_theirs = with(|process| process.wrote_theirs);
        if commands == self.commands && (dead, buried) == (self.dead, self.buried) && !wrote_theirs
        {
            return;
        }
        let here = PageLocation::Device(self.program.index());
        let space = &self.memory.world.space;
        for page in places() {
            let location = space.locate(address(page));
            let (was_away, is_away) = (self.away[page], location == here);
            assert!(!is_away || self.memory.had[page], "page {page} is on the device");
            assert!(!is_away || was_away || comes(self, page), "page {page} came to the device");
            assert!(!is_away || !buried, "page {page} is on a device that is gone");
            if location == PageLocation::Poisoned {
                let could_be = self.memory.may_be_lost[page] || !self.dead && comes(self, page);
                assert!(dead && could_be, "page {page} is lost");
                self.memory.may_be_lost[page] = true;
            } else if !self.dead {
                self.memory.may_be_lost[page] = is_away;
            }
            self.away[page] = is_away;
        }
        self.memory.is_over |= dead;
        (self.commands, self.dead, self.buried) = (commands, dead, buried);
    }

    /// No frame has what the process was not to have.
    fn peek(&self) {
        let (first, len) = self.between.frames();
        for frame in (0..len).step_by(PAGE) {
            // SAFETY: it is in the frames.
            let begins = unsafe { first.add(frame).cast::<[u8; 8]>().read_volatile() };
            let begins = u64::from_le_bytes(begins);
            let is_known = begins & MASK != KNOWN_BY || self.memory.known.contains(&begins);
            assert!(is_known, "a frame has page {begins:#x}, which no launch named");
        }
    }

    /// The process ends while it computes, if it does.
    pub fn end(mut self) {
        if self.launch.is_some() {
            with(Process::die);
            // What it said before is heard.
            (0..SLOTS + 2).for_each(|_| self.serve());
            assert!(self.launch.is_none() && self.program.is_buried());
        }
        self.peek();
    }
}
