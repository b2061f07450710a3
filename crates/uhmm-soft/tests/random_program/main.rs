//! Random programs agree between Linux, the model and an oracle of a few lines.
//!
//! A program is a list of steps on an arena of four blocks, with two devices of small memories, so
//! that pages are given up all the time, into which pages move or are copied, and a third without memory, which notes its translations.
//! After each step what came back is compared with the oracle, and the counters with what the devices
//! hold; where the pages are is looked at now and then, and the whole content, read by the devices
//! and by the processor, at the end.
//!
//! The program changes its memory in all ways, the end of its data (`brk`) among them, and forks: a child looks at all that it has, writes,
//! forks on, and opens its own address space. In some programs calls to the system fail at times, and
//! some are an ordinary user's.
//!
//! Programs are drawn by proptest and run in a process of their own, so a failure shrinks to a small
//! program whether it is a wrong answer, an abort or a hang.
//!
//! What a run does is set by the environment:
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `UHMM_STEPS` | steps of a test, all programs together | what fits a run of all tests |
//! | `UHMM_SECONDS` | for how long a test runs programs at most | as long as that takes |
//! | `UHMM_LENGTH` | steps of a program at most | 400 |
//! | `UHMM_SEED` | what the programs are drawn from | 1 |
//! | `UHMM_FORK` | 0 runs the programs in this process, as for a debugger | 1 |
//! | `UHMM_TRACE` | if set, each step is printed before it runs | |
//!
//! A long run is `UHMM_SEED=$RANDOM UHMM_STEPS=10000000 cargo test --release -p uhmm-soft --test
//! random_program`.

#[path = "../../../uhmm/tests/support/allow_huge_pages.rs"]
mod allow_huge_pages;
mod areas;
mod children;
mod concurrent;
mod devices;
mod linux;
mod model;
mod oracle;
mod ranges;
mod recorder;
mod run;
mod step;
#[path = "../../../uhmm/tests/kernel_facts/touch.rs"]
mod touch;
mod user;
mod watchdog;
mod world;

use std::{env, fmt, time::Instant};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};

use crate::{
    linux::LinuxWorld,
    model::ModelWorld,
    run::Failure,
    step::Kind,
    world::{Failing, World},
};

/// A setting of the environment.
fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().expect("a number in the environment"))
}

/// Draws programs until about `steps` steps were run, and runs each.
fn explore<P: Strategy + fmt::Debug>(
    test: &'static str,
    steps: u64,
    programs: impl Fn(usize) -> P,
    run: impl Fn(P::Value) -> Result<(), Failure>,
) {
    let length = setting("UHMM_LENGTH", 400);
    let steps = setting("UHMM_STEPS", steps);
    // A program is half as long on average, as none is too short to shrink to.
    let cases = (steps * 2).div_ceil(length);
    let config = Config {
        cases: u32::try_from(cases).expect("a sensible number of programs"),
        fork: setting("UHMM_FORK", 1) != 0,
        test_name: Some(test),
        source_file: Some(file!()),
        failure_persistence: None,
        max_shrink_time: 120_000,
        max_shrink_iters: 100_000,
        max_local_rejects: u32::MAX,
        ..Config::default()
    };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&setting("UHMM_SEED", 1).to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let length = usize::try_from(length).expect("a sensible length");
    let (start, seconds) = (Instant::now(), setting("UHMM_SECONDS", u64::MAX));
    let result = TestRunner::new_with_rng(config, rng).run(&programs(length), |program| {
        if start.elapsed().as_secs() >= seconds {
            return Ok(());
        }
        run(program).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// How many steps there are at most between two looks at where all pages are.
const LOOK_EVERY: usize = 100;

/// Steps of a test of one thread if not set: more where the code is optimised.
const STEPS: u64 = if cfg!(debug_assertions) { 4_000 } else { 20_000 };

/// Steps of a test of two threads, during which the devices compute all the time.
const STEPS_AT_ONCE: u64 = if cfg!(debug_assertions) { 1_000 } else { 5_000 };

fn every_step_in<W: World>(test: &'static str) {
    let programs = |length| step::program(Kind::ALL, length);
    explore(test, STEPS, programs, |program| run::run::<W>(&program, LOOK_EVERY).map(|_| ()));
}

#[test]
fn programs_do_on_linux_what_the_oracle_says() {
    every_step_in::<LinuxWorld>(concat!(
        module_path!(),
        "::programs_do_on_linux_what_the_oracle_says"
    ));
}

#[test]
fn programs_do_on_the_model_what_the_oracle_says() {
    every_step_in::<ModelWorld>(concat!(
        module_path!(),
        "::programs_do_on_the_model_what_the_oracle_says"
    ));
}

/// Programs in which calls to the system fail at times.
fn failing_in<W: World>(test: &'static str) {
    let programs = |length| step::program(Kind { fails: true, ..Kind::ALL }, length);
    explore(test, STEPS * 2 / 5, programs, |program| {
        run::run::<Failing<W>>(&program, LOOK_EVERY).map(|_| ())
    });
}

#[test]
fn programs_with_failures_do_on_linux_what_the_oracle_says() {
    failing_in::<LinuxWorld>(concat!(
        module_path!(),
        "::programs_with_failures_do_on_linux_what_the_oracle_says"
    ));
}

#[test]
fn programs_with_failures_do_on_the_model_what_the_oracle_says() {
    failing_in::<ModelWorld>(concat!(
        module_path!(),
        "::programs_with_failures_do_on_the_model_what_the_oracle_says"
    ));
}

#[test]
fn programs_of_an_ordinary_user_do_what_the_oracle_says() {
    let test = concat!(module_path!(), "::programs_of_an_ordinary_user_do_what_the_oracle_says");
    let programs = |length| step::program(Kind::ALL, length);
    explore(test, STEPS * 2 / 5, programs, |program| {
        user::become_nobody();
        run::run::<LinuxWorld>(&program, LOOK_EVERY).map(|_| ())
    });
}

#[test]
fn programs_of_an_ordinary_user_with_failures_do_what_the_oracle_says() {
    let test = concat!(
        module_path!(),
        "::programs_of_an_ordinary_user_with_failures_do_what_the_oracle_says"
    );
    let programs = |length| step::program(Kind { fails: true, ..Kind::ALL }, length);
    explore(test, STEPS * 2 / 5, programs, |program| {
        user::become_nobody();
        run::run::<Failing<LinuxWorld>>(&program, LOOK_EVERY).map(|_| ())
    });
}

/// Both worlds move the same pages at the same steps.
///
/// Where new memory lies beside old the worlds may form other areas, and with that trap other pages
/// and move them in other portions. So none is mapped after the start.
#[test]
fn the_same_pages_are_away_on_linux_and_on_the_model() {
    let test = concat!(module_path!(), "::the_same_pages_are_away_on_linux_and_on_the_model");
    let programs = |length| step::program(Kind { maps: false, ..Kind::ALL }, length);
    explore(test, STEPS / 7, programs, |program| {
        let every = 25;
        let linux = run::run::<LinuxWorld>(&program, every)?;
        let model = run::run::<ModelWorld>(&program, every)?;
        match linux.iter().zip(&model).position(|(linux, model)| linux != model) {
            None => Ok(()),
            Some(place) => Err(format!(
                "after step {} Linux and the model differ: {}",
                (place + 1) * every - 1,
                linux[place].difference(&model[place])
            )),
        }
    });
}

#[test]
fn threads_and_devices_at_once_do_on_linux_what_the_oracle_says() {
    let test =
        concat!(module_path!(), "::threads_and_devices_at_once_do_on_linux_what_the_oracle_says");
    explore(test, STEPS_AT_ONCE, concurrent::programs, |programs| {
        concurrent::run::<LinuxWorld>(&programs)
    });
}

#[test]
fn threads_and_devices_at_once_do_on_the_model_what_the_oracle_says() {
    let test = concat!(
        module_path!(),
        "::threads_and_devices_at_once_do_on_the_model_what_the_oracle_says"
    );
    explore(test, STEPS_AT_ONCE, concurrent::programs, |programs| {
        concurrent::run::<ModelWorld>(&programs)
    });
}
