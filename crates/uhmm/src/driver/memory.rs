//! The kinds of memory that a device can have.
//!
//! *Staging* is memory of this process into which pages move: a frame is the very page. *Copying
//! memory* is whatever the device alone reaches, a card's or another process's: the core numbers its
//! frames, and has the device copy pages in and out in batches.

use core::ptr::NonNull;

use thiserror::Error;

use crate::{processor, units::PageRange};

/// Consecutive frames of a device's memory, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames {
    /// The first.
    pub first: usize,
    /// How many there are.
    pub count: usize,
}

/// One batch of work for a device's memory: of consecutive frames, and as many consecutive pages.
///
/// The pages are the core's: they are there, are touched by nobody else until the transfer is
/// finished, and are as large as the system's pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transfer {
    /// Pages are copied into frames, whose content is nobody's.
    In {
        /// The first page.
        from: NonNull<u8>,
        /// The frames.
        to: Frames,
    },
    /// Frames are copied out to pages.
    Out {
        /// The frames, whose content stays as it is.
        from: Frames,
        /// The first page.
        to: NonNull<u8>,
    },
    /// Frames are filled with zeros.
    Zero {
        /// The frames, whose content is nobody's.
        frames: Frames,
    },
}

impl Transfer {
    /// The frames of the device.
    pub const fn frames(&self) -> Frames {
        match self {
            Self::In { to: frames, .. }
            | Self::Out { from: frames, .. }
            | Self::Zero { frames } => *frames,
        }
    }
}

// SAFETY: what it names is memory, and who may touch that when is the core's and the device's affair.
unsafe impl Send for Transfer {}
// SAFETY: as above.
unsafe impl Sync for Transfer {}

/// Copies `len` bytes, which are to be many: for memory whose copies the processor makes.
///
/// # Safety
/// `from` is valid for reads of `len` bytes and `to` for writes, the two are apart, and nobody else writes
/// the one or touches the other meanwhile.
pub unsafe fn copy_bytes(from: NonNull<u8>, to: NonNull<u8>, len: usize) {
    // SAFETY: as the caller says.
    unsafe { processor::copy(from.as_ptr(), to.as_ptr(), len) }
}

/// What a device calls a transfer that is under way: a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// How a transfer began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is done.
    Done,
    /// It is under way, and is to be [finished](CopyingMemory::finish).
    UnderWay(Ticket),
}

/// Why a transfer failed. Of frames that were to be filled the content is nobody's then, as is that of
/// pages that were to be; what was to be copied is as it was.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferError {
    /// the device failed, with a code of its own, and may do the same transfer another time
    #[error("the device could not copy, and says {code}")]
    Failed {
        /// The device's code.
        code: i32,
    },
    /// The device is gone, and with it all that it holds.
    #[error("the device is gone, with all that it held")]
    Lost,
}

/// Memory of a device that is reached by copies alone.
///
/// Calls come from any thread, several at a time, of frames that do not overlap, under the lock of the
/// block that the pages are of. Translations of what is copied out have ended before.
///
/// # Safety
/// The core reads, moves and frees memory trusting that
/// - a transfer that is done, or failed, is over: the device touches the pages no more;
/// - what was copied in, and nothing else, is what comes out of a frame, but for what the device wrote
///   into it by a translation that a commit gave it;
/// - no method touches memory that could be away (the process's heap among it), waits for another of
///   the core's calls, or unwinds; each returns in a time that does not depend on the program. What a
///   device needs for as many transfers as there are threads is reserved ahead.
pub unsafe trait CopyingMemory: Send + Sync + 'static {
    /// Begins a transfer; does it, where the device has no engine that copies by itself.
    ///
    /// # Errors
    /// [`TransferError`]; it is over then.
    fn begin(&self, transfer: &Transfer) -> Result<Begun, TransferError>;

    /// Waits for a transfer that is under way; called once for each.
    ///
    /// # Errors
    /// [`TransferError`].
    fn finish(&self, ticket: Ticket) -> Result<(), TransferError>;

    /// Whether a transfer takes longer than the processor would copy: then a device with much memory gets
    /// a thread that gives it up before it is wanted. Else who wants it copies as fast. Always the same.
    fn is_far(&self) -> bool {
        false
    }

    /// The pages at which this process has the frames mapped, if it has: always the same. They are
    /// never adopted.
    fn mapped(&self) -> Option<PageRange> {
        None
    }
}
