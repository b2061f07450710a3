//! Ctrl-C: a flag that long work looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Failure;

/// The user asked to stop before the work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

impl From<Interrupted> for Failure {
    fn from(interrupted: Interrupted) -> Self {
        Self::with_status(INTERRUPTED, interrupted)
    }
}

/// The exit status of a program that was interrupted, as shells have it.
const INTERRUPTED: u8 = 130;

/// Ctrl-C could not be prepared for.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for Ctrl-C: {0}")]
struct NoHandler(ctrlc::Error);

/// Set once the user asks to stop; clones share the flag.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A flag that is not set and that no signal sets.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Makes Ctrl-C, and a request to terminate, set the flag. The second one ends the program
    /// at once, whatever it is doing.
    pub(crate) fn on_ctrl_c(&self) -> Result<(), Failure> {
        let flag = Arc::clone(&self.0);
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(INTERRUPTED.into());
            }
        })
        .map_err(|error| Failure::new(NoHandler(error)))
    }

    /// An error once the flag is set, for use with `?`.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        if self.0.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }

    /// Sets the flag, as Ctrl-C does.
    #[cfg(test)]
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
