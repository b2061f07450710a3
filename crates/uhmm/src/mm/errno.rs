//! An error of the operating system.

use thiserror::Error;

/// An error number of the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("system error {0}")]
pub struct Errno(pub i32);
