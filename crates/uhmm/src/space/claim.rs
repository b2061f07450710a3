//! That there is one address space a process.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::OpenError;

/// The process that has an address space open; 0 for none. A child of a fork has another number
/// than its parent, and may open its own.
static OPEN_IN: AtomicU32 = AtomicU32::new(0);

/// The right to be the one address space of a process.
#[derive(Debug)]
pub(super) struct Claim {
    process: u32,
}

impl Claim {
    /// Claims it for this process.
    pub(super) fn new() -> Result<Self, OpenError> {
        let me = std::process::id();
        let before = OPEN_IN.load(SeqCst);
        if before == me || OPEN_IN.compare_exchange(before, me, SeqCst, SeqCst).is_err() {
            return Err(OpenError::AlreadyOpen);
        }
        Ok(Self { process: me })
    }

    /// Whether this is a child's copy of its parent's.
    pub(super) fn is_inherited(&self) -> bool {
        self.process != std::process::id()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        OPEN_IN.store(0, SeqCst);
    }
}
