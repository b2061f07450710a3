//! Where the turns of faults come from, and of threads that find no place inside: a pool in engine
//! memory that only grows.

use core::ptr::NonNull;

use super::turn::{Fault, Turn};
use crate::{
    engine_memory::{EngineBox, EngineMemory, EngineVec},
    sync::{Lock, SignalsBlocked},
};

/// Turns that are in no queue.
///
/// A turn's memory is freed only with the pool, so whoever wakes a sleeper may touch the turn after
/// the sleeper has gone on.
#[derive(Debug)]
pub(crate) struct TurnPool {
    memory: EngineMemory,
    state: Lock<State>,
}

#[derive(Debug)]
struct State {
    all: EngineVec<EngineBox<Turn>>,
    free: EngineVec<NonNull<Turn>>,
}

// SAFETY: the free turns are reached through the lock only.
unsafe impl Send for State {}

impl TurnPool {
    pub(crate) fn new(memory: &EngineMemory) -> Self {
        let state =
            State { all: EngineVec::new(memory.clone()), free: EngineVec::new(memory.clone()) };
        Self { memory: memory.clone(), state: Lock::new(state) }
    }

    /// A turn for `fault`, or for a thread; none where engine memory is exhausted.
    pub(crate) fn take(
        &self,
        fault: Option<Fault>,
        signals: &SignalsBlocked,
    ) -> Option<NonNull<Turn>> {
        let mut state = self.state.lock(signals);
        let turn = if let Some(turn) = state.free.pop() {
            turn
        } else {
            // Room to give it back is made first, so that giving back cannot fail.
            let owed = state.all.len() + 1 - state.free.len();
            state.free.try_reserve(owed).ok()?;
            let mut turn = EngineBox::try_new(&self.memory, Turn::new()).ok()?;
            let pointer = NonNull::from(&mut *turn);
            state.all.try_push(turn).ok()?;
            pointer
        };
        // SAFETY: the turn was free, so it is the caller's now and in no queue.
        unsafe { turn.as_ref().prepare(fault) };
        Some(turn)
    }

    /// Gives a turn back that is in no queue any more.
    pub(crate) fn give_back(&self, turn: NonNull<Turn>, signals: &SignalsBlocked) {
        // `take` made room for it.
        let _ = self.state.lock(signals).free.try_push(turn);
    }
}
