//! What a device tells the core of its page table, and the core it: plain data, in three calls.
//!
//! *Prepare* is where a device does what can fail or sleep. *Commit* enters translations, in the
//! device's own format, and cannot fail. *Invalidate* ends them, and has ended them when it returns.

use core::ptr::NonNull;

use thiserror::Error;

use super::{DeviceIndex, MirrorId};
use crate::{engine_memory::EngineMemoryError, mm::Access, units::PageRange};

/// Where the pages of [`Entries`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Translation {
    /// Where the program has them: the device reaches them through the CPU's page tables, at the
    /// program's addresses, by the core's access in place.
    InPlace {
        /// Whether they are the shared page of zeros.
        zero: bool,
    },
    /// In the device's own memory.
    Frames {
        /// Where the first page's content is; the others follow.
        memory: NonNull<u8>,
    },
    /// In the device's own memory, which is reached by copies
    /// ([`CopyingMemory`](crate::CopyingMemory)).
    Copied {
        /// The first page's frame, by number; the others follow.
        frame: usize,
    },
    /// Shared memory, in its file, where the engine has it mapped a second time. Whoever has the file can
    /// take pages out of it, or cut it short, and tells nobody: the device reaches them by the core's
    /// access in place, at these addresses, which is refused where there is no such page any more.
    Alias {
        /// Where the first page's content is; the others follow.
        memory: NonNull<u8>,
    },
    /// In the device's own coherent memory: the CPU maps its frames where the program has the pages, and
    /// a device of this process reaches them there as it does what is in place.
    Coherent {
        /// The first page's frame, by number; the others follow.
        frame: usize,
    },
    /// In the memory of a peer that lets this device map it.
    Peer {
        /// The peer.
        device: DeviceIndex,
        /// Where the first page's content is; the others follow.
        memory: NonNull<u8>,
    },
}

// SAFETY: it says where memory is and reaches none.
unsafe impl Send for Translation {}
// SAFETY: as above.
unsafe impl Sync for Translation {}

/// Translations to enter: consecutive pages within one block that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries {
    /// The pages.
    pub pages: PageRange,
    /// Where they are.
    pub translation: Translation,
    /// Whether the device may write them. It may always read.
    pub write: bool,
    /// The binary logarithm of how many base pages one entry of the CPU's page table, or one huge page in
    /// frames, has here, which may reach past `pages`. A device maps no larger. 0 also stands for not known:
    /// of pages that a migration brings it is told to who has [`CopyingMemory`](super::CopyingMemory); of others
    /// [`Attachment::snapshot`](crate::Attachment::snapshot) tells.
    pub order: u8,
}

/// Why translations end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidationKind {
    /// The addresses were unmapped, mapped over, or their pages moved to other addresses.
    Unmap,
    /// The program discards the content.
    Clear,
    /// The program changed what may be done with the pages.
    Protection,
    /// The content moves.
    Migrate {
        /// The device that it moves to; `None` where it comes back to system memory.
        owner: Option<DeviceIndex>,
    },
    /// One device alone may access the pages from here on, or no longer.
    Exclusive {
        /// The device; `None` where exclusivity ends.
        owner: Option<DeviceIndex>,
    },
    /// The address space closes.
    Release,
}

/// Translations end: of these pages, for this reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalidation {
    /// The pages, within one block.
    pub pages: PageRange,
    /// Why.
    pub kind: InvalidationKind,
}

/// Why a device cannot make ready for pages.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PrepareError {
    /// Engine memory is exhausted.
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
    /// the device refuses, with a code of its own
    #[error("the device refuses the pages, with code {code}")]
    Refused {
        /// The device's code.
        code: i32,
    },
}

/// A device's page table, as a mirror holds it.
///
/// The calls come from any thread, also several at a time for different blocks. For one block
/// [`commit`](Self::commit) and [`invalidate`](Self::invalidate) come one at a time, under the
/// block's lock, in the order in which they take effect.
///
/// # Safety
/// The core changes, moves and frees memory trusting that
/// - [`invalidate`](Self::invalidate) returns only when the device has no translation of the pages
///   and no access through one in flight, and that none is made until the next commit;
/// - the device touches memory only through a translation that a commit gave it, as that says: what
///   is not to be written it does not write, and what is in place it reaches by the core's access in
///   place alone;
/// - no method touches memory that could be away (the process's heap among it), waits for another
///   of the core's calls, or unwinds. Dropping a mirror, from wherever, is no such call.
pub unsafe trait PageTable: Send + Sync + 'static {
    /// Makes ready for a commit of `pages`, within one block: does what can fail or sleep, such as
    /// making room in the page table, pinning, or mapping for direct memory access. Called with no
    /// lock held; a commit need not follow. Unless this is implemented there is nothing to make ready:
    /// the page table has room for every page from the start.
    ///
    /// # Errors
    /// [`PrepareError`]; the pages are as they were.
    fn prepare(&self, pages: PageRange, access: Access) -> Result<(), PrepareError> {
        let _ = (pages, access);
        Ok(())
    }

    /// Enters translations, which were prepared for. They replace what was there.
    fn commit(&self, entries: &Entries);

    /// Ends all translations of the pages.
    fn invalidate(&self, invalidation: &Invalidation);

    /// Whether the device holds on to the memory behind a page that it maps in place, rather than
    /// going through the CPU's page tables with each access. Such a device is not given pages that
    /// the program is about to drop, and pages to be written are made the process's own first.
    fn pins(&self) -> bool {
        false
    }
}

/// What a device answers to a peer that wants to map its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Export {
    /// The peer may map it. What was once granted is granted again while its area lives.
    Map,
    /// The peer is to use main memory: the pages go back there first.
    SystemMemory,
    /// The peer may not have the pages.
    Refuse,
}

/// Who asks to map a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Importer {
    /// The importer's mirror.
    pub mirror: MirrorId,
    /// Its place among the devices of the address space, if it has one.
    pub device: Option<DeviceIndex>,
}
