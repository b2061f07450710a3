//! How many callbacks of a subscription run, and what the last of them has to do once the owner has
//! ended it.
//!
//! A callback begins only while the subscription can be found, under the lock of the tree. Its owner
//! first takes it out of there, and then says here how it ends: who can wait does, and the last
//! callback wakes it; who cannot, because it is in one of them, leaves the rest to the last.

use crate::sync::{
    WaitWord,
    atomic::{
        AtomicU32,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

/// The owner waits for the callbacks to end.
const ENDING: u32 = 1 << 31;
/// The owner ended the subscription from within a callback.
const DEFERRED: u32 = 1 << 30;
const COUNT: u32 = DEFERRED - 1;

/// The callbacks of one subscription that run.
#[derive(Debug)]
pub(super) struct Calls(AtomicU32);

/// What falls to a callback that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// The owner waits and is to be [told](Ended::tell). It may have gone on already, and dropped
    /// the subscription.
    Tell,
    /// The subscription is left to this callback's thread.
    LayAside,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Pins the subscription for a callback. It can be found, and cannot be taken out meanwhile.
    pub(super) fn begin(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Ends what [`begin`](Self::begin) began. Unless the answer is `LayAside`, the subscription may
    /// be gone.
    #[inline]
    pub(super) fn end(&self) -> Due {
        let before = self.0.fetch_sub(1, AcqRel);
        if before & COUNT != 1 {
            Due::Nothing
        } else if before & ENDING != 0 {
            Due::Tell
        } else if before & DEFERRED != 0 {
            Due::LayAside
        } else {
            Due::Nothing
        }
    }

    /// Leaves the subscription to the last callback. The caller is in one, and no more can begin.
    pub(super) fn defer(&self) {
        self.0.fetch_or(DEFERRED, AcqRel);
    }

    /// Waits until no callback runs. No more can begin; then the subscription is the caller's.
    pub(super) fn wait(&self, ended: &Ended) {
        self.0.fetch_or(ENDING, AcqRel);
        loop {
            let seen = ended.0.word().load(Acquire);
            if self.0.load(Acquire) & COUNT == 0 {
                return;
            }
            ended.0.wait(seen);
        }
    }
}

/// Counts the times that the last callback of a subscription ended whose owner waits.
#[derive(Debug)]
pub(super) struct Ended(WaitWord);

impl Ended {
    pub(super) fn new() -> Self {
        Self(WaitWord::new(0))
    }

    /// Wakes the owners that wait, to look again.
    pub(super) fn tell(&self) {
        self.0.word().fetch_add(1, Release);
        self.0.wake_all();
    }
}
