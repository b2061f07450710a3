//! A device process whose program means it no good: it writes any word that both have before the process begins,
//! and wherever the process waits for it. The process ends by itself or serves on: its accesses go where the commands say
//! that it has applied and nowhere else, and it writes what is its own to write.
//!
//! Its threads are calls on one stack: where a worker waits, the program may have others go on, which return first.
#![no_main]

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Once, atomic::Ordering::Relaxed},
};

use libfuzzer_sys::fuzz_target;
use uhmm::{ring::Limits, units::BLOCK_PAGES};
use uhmm_fuzz::Input;
use uhmm_soft::{
    Kernel,
    fuzzing::{self, Between},
};

#[path = "../device/kernel.rs"]
mod kernel;
#[path = "../device/program.rs"]
mod program;
#[path = "../device/shadow.rs"]
mod shadow;

use program::Program;

static KERNELS: &[Kernel] =
    &[Kernel { name: "one", run: kernel::run }, Kernel { name: "other", run: kernel::run }];

/// How many frames there are: those of a block that goes as a whole, and a few.
const FRAMES: usize = BLOCK_PAGES + 8;

/// How many blocks of pages.
const BLOCKS: usize = 4;

const MOST_WORKERS: usize = 3;

/// As a process ends that was told to or whose program is gone, and one whose program does not keep to the protocol.
const DONE: u8 = 0;
const PROTOCOL: u8 = 4;

/// Who is at work, innermost last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Who keeps the page table.
    Table,
    Worker(usize),
}

thread_local! {
    /// Nobody has it borrowed while the process is at work.
    static PROGRAM: RefCell<Option<Program>> = const { RefCell::new(None) };
}

fn with<R>(then: impl FnOnce(&mut Program) -> R) -> R {
    PROGRAM.with_borrow_mut(|program| then(program.as_mut().expect("a run is under way")))
}

fuzz_target!(|data: &[u8]| {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| fuzzing::play(turn));
    // SAFETY: the bytes outlive the run, which ends with this call.
    let data: &'static [u8] = unsafe { &*std::ptr::from_ref(data) };
    let mut input = Input(data);
    let how = input.byte();
    let limits = Limits {
        frames: if how & 1 == 1 { FRAMES } else { 1 + input.below(8) },
        kernels: KERNELS.len(),
        workers: 1 + input.below(MOST_WORKERS),
        pages: BLOCKS * BLOCK_PAGES,
        page_bytes: page_size(),
    };
    let between = Rc::new(Between::new(&limits, KERNELS));
    let meddles = how & 6 == 6;
    if meddles {
        for _ in 0..input.below(4) {
            // Before the rings there are no more than so many.
            between.head().words[input.below(32)].store(input.number(&[1]) as u32, Relaxed);
        }
    }
    let process = fuzzing::Process::open(&between, KERNELS);
    assert!(process.is_some() || meddles, "it is as it should be, and refused");
    let Some(process) = process else { return };
    let told = *process.limits();
    assert_eq!((told.frames, told.kernels, told.page_bytes), (limits.frames, 2, limits.page_bytes));
    PROGRAM.set(Some(Program::new(&between, &Rc::new(process), input)));
    while with(Program::goes_on) {
        act();
    }
    let program = PROGRAM.take().expect("a run is under way");
    program.shadow.check(&between);
});

fn page_size() -> usize {
    // SAFETY: it only asks.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a size")
}

/// The process waits. Answers whether its program is gone, or it is to return.
fn turn() -> bool {
    if !with(|program| {
        program.turns += 1;
        if program.at.last() == Some(&At::Table) {
            // It has applied all there is.
            assert_eq!(program.apply(), None, "it goes on");
            if program.input.is_set() {
                return false;
            }
        }
        program.goes_on()
    }) {
        return true;
    }
    let acts = with(|program| 1 + program.input.below(3));
    for _ in 0..acts {
        act();
        if with(|program| program.ended) {
            return true;
        }
    }
    with(Program::snap);
    false
}

/// The program does something, or has a thread of the process go on that waits.
fn act() {
    match with(|program| program.input.byte() % 16) {
        0 => keep_table(),
        1 => work(),
        2 => with(Program::serve_nothing),
        3..9 => {
            // It serves who waits, as it should.
            if with(Program::serve) {
                keep_table();
                with(Program::say_served);
            }
        }
        9 | 10 => {
            with(Program::launch);
            work();
        }
        11 => with(Program::command),
        12 => with(Program::order),
        13 => with(|program| {
            if program.input.is_set() {
                program.write_frame();
            } else {
                program.take_note();
            }
        }),
        14 => with(Program::hear),
        _ => with(Program::meddle),
    }
}

fn keep_table() {
    let Some(process) = with(|program| {
        let free = !program.at.contains(&At::Table);
        free.then(|| {
            program.at.push(At::Table);
            Rc::clone(&program.process)
        })
    }) else {
        return;
    };
    let exit = process.keep_table();
    with(|program| {
        program.at.pop();
        let expected = program.apply();
        assert_eq!(exit, expected.unwrap_or(DONE), "as what it ends");
        program.ended |= expected.is_some();
    });
}

fn work() {
    let Some((process, worker)) = with(|program| {
        let worker = program.input.below(program.limits.workers);
        // Who waits to report keeps the others from it.
        let free = program.process.can_report()
            && !program.process.is_working(worker)
            && !program.at.contains(&At::Table);
        free.then(|| {
            program.at.push(At::Worker(worker));
            program.begin(worker);
            (Rc::clone(&program.process), worker)
        })
    }) else {
        return;
    };
    let exit = process.work(worker);
    with(|program| {
        program.at.pop();
        assert!(exit == DONE || exit == PROTOCOL, "it ended as {exit}");
        program.ended |= exit == PROTOCOL;
    });
}
