//! `migrate_4k` and `migrate_huge`: pages go to a device and come back.
//!
//! Ours is `Soft::migrate` and `Soft::bring_back` of an adopted area, call by call. The floor is one
//! `UFFDIO_MOVE` for each of those calls, from an area of the same size and make to another, both
//! registered on a descriptor of their own, and back. Before each round every page is read, and its
//! content compared, on both sides. The first rounds do not count, so that each destination has the
//! page tables that earlier moves left there.
//!
//! Eight huge pages a call have a floor and no bound. One `UFFDIO_MOVE` of eight spares seven calls
//! of the kernel, more than a third of their cost. Ours cannot: a thread holds the lock of one block
//! at a time, and a call that moves the pages of eight would need the locks of all. What it spares
//! is the blocking of signals.

use std::fs;
use std::time::Instant;

use uhmm::units::BLOCK_PAGES;

use super::engine::Engine;
use super::memory::{Area, Backing};
use super::report::Rows;
use super::userfault::Userfault;
use super::{BenchError, Context, NewRow};

/// Blocks that go there and back in a round. The names of the cases say so too.
const BLOCKS: usize = 8;

const PAGES: usize = BLOCKS * BLOCK_PAGES;

/// Base pages, in batches.
pub(super) fn base_pages(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    let batches = [
        (BLOCK_PAGES, "to device, 512 a call", "to system, 512 a call"),
        (64, "to device, 64 a call", "to system, 64 a call"),
    ];
    for (batch, there, back) in batches {
        let sides = Sides::open(Backing::BasePages, context)?;
        let pairs = context.in_turns(&mut || sides.ours(batch), &mut || sides.floor(batch))?;
        for (case, pair) in [there, back].into_iter().zip(pairs) {
            #[expect(clippy::cast_precision_loss, reason = "a few thousand pages")]
            let pair = pair.divided_by(PAGES as f64);
            rows.add(row(case, "ns a page", Some(1.3)).measured(pair));
        }
        sides.engine.close()?;
    }
    Ok(())
}

/// Huge pages, one a call and all in one. They are checked to be whole in system memory, on the
/// device and back again, before all rounds and after them.
pub(super) fn huge_pages(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    let batches = [
        (BLOCK_PAGES, Some(2.0), ["to device, 1 a call", "to system, 1 a call"]),
        (PAGES, None, ["to device, 8 a call", "to system, 8 a call"]),
    ];
    for (batch, at_most, cases) in batches {
        let new_rows = cases.map(|case| row(case, "ns a huge page", at_most));
        let expected = huge_bytes()? + 2 * context.page.bytes_in(PAGES);
        let sides = Sides::open(Backing::HugePages, context)?;
        let mut split = sides.split(expected)?;
        let mut pairs = None;
        if split.is_none() {
            let (ours, floor) = (&mut || sides.ours(batch), &mut || sides.floor(batch));
            pairs = Some(context.in_turns(ours, floor)?);
            split = sides.split(expected)?;
        }
        sides.engine.close()?;
        match (split, pairs) {
            (None, Some(pairs)) => {
                for (row, pair) in new_rows.into_iter().zip(pairs) {
                    #[expect(clippy::cast_precision_loss, reason = "a few blocks")]
                    rows.add(row.measured(pair.divided_by(BLOCKS as f64)));
                }
            }
            (why, _) => {
                let why = why.unwrap_or_default();
                for row in new_rows {
                    rows.add(row.skipped(why.clone()));
                }
            }
        }
    }
    Ok(())
}

/// What is done to one batch of the pages.
type Step<'a> = &'a dyn Fn(usize) -> Result<(), BenchError>;

/// Both sides, all of whose pages are in system memory between two rounds.
struct Sides {
    engine: Engine,
    floor: Userfault,
    /// The floor's pages in system memory, and where they go.
    areas: [Area; 2],
}

impl Sides {
    fn open(backing: Backing, context: &Context<'_>) -> Result<Self, BenchError> {
        let [ours, system] = Area::filled([PAGES; 2], context.page, backing)?;
        let areas = [system, Area::map(PAGES, context.page, backing)?];
        let floor = Userfault::open()?;
        areas.iter().try_for_each(|area| floor.register(area))?;
        Ok(Self { engine: Engine::open(ours, context)?, floor, areas })
    }

    /// Nanoseconds for all pages to the device, and back.
    fn ours(&self, batch: usize) -> Result<[f64; 2], BenchError> {
        self.engine.area().check()?;
        Ok([
            timed(batch, |first| self.engine.migrate(first, batch))?,
            timed(batch, |first| self.engine.bring_back(first, batch))?,
        ])
    }

    /// Nanoseconds for all pages of the floor to the other area, and back.
    fn floor(&self, batch: usize) -> Result<[f64; 2], BenchError> {
        let [system, device] = &self.areas;
        system.check()?;
        Ok([
            timed(batch, |first| self.floor.move_pages(system, device, first, batch))?,
            timed(batch, |first| self.floor.move_pages(device, system, first, batch))?,
        ])
    }

    /// Takes all there and back, and says where less than `expected` bytes are in huge pages.
    fn split(&self, expected: usize) -> Result<Option<String>, BenchError> {
        let [system, device] = &self.areas;
        let (engine, floor) = (&self.engine, &self.floor);
        let none = |_: usize| Ok(());
        let by_us = |first| engine.migrate(first, BLOCK_PAGES);
        let back_by_us = |first| engine.bring_back(first, BLOCK_PAGES);
        let bare = |first| floor.move_pages(system, device, first, BLOCK_PAGES);
        let back_bare = |first| floor.move_pages(device, system, first, BLOCK_PAGES);
        let steps: [(&str, Step<'_>); 5] = [
            ("in system memory", &none),
            ("once ours are on the device", &by_us),
            ("once ours are back", &back_by_us),
            ("once those of the floor are moved", &bare),
            ("once those of the floor are back", &back_bare),
        ];
        let mut split = None;
        // All steps are made, so that all is in system memory at the end.
        for (when, step) in steps {
            timed(BLOCK_PAGES, step)?;
            let huge = huge_bytes()?;
            if huge < expected && split.is_none() {
                split = Some(format!(
                    "of {expected} bytes only {huge} are in huge pages {when}: they were not \
                     given by the system, or were split"
                ));
            }
        }
        Ok(split)
    }
}

/// Nanoseconds for a call for each batch of the pages.
fn timed(
    batch: usize,
    mut call: impl FnMut(usize) -> Result<(), BenchError>,
) -> Result<f64, BenchError> {
    let start = Instant::now();
    for first in (0..PAGES).step_by(batch) {
        call(first)?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e9)
}

/// How many bytes of this process's anonymous memory are in huge pages.
fn huge_bytes() -> Result<usize, BenchError> {
    let failed = BenchError::while_doing("the system does not say which pages are huge");
    let text = fs::read_to_string("/proc/self/smaps_rollup").map_err(failed)?;
    text.lines()
        .find_map(|line| {
            line.strip_prefix("AnonHugePages:")?.trim().strip_suffix("kB")?.trim().parse().ok()
        })
        .map(|kibibytes: usize| kibibytes * 1024)
        .ok_or_else(|| failed(std::io::ErrorKind::InvalidData.into()))
}
