//! What an access of a device to the program's memory in place is made of.
//!
//! In place means: where the memory lies, by an instruction of a thread of this process, through
//! the page tables that the CPU has for the program. Such an access never ends the process and never
//! waits for a page: it is done, or refused.

use core::marker::PhantomData;

use thiserror::Error;

/// How many bytes an access reaches, at an address that is a multiple of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    One,
    /// Two bytes.
    Two,
    /// Four bytes.
    Four,
    /// Eight bytes.
    Eight,
}

impl Width {
    /// How many bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// The part of `value` that so many bytes hold.
    pub const fn part_of(self, value: u64) -> u64 {
        match self {
            Self::One => value & 0xff,
            Self::Two => value & 0xffff,
            Self::Four => value & 0xffff_ffff,
            Self::Eight => value,
        }
    }
}

/// The access was not made: its page is not there, may not be touched so, or is a trapped hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the access in place was refused")]
pub struct Refused;

/// Names an accessor to other threads than its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AccessorNumber(pub(super) u32);

/// A thread's right to reach the program's memory in place, from
/// [`Mm::open_accessor`](super::Mm::open_accessor) to
/// [`Mm::close_accessor`](super::Mm::close_accessor). It stays on its thread.
///
/// One that is dropped without being closed leaves its thread as it was while it was open, and its
/// place in the system's table taken; nothing worse.
#[derive(Debug)]
#[must_use = "an accessor that is not closed keeps its place"]
pub struct Accessor {
    number: AccessorNumber,
    this_thread: PhantomData<*mut ()>,
}

impl Accessor {
    /// An accessor of the calling thread.
    pub(super) const fn new(number: AccessorNumber) -> Self {
        Self { number, this_thread: PhantomData }
    }

    /// Ends it, and answers which it was.
    pub(super) fn into_number(self) -> AccessorNumber {
        self.number
    }

    /// Its name, by which another thread [refuses](super::Mm::refuse) its access.
    pub const fn number(&self) -> AccessorNumber {
        self.number
    }
}
