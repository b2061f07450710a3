//! A device process whose program means it no good: it writes any word that both have before the process begins,
//! between its steps, and between two accesses of a kernel. The process ends by itself or serves on: its accesses go
//! where the last commands say and nowhere else, and it writes what is its own to write.
#![no_main]

use std::{
    cell::Cell,
    collections::HashMap,
    ptr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use libfuzzer_sys::fuzz_target;
use uhmm::{
    ring::{Command, Limits, Order, RingMemory, SLOTS, WORDS, Words},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};
use uhmm_fuzz::Input;
use uhmm_soft::{
    ARGUMENTS, ProcessAccessError, ProcessKernel, ProcessWorker,
    fuzzing::{Head, Offered, Process},
};

static KERNELS: &[ProcessKernel] =
    &[ProcessKernel { name: "one", run: kernel }, ProcessKernel { name: "other", run: kernel }];

const DONE: u8 = 0;
const PROTOCOL: u8 = 4;

/// What one run knows. Kernels have no other way to it.
struct Run {
    offered: Offered,
    process: Process,
    input: Input<'static>,
    page: usize,
    /// What both have before the frames, as it has to be where this process does not write.
    head: Vec<u32>,
    /// The frame of each page, and whether it may be written.
    table: HashMap<usize, (usize, bool)>,
    /// What was stored in frames, by where.
    stored: HashMap<usize, u64>,
}

thread_local! {
    static KEPT: Cell<Option<(Offered, Process)>> = const { Cell::new(None) };
    static RUN: Cell<*mut Run> = const { Cell::new(ptr::null_mut()) };
}

/// How many frames there are: those of a block that goes as a whole, and a few.
const FRAMES: usize = BLOCK_PAGES + 8;
const BLOCKS: usize = 4;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    if input.byte() % 16 == 15 {
        return begin(&mut input);
    }
    let (offered, process) = KEPT.take().unwrap_or_else(|| {
        let offered = Offered::new(FRAMES);
        offered.introduce((BLOCKS * BLOCK_PAGES) as u64, KERNELS);
        let process = offered.open(KERNELS).expect("it is as it should be");
        (offered, process)
    });
    let before: Vec<_> = offered.head().words.iter().map(|word| word.load(Relaxed)).collect();
    let (offered, process) = run((offered, process), input);
    process.clear(BLOCKS);
    offered.head().words.iter().zip(before).for_each(|(word, before)| word.store(before, Relaxed));
    KEPT.set(Some((offered, process)));
});

/// A process that begins with memory of any kind, or does not.
fn begin(input: &mut Input) {
    let frames = 1 + input.below(8);
    let offered = Offered::new(frames);
    let most = BLOCK_PAGES as u64 * 8;
    let pages =
        if input.byte() == 78 { input.number(&[]) } else { 1 + input.number(&[most]) % most };
    offered.introduce(pages, KERNELS);
    let all = offered.head().words;
    let numbers = input.below(4);
    for _ in 0..numbers {
        // Before the rings there are no more than so many.
        all[input.below(32)].store(input.number(&[]) as u32, Relaxed);
    }
    let process = offered.open(KERNELS);
    if numbers == 0 && pages < 1 << 36 {
        assert!(process.is_some(), "it is as it should be, and refused");
    }
    let Some(process) = process else { return };
    let Limits { frames: told, kernels, page_bytes, .. } = *process.limits();
    assert_eq!((told, kernels, page_bytes), (frames, KERNELS.len(), page_size()));
}

fn run((offered, process): (Offered, Process), mut input: Input) -> (Offered, Process) {
    let head = offered.head().words.iter().map(|word| word.load(Relaxed)).collect();
    let page = process.limits().page_bytes;
    // SAFETY: the bytes outlive the run, which ends with this call.
    let rest: &'static [u8] = unsafe { &*ptr::from_ref(input.rest()) };
    let mut run = Run {
        offered,
        process,
        input: Input(rest),
        page,
        head,
        table: HashMap::new(),
        stored: HashMap::new(),
    };
    let borrowed = &raw mut run;
    RUN.set(borrowed);
    // SAFETY: it is this thread's alone, and nothing else has a reference while a step borrows it: a kernel is
    // run by `Process::work`, for which none is held.
    unsafe {
        while !(*borrowed).input.is_empty() {
            (*borrowed).prepare();
            (*borrowed).keep_table();
            let process = &raw const (*borrowed).process;
            let exit = (*process).work();
            assert!(exit == DONE || exit == PROTOCOL, "it ended as {exit}");
        }
    }
    RUN.set(ptr::null_mut());
    run.check();
    let Run { offered, process, stored, .. } = run;
    let (first, _) = offered.frames();
    for at in stored.into_keys() {
        // SAFETY: it was stored there, within the frames, of which nobody has a reference.
        unsafe { first.add(at).cast::<u64>().write(0) };
    }
    (offered, process)
}

fn page_size() -> usize {
    // SAFETY: it only asks.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a size")
}

/// A kernel that does what the bytes say, with what it is given as addresses.
fn kernel(
    worker: &mut ProcessWorker<'_>,
    item: u64,
    arguments: &[u64; ARGUMENTS],
) -> Result<(), ProcessAccessError> {
    let run = RUN.get();
    let mut result = Ok(());
    // As many items as there are bytes for.
    for _ in 0..4 {
        // SAFETY: as where it is set; a reference ends with its statement.
        let Some(access) = (unsafe { (*run).next_access(item, arguments) }) else {
            return Err(ProcessAccessError { address: 0 });
        };
        let Access { address, write, expected } = access;
        let value = u64::from_le_bytes([0xab; 8]) ^ address as u64;
        result = if write {
            worker.store(address, value)
        } else {
            worker.load::<u64>(address).map(|loaded| {
                // SAFETY: as above.
                unsafe { (*run).loaded(expected, loaded) }
            })
        };
        assert_eq!(result.is_ok(), expected.is_some(), "{address:#x}, to write: {write}");
        if let (true, Some(at)) = (write, expected) {
            // SAFETY: as above.
            unsafe { (*run).stored.insert(at, value) };
        }
    }
    result
}

struct Access {
    address: usize,
    write: bool,
    /// Where in the frames it goes, if it may.
    expected: Option<usize>,
}

fn words(ring: &RingMemory) -> &[AtomicU64] {
    let count = size_of::<RingMemory>() / 8;
    // SAFETY: it is atomics, aligned to more than words, whose bytes are all words too.
    unsafe { std::slice::from_raw_parts(ptr::from_ref(ring).cast(), count) }
}

const SENT: usize = 0;

/// The word, of 32 bits, of a receiver's place. Whether it sleeps follows.
const RECEIVED: usize = 16;

/// The word, of 64 bits, of the first slot.
const SLOTS_AT: usize = 16;

fn message(ring: &RingMemory, place: usize) -> Words {
    let slot = SLOTS_AT + place % SLOTS * WORDS;
    std::array::from_fn(|word| words(ring)[slot + word].load(Relaxed))
}

impl Run {
    /// Where something lies among the words of the head.
    fn index<T>(&self, at: &T) -> usize {
        let first = self.offered.head().words.as_ptr().addr();
        (ptr::from_ref(at).addr() - first) / 4
    }

    /// The program writes a word.
    fn write(&mut self, at: usize, value: u32) {
        self.offered.head().words[at].store(value, Relaxed);
        self.head[at] = value;
    }

    fn say(&mut self, ring: usize, place: usize, message: Words) {
        let start = ring + 2 * (SLOTS_AT + place % SLOTS * WORDS);
        for (word, value) in message.into_iter().enumerate() {
            self.write(start + 2 * word, value as u32);
            self.write(start + 2 * word + 1, (value >> 32) as u32);
        }
    }

    /// The program says something, of which the process hears from the first message on.
    fn prepare(&mut self) {
        let Head { commands, orders, .. } = self.offered.head();
        let (commands, orders) = (self.index(commands), self.index(orders));
        let count = self.input.below(4);
        for place in 0..count {
            let command = self.command().encode();
            self.say(commands, place, command);
        }
        self.write(commands, count as u32);
        let count = self.input.below(4);
        for place in 0..count {
            let order = self.order().encode();
            self.say(orders, place, order);
        }
        self.write(orders, count as u32);
        for _ in 0..self.input.below(3) {
            self.meddle();
        }
    }

    fn command(&mut self) -> Command {
        let limit = self.process.limits().pages;
        let input = &mut self.input;
        let (frame, whole) = (input.below(16), input.byte() % 8 == 0);
        let count = if whole { BLOCK_PAGES } else { 1 + input.below(8) };
        let first = if whole { 0 } else { input.below(16) + input.below(3) * (BLOCK_PAGES - 8) };
        let pages = PageRange::of(PageNumber(first.min(limit.saturating_sub(1))), count);
        match input.byte() % 8 {
            0..6 => Command::Commit { pages, frame, write: input.is_set() },
            6 => Command::Invalidate { pages },
            _ => Command::Stop,
        }
    }

    fn order(&mut self) -> Order {
        let input = &mut self.input;
        if input.byte() % 4 > 0 {
            let (kernel, first) = (input.below(KERNELS.len()), input.number(&[]));
            let count = input.number(&[]).saturating_add(1).min(u64::MAX - first);
            let arguments = std::array::from_fn(|_| input.number(&[]));
            Order::Launch { kernel, first, count, arguments }
        } else {
            Order::Served { served: input.is_set(), commands: input.number(&[]) }
        }
    }

    /// The program writes what it should not.
    fn meddle(&mut self) {
        let Head { commands, orders, reports, applied, words } = self.offered.head();
        let known = [commands, orders].map(|ring| self.index(ring));
        let places = [self.index(reports) + 16, self.index(applied), known[0], known[1]];
        let all = words.len();
        let number = self.input.number(&[SLOTS as u64]);
        match self.input.byte() % 8 {
            which @ 0..4 => self.write(places[usize::from(which)], number as u32),
            // The first messages are those that are heard.
            which @ 4..7 => {
                let at = known[usize::from(which % 2)] + 2 * SLOTS_AT + self.input.below(64);
                self.write(at, number as u32);
            }
            _ => {
                let at = self.input.below(all);
                self.write(at, number as u32);
            }
        }
    }

    /// The process applies commands; so is done here, by what its memory says.
    fn keep_table(&mut self) {
        let process = &self.process;
        let limits = *process.limits();
        let commands = self.offered.head().commands;
        let sent = words(commands)[SENT].load(Relaxed) as u32 as usize;
        let mut expected = DONE;
        for place in 0..sent {
            if sent > SLOTS {
                expected = PROTOCOL;
                break;
            }
            match Command::parse(message(commands, place), &limits) {
                Ok(Command::Commit { pages, frame, write }) => {
                    let frames = frame..;
                    for (page, frame) in pages.pages().zip(frames) {
                        self.table.insert(page.0, (frame, write));
                    }
                }
                Ok(Command::Invalidate { pages }) => {
                    self.table.retain(|&page, _| !pages.contains(PageNumber(page)));
                }
                Ok(Command::Stop) => break,
                Err(_) => {
                    expected = PROTOCOL;
                    break;
                }
            }
        }
        assert_eq!(process.keep_table(), expected);
    }

    /// What a kernel is to do next, after what the program does meanwhile.
    fn next_access(&mut self, item: u64, arguments: &[u64; ARGUMENTS]) -> Option<Access> {
        if self.input.is_empty() {
            return None;
        }
        match self.input.byte() % 8 {
            0 => self.meddle(),
            1 => {
                self.meddle();
                self.keep_table();
            }
            _ => {}
        }
        let input = &mut self.input;
        let address = match input.byte() % 8 {
            0 => arguments[input.below(ARGUMENTS)].wrapping_add(item) as usize,
            1 => input.number(&[]) as usize,
            _ => {
                let page = input.below(16) + input.below(3) * (BLOCK_PAGES - 8);
                page * self.page + input.below(self.page / 8) * 8
            }
        };
        let write = input.is_set();
        let entry = self.table.get(&(address / self.page));
        let may = entry.filter(|(_, writable)| *writable || !write);
        let expected = may.map(|(frame, _)| frame * self.page + address % self.page);
        let expected = expected.filter(|_| address.is_multiple_of(8));
        Some(Access { address, write, expected })
    }

    fn loaded(&self, at: Option<usize>, value: u64) {
        let stored = at.and_then(|at| self.stored.get(&at)).copied().unwrap_or(0);
        assert_eq!(value, stored, "at {at:?} of the frames");
    }

    /// That the process wrote what is its own, and what was stored.
    fn check(&self) {
        let Head { commands, orders, reports, applied, words } = self.offered.head();
        let [commands, orders, reports] = [commands, orders, reports].map(|ring| self.index(ring));
        let applied = self.index(applied);
        let reported = reports + size_of::<RingMemory>() / 4;
        let mut expected = self.head.clone();
        let mut may_be_any = |from: usize, to: usize| {
            for at in from..to {
                expected[at] = words[at].load(Relaxed);
            }
        };
        // Whether it sleeps, and how far it is.
        may_be_any(commands + RECEIVED, commands + RECEIVED + 2);
        may_be_any(orders + RECEIVED, orders + RECEIVED + 2);
        may_be_any(reports, reports + RECEIVED);
        may_be_any(reports + RECEIVED + 2, reported);
        may_be_any(applied, applied + 1);
        let seen: Vec<_> = words.iter().map(|word| word.load(Relaxed)).collect();
        if seen != expected {
            let at = seen.iter().zip(&expected).position(|(seen, expected)| seen != expected);
            panic!("word {at:?} before the frames is none that it may write");
        }
        let (first, len) = self.offered.frames();
        // SAFETY: the frames are there, and nobody writes them any more.
        let frames = unsafe { std::slice::from_raw_parts(first.cast::<u64>(), len / 8) };
        // Those that nothing was stored in are mostly not looked at: there are many.
        let known = self.stored.keys().map(|at| at / self.page).chain(0..24);
        for frame in known {
            let mut expected = vec![0; self.page / 8];
            let places = frame * self.page..(frame + 1) * self.page;
            for (at, value) in self.stored.iter().filter(|(at, _)| places.contains(at)) {
                expected[at % self.page / 8] = *value;
            }
            let seen = &frames[places.start / 8..places.end / 8];
            assert!(seen == expected, "in frame {frame} is what was not stored");
        }
    }
}
