//! Linux.
/// Linux.
pub struct Linux;
