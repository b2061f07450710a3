//! Ends the process when a program hangs, so that no run of tests ever does; and keeps programs
//! apart that cannot run at the same time.

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, Once, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// How long a step may take, in seconds.
const PATIENCE: u64 = 30;

static STEPS: AtomicU64 = AtomicU64::new(0);

static ALONE: Mutex<()> = Mutex::new(());

/// Counts a step.
pub(crate) fn alive() {
    STEPS.fetch_add(1, Relaxed);
}

/// Starts the watchdog, once.
pub(crate) fn start() {
    static STARTED: Once = Once::new();
    alive();
    STARTED.call_once(|| {
        thread::spawn(|| {
            let mut before = 0;
            let mut seconds = 0;
            loop {
                thread::sleep(Duration::from_secs(1));
                let now = STEPS.load(Relaxed);
                seconds = if now == before { seconds + 1 } else { 0 };
                before = now;
                if seconds == PATIENCE && RUNNING.load(Relaxed) > 0 {
                    eprintln!("random program: a step hangs for {PATIENCE} seconds");
                    std::process::abort();
                }
            }
        });
    });
}

static RUNNING: AtomicU64 = AtomicU64::new(0);

/// A program that runs.
pub(crate) struct Running {
    _alone: Option<MutexGuard<'static, ()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Relaxed);
    }
}

/// Waits until a program may run, beside others or alone.
pub(crate) fn alone(alone: bool) -> Running {
    let alone = alone.then(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner));
    alive();
    RUNNING.fetch_add(1, Relaxed);
    Running { _alone: alone }
}

/// Prints a step if `UHMM_TRACE` is set.
pub(crate) fn trace(number: usize, step: &impl fmt::Debug) {
    static TRACE: OnceLock<bool> = OnceLock::new();
    if *TRACE.get_or_init(|| std::env::var_os("UHMM_TRACE").is_some()) {
        eprintln!("{number}: {step:?}");
    }
}
