//! What the parts know of events, and what of these is lock-free.

#[path = "../../../crates/uhmm/src/events/outlet.rs"]
pub(crate) mod outlet;
#[path = "../../../crates/uhmm/src/events/queue.rs"]
pub(crate) mod queue;

/// As in the core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Began(u64);
