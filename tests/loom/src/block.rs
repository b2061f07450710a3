//! Of the core's blocks: the record of one, and its queue of turns.

#[path = "../../../crates/uhmm/src/block/line.rs"]
mod line;
#[path = "../../../crates/uhmm/src/block/record.rs"]
mod record;
#[path = "../../../crates/uhmm/src/block/turn.rs"]
mod turn;
#[path = "../../../crates/uhmm/src/block/turns.rs"]
mod turns;

pub(crate) use line::Left;
pub(crate) use record::Block;
pub(crate) use turn::{Fault, Turn, Whose};
pub(crate) use turns::{Next, TurnQueue};

/// Where the pages are is the holder's own matter.
#[derive(Debug, Default)]
pub(crate) struct Pages;
