//! Handles, and what is behind them.
//!
//! A handle is a number: a kind, a place in a table, and a count of how often the place was given away. So
//! one that has ended, or was made up, is found out before anything is followed. The table is data of this
//! library, with atomics and no lock: a callback may look a handle up, on whichever thread it runs, and a fork
//! finds no lock held.
//!
//! # Invariants
//! What is behind a place is followed by who has counted itself as a user of it and *then* found the handle
//! there. Who ends it takes the handle away and *then* waits until no user is counted. All of these are
//! sequentially consistent, so one of the two sees the other.

use core::{
    ops::Deref,
    ptr::{self, NonNull},
    sync::atomic::{
        AtomicPtr, AtomicU32, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use uhmm::sync::WaitWord;

use crate::failure::Failure;

/// How many handles there can be at a time.
const MOST_HANDLES: usize = 1 << 16;

/// What can be behind a handle.
pub(crate) trait Object: Sync {
    /// A number for the kind, not zero.
    const KIND: u8;
    /// What such a thing is called.
    const NAME: &'static str;
}

struct Slot {
    /// The handle, while what is behind it can be followed; else 0.
    handle: AtomicU64,
    /// Who may follow it, and who is about to find out that it may not.
    users: WaitWord,
    /// How often the place was given away; odd while it is.
    turns: AtomicU32,
    /// The process that it belongs to.
    process: AtomicU32,
    object: AtomicPtr<()>,
}

static SLOTS: [Slot; MOST_HANDLES] = [const {
    Slot {
        handle: AtomicU64::new(0),
        users: WaitWord::new(0),
        turns: AtomicU32::new(0),
        process: AtomicU32::new(0),
        object: AtomicPtr::new(ptr::null_mut()),
    }
}; MOST_HANDLES];

/// Where the next free place is looked for.
static NEXT: AtomicU32 = AtomicU32::new(0);

const fn handle_of(kind: u8, place: usize, turns: u32) -> u64 {
    ((turns as u64) << 32) | ((kind as u64) << 24) | place as u64
}

/// The parts of a handle: kind, place and count.
const fn parts(handle: u64) -> (u64, usize, u64) {
    ((handle >> 24) & 0xff, (handle & 0xff_ffff) as usize, handle >> 32)
}

/// What is behind a handle, while it is used.
pub(crate) struct Held<T> {
    slot: &'static Slot,
    object: NonNull<T>,
}

impl<T> Deref for Held<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: by the invariant of the module it is not ended before this user is gone.
        unsafe { self.object.as_ref() }
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        self.slot.leave();
    }
}

impl Slot {
    fn leave(&self) {
        let others = self.users.word().fetch_sub(1, SeqCst) - 1;
        if others == 0 && self.handle.load(SeqCst) == 0 {
            self.users.wake_all();
        }
    }
}

/// Gives a handle to what is in `object`, which is its owner's until then.
pub(crate) fn give<T: Object>(object: NonNull<T>) -> Result<u64, Failure> {
    let first = NEXT.fetch_add(1, Relaxed) as usize;
    for number in first..first.saturating_add(MOST_HANDLES) {
        let place = number % MOST_HANDLES;
        let slot = &SLOTS[place];
        let turns = slot.turns.load(SeqCst);
        let taken = turns.wrapping_add(1);
        if turns.is_multiple_of(2)
            && slot.turns.compare_exchange(turns, taken, SeqCst, SeqCst).is_ok()
        {
            if slot.process.load(SeqCst) != std::process::id() {
                // Threads of a parent that were looking are not here to count themselves out.
                slot.users.word().store(0, SeqCst);
            }
            slot.object.store(object.as_ptr().cast(), SeqCst);
            slot.process.store(std::process::id(), SeqCst);
            let handle = handle_of(T::KIND, place, taken);
            slot.handle.store(handle, SeqCst);
            return Ok(handle);
        }
    }
    Err(Failure::TooManyHandles { most: MOST_HANDLES })
}

/// The place of a handle of this kind and of this process, if it ever was one.
fn slot_of<T: Object>(handle: u64) -> Result<&'static Slot, Failure> {
    let (kind, place, turns) = parts(handle);
    let slot = SLOTS.get(place).filter(|slot| {
        kind == u64::from(T::KIND) && turns % 2 == 1 && turns <= slot.turns.load(SeqCst).into()
    });
    let slot = slot.ok_or(Failure::BadHandle { handle, kind: T::NAME })?;
    let process = slot.process.load(SeqCst);
    if slot.handle.load(SeqCst) == handle && process != std::process::id() {
        return Err(Failure::OtherProcess { handle, kind: T::NAME, process });
    }
    Ok(slot)
}

/// What is behind a handle.
pub(crate) fn follow<T: Object>(handle: u64) -> Result<Held<T>, Failure> {
    let slot = slot_of::<T>(handle)?;
    slot.users.word().fetch_add(1, SeqCst);
    if slot.handle.load(SeqCst) != handle {
        slot.leave();
        return Err(Failure::Ended { handle, kind: T::NAME });
    }
    match NonNull::new(slot.object.load(SeqCst)) {
        Some(object) => Ok(Held { slot, object: object.cast() }),
        None => uhmm::abort::abort(b"a handle has nothing behind it"),
    }
}

/// What was behind a handle that is being ended: nobody else follows it.
pub(crate) struct Ending<T> {
    slot: &'static Slot,
    handle: u64,
    pub(crate) object: NonNull<T>,
}

impl<T> Ending<T> {
    /// The handle stays as it was.
    pub(crate) fn keep(self) {
        self.slot.handle.store(self.handle, SeqCst);
    }

    /// The place can be given away again. What was behind it is the caller's.
    pub(crate) fn done(self) -> NonNull<T> {
        self.slot.object.store(ptr::null_mut(), SeqCst);
        self.slot.turns.fetch_add(1, SeqCst);
        self.object
    }
}

/// Takes a handle away, and waits until nobody uses what is behind it.
pub(crate) fn end<T: Object>(handle: u64) -> Result<Ending<T>, Failure> {
    end_if(handle, |_| Ok(()))
}

/// As [`end`], where what is behind it may be ended by who calls.
pub(crate) fn end_if<T: Object>(
    handle: u64,
    may: impl FnOnce(&T) -> Result<(), Failure>,
) -> Result<Ending<T>, Failure> {
    let held = follow::<T>(handle)?;
    may(&held)?;
    let slot = held.slot;
    if slot.handle.compare_exchange(handle, 0, SeqCst, SeqCst).is_err() {
        return Err(Failure::Ended { handle, kind: T::NAME });
    }
    let object = held.object;
    drop(held);
    loop {
        let users = slot.users.word().load(SeqCst);
        if users == 0 {
            return Ok(Ending { slot, handle, object });
        }
        slot.users.wait(users);
    }
}
