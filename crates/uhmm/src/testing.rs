//! What unit tests share: a test runs once in a program and under the interpreter, and in many
//! orders of its threads' steps under the schedule explorer.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests are off the fault path"
)]

#[cfg(shuttle)]
use shuttle::thread;
#[cfg(not(shuttle))]
use std::thread;

use crate::engine_memory::EngineMemory;

/// Runs `test` in this world.
pub(crate) fn explore(test: impl Fn() + Send + Sync + 'static) {
    #[cfg(shuttle)]
    {
        let number = std::env::var("UHMM_SCHEDULES").ok().and_then(|number| number.parse().ok());
        let test = std::sync::Arc::new(test);
        let again = std::sync::Arc::clone(&test);
        shuttle::check_random(move || test(), number.unwrap_or(100));
        shuttle::check_pct(move || again(), number.unwrap_or(100), 3);
    }
    #[cfg(not(shuttle))]
    test();
}

/// Starts a thread.
pub(crate) fn spawn<R: Send + 'static>(
    run: impl FnOnce() -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    thread::spawn(run)
}

/// Runs a test of one thread in this world.
pub(crate) fn alone(test: impl Fn() + Send + Sync + 'static) {
    #[cfg(shuttle)]
    shuttle::check_random(test, 1);
    #[cfg(not(shuttle))]
    test();
}

/// A little engine memory.
pub(crate) fn memory() -> EngineMemory {
    EngineMemory::map(if cfg!(miri) { 1 << 18 } else { 1 << 20 }).unwrap()
}

/// How many random cases a property is tried with.
#[cfg(not(shuttle))]
pub(crate) fn cases() -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        cases: if cfg!(miri) { 3 } else { 256 },
        failure_persistence: None,
        ..Default::default()
    }
}
