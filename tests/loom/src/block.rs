//! Of the core's blocks: the record of one, and its queue of turns.

#[path = "../../../crates/uhmm/src/block/record.rs"]
mod record;
#[path = "../../../crates/uhmm/src/block/turns.rs"]
mod turns;

pub(crate) use record::Block;
pub(crate) use turns::{Fault, Next, Turn, TurnQueue, Whose};

/// Where the pages are is the holder's own matter.
#[derive(Debug, Default)]
pub(crate) struct Pages;
