//! `metadata`: how much engine memory records take.
//!
//! A device that keeps no page table of its own takes pages, and the engine memory in use before and
//! after is compared. A quiet block is one of which a page was away, and nothing is any more. The
//! floor is what was promised: eight bytes for a page that is away, 64 for a quiet block.

use uhmm::units::BLOCK_PAGES;
use uhmm::{AddressSpace, Attachment};

use super::engine::{all_of, close_space, open_space};
use super::memory::{Area, Backing};
use super::null::Null;
use super::report::Rows;
use super::rounds::{Pair, Spread};
use super::{BenchError, Context, NewRow};

/// Blocks that are quiet.
const QUIET_BLOCKS: usize = 4096;

/// Blocks whose pages go away.
const BLOCKS: usize = 32;

const PAGES: usize = BLOCKS * BLOCK_PAGES;

const PER_PAGE: f64 = 8.0;
const PER_BLOCK: f64 = 64.0;

/// Bytes of records.
pub(super) fn bytes(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    let quiet = Area::map(QUIET_BLOCKS * BLOCK_PAGES, context.page, Backing::BasePages)?;
    let area = Area::map(PAGES, context.page, Backing::BasePages)?;
    area.fill();
    let space = open_space()?;
    let device = space
        .attach(Null, PAGES)
        .map_err(BenchError::while_doing("the device cannot be attached"))?;
    let count = Count { space: &space, device: &device };

    let block = count.quiet_block(&quiet)?;
    rows.add(row("quiet block", "bytes a block", Some(1.0)).measured(known(block, PER_BLOCK)));
    for (case, batch, step) in [
        ("page of a block moved as one", BLOCK_PAGES, BLOCK_PAGES),
        ("page of a block moved in parts", 64, 64),
        ("only page of its block that is away", 1, BLOCK_PAGES),
        ("page of a block of which every second is away", 1, 2),
    ] {
        context.stop.check()?;
        let page = count.page_away(&area, batch, step)?;
        rows.add(row(case, "bytes a page", Some(1.0)).measured(known(page, PER_PAGE)));
    }
    drop(device);
    close_space(space)?;
    area.check()
}

const fn known(ours: f64, promised: f64) -> Pair {
    Spread::known(ours).beside(Spread::known(promised))
}

struct Count<'a> {
    space: &'a AddressSpace,
    device: &'a Attachment<Null>,
}

impl Count<'_> {
    fn used(&self) -> usize {
        self.space.engine_memory().used()
    }

    /// Bytes for each block of an area whose pages came back. The directory above the records is
    /// there before: 32 KiB for every 512 GiB of addresses in use.
    fn quiet_block(&self, area: &Area) -> Result<f64, BenchError> {
        self.adopt(area)?;
        self.migrate(area, 0, 1)?;
        self.bring_back(area)?;
        let before = self.used();
        for first in (0..area.pages()).step_by(BLOCK_PAGES) {
            self.migrate(area, first, 1)?;
        }
        self.bring_back(area)?;
        Ok(per(self.used() - before, QUIET_BLOCKS))
    }

    /// Bytes for each page that is away, `batch` pages of every `step`.
    fn page_away(&self, area: &Area, batch: usize, step: usize) -> Result<f64, BenchError> {
        self.adopt(area)?;
        // Trapping, and room that grows, count for blocks and for the device.
        self.migrate(area, 0, PAGES)?;
        self.bring_back(area)?;
        let before = self.used();
        for first in (0..PAGES).step_by(step) {
            self.migrate(area, first, batch)?;
        }
        let bytes = self.used() - before;
        self.bring_back(area)?;
        Ok(per(bytes, PAGES / step * batch))
    }

    fn adopt(&self, area: &Area) -> Result<(), BenchError> {
        self.space
            .adopt(area.all()?)
            .map(drop)
            .map_err(BenchError::while_doing("the memory cannot be adopted"))
    }

    fn migrate(&self, area: &Area, first: usize, pages: usize) -> Result<(), BenchError> {
        let done = self.device.migrate(area.range(first, pages)?);
        all_of(pages, &done.map_err(BenchError::while_doing("the area cannot migrate"))?)
    }

    fn bring_back(&self, area: &Area) -> Result<(), BenchError> {
        self.device
            .bring_back(area.all()?)
            .map(drop)
            .map_err(BenchError::while_doing("the area cannot come back"))
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes of records")]
fn per(bytes: usize, things: usize) -> f64 {
    bytes as f64 / things as f64
}
