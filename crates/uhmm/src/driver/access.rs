//! What a device misses a page for.

use crate::mm::Access;

/// What a queue wants a page for, the weakest first: who may do one may do those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultAccess {
    /// To read it soon. A hint: nobody waits for it, and nothing is cancelled where it cannot be had.
    Prefetch,
    /// To read it.
    Read,
    /// To write it.
    Write,
    /// For an atomic operation.
    Atomic,
}

impl FaultAccess {
    /// What has to be permitted for it.
    pub const fn access(self) -> Access {
        match self {
            Self::Prefetch | Self::Read => Access::Read,
            Self::Write | Self::Atomic => Access::Write,
        }
    }

    /// Whether nobody waits for it.
    pub const fn is_hint(self) -> bool {
        matches!(self, Self::Prefetch)
    }
}
