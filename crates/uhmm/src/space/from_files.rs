//! Private mappings of files become anonymous memory, so that their pages migrate.
//!
//! A page of such a mapping that was written is the process's own, and yet the system neither moves it nor
//! traps the hole that it would leave, which shows the file. So anonymous memory with the same content is
//! put in the mapping's place, in one step. What was written meanwhile would be lost, and what came to lie
//! there would be mapped over; so it is done only where the engine is undisturbed (`engine/undisturbed.rs`), and
//! only when it is asked for: from then on a discard leaves zeros, not what the file has.
//!
//! It is done to whole areas of which every page was written. Of the others a part shows the file, and has
//! to go on doing so; and were they parted, the program could not move them as one any more.

use thiserror::Error;

use crate::{
    driver::InvalidationKind,
    engine::{Engine, exhausted, refusal},
    engine_memory::{EngineMemoryError, EngineVec},
    mm::{Area, Backing, Errno, Look, Mm},
    report::StayCause,
    sync::SignalsBlocked,
    units::{AddressRange, PageRange, RangeError},
};

/// Why mappings of files could not become anonymous memory. Those before the one that it names may have.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MakeAnonymousError {
    /// The range is not one of whole pages.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// another thread may write the range meanwhile
    #[error(
        "another thread may write {range} while it is made anonymous: call \
         make_anonymous_undisturbed, if none does"
    )]
    Disturbed {
        /// The range.
        range: AddressRange,
    },
    /// No engine memory for it.
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
    /// the system refuses
    #[error("{pages} cannot be made anonymous: {errno}")]
    System {
        /// The area.
        pages: PageRange,
        /// Why.
        errno: Errno,
    },
    /// the address space is closed
    #[error("the address space is closed: open it anew")]
    Closed,
}

impl<M: Mm> Engine<M> {
    /// Makes areas in `range` anonymous, where nobody disturbs it, or that is `promised`. Answers how many
    /// pages they have.
    pub(super) fn make_anonymous(
        &self,
        range: AddressRange,
        promised: bool,
    ) -> Result<usize, MakeAnonymousError> {
        let pages = range.pages(self.mm.page_size())?;
        self.gate.settle();
        let signals = SignalsBlocked::new();
        if !promised && !self.is_alone() {
            return Err(MakeAnonymousError::Disturbed { range });
        }
        let failed = |cause| match cause {
            StayCause::System(errno) => MakeAnonymousError::System { pages, errno },
            _ => MakeAnonymousError::Memory(exhausted(&self.memory, 0)),
        };
        let mut areas = EngineVec::new(self.memory.clone());
        self.look_up(pages, &mut areas).map_err(failed)?;
        let kept = self.exclusions(true).map_err(failed)?;
        let mut done = 0;
        for area in areas.iter() {
            let within = pages.covers(area.pages);
            let keeps = kept.objects_data.overlaps(area.pages)
                || kept.thread_blocks.overlaps(area.pages)
                || self.memory_overlaps(area.pages);
            if within && !keeps && self.is_written_mapping(area)? {
                self.make_area_anonymous(area, &signals)?;
                done += area.pages.len();
            }
        }
        Ok(done)
    }

    /// Whether an area is a private mapping of a file of which every page was written.
    fn is_written_mapping(&self, area: &Area) -> Result<bool, MakeAnonymousError> {
        let is_other = refusal(area) != Some(StayCause::Backing(Backing::PrivateFile));
        if is_other || area.stack || area.locked {
            return Ok(false);
        }
        let mut written = true;
        self.mm
            .scan(area.pages, &mut |_, presence| {
                written &= !presence.file
                    && matches!(presence.look, Look::Present | Look::PresentHuge | Look::Swapped);
            })
            .map_err(|errno| MakeAnonymousError::System { pages: area.pages, errno })?;
        Ok(written)
    }

    fn make_area_anonymous(
        &self,
        area: &Area,
        signals: &SignalsBlocked,
    ) -> Result<(), MakeAnonymousError> {
        let pages = area.pages;
        let mut visit = self.visit(signals)?;
        loop {
            let openings = self.gate.openings();
            {
                let mut areas = self.gate.alone(signals);
                if areas.closing {
                    return Err(MakeAnonymousError::Closed);
                }
                if !areas.forking && !areas.is_closed(pages) && !self.mm.changing() {
                    areas.close_aside(pages)?;
                    break;
                }
            }
            self.gate.wait_opened(openings);
        }
        // Whoever maps it in place writes to what is there now.
        self.end_in_place(pages, InvalidationKind::Unmap, &mut visit);
        // SAFETY: who is undisturbed knows that nobody writes or changes what is mapped there.
        let made = unsafe { self.mm.make_anonymous(pages) };
        if made.is_ok() {
            if !area.inherited {
                // As of the area that it was.
                let _ = self.mm.set_inherited(pages, false);
            }
            let mut areas = self.gate.alone(signals);
            // What watched it has gone with it. Without memory to note it, what is told of it is too little.
            if areas.watched.remove(pages).is_err() {
                areas.watched.clear();
            }
            areas.restricted.forget(pages);
        }
        self.open_aside(pages, signals);
        made.map_err(|errno| MakeAnonymousError::System { pages, errno })
    }
}
