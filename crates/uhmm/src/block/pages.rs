//! Where the content of each page of a block is.
//!
//! A record holds runs: pages in consecutive frames of one device, all exclusive or none, all mapped
//! by the CPU or none, are one run, and pages in no run are in system memory. The two halves of a block have a list each, which
//! cuts a run that lies in both: no list is larger than the small objects of engine memory are. A
//! list of one run holds it in place, so a quiet block, a block that is away as a whole and one with
//! a lone page away take no memory. Any other takes at most eight bytes for each of its runs, and so
//! for each page that is away.
//!
//! Room for what a call may change is made before it is called, so that to record it cannot fail.

mod list;
mod packed;

use core::ops::Range;

use list::RunList;
use packed::PackedRun;

use crate::{
    driver::{DeviceIndex, FrameNumber},
    engine_memory::{EngineMemory, EngineMemoryError},
    units::BLOCK_PAGES,
};

/// How many pages half a block has.
const HALF: usize = BLOCK_PAGES / 2;

/// Where a page's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Residence {
    /// In system memory, or never touched.
    System,
    /// In a device's frame.
    Away {
        /// The device.
        device: DeviceIndex,
        /// Its frame.
        frame: FrameNumber,
        /// Whether the device alone may access it.
        exclusive: bool,
    },
    /// In a frame of a device's coherent memory, which the CPU maps where the program has the page.
    Mapped {
        /// The device.
        device: DeviceIndex,
        /// Its frame.
        frame: FrameNumber,
    },
}

/// Consecutive pages of a block with one residence and, where they are on a device, consecutive frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Their places in the block.
    pub(crate) pages: Range<usize>,
    /// Where the first is.
    pub(crate) residence: Residence,
}

/// The record of a block's pages.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    halves: [RunList; 2],
}

/// In which halves pages are.
enum Parts {
    First,
    Second,
    Both([Range<usize>; 2]),
}

fn parts(pages: &Range<usize>) -> Parts {
    if pages.end <= HALF {
        Parts::First
    } else if pages.start >= HALF {
        Parts::Second
    } else {
        Parts::Both([pages.start..HALF, HALF..pages.end])
    }
}

impl Pages {
    /// The list that `place` is in.
    fn half(&self, place: usize) -> &RunList {
        &self.halves[usize::from(place >= HALF)]
    }

    /// Where `page` is.
    pub(crate) fn residence(&self, page: usize) -> Residence {
        self.half_run(&(page..page + 1)).residence
    }

    /// The longest run that starts with the first page of `within`, which is not empty.
    #[unsafe(link_section = ".text.hot.moving")]
    pub(crate) fn run(&self, within: &Range<usize>) -> Run {
        self.across_halves(self.half_run(within), within.end)
    }

    /// A run with what it goes on in behind its half, up to `end`.
    fn across_halves(&self, mut run: Run, end: usize) -> Run {
        if run.pages.end == HALF && end > HALF {
            let next = self.half_run(&(HALF..end));
            let both = match PackedRun::new(&run.pages, run.residence) {
                None => next.residence == Residence::System,
                Some(run) => PackedRun::new(&next.pages, next.residence)
                    .is_some_and(|next| run.goes_on_in(next)),
            };
            if both {
                run.pages.end = next.pages.end;
            }
        }
        run
    }

    /// The longest run that starts with the first page of `within`, and ends in its half.
    #[unsafe(link_section = ".text.hot.moving")]
    fn half_run(&self, within: &Range<usize>) -> Run {
        let place = within.start;
        let half = if place < HALF { HALF } else { BLOCK_PAGES };
        let (end, residence) = match self.half(place).find(place) {
            Ok(run) => (run.end(), run.residence(place)),
            Err(next) => (next.unwrap_or(half), Residence::System),
        };
        Run { pages: place..end.min(within.end), residence }
    }

    /// The first run of `within` that is not in system memory, as far as it is within.
    #[unsafe(link_section = ".text.hot.moving")]
    pub(crate) fn next_run(&self, within: &Range<usize>) -> Option<Run> {
        if within.is_empty() {
            return None;
        }
        let [first, second] = &self.halves;
        let found = match parts(within) {
            Parts::First => first.first_from(within.start),
            Parts::Second => second.first_from(within.start),
            Parts::Both(_) => first.first_from(within.start).or_else(|| second.first_from(HALF)),
        };
        let run = found.filter(|run| run.start() < within.end)?;
        let start = run.start().max(within.start);
        let pages = start..run.end().min(within.end);
        Some(self.across_halves(Run { pages, residence: run.residence(start) }, within.end))
    }

    /// All of `within`, as runs.
    pub(crate) fn runs(&self, within: Range<usize>) -> impl Iterator<Item = Run> {
        let mut rest = within;
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let run = self.run(&rest);
            rest.start = run.pages.end;
            Some(run)
        })
    }

    /// Whether all are away, in consecutive frames.
    pub(crate) fn is_whole(&self) -> bool {
        let Run { pages, residence } = self.run(&(0..BLOCK_PAGES));
        pages.len() == BLOCK_PAGES && matches!(residence, Residence::Away { .. })
    }

    /// The first place from which on pages can be recorded as in system memory up to `place`, and
    /// past it, without room made: that of the run that `place` is in.
    pub(crate) fn whole_from(&self, place: usize) -> usize {
        self.half(place).find(place).map_or(place, PackedRun::start)
    }

    /// Makes room to record that the first of `pages`, which are not none, is where `first` says,
    /// and the others behind it: all of them, or a first part and then, part by part, what follows.
    /// It lasts until the record settles.
    ///
    /// # Errors
    /// Engine memory is exhausted; the record is as it was.
    #[unsafe(link_section = ".text.hot.moving")]
    pub(crate) fn reserve(
        &mut self,
        memory: &EngineMemory,
        pages: &Range<usize>,
        first: Residence,
    ) -> Result<(), EngineMemoryError> {
        if self.halves.iter().all(RunList::is_empty) {
            return Ok(());
        }
        let run = PackedRun::new(pages, first);
        let [first, second] = &mut self.halves;
        match parts(pages) {
            Parts::First => first.reserve(memory, pages, run),
            Parts::Second => second.reserve(memory, pages, run),
            Parts::Both(parts) => {
                let [one, other] = parts.each_ref().map(|part| run.map(|run| run.part(part)));
                first.reserve(memory, &parts[0], one)?;
                second.reserve(memory, &parts[1], other)
            }
        }
    }

    /// Records that `pages`, in system memory so far or away elsewhere, are in the device's frames
    /// from `frame` on, for it alone if `exclusive`. Room was made for it.
    pub(crate) fn record_away(
        &mut self,
        pages: &Range<usize>,
        device: DeviceIndex,
        frame: FrameNumber,
        exclusive: bool,
    ) {
        self.record(pages, Residence::Away { device, frame, exclusive });
    }

    /// Records that the first of `pages` is where `first` says, and the others behind it. Room was made
    /// for it.
    pub(crate) fn record_at(&mut self, pages: &Range<usize>, first: Residence) {
        self.record(pages, first);
    }

    /// Records that `pages` are in system memory. Room was made for it, or they begin where a run
    /// does.
    pub(crate) fn record_system(&mut self, pages: &Range<usize>) {
        self.record(pages, Residence::System);
    }

    #[unsafe(link_section = ".text.hot.moving")]
    fn record(&mut self, pages: &Range<usize>, first: Residence) {
        let run = PackedRun::new(pages, first);
        let [first, second] = &mut self.halves;
        match parts(pages) {
            Parts::First => first.record(pages, run),
            Parts::Second => second.record(pages, run),
            Parts::Both(parts) => {
                let [one, other] = parts.each_ref().map(|part| run.map(|run| run.part(part)));
                first.record(&parts[0], one);
                second.record(&parts[1], other);
            }
        }
    }

    /// Gives back what memory the record does not need.
    pub(crate) fn settle(&mut self, memory: &EngineMemory) {
        for half in &mut self.halves {
            half.settle(memory);
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
