//! Blocks: 512 pages each, the unit of locking and of policy.
//!
//! A block's record is 64 bytes and, once made, stays where it is: a lock that is a queue of turns,
//! a generation that says whether what was seen without the lock is still so, and where its pages
//! are. What is read without the lock is a hint; what can be changed is reached through the guard
//! only.

mod line;
mod pages;
mod pool;
mod record;
mod table;
mod turn;
mod turns;

pub(crate) use line::Left;
pub(crate) use pages::{Pages, Residence, Run};
pub(crate) use pool::TurnPool;
pub(crate) use record::{Block, BlockState, Hint};
pub(crate) use table::BlockTable;
pub(crate) use turn::{Fault, Turn, Whose};
pub(crate) use turns::{Next, TurnQueue};
