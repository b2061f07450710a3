//! One ring: slots, and each side's place in them.

use core::{
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, SeqCst},
        fence,
    },
    time::Duration,
};

use thiserror::Error;

/// How many messages a ring holds, a power of two.
pub const SLOTS: usize = 256;

/// The same, as places are counted.
const TURN: u32 = 256;
const _: () = assert!(TURN as usize == SLOTS && SLOTS.is_power_of_two());

/// How long a message is, in words of 64 bits: a line of the processor's cache.
pub const WORDS: usize = 8;

/// A message as it lies in a ring.
pub type Words = [u64; WORDS];

/// The other side does not keep to what a ring is.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the other side of a ring claims place {claimed}, from {own} on, where there are {SLOTS}")]
pub struct RingError {
    /// The place that it says it is at.
    pub claimed: u32,
    /// Our own.
    pub own: u32,
}

/// What one side tells of itself.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Side {
    /// How many messages it has sent, or received.
    pub(super) place: AtomicU32,
    /// Whether it sleeps until the other goes on.
    pub(super) sleeps: AtomicU32,
}

/// The memory of a ring, in which all zeros is a ring without messages.
///
/// Both sides may have it mapped, in different processes, and one of them may write anything into it at
/// any time: so it is read and written by atomic accesses alone.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct RingMemory {
    pub(super) sender: Side,
    pub(super) receiver: Side,
    pub(super) slots: [[AtomicU64; WORDS]; SLOTS],
}

impl Default for RingMemory {
    fn default() -> Self {
        let slot = |_| core::array::from_fn(|_| AtomicU64::new(0));
        Self {
            sender: Side::default(),
            receiver: Side::default(),
            slots: core::array::from_fn(slot),
        }
    }
}

impl Side {
    /// Sleeps while `other` is at `place`, `timeout` at most. May end early.
    fn sleep_while(&self, other: &Self, place: u32, timeout: Duration) {
        self.sleeps.store(1, SeqCst);
        // Either this sees that the other went on, or the other that this sleeps.
        if other.place.load(SeqCst) == place {
            wait(&other.place, place, timeout);
        }
        self.sleeps.store(0, Relaxed);
    }

    /// Goes on to `place`, and wakes the other side where it sleeps.
    fn go_on(&self, place: u32, other: &Self) {
        self.place.store(place, SeqCst);
        fence(SeqCst);
        if other.sleeps.load(SeqCst) != 0 {
            wake(&self.place);
        }
    }
}

#[cfg(not(any(shuttle, miri)))]
fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    use rustix::thread::{Timespec, futex};
    let timeout = Timespec::try_from(timeout).ok();
    // Not private to a process. An interrupted or refused wait is an early return.
    let _ = futex::wait(word, futex::Flags::empty(), expected, timeout.as_ref());
}

#[cfg(not(any(shuttle, miri)))]
fn wake(word: &AtomicU32) {
    use rustix::thread::futex;
    let _ = futex::wake(word, futex::Flags::empty(), 1);
}

#[cfg(any(shuttle, miri))]
fn wait(_: &AtomicU32, _: u32, _: Duration) {
    std::thread::yield_now();
}

#[cfg(any(shuttle, miri))]
fn wake(_: &AtomicU32) {}

/// The side of a ring that sends. There is one for a ring.
#[derive(Debug)]
pub struct Sender<'m> {
    memory: &'m RingMemory,
    sent: u32,
    /// What the receiver once claimed that cannot be.
    broken: Option<RingError>,
}

/// The side of a ring that receives. There is one for a ring.
#[derive(Debug)]
pub struct Receiver<'m> {
    memory: &'m RingMemory,
    received: u32,
    /// What the sender once claimed that cannot be.
    broken: Option<RingError>,
}

/// How far one place is past another, where a ring can hold as many. Once it cannot be, `broken` says so
/// for good: a side that was not trusted once is not trusted again.
fn distance(
    from: u32,
    to: u32,
    broken: &mut Option<RingError>,
    error: RingError,
) -> Result<usize, RingError> {
    if let Some(before) = *broken {
        return Err(before);
    }
    let distance = to.wrapping_sub(from) as usize;
    if distance > SLOTS {
        *broken = Some(error);
        return Err(error);
    }
    Ok(distance)
}

const fn slot(place: u32) -> usize {
    place as usize % SLOTS
}

impl<'m> Sender<'m> {
    /// The sender of a ring that nothing was sent on.
    pub const fn new(memory: &'m RingMemory) -> Self {
        Self { memory, sent: 0, broken: None }
    }

    /// Sends a message. Answers whether there was room for it.
    ///
    /// # Errors
    /// [`RingError`]; nothing is sent, now or later.
    pub fn send(&mut self, message: &Words) -> Result<bool, RingError> {
        let received = self.memory.receiver.place.load(Acquire);
        let error = RingError { claimed: received, own: self.sent };
        if distance(received, self.sent, &mut self.broken, error)? == SLOTS {
            return Ok(false);
        }
        for (word, value) in self.memory.slots[slot(self.sent)].iter().zip(message) {
            word.store(*value, Relaxed);
        }
        self.sent = self.sent.wrapping_add(1);
        self.memory.sender.go_on(self.sent, &self.memory.receiver);
        Ok(true)
    }

    /// Sleeps until the receiver goes on, `timeout` at most. May return early.
    pub fn wait_for_room(&self, timeout: Duration) {
        let full_at = self.sent.wrapping_sub(TURN);
        self.memory.sender.sleep_while(&self.memory.receiver, full_at, timeout);
    }
}

impl<'m> Receiver<'m> {
    /// The receiver of a ring that nothing was received from.
    pub const fn new(memory: &'m RingMemory) -> Self {
        Self { memory, received: 0, broken: None }
    }

    /// Receives a message, if there is one: a copy, which the other side cannot change.
    ///
    /// # Errors
    /// [`RingError`]; nothing is received, now or later.
    pub fn receive(&mut self) -> Result<Option<Words>, RingError> {
        let sent = self.memory.sender.place.load(Acquire);
        let error = RingError { claimed: sent, own: self.received };
        if distance(self.received, sent, &mut self.broken, error)? == 0 {
            return Ok(None);
        }
        let slot = &self.memory.slots[slot(self.received)];
        let message = core::array::from_fn(|word| slot[word].load(Relaxed));
        self.received = self.received.wrapping_add(1);
        self.memory.receiver.go_on(self.received, &self.memory.sender);
        Ok(Some(message))
    }

    /// Sleeps until something is sent, `timeout` at most. May return early.
    pub fn wait(&self, timeout: Duration) {
        self.memory.receiver.sleep_while(&self.memory.sender, self.received, timeout);
    }
}
