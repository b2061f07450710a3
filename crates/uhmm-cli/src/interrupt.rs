//! Ctrl-C: a flag that long work looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Failure;

/// The user asked to stop before the work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

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
                std::process::exit(130);
            }
        })?;
        Ok(())
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
