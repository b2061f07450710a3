//! Engine memory.
