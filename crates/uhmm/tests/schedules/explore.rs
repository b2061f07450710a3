//! Running one scenario in many orders.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use shuttle::{
    Config, MaxSteps, Runner,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
};
use uhmm::CounterValues;

const DEFAULT_SCHEDULES: usize = 100;
const STACK_BYTES: usize = 256 << 10;
/// Many times what a scenario takes; more is a livelock.
const MOST_STEPS: usize = 400_000;
/// At how many places the order is turned against the thread that is ahead.
const DEPTH: usize = 4;

/// How many times as many orders are tried, at most, to meet what must be met.
const MOST_ROUNDS: usize = 20;

/// Runs `scenario` in many orders, chosen at random and by priorities. It answers what the engine
/// counted. While the sum of one of `must_meet` over all orders is zero more are tried, and where that
/// does not end it the exploration missed what it is for and fails.
pub(crate) fn explore(
    name: &'static str,
    must_meet: &[&'static str],
    scenario: impl Fn() -> CounterValues + Send + Sync + 'static,
) {
    let schedules = std::env::var("UHMM_SCHEDULES")
        .map_or(DEFAULT_SCHEDULES, |number| number.parse().expect("UHMM_SCHEDULES is a number"));
    let scenario = Arc::new(scenario);
    let met: Arc<Vec<_>> =
        Arc::new(must_meet.iter().map(|&counter| (counter, AtomicU64::new(0))).collect());
    let counted = || {
        let (scenario, met) = (Arc::clone(&scenario), Arc::clone(&met));
        move || {
            let counters = scenario();
            for (name, value) in counters.iter() {
                if let Some((_, sum)) = met.iter().find(|(counter, _)| *counter == name) {
                    sum.fetch_add(value, Relaxed);
                }
            }
        }
    };
    let missed = || met.iter().find(|(_, sum)| sum.load(Relaxed) == 0).map(|(counter, _)| *counter);
    for _ in 0..MOST_ROUNDS {
        run(name, "at random", RandomScheduler::new(schedules), counted());
        run(name, "by priorities", PctScheduler::new(DEPTH, schedules), counted());
        if missed().is_none() {
            return;
        }
    }
    let orders = 2 * MOST_ROUNDS * schedules;
    panic!("{name}: none of {orders} orders met any of `{}`", missed().unwrap_or_default());
}

fn run(
    name: &str,
    how: &str,
    scheduler: impl Scheduler + 'static,
    scenario: impl Fn() + Send + Sync + 'static,
) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    config.silence_warnings = true;
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let runner = Runner::new(scheduler, config);
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        runner.run(move || {
            count.fetch_add(1, Relaxed);
            scenario();
        })
    }));
    if let Err(failure) = result {
        eprintln!("{name}: failed in schedule {} chosen {how}", begun.load(Relaxed));
        panic::resume_unwind(failure);
    }
}
