//! Who stands in line for a block's lock, in the order in which their turns come.
//!
//! A circle of turns, of which the last is known. What is counted, the turns that passed, travels with
//! the last.
//!
//! **A thread that faults has one place in line.** It waits on one page at a time, so where it faults
//! again while a fault of it stands in line, that one is over: its page came with a turn of another.
//! The newer fault takes that place, and none behind. Without this a thread whose pages others bring
//! would leave a place behind for each, and who comes later would wait for all of them.
//!
//! A number of a thread is no proof: of a process elsewhere that looks into this one the system tells
//! the number that it has there. So whoever may wait on the page of a fault that lost its place is
//! woken, and faults again where it has to.

use core::ptr::{self, NonNull};

use super::turn::{Fault, Passed, Turn, Whose};

/// The line of a block.
///
/// # Invariants
/// - `last` is null or points to the last in line. From each turn in it `next` leads to the one
///   behind, from the last to the first.
/// - A turn in line is valid until it was taken out.
/// - No two faults in line are of one thread, where that is known.
#[derive(Debug)]
pub(super) struct Line {
    last: *mut Turn,
}

/// A turn that got no place in line, as its thread has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// The turn. It is in no queue any more.
    pub(crate) turn: NonNull<Turn>,
    /// The fault that nobody will serve, where it is of another page than the one in line: who waits
    /// on that page is to be woken.
    pub(crate) fault: Option<Fault>,
}

impl Line {
    pub(super) const fn new() -> Self {
        Self { last: ptr::null_mut() }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.last.is_null()
    }

    /// Has all who arrived stand in line, oldest first, and tells of each that got no place. From
    /// `newest` on each leads to the one who arrived before.
    ///
    /// # Safety
    /// The caller holds the lock; those who arrived are valid until they were taken out or told of, and
    /// theirs are the holder's cells.
    pub(super) unsafe fn join(&mut self, newest: *mut Turn, mut left: impl FnMut(Left)) {
        let (mut oldest, mut rest) = (ptr::null_mut(), newest);
        while let Some(turn) = NonNull::new(rest) {
            // SAFETY: as the caller says.
            rest = unsafe { turn.as_ref().next.get().replace(oldest) };
            oldest = turn.as_ptr();
        }
        // SAFETY: by the invariant.
        let last = unsafe { self.last.as_ref() };
        // SAFETY: the cells of who stands in line are the holder's.
        let passed = last.map_or(Passed::default(), |last| unsafe { *last.passed.get() });
        while let Some(turn) = NonNull::new(oldest) {
            // SAFETY: as the caller says. What was told of is not touched after.
            unsafe {
                let arrived = turn.as_ref();
                oldest = *arrived.next.get();
                if let Some(fault) = *arrived.fault.get()
                    && let Some(place) = self.place_of(fault.thread)
                {
                    left(Left { turn, fault: give_to_newer(place, fault) });
                    continue;
                }
                *arrived.since.get() = passed;
                self.push(turn);
            }
        }
        // SAFETY: by the invariant, and as above.
        if let Some(last) = unsafe { self.last.as_ref() } {
            // SAFETY: as above.
            unsafe { *last.passed.get() = passed };
        }
    }

    /// Takes the first out, as a turn of `whose` ends, and answers how many turns it waited for.
    ///
    /// # Safety
    /// The caller holds the lock.
    pub(super) unsafe fn take_first(&mut self, whose: Whose) -> Option<(NonNull<Turn>, Passed)> {
        let last = NonNull::new(self.last)?;
        // SAFETY: by the invariant; the cells of who stands in line are the holder's.
        let (first, waited) = unsafe {
            let last = last.as_ref();
            let first = NonNull::new_unchecked(*last.next.get());
            *last.next.get() = *first.as_ref().next.get();
            let passed = (*last.passed.get()).and(whose);
            *last.passed.get() = passed;
            (first, passed.since(*first.as_ref().since.get()))
        };
        if first == last {
            self.last = ptr::null_mut();
        }
        Some((first, waited))
    }

    /// Puts a turn behind the last.
    ///
    /// # Safety
    /// The caller holds the lock; the turn is valid, in no queue, and its cells are the holder's.
    unsafe fn push(&mut self, turn: NonNull<Turn>) {
        // SAFETY: by the invariant, and as the caller says.
        unsafe {
            let first = match self.last.as_ref() {
                Some(last) => last.next.get().replace(turn.as_ptr()),
                None => turn.as_ptr(),
            };
            *turn.as_ref().next.get() = first;
        }
        self.last = turn.as_ptr();
    }

    /// The fault of a thread that stands in line.
    ///
    /// # Safety
    /// The caller holds the lock.
    unsafe fn place_of(&mut self, thread: u32) -> Option<&mut Fault> {
        if thread == 0 {
            return None;
        }
        let mut at = self.last;
        // SAFETY: by the invariant; the cells are the holder's, and the borrow of the line makes the
        // reference unique.
        while let Some(turn) = unsafe { at.as_ref() } {
            // SAFETY: as above.
            if let Some(fault) = unsafe { &mut *turn.fault.get() }
                && fault.thread == thread
            {
                return Some(fault);
            }
            // SAFETY: as above.
            at = unsafe { *turn.next.get() };
            if at == self.last {
                break;
            }
        }
        None
    }
}

/// Leaves in `place` the newer of two faults of one thread. Answers the other, where it is of another
/// page.
fn give_to_newer(place: &mut Fault, arrived: Fault) -> Option<Fault> {
    let over =
        if arrived.is_newer_than(place) { core::mem::replace(place, arrived) } else { arrived };
    (over.page != place.page).then_some(over)
}
