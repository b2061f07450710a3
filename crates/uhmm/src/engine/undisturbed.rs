//! What the engine does with the program's memory by address alone, where nobody disturbs it.
//!
//! Some changes that the engine makes have no protection by the kernel against an address that changes hands
//! at that moment: pages are taken out of an area that cannot be written by `mremap`, which takes them from
//! whatever lies there, and views of a pool's pages are ended by `madvise`, which drops whatever is private.
//! So they are made only where it is known that nobody changes what is mapped there: the calling thread is
//! the process's only one beside the engine's handlers, which change nothing by themselves, and its signals
//! wait; or the caller has promised it.

use super::{Areas, Engine, HANDLERS};
use crate::{
    engine_memory::EngineMemoryError,
    mm::{Area, Look, Message, Mm},
    sync::SignalsBlocked,
    units::{BLOCK_PAGES, PageRange},
};

impl Areas {
    /// Closes pages that are to be taken out of their area, or out of view, until they are
    /// [opened](Engine::open_aside).
    pub(crate) fn close_aside(&mut self, pages: PageRange) -> Result<(), EngineMemoryError> {
        self.aside.try_push(pages)?;
        let closed = self.try_close(pages);
        if closed.is_err() {
            self.aside.pop();
        }
        closed
    }

    /// Whether a message tells of what the engine itself does with pages that it takes out of their area.
    pub(crate) fn is_of_aside(&self, message: &Message) -> bool {
        match *message {
            Message::Remapped { from, .. } => self.aside.contains(&from),
            Message::Unmapped(pages) => self.aside.iter().any(|range| range.covers(pages)),
            // Content of shared memory goes with its file, whoever discards what a view shows.
            Message::Discarded(pages) => {
                self.aside.contains(&pages) && self.views.leading(pages).1.is_some()
            }
            Message::Fault { .. } | Message::Forked(_) => false,
        }
    }
}

impl<M: Mm> Engine<M> {
    /// Whether nobody but the calling thread can change the address space just now. A thread that is about
    /// to end counts.
    pub(crate) fn is_alone(&self) -> bool {
        // Without an answer there may be others.
        self.mm.is_alone(HANDLERS).unwrap_or(false)
    }

    /// Whether `part` of an area is addresses that nobody can access, and nothing more.
    pub(super) fn is_bare_reservation(&self, area: &Area, part: PageRange) -> bool {
        if area.protection.read || area.protection.write {
            return false;
        }
        let mut looks = [Look::Hole; BLOCK_PAGES];
        part.by_block().all(|block| {
            let looks = &mut looks[..block.len()];
            self.mm.look(block.start(), looks).is_ok()
                && looks.iter().all(|look| *look == Look::Hole)
        })
    }

    /// Opens pages that were closed to be taken out: nothing of them lies aside any more.
    pub(crate) fn open_aside(&self, pages: PageRange, signals: &SignalsBlocked) {
        {
            let mut areas = self.gate.alone(signals);
            if let Some(at) = areas.aside.iter().position(|range| *range == pages) {
                areas.aside.remove(at);
            }
            areas.open(pages);
        }
        self.gate.tell_opened();
    }

    /// Waits until nothing lies aside. From before the call on nothing new does.
    #[cfg_attr(any(shuttle, miri), allow(dead_code, reason = "libc's hooks are not there"))]
    pub(crate) fn wait_for_asides(&self) {
        loop {
            let openings = self.gate.openings();
            if self.gate.share(&SignalsBlocked::new()).aside.is_empty() {
                return;
            }
            self.gate.wait_opened(openings);
        }
    }
}
