//! A device that keeps nothing: what it costs is the engine's.

use uhmm::{Device, Entries, Invalidation, PageTable};

/// A device without a page table, which reaches no memory.
pub(super) struct Null;

// SAFETY: it has no translations and touches no frame; its methods do nothing.
unsafe impl PageTable for Null {
    fn commit(&self, _: &Entries) {}

    fn invalidate(&self, _: &Invalidation) {}
}

// SAFETY: as above.
unsafe impl Device for Null {}

/// The same, but the engine believes that it holds on to the memory behind pages.
pub(super) struct Pinning;

// SAFETY: as for `Null`.
unsafe impl PageTable for Pinning {
    fn commit(&self, _: &Entries) {}

    fn invalidate(&self, _: &Invalidation) {}

    fn pins(&self) -> bool {
        true
    }
}
