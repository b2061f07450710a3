//! Every call to the system and every transfer of a device is refused in turn, and engine memory each time
//! that it is asked for: what asked fails and says why, or does without, and no content is lost.
#![cfg(not(any(shuttle, miri)))]

mod below;
mod lost;
mod memory;
mod scenario;
#[path = "../../../uhmm/tests/support/skip.rs"]
mod skip;
mod transit;
mod world;

use std::sync::Mutex;

use scenario::{Memory, Refusal, has_nodes, run};
use skip::skip;
use uhmm::mm::{
    Errno, PopulateFailure, Stop,
    injected::{Call, Failure},
    linux::Linux,
};
use world::{LinuxWorld, ModelWorld, World};

/// How often one kind of call is refused at most: each of the first, and then every so many.
const MOST_OF_A_KIND: usize = 40;

/// Held by who makes children all the time: each is told to whatever else runs.
static ALONE: Mutex<()> = Mutex::new(());

/// How a call may fail.
fn failures(call: Call) -> Vec<Failure> {
    let mut failures =
        vec![Failure::Errno(Errno(libc::ENOMEM)), Failure::Errno(Errno(libc::EINVAL))];
    if call.is_bulk() {
        for stop in [Stop::NoMemory, Stop::Changing] {
            for after in [0, 1] {
                failures.push(Failure::Stop { after, stop });
            }
        }
    }
    match call {
        Call::Take => failures
            .extend([Stop::Busy, Stop::Refused].map(|stop| Failure::Stop { after: 0, stop })),
        Call::Populate => {
            failures.push(Failure::Populate { after: 1, failure: PopulateFailure::NoMemory });
        }
        _ => {}
    }
    failures
}

fn every_call_is_refused_in_turn<W: World>(memory: Memory) {
    let asked = run::<W>(memory, Refusal::Nothing)
        .unwrap_or_else(|wrong| panic!("without a failure: {wrong}"));
    let (calls, transfers) = (asked.calls, asked.transfers);
    let (mut tried, mut came) = (0, 0);
    let mut try_one = |what: &str, refusal| match run::<W>(memory, refusal) {
        Ok(asked) => {
            tried += 1;
            came += usize::from(asked.came);
        }
        Err(wrong) => panic!("{what} fails: {wrong}"),
    };
    for call in Call::ALL {
        let count = calls[call as usize];
        for nth in (1..=count).step_by(count.div_ceil(MOST_OF_A_KIND).max(1)) {
            for failure in failures(call) {
                let what = format!("call {nth} of {count} of {call:?}, with {failure:?},");
                try_one(&what, Refusal::Call(call, nth, failure));
            }
        }
    }
    assert_eq!(memory == Memory::Copying, transfers > 0);
    for transfer in 1..=transfers {
        let what = format!("transfer {transfer} of {transfers}");
        try_one(&what, Refusal::Transfer(transfer));
    }
    eprintln!(
        "{came} of {tried} failures came; calls of each kind: {calls:?}; {transfers} transfers"
    );
    assert!(came * 10 > tried * 9, "{came} of {tried} failures came");
    // An access is failed only where others failed, and children are filled where forks are told; where
    // the one or the other cannot be, the process ends.
    // Transit is emptied where much more goes there than comes back, or a huge page is made there, and frames of
    // coherent memory where a block of them was taken along, which is tested elsewhere. No shared memory is copied.
    let unmet = |&call: &Call| {
        calls[call as usize] == 0
            && !matches!(call, Call::Poison | Call::FillChild)
            // What is of a pool has tests of its own.
            && call != Call::VacateUndisturbed
            && (asked.pinned || call != Call::PutBack)
            && (asked.whole && memory == Memory::Coherent || call != Call::CopyBlock)
            && (memory == Memory::Coherent
                || asked.whole && memory == Memory::Copying
                || call != Call::ZeroBlock)
            && (memory == Memory::Coherent && has_nodes() || call != Call::BindStaging)
            && (memory == Memory::Staging
                || asked.whole && memory == Memory::Copying
                || call != Call::EmptyStaging)
            && !(memory != Memory::Staging && matches!(call, Call::PopulateAlias | Call::Vacate))
    };
    let unmet: Vec<_> = Call::ALL.into_iter().filter(unmet).collect();
    assert!(unmet.is_empty(), "calls that are never made: {unmet:?}");
}

/// Whether this system has what a test needs.
fn has_linux(test: &str) -> bool {
    let error = match Linux::open() {
        Ok(_) => return true,
        Err(error) => error.to_string(),
    };
    skip(test, error);
    false
}

#[test]
fn on_the_model() {
    every_call_is_refused_in_turn::<ModelWorld>(Memory::Staging);
}

#[test]
fn on_linux() {
    if has_linux("on_linux") {
        let _alone = ALONE.lock();
        every_call_is_refused_in_turn::<LinuxWorld>(Memory::Staging);
    }
}

#[test]
fn on_the_model_by_copies() {
    every_call_is_refused_in_turn::<ModelWorld>(Memory::Copying);
}

#[test]
fn on_linux_by_copies() {
    if has_linux("on_linux_by_copies") {
        let _alone = ALONE.lock();
        every_call_is_refused_in_turn::<LinuxWorld>(Memory::Copying);
    }
}

#[test]
fn on_the_model_in_coherent_memory() {
    every_call_is_refused_in_turn::<ModelWorld>(Memory::Coherent);
}

#[test]
fn on_linux_in_coherent_memory() {
    if has_linux("on_linux_in_coherent_memory") {
        let _alone = ALONE.lock();
        every_call_is_refused_in_turn::<LinuxWorld>(Memory::Coherent);
    }
}
