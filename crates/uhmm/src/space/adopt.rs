//! Adoption: which memory of the program devices may take.
//!
//! Adopting notes addresses and nothing else: an area costs nothing until a device first wants a
//! page of it, and what lies at the addresses is looked up then, as it is then. So a range stays
//! adopted whatever the program maps there; what may not migrate is kept by its kind.

use thiserror::Error;

use crate::{
    engine::{Engine, exhausted, refusal},
    engine_memory::{EngineMemoryError, EngineVec},
    mm::{Errno, Mm, TrapError},
    report::{Migration, StayCause},
    sync::SignalsBlocked,
    units::{AddressRange, PageRange, RangeError},
};

/// Why a range could not be adopted. Nothing of it is adopted then that was not before.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AdoptError {
    /// The range is not one of whole pages.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// the range reaches beyond what a program can have
    #[error("{range} reaches beyond the address space of a program: shorten it")]
    BeyondLimit {
        /// The range.
        range: AddressRange,
    },
    /// a part of the range cannot migrate
    #[error("{pages} in {range} cannot be adopted: {cause}")]
    Refused {
        /// The range.
        range: AddressRange,
        /// The first part of it that is refused.
        pages: PageRange,
        /// Why.
        cause: StayCause,
    },
    /// No engine memory to note it.
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
    /// the system does not tell what is mapped
    #[error("the areas of this process cannot be looked up: {0}")]
    System(Errno),
    /// the address space is closed
    #[error("the address space is closed: open it anew")]
    Closed,
}

/// An area that was left out as everything was adopted, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The area's pages.
    pub pages: PageRange,
    /// Why.
    pub cause: StayCause,
}

/// What was adopted.
#[derive(Debug)]
pub struct Adopted {
    pages: usize,
    areas: usize,
    left_out: EngineVec<LeftOut>,
}

impl Adopted {
    /// How many pages lie in the areas that were adopted, those adopted before among them.
    pub const fn pages(&self) -> usize {
        self.pages
    }

    /// In how many areas.
    pub const fn areas(&self) -> usize {
        self.areas
    }

    /// The areas that were left out, in order.
    pub fn left_out(&self) -> impl Iterator<Item = LeftOut> {
        self.left_out.iter().copied()
    }
}

impl<M: Mm> Engine<M> {
    pub(crate) fn adopt(&self, range: AddressRange) -> Result<Adopted, AdoptError> {
        let pages = range.pages(self.mm.page_size())?;
        if pages.end() > self.mm.page_limit() {
            return Err(AdoptError::BeyondLimit { range });
        }
        let refused = |pages, cause| AdoptError::Refused { range, pages, cause };
        self.gate.settle();
        let found = self.survey(pages)?;
        // A hole or an area that is refused refuses the whole range.
        let mut at = pages.start();
        let mut parts = found.iter().peekable();
        while at < pages.end() {
            match parts.next() {
                Some(&(area, cause)) if area.start() <= at => {
                    if let Some(cause) = cause {
                        return Err(refused(area.intersection(pages), cause));
                    }
                    at = area.end();
                }
                Some(&(area, _)) => {
                    return Err(refused(PageRange::new(at, area.start()), StayCause::NoArea));
                }
                None => return Err(refused(PageRange::new(at, pages.end()), StayCause::NoArea)),
            }
        }
        self.note(&found, pages)
    }

    pub(crate) fn adopt_everything(&self) -> Result<Adopted, AdoptError> {
        let all = self.all_pages();
        self.gate.settle();
        let found = self.survey(all)?;
        self.note(&found, all)
    }

    /// The areas that overlap `pages`, and why each is refused, if it is.
    fn survey(
        &self,
        pages: PageRange,
    ) -> Result<EngineVec<(PageRange, Option<StayCause>)>, AdoptError> {
        let mut areas = EngineVec::new(self.memory.clone());
        self.look_up(pages, &mut areas).map_err(|cause| self.adopt_error(cause))?;
        let mut found = EngineVec::try_with_capacity(&self.memory, areas.len())?;
        let signals = SignalsBlocked::new();
        for area in areas.iter() {
            let cause = if self.memory_overlaps(area.pages) {
                Some(StayCause::Kept)
            } else if let Some(cause) = refusal(area) {
                Some(cause)
            } else if area.registered && self.is_foreign(area.pages, &signals) {
                Some(StayCause::ForeignUserfaultfd)
            } else {
                None
            };
            found.try_push((area.pages, cause))?;
        }
        Ok(found)
    }

    /// Whether another userfaultfd holds an area that is registered with one.
    fn is_foreign(&self, area: PageRange, signals: &SignalsBlocked) -> bool {
        let areas = self.gate.alone(signals);
        let known = areas.trapped.overlaps(area) || areas.watched.overlaps(area);
        // Ours can hold more than we know of: what the program's `mremap` makes longer is trapped
        // where the rest is, and no message tells of it. Watching what we hold changes nothing.
        !known && matches!(self.mm.watch(area), Err(TrapError::Foreign(_)))
    }

    fn note(
        &self,
        found: &[(PageRange, Option<StayCause>)],
        within: PageRange,
    ) -> Result<Adopted, AdoptError> {
        let mut adopted =
            Adopted { pages: 0, areas: 0, left_out: EngineVec::new(self.memory.clone()) };
        let exclusions = self.exclusions(true).map_err(|cause| self.adopt_error(cause))?;
        let signals = SignalsBlocked::new();
        let mut gate = self.gate.alone(&signals);
        if gate.closing {
            return Err(AdoptError::Closed);
        }
        gate.thread_blocks = exclusions.thread_blocks;
        gate.objects_data = exclusions.objects_data;
        for &(area, cause) in found {
            if let Some(cause) = cause {
                adopted.left_out.try_push(LeftOut { pages: area, cause })?;
            } else {
                let part = area.intersection(within);
                for stack in exclusions.stacks.iter() {
                    gate.kept.add(part.intersection(stack))?;
                }
                gate.adopted.add(part)?;
                adopted.pages += part.len();
                adopted.areas += 1;
            }
        }
        self.view.note_adopted(gate.adopted.iter());
        drop(gate);
        drop(signals);
        for stack in exclusions.stacks.iter() {
            for &(area, _) in found.iter().filter(|(_, cause)| cause.is_none()) {
                let mut report = Migration::new(&self.memory);
                self.make_present(area.intersection(within).intersection(stack), &mut report);
            }
        }
        Ok(adopted)
    }

    fn adopt_error(&self, cause: StayCause) -> AdoptError {
        match cause {
            StayCause::System(errno) => AdoptError::System(errno),
            _ => AdoptError::Memory(exhausted(&self.memory, 0)),
        }
    }

    pub(crate) fn release(&self, pages: PageRange) -> Result<(), EngineMemoryError> {
        // What was adopted and moved here before is so only once that is applied.
        self.gate.settle();
        let signals = SignalsBlocked::new();
        let mut areas = self.gate.alone(&signals);
        areas.adopted.remove(pages)?;
        self.view.note_adopted(areas.adopted.iter());
        Ok(())
    }
}
