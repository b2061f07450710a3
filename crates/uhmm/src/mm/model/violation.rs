//! What the core must never do.

use crate::units::PageNumber;

/// Something that the core must never do, seen by the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A page was taken from an area that is not trapped: its next access would read zeros.
    TakenUntrapped(PageNumber),
    /// A page that is a hole was copied from: Linux would wait for a fault that nobody serves.
    CopiedHole(PageNumber),
    /// Zeros replaced a mark of poison: lost content reads as if there had been none.
    ZeroedPoison(PageNumber),
}
