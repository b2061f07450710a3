//! The program, as the fuzzer plays it.

use std::{
    collections::HashMap,
    rc::Rc,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use uhmm::{
    StayCause,
    ring::{Command, Limits, Order, Report, RingMemory, SLOTS, WORDS, Words},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};
use uhmm_fuzz::{
    Input,
    rings::{RECEIVED, SENT, SLOTS_AT, message, place},
};
use uhmm_soft::fuzzing::{Between, Process};

use crate::{
    At, DONE, MOST_WORKERS, PROTOCOL,
    shadow::{Shadow, index},
};

pub struct Program {
    pub between: Rc<Between>,
    pub process: Rc<Process>,
    pub limits: Limits,
    pub input: Input<'static>,
    pub shadow: Shadow,
    /// The frame of each page as of the commands that were applied, and whether it may be written.
    pub table: HashMap<usize, (usize, bool)>,
    /// Who is at work.
    pub at: Vec<At>,
    pub turns: usize,
    /// Whether the process has ended.
    pub ended: bool,
    /// How many commands were made, and were applied.
    commands: u32,
    applied: u32,
    /// How many orders were made for each worker.
    orders: [u32; MOST_WORKERS],
    /// How many reports were heard.
    heard: u32,
    /// The fault that is to be served: whose.
    waits: Option<usize>,
    /// The ranges of pages that each worker may have read as those of its launch, since it began.
    given: [Vec<Vec<PageRange>>; MOST_WORKERS],
}

/// A page that commands and kernels name: near the ends of blocks.
pub fn some_page(input: &mut Input<'_>) -> usize {
    input.below(16) + input.below(3) * (BLOCK_PAGES - 8)
}

impl Program {
    pub fn new(between: &Rc<Between>, process: &Rc<Process>, input: Input<'static>) -> Self {
        let limits = *process.limits();
        // The process has as many as it was told, and no more are played.
        let workers = limits.workers.min(MOST_WORKERS);
        Self {
            between: Rc::clone(between),
            process: Rc::clone(process),
            limits: Limits { workers, ..limits },
            input,
            shadow: Shadow::new(between, workers, limits.page_bytes),
            table: HashMap::new(),
            at: Vec::new(),
            turns: 0,
            ended: false,
            commands: 0,
            applied: 0,
            orders: [0; _],
            heard: 0,
            waits: None,
            given: Default::default(),
        }
    }

    /// Whether there is something to do and to decide it by.
    pub fn goes_on(&mut self) -> bool {
        !self.ended && !self.input.is_empty()
    }

    fn write(&mut self, at: usize, value: u32) {
        self.between.head().words[at].store(value, Relaxed);
        self.shadow.wrote(at, value);
    }

    fn write_word(&mut self, at: usize, value: u64) {
        self.write(at, value as u32);
        self.write(at + 1, (value >> 32) as u32);
    }

    fn index<T>(&self, at: impl FnOnce(&Between) -> &T) -> usize {
        index(&self.between.head(), at(&self.between))
    }

    /// Says something on a ring, as the message of a place.
    fn say(&mut self, ring: impl Fn(&Between) -> &RingMemory, at: u32, message: Words) {
        let start = self.index(ring);
        let slot = start + 2 * (SLOTS_AT + at as usize % SLOTS * WORDS);
        for (word, value) in message.into_iter().enumerate() {
            self.write_word(slot + 2 * word, value);
        }
        self.write(start + 2 * SENT, at.wrapping_add(1));
    }

    fn say_command(&mut self, command: Command) {
        self.say(|between| between.head().commands, self.commands, command.encode());
        self.commands = self.commands.wrapping_add(1);
    }

    fn say_order(&mut self, worker: usize, order: Order) {
        self.say(|between| &between.head().orders[worker], self.orders[worker], order.encode());
        self.orders[worker] = self.orders[worker].wrapping_add(1);
    }

    pub fn command(&mut self) {
        let input = &mut self.input;
        let (frame, whole) = (input.below(16), input.byte().is_multiple_of(8));
        let count = if whole { BLOCK_PAGES } else { 1 + input.below(8) };
        let first = if whole { 0 } else { some_page(input) };
        let pages = PageRange::of(PageNumber(first), count);
        let command = match input.byte() % 8 {
            0..5 => Command::Commit { pages, frame, write: input.is_set() },
            5..7 => Command::Invalidate { pages },
            _ if input.byte().is_multiple_of(4) => Command::Stop,
            _ => Command::Invalidate { pages },
        };
        self.say_command(command);
    }

    pub fn order(&mut self) {
        let input = &mut self.input;
        let worker = input.below(self.limits.workers);
        let order = match input.byte() % 4 {
            0 => Order::Refused { cause: None },
            1 => Order::Refused { cause: Some(StayCause::Protection) },
            2 => Order::Served { commands: input.number(&[self.commands.into()]) },
            _ => {
                let (kernel, first) = (input.below(self.limits.kernels), input.number(&[]));
                let count = input.number(&[]).saturating_add(1).min(u64::MAX - first);
                let arguments = std::array::from_fn(|_| input.number(&[]));
                Order::Launch { kernel, first, count, arguments }
            }
        };
        self.say_order(worker, order);
    }

    /// It launches, as it should.
    pub fn launch(&mut self) {
        let ranges = self.input.below(3);
        for which in 0..ranges {
            let first = some_page(&mut self.input);
            let end = first + self.input.below(24);
            let at = self.index(|between| &between.head().given[which]);
            self.write_word(at, first as u64);
            self.write_word(at + 2, end as u64);
        }
        let at = self.index(|between| between.head().given_count);
        self.write(at, ranges as u32);
        let at = self.index(|between| between.head().launched_after);
        let after = if self.input.is_set() { self.applied } else { self.commands };
        self.write(at, after);
        let at = self.index(|between| between.head().taken);
        self.write_word(at, 0);
        let at = self.index(|between| between.head().failed);
        self.write(at, 0);
        let count = self.input.below(40) as u64;
        let arguments = [self.input.byte().into(); 4];
        let order = Order::Launch { kernel: 0, first: 7, count, arguments };
        (0..self.limits.workers).for_each(|worker| self.say_order(worker, order));
    }

    /// It looks for a fault, and has the page come. Answers whether there was one.
    pub fn serve(&mut self) -> bool {
        while let Some(report) = self.next_report() {
            let Report::Fault { worker, address, access } = report else { continue };
            if access.is_hint() {
                continue;
            }
            let page = PageNumber(address / self.limits.page_bytes);
            let frame = self.input.below(16).min(self.limits.frames - 1);
            let write = !self.input.byte().is_multiple_of(4);
            self.say_command(Command::Commit { pages: PageRange::of(page, 1), frame, write });
            self.waits = Some(worker);
            return true;
        }
        false
    }

    /// It tells who waits.
    pub fn say_served(&mut self) {
        let Some(worker) = self.waits.take() else { return };
        self.say_order(worker, Order::Served { commands: self.applied.into() });
    }

    /// It refuses what a fault asks for.
    pub fn serve_nothing(&mut self) {
        if let Some(Report::Fault { worker, access, .. }) = self.next_report()
            && !access.is_hint()
        {
            let cause = self.input.is_set().then_some(StayCause::NoFrames);
            self.say_order(worker, Order::Refused { cause });
        }
    }

    /// It hears all reports there are.
    pub fn hear(&mut self) {
        while self.next_report().is_some() {}
    }

    /// The next report: one that makes sense, as nobody but the process writes it, unless it was meddled with.
    fn next_report(&mut self) -> Option<Report> {
        let reports = self.between.head().reports;
        let there = place(reports, SENT).wrapping_sub(self.heard) as usize;
        if !(1..=SLOTS).contains(&there) {
            return None;
        }
        let report = Report::parse(message(reports, self.heard), self.process.limits());
        self.heard = self.heard.wrapping_add(1);
        let at = self.index(|between| between.head().reports);
        self.write(at + 2 * RECEIVED, self.heard);
        report.ok().filter(|report| {
            let (Report::Fault { worker, .. }
            | Report::Done { worker }
            | Report::Failed { worker, .. }) = report;
            *worker < self.limits.workers
        })
    }

    pub fn write_frame(&mut self) {
        let (first, len) = self.between.frames();
        let at = self.input.below(len.min(16 * self.limits.page_bytes));
        let byte = self.input.byte();
        // SAFETY: it is in the frames, whose bytes may change at any time.
        unsafe { first.add(at).write_volatile(byte) };
        self.shadow.store(at, &[byte]);
    }

    /// It takes what the process has noted of a frame.
    pub fn take_note(&mut self) {
        let notes = self.between.notes();
        let frame = self.input.below(notes.len().min(16));
        notes[frame].store(0, Relaxed);
        self.shadow.take_note(frame);
    }

    /// It writes what it should not.
    pub fn meddle(&mut self) {
        let number = self.input.number(&[SLOTS as u64, self.commands.into()]);
        let worker = self.input.below(self.limits.workers);
        let commands = self.index(|between| between.head().commands);
        let orders = self.index(|between| &between.head().orders[worker]);
        let at = match self.input.byte() % 12 {
            0 => commands,
            1 => orders,
            2 => self.index(|between| between.head().reports) + 2 * RECEIVED,
            3 => self.index(|between| between.head().applied),
            4 => self.index(|between| between.head().taken),
            8 => self.index(|between| between.head().given_count),
            9 => self.index(|between| &between.head().given[0]) + self.input.below(8),
            10 => self.index(|between| between.head().launched_after),
            11 => self.index(|between| between.head().failed),
            // The first messages are those that are heard.
            5 => commands + 2 * SLOTS_AT + self.input.below(64),
            6 => orders + 2 * SLOTS_AT + self.input.below(64),
            _ if self.input.is_set() => self.input.below(32),
            _ => self.input.below(self.between.head().words.len()),
        };
        self.write(at, number as u32);
    }

    /// Notes what the process has applied by now. Answers as what it would end by that.
    pub fn apply(&mut self) -> Option<u8> {
        let between = Rc::clone(&self.between);
        let commands = between.head().commands;
        let there = place(commands, SENT).wrapping_sub(self.applied);
        if there as usize > SLOTS {
            return Some(PROTOCOL);
        }
        for _ in 0..there {
            match Command::parse(message(commands, self.applied), self.process.limits()) {
                Ok(Command::Commit { pages, frame, write }) => {
                    self.shadow.name(frame..frame + pages.len(), write);
                    let entries = pages.pages().zip(frame..);
                    self.table.extend(entries.map(|(page, frame)| (page.0, (frame, write))));
                }
                Ok(Command::Invalidate { pages }) => {
                    self.table.retain(|&page, _| !pages.contains(PageNumber(page)));
                }
                Ok(Command::Stop) => return Some(DONE),
                Err(_) => return Some(PROTOCOL),
            }
            self.applied = self.applied.wrapping_add(1);
        }
        None
    }

    /// A worker begins, or goes on, to look for launches.
    pub fn begin(&mut self, worker: usize) {
        self.given[worker].clear();
        self.snap_for(worker);
    }

    /// The process goes on from where it waited.
    pub fn snap(&mut self) {
        if let Some(&At::Worker(worker)) = self.at.last() {
            self.snap_for(worker);
        }
    }

    fn snap_for(&mut self, worker: usize) {
        let between = Rc::clone(&self.between);
        let head = between.head();
        let number = |word: &AtomicU64| usize::try_from(word.load(Relaxed)).unwrap_or(usize::MAX);
        let count: &AtomicU32 = head.given_count;
        let ranges = head.given.iter().take(count.load(Relaxed) as usize);
        let ranges = ranges.map(|[start, end]| (number(start), number(end)));
        let ranges = ranges.filter(|(start, end)| start <= end);
        let pages = ranges.map(|(start, end)| PageRange::new(PageNumber(start), PageNumber(end)));
        let given: Vec<_> = pages.collect();
        if self.given[worker].last() != Some(&given) {
            self.given[worker].push(given);
        }
    }

    /// Whether a worker's launch may name a page, and whether it does for sure.
    pub fn is_given(&self, worker: usize, page: usize) -> (bool, bool) {
        let has =
            |given: &Vec<PageRange>| given.iter().any(|pages| pages.contains(PageNumber(page)));
        let given = &self.given[worker];
        // Of several that overlap, or come in no order, the process finds one or none.
        let sure = given.iter().all(|given| has(given) && given.len() == 1);
        (given.iter().any(has), sure)
    }
}
