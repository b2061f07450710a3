//! Engine memory is refused each time that it is asked for, in turn.
//!
//! Where the reserve is left, everything that fails can be done again. Where even that is used up the
//! process may end instead, with a message: so each of those is tried in a process of its own.

use std::{
    env,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use uhmm::{
    AddressSpace, Options,
    engine_memory::{EngineMemory, EngineVec, Refused},
    units::AddressRange,
};
use uhmm_soft::{Options as DeviceOptions, Soft};

use crate::{
    has_linux,
    scenario::{Memory, Refusal, run},
    world::{LinuxWorld, ModelWorld, World},
};

/// How many times are tried at most: each of the first, and then every so many.
const MOST: usize = 150;

/// The time at which a process of its own is refused memory.
const VARIABLE: &str = "UHMM_REFUSED_TIME";

/// The times to be tried of so many.
fn times(asked: usize, most: usize) -> impl Iterator<Item = usize> {
    (1..=asked).step_by(asked.div_ceil(most).max(1))
}

fn asked<W: World>(memory: Memory) -> usize {
    run::<W>(memory, Refusal::Nothing)
        .unwrap_or_else(|wrong| panic!("without a refusal: {wrong}"))
        .memory
}

fn is_refused_in_turn<W: World>(memory: Memory) {
    let asked = asked::<W>(memory);
    let (mut tried, mut came) = (0, 0);
    for nth in times(asked, MOST) {
        match run::<W>(memory, Refusal::Memory(nth, Refused::Ordinary)) {
            Ok(asked) => came += usize::from(asked.came),
            Err(wrong) => panic!("time {nth} of {asked} is refused: {wrong}"),
        }
        tried += 1;
    }
    eprintln!("{came} of {tried} refusals came, memory is asked for {asked} times");
    assert!(came * 10 > tried * 9, "{came} of {tried} refusals came");
}

#[test]
fn is_refused_in_turn_on_the_model() {
    is_refused_in_turn::<ModelWorld>(Memory::Staging);
    is_refused_in_turn::<ModelWorld>(Memory::Coherent);
}

#[test]
fn is_refused_in_turn_on_linux() {
    if has_linux("is_refused_in_turn_on_linux") {
        is_refused_in_turn::<LinuxWorld>(Memory::Staging);
        is_refused_in_turn::<LinuxWorld>(Memory::Coherent);
    }
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn is_refused_to_everybody_here() {
    let Some(nth) = env::var(VARIABLE).ok().and_then(|nth| nth.parse().ok()) else { return };
    if let Err(wrong) = run::<LinuxWorld>(Memory::Staging, Refusal::Memory(nth, Refused::Everybody))
    {
        panic!("{wrong}");
    }
}

#[test]
fn and_its_reserve_are_refused_in_turn() {
    if !has_linux("and_its_reserve_are_refused_in_turn") {
        return;
    }
    let asked = asked::<LinuxWorld>(Memory::Staging);
    let mut ends = Vec::new();
    for nth in times(asked, MOST / 2) {
        let output = Command::new("timeout")
            .arg("60")
            .arg(env::current_exe().unwrap())
            .args(["--exact", "memory::is_refused_to_everybody_here", "--ignored", "--nocapture"])
            .env(VARIABLE, nth.to_string())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let message = errors.lines().find(|line| line.starts_with("uhmm: engine memory is"));
        match (output.status.success(), output.status.signal(), message) {
            (true, ..) => {}
            (false, Some(libc::SIGABRT), Some(message)) => ends.push(message.to_owned()),
            _ => panic!("time {nth} of {asked}: ended with {}: {errors}", output.status),
        }
    }
    eprintln!("{} of {MOST} ended the process: {ends:?}", ends.len());
}

/// Takes all that can be had.
fn use_up(memory: &EngineMemory) -> Vec<EngineVec<u8>> {
    let mut taken = Vec::new();
    for size in [1 << 20, 64 << 10, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8] {
        taken.extend(std::iter::from_fn(|| EngineVec::try_with_capacity(memory, size).ok()));
    }
    taken
}

/// Ordinary work is refused, and the program changes its memory, a device goes and the address space
/// is closed.
fn is_used_up_and_changes_are_followed<W: World>() {
    const PAGES: usize = 600;
    const AWAY: usize = 512;
    const TO: usize = 1000;
    let content = |page: usize| page as u64 + 9;
    let (world, mm) = W::start();
    let options = Options::new().engine_memory(Options::LEAST_ENGINE_MEMORY);
    let space: AddressSpace<W::Mm> = options.open_on(mm).unwrap();
    let range = |pages: core::ops::Range<usize>| {
        let start = world.address(pages.start);
        AddressRange::new(start, world.address(pages.end) - start).unwrap()
    };
    world.map(0..PAGES);
    let mut expected: Vec<Option<u64>> = vec![None; TO + PAGES];
    for (page, expected) in expected.iter_mut().enumerate().take(PAGES) {
        world.store(page, content(page)).unwrap();
        *expected = Some(content(page));
    }
    space.adopt(range(0..PAGES)).unwrap();
    let memory = DeviceOptions::new(PAGES * space.page_size().bytes()).workers(1);
    let device = Soft::start(&space, memory).unwrap();
    assert_eq!(device.migrate(range(0..AWAY)).unwrap().moved(), AWAY);

    let taken = use_up(space.engine_memory());
    for page in (1..AWAY / 2).step_by(3) {
        world.discard(page..page + 1);
        expected[page] = Some(0);
    }
    for first in (AWAY / 2..AWAY - 20).step_by(16) {
        world.remap(first..first + 3, TO + first);
        for page in first..first + 3 {
            expected[TO + page] = expected[page].take();
        }
    }
    for page in (AWAY + 1..PAGES).step_by(2) {
        world.unmap(page..page + 1);
        expected[page] = None;
    }
    for (page, expected) in expected.iter().enumerate() {
        if expected.is_some() {
            assert_eq!(world.load(page), *expected, "page {page}");
        }
    }
    drop(device);
    space.close().unwrap();
    drop(taken);
    assert_eq!(world.end(), None);
}

#[test]
fn is_used_up_and_changes_are_followed_on_the_model() {
    is_used_up_and_changes_are_followed::<ModelWorld>();
}

#[test]
fn is_used_up_and_changes_are_followed_on_linux() {
    if has_linux("is_used_up_and_changes_are_followed_on_linux") {
        is_used_up_and_changes_are_followed::<LinuxWorld>();
    }
}
