//! Waiting for what others may free, for a while.

use core::time::Duration;

use super::WaitWord;

/// For how long who cannot answer an error tries again.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// The tries that are left.
#[derive(Debug)]
pub(crate) struct Patience {
    left: u32,
    never: WaitWord,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { left: TRIES, never: WaitWord::new(0) }
    }

    /// Waits before another try. False where there were enough.
    pub(crate) fn wait(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.never.wait_at_most(0, PAUSE);
        true
    }
}
