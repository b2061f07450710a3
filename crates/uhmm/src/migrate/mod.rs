//! How a page moves: to a device, back on a fault, back when its frame or its owner is wanted.
//!
//! Each part works on one block at a time, under its lock and inside a section of the gate, in as
//! few calls to the system as it can. What a call did is recorded before the next is made, so that
//! a stop at any page leaves the page where it was, usable.
//!
//! What is rare on the way is kept out of line. A move ends all translations of the processor, those of
//! the code and the stack that follow among them, so the fewer pages they lie on the sooner a huge page
//! is there. For that reason, too, the functions that every move goes through name the section
//! `.text.hot.moving`. Linkers gather the sections of that prefix, wherever their functions were
//! compiled; it is code as any other, so nothing but its place changes.

mod ahead;
mod aside;
mod by_copy;
mod coherent;
mod commit;
mod content;
mod evict;
mod fault;
mod faulted;
mod from_coherent;
mod permitted;
mod pool;
mod protection;
mod pull;
mod shared;
mod to_device;
mod to_system;
mod translations;

pub(crate) use faulted::Faulted;
pub(crate) use pull::{Found, Pull};
pub(crate) use to_system::{AwayRun, Obstacle, ReturnCause};

/// For how many blocks signals stay blocked at most. Blocking them costs as much as moving a few
/// pages.
const BLOCKS_WITHOUT_SIGNALS: usize = 8;
