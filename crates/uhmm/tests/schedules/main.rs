//! The core under the schedule explorer: threads of the program, two devices, an evictor and the
//! engine's own threads, in many orders of their steps. A scenario states what must hold in every
//! order, and ends in every order: a hang is found as a deadlock, a livelock as too many steps.
//!
//! The explorer's scopes wake their maker wherever it waits: who makes one starts threads in it, and
//! does nothing else there.
//!
//! Built with `--cfg shuttle` only; `tests/shuttle` at the root of the repository runs it.
//! `UHMM_SCHEDULES` says how many orders each scenario is tried in, by each of the two ways to
//! choose them.
#![cfg(shuttle)]
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "tests are off the fault path"
)]

mod aside;
mod batches;
mod changes;
mod coherent;
mod copying;
mod device;
mod ends;
mod explore;
mod faults;
mod forks;
mod mirrors;
mod protection;
mod shared;
mod world;
