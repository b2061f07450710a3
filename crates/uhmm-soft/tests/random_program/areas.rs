//! Areas that only a device backs, and what devices do with them.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use uhmm::{DeviceArea, Export, PageError, mm::Mm};
use uhmm_soft::{AccessError, RunError, Table};

use crate::{
    run::{Failure, Runner, ensure},
    step::Which,
    world::World,
};

/// What was in a number before a device added to it.
static BEFORE: AtomicU64 = AtomicU64::new(0);

/// One area, and what must be in it.
struct Area<M: Mm> {
    reserved: DeviceArea<Table<M>, M>,
    /// What is in the first number of each page.
    numbers: Vec<u64>,
    /// Whether others may map it.
    exported: bool,
}

/// Those of both devices.
pub(crate) struct Areas<M: Mm>([Mutex<Option<Area<M>>>; 2]);

impl<M: Mm> Default for Areas<M> {
    fn default() -> Self {
        Self([const { Mutex::new(None) }; 2])
    }
}

impl<M: Mm> Areas<M> {
    fn of(&self, which: Which) -> MutexGuard<'_, Option<Area<M>>> {
        self.0[which as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many pages a device's area has.
    pub(crate) fn pages_of(&self, which: Which) -> usize {
        self.of(which).as_ref().map_or(0, |area| area.numbers.len())
    }

    /// How many pages both have.
    pub(crate) fn pages(&self) -> usize {
        self.pages_of(Which::First) + self.pages_of(Which::Second)
    }

    /// Ends a device's area.
    pub(crate) fn end(&self, which: Which) {
        *self.of(which) = None;
    }
}

impl<W: World> Runner<'_, W> {
    /// A device gets an area instead of the one it had. It can as long as most of its memory is left.
    pub(crate) fn reserve(
        &mut self,
        which: Which,
        pages: usize,
        export: Export,
    ) -> Result<(), Failure> {
        let areas = &self.machine.areas;
        let device = self.machine.device(which);
        areas.end(which);
        if device.memory() / self.place().page < 4 * pages {
            return Ok(());
        }
        let reserved = device.reserve_area(pages).map_err(|error| format!("reserve: {error}"))?;
        let exported = device.export(reserved.range(), export);
        ensure!(exported.is_ok(), "export of an area: {exported:?}");
        // What is reached by copies nobody else can map.
        let exported = export == Export::Map && !self.machine.copying[which as usize];
        *areas.of(which) = Some(Area { reserved, numbers: vec![0; pages], exported });
        Ok(())
    }

    /// A device adds to a number of an area.
    pub(crate) fn use_area(
        &mut self,
        by: Which,
        of: Which,
        page: usize,
        value: u64,
    ) -> Result<(), Failure> {
        let machine = self.machine;
        let mut area = machine.areas.of(of);
        let Some(area) = area.as_mut() else { return Ok(()) };
        let page = page % area.numbers.len();
        let at = area.reserved.range().start() + page * self.place().page;
        // SAFETY: the kernel uses its worker and a static that is no memory that devices take; nobody
        // else uses the area meanwhile.
        let ran = unsafe {
            machine.device(by).run(0..1, move |worker, _| {
                BEFORE.store(worker.fetch_add(at, value)?, Relaxed);
                Ok(())
            })
        };
        let refused = |error: &AccessError| matches!(error, AccessError::Map(error) if error.error == PageError::PeerRefuses);
        match ran {
            Ok(()) => {
                ensure!(by == of || area.exported, "a peer got what it was not let have");
                let (found, number) = (BEFORE.load(Relaxed), &mut area.numbers[page]);
                ensure!(found == *number, "page {page} of an area: {found}, not {number}");
                *number = number.wrapping_add(value);
                Ok(())
            }
            Err(RunError::Item { error, .. }) if refused(&error) => {
                ensure!(by != of && !area.exported, "page {page} of an area: {error}");
                Ok(())
            }
            Err(error) => Err(format!("page {page} of an area: {error}")),
        }
    }
}
