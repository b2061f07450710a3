//! What only fuzzers reach: parsers of what the system and other processes write.

pub use crate::{
    events::fuzzing::recorded,
    mm::linux::fuzzing::{EVENT_BYTES, areas, message},
    view::fuzzing::{Shown, innermost_number},
};
