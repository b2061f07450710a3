//! What of events is lock-free.

#[path = "../../../crates/uhmm/src/events/outlet.rs"]
pub(crate) mod outlet;
#[path = "../../../crates/uhmm/src/events/queue.rs"]
pub(crate) mod queue;
