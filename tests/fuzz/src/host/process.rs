//! The device process, as the fuzzer plays it.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
};

use uhmm::{
    FaultAccess,
    ring::{Command, Limits, Report, RingMemory, SLOTS, WORDS, Words},
};
use uhmm_fuzz::{
    Input,
    rings::{self, RECEIVED, SENT, message, place, slot, words},
};
use uhmm_soft::fuzzing::{Between, Head};

use crate::memory::{BESIDE, FIRST, PAGE, PAGES};

/// The device process. The program waits for it in whatever thread.
static PROCESS: Mutex<Option<Process>> = Mutex::new(None);

fn locked() -> MutexGuard<'static, Option<Process>> {
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// It begins, or is gone.
pub fn set(process: Option<Process>) {
    *locked() = process;
}

/// Has somebody look at it, or it do something.
pub fn with<R>(then: impl FnOnce(&mut Process) -> R) -> R {
    then(locked().as_mut().expect("a run is under way"))
}

/// The program waits.
pub fn turn() -> bool {
    with(|process| {
        process.turns += 1;
        process.turn();
    });
    false
}

/// What says that it serves.
const READY: u32 = 1;

/// Why an item failed, in words of the device and its driver: its kernel gave up at an address.
pub const GAVE_UP: u64 = 8;

#[expect(clippy::struct_excessive_bools, reason = "they say nothing of each other")]
pub struct Process {
    between: Arc<Between>,
    limits: Limits,
    /// What decides about both sides.
    pub input: Input<'static>,
    /// Whether it does, whatever else it does, what a device process has to.
    pub obliges: bool,
    /// Whether that was all, but for what it said.
    pub is_honest: bool,
    /// Whether it was ready.
    began: bool,
    pub turns: usize,
    /// How many of them nothing was left to decide by.
    idle: usize,
    /// How many reports were made.
    made: u32,
    /// Those of the launch under way.
    pub items: Range<usize>,
    /// Whether it wrote a frame.
    pub wrote: bool,
    /// Whether it wrote what is the program's to write.
    pub wrote_theirs: bool,
}

impl Process {
    pub fn new(
        between: &Arc<Between>,
        limits: Limits,
        input: Input<'static>,
        obliges: bool,
    ) -> Self {
        Self {
            between: Arc::clone(between),
            limits,
            input,
            obliges,
            is_honest: obliges,
            began: false,
            turns: 0,
            idle: 0,
            made: 0,
            items: 0..0,
            wrote: false,
            wrote_theirs: false,
        }
    }

    fn turn(&mut self) {
        if self.obliges {
            self.oblige();
        }
        if self.input.is_empty() {
            // Whatever there is to wait for, it is waited for in vain by now.
            self.idle += 1;
            if !self.obliges || self.idle > 10_000 {
                self.die();
            }
        } else if !self.began && !self.obliges && !self.input.byte().is_multiple_of(8) {
            self.oblige();
        } else {
            for _ in 0..(self.input.byte() % 8).saturating_sub(4) {
                self.act();
            }
        }
    }

    /// It is ready, has received all, and applied all commands.
    pub fn oblige(&mut self) {
        let Head { commands, orders, applied, state, .. } = self.between.head();
        if !self.began {
            self.began = true;
            state.store(READY, Relaxed);
        }
        for ring in orders.iter().take(self.limits.workers).chain([commands]) {
            words(ring)[RECEIVED].store(place(ring, SENT).into(), Relaxed);
        }
        let sent = place(commands, SENT);
        applied.store(sent, Relaxed);
        if sent > 0 && message(commands, sent - 1) == Command::Stop.encode() {
            self.between.die();
        }
    }

    pub fn die(&mut self) {
        self.is_honest = false;
        self.between.die();
    }

    /// It does something that makes sense, or does not.
    pub fn act(&mut self) {
        match self.input.byte() % 16 {
            0..8 => {
                let report = self.report();
                self.say(report.encode());
            }
            8 => {
                let raw = self.raw();
                self.say(raw);
            }
            9 => self.write_frame(),
            10 => self.note(),
            11 => self.oblige(),
            12..14 => self.lie(),
            14 => self.poke(),
            _ => {
                if self.input.byte().is_multiple_of(4) {
                    self.die();
                }
            }
        }
    }

    fn report(&mut self) -> Report {
        let Range { start, end } = self.items;
        let input = &mut self.input;
        let worker = input.below(self.limits.workers);
        match input.byte() % 8 {
            0 | 1 => Report::Done { worker },
            2 => {
                let item = input.number(&[start as u64, end as u64]);
                let error = match input.byte() % 4 {
                    0 => std::array::from_fn(|_| input.number(&[])),
                    _ => [GAVE_UP, input.byte().into(), 0, 0, 0],
                };
                Report::Failed { worker, item, error }
            }
            which => {
                let accesses = [
                    FaultAccess::Prefetch,
                    FaultAccess::Read,
                    FaultAccess::Write,
                    FaultAccess::Atomic,
                ];
                let access = accesses[input.below(accesses.len())];
                let page = FIRST - BESIDE + input.below(PAGES + 2 * BESIDE);
                let address = page * PAGE + input.below(PAGE);
                let address = if which == 3 { input.number(&[]) as usize } else { address };
                Report::Fault { worker, address, access }
            }
        }
    }

    /// Nearly a report.
    fn raw(&mut self) -> Words {
        let kind = [32, 33, 34, 35, 0, 255][self.input.below(6)];
        let mut raw: Words = [0; WORDS];
        raw[0] = kind | self.input.number(&[]) << 8;
        let count = self.input.below(WORDS);
        raw[1..=count].fill_with(|| self.input.number(&[self.limits.workers as u64]));
        raw
    }

    fn say(&mut self, said: Words) {
        rings::send(self.between.head().reports, self.made, said);
        self.made = self.made.wrapping_add(1);
    }

    fn write_frame(&mut self) {
        self.wrote = true;
        let (first, len) = self.between.frames();
        // What pages are known by is left, so that it is seen which they are.
        let at = self.input.below(len) | 8;
        // SAFETY: it is in the frames, whose bytes may be any and may change at any time.
        unsafe { first.add(at).write_volatile(self.input.byte()) };
    }

    /// It notes anything of some frames, whatever it did with them. That is no breach of what both agree on.
    fn note(&mut self) {
        let notes = self.between.notes();
        let first = self.input.below(notes.len());
        let count = 1 + self.input.below(16);
        let what = self.input.byte();
        notes[first..].iter().take(count).for_each(|note| note.store(what, Relaxed));
    }

    /// It writes what is its own to write, as it should not.
    fn lie(&mut self) {
        self.is_honest = false;
        let Head { commands, orders, reports, applied, awaited, state, .. } = self.between.head();
        let made = u64::from(self.made);
        let sent = u64::from(place(commands, SENT));
        let number = self.input.number(&[made, made + SLOTS as u64, sent, sent + SLOTS as u64]);
        match self.input.byte() % 8 {
            0 => words(commands)[RECEIVED].store(number, Relaxed),
            1 => words(&orders[self.input.below(self.limits.workers)])[RECEIVED]
                .store(number, Relaxed),
            2 => words(reports)[SENT].store(number, Relaxed),
            3 | 4 => applied.store(number as u32, Relaxed),
            5 => awaited.store(number as u32, Relaxed),
            6 => state.store(number as u32, Relaxed),
            // One that was said, or will be.
            _ => {
                let which =
                    self.made.wrapping_add(u32::from(self.input.byte() % 4)).wrapping_sub(2);
                slot(reports, which)[self.input.below(WORDS)].store(number, Relaxed);
            }
        }
    }

    /// It writes anything anywhere.
    fn poke(&mut self) {
        self.is_honest = false;
        self.wrote_theirs = true;
        let all = self.between.head().words;
        let at = match self.input.byte() % 4 {
            0 => self.input.below(64),
            // The rings of commands, of reports, and of the first worker.
            1 => self.input.below(3 * size_of::<RingMemory>() / 4),
            _ => self.input.below(all.len()),
        };
        all[at].store(self.input.number(&[]) as u32, Relaxed);
    }
}
