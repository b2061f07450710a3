//! uhmm: user-space heterogeneous memory management.

pub mod abort;
pub mod engine_memory;
pub mod mm;
pub mod sync;
pub mod units;
