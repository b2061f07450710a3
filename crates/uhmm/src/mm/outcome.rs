//! What a call did, and why it did no more.

use thiserror::Error;

use super::Errno;
use crate::units::PageRange;

/// Why a bulk call ended before its last page. The page at which it ended is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A change of the address space has not been read yet. Let go of every lock, let the reader
    /// of messages run, look everything up anew.
    Changing,
    /// The page of the destination is already there.
    Present,
    /// The page of the source is a hole.
    Hole,
    /// The source page is held by somebody: pinned, merged, or shared with a child.
    Busy,
    /// No trapped area at the destination, or none at the source.
    NoArea,
    /// The areas refuse: read-only, locked, or of a kind that cannot move.
    Refused,
    /// No memory for the page.
    NoMemory,
    /// Another error of the system.
    Other(Errno),
}

/// What a bulk call did: `pages` pages from the first on, and why it went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Done {
    /// How many pages are done.
    pub pages: usize,
    /// Why it ended early; `None` where all are done.
    pub stop: Option<Stop>,
}

/// How far [`Mm::populate`](super::Mm::populate) came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Populated {
    /// So many pages, from the first on, are present.
    pub pages: usize,
    /// Why it ended before the last; `None` where all are present.
    pub failure: Option<PopulateFailure>,
}

/// Why a page could not be made present: what a load or a store of it would have met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PopulateFailure {
    /// nothing is mapped there
    #[error("nothing is mapped there")]
    NoArea,
    /// the area's protection, or a guard mark, forbids the access
    #[error("the protection forbids the access")]
    Protection,
    /// the page's content is lost: its memory is broken, or it is marked as poisoned
    #[error("the content of the page is lost")]
    Poisoned,
    /// the file or the shared memory has no such page: it lies beyond the end
    ///
    /// Linux gives no word of the cause. Where it does not tell how long the file is either (a file
    /// without a name, and no `CAP_CHECKPOINT_RESTORE`), this stands for an error of its medium, or
    /// no space left on it, as well.
    #[error("the page lies beyond the end of its file")]
    BeyondEnd,
    /// no memory for the page, no page left in the pool of huge ones, or no room left in a file
    /// system that is kept in memory
    #[error("no memory for the page")]
    NoMemory,
    /// special memory, of a device or the system's own, which the system does not populate
    #[error("the memory is a device's or the system's own")]
    Special,
    /// another error of the system
    #[error("populating failed: {0}")]
    Other(Errno),
}

/// Why a range could not be trapped or watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TrapError {
    /// another userfaultfd of this process, or of its tracer, holds the area
    #[error("another userfaultfd holds {0}: unregister it there first")]
    Foreign(PageRange),
    /// nothing is mapped in a part of the range
    #[error("no area at {0}")]
    NoArea(PageRange),
    /// the area is of a kind that cannot be trapped, or watched
    #[error("the kind of area at {0} cannot be trapped or watched")]
    Unsupported(PageRange),
    /// the process has as many areas as the system allows, or memory for one more is short
    #[error("no room for another area at {0}: raise vm.max_map_count or free memory")]
    NoRoom(PageRange),
    /// another error of the system
    #[error("trapping or watching {0} failed: {1}")]
    Other(PageRange, Errno),
}
