//! What a device process notes of each frame: that it was used, and written.
//!
//! A byte of the shared memory for each frame. A worker notes what it is about to do, within the access for which an
//! invalidation waits. So once the program has seen that an invalidation was applied, it finds noted what was written by
//! the translations that ended, and nothing is written by them any more.
//!
//! The program believes no more than the process could do anyway. A process that writes a frame and does not note it
//! loses what it wrote: the page is then what it was as it came. One that notes what it did not do has its pages copied,
//! or given up later than others. Notes are of frames by their place, so they lead nowhere else.

use core::{
    ops::Range,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

/// The frame was used since the program last asked.
const USED: u8 = 1;

/// It was used since a page came.
const EVER_USED: u8 = 2;

/// It was written since the program last asked.
const WRITTEN: u8 = 4;

/// The notes, a byte for each frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notes<'m>(pub(super) &'m [AtomicU8]);

impl Notes<'_> {
    /// Notes that a frame is about to be read, or written.
    pub(super) fn note(self, frame: usize, write: bool) {
        let note = USED | EVER_USED | if write { WRITTEN } else { 0 };
        // It mostly was before, and a load leaves the line where other workers have it.
        if self.0[frame].load(Relaxed) & note != note {
            self.0[frame].fetch_or(note, Relaxed);
        }
    }

    /// Whether a frame was used since this was last asked, and since a page came.
    pub(super) fn take_use(self, frame: usize) -> [bool; 2] {
        let seen = self.0[frame].load(Relaxed);
        if seen & USED != 0 {
            self.0[frame].fetch_and(!USED, Relaxed);
        }
        [seen & USED != 0, seen & EVER_USED != 0]
    }

    /// Whether a frame was written since this was last asked, or pages came.
    pub(super) fn take_written(self, frame: usize) -> bool {
        let is_written = self.0[frame].load(Relaxed) & WRITTEN != 0;
        if is_written {
            self.0[frame].fetch_and(!WRITTEN, Relaxed);
        }
        is_written
    }

    /// Pages are about to come to frames, of which there are no translations.
    pub(super) fn clear(self, frames: Range<usize>) {
        self.0[frames].iter().for_each(|note| note.store(0, Relaxed));
    }
}
