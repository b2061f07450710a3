//! How a program and a device process talk: rings in memory that both have, and what is said on them.
//!
//! A ring carries messages of a fixed length one way, from one sender to one receiver. Neither side
//! trusts the other. Each keeps its own place in the ring to itself, and of the other's reads one
//! number, once, and checks it. A message is copied out before anything of it is looked at, and parsed
//! into a type that can hold nothing but what the protocol allows: what a parser lets through names
//! frames, pages and kernels that there are.
//!
//! Nobody spins for long: who finds nothing to receive sleeps on a futex in the ring, for a time at
//! most, so that it can look whether the other side still lives.

mod cause;
mod message;
mod queue;

pub use cause::{cause_of, cause_words};
pub use message::{Command, ErrorWords, Limits, MessageError, Order, Report, VERSION};
pub use queue::{Receiver, RingError, RingMemory, SLOTS, Sender, WORDS, Words};

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests;
