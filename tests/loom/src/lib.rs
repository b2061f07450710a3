//! The lock-free parts of the core under [loom], which tries every order of their steps, and with it every value that
//! C11's memory model allows a load to see. The schedule explorer sees one memory, in one order; this sees what a
//! processor with a weaker one may do.
//!
//! The parts are the core's very files. Around them stands as little of the core as they need: what is atomic is loom's,
//! a word is waited on with loom's lock and condition variable, and engine memory is the heap. Cells whose owner
//! changes are watched, so that two who are not ordered are found though no value goes wrong.
#![cfg(loom)]
#![allow(dead_code, unused_imports, reason = "of the core's files only a part is used")]

mod abort;
mod block;
mod driver;
mod engine_memory;
mod events;
mod mm;
mod sync;

#[path = "../../../crates/uhmm/src/mirror/calls.rs"]
mod calls;
#[path = "../../../crates/uhmm/src/clock.rs"]
mod clock;
#[path = "../../../crates/uhmm/src/counters.rs"]
mod counters;
#[path = "../../../crates/uhmm/src/mirror/holds.rs"]
mod holds;
#[path = "../../../crates/uhmm/src/in_flight.rs"]
mod in_flight;
#[path = "../../../crates/uhmm/src/policy.rs"]
mod policy;
#[path = "../../../crates/uhmm/src/shared.rs"]
mod shared;
#[path = "../../../crates/uhmm/src/sparse.rs"]
mod sparse;
#[path = "../../../crates/uhmm/src/units.rs"]
pub mod units;

#[cfg(test)]
mod tests;
