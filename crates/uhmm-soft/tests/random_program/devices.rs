//! What devices do with the arena, and how far they must get.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use uhmm::{DeviceFaultError, MapError, PageError, PageLocation, StayCause};
use uhmm_soft::{AccessError, RunError};

use crate::{
    oracle::{Adopted, Touch, pattern},
    run::{Failure, Runner, ensure},
    step::{CELL, Cells, LONGEST, PAGES, Which},
    world::World,
};

/// What devices loaded, by page: a kernel captures by value only and keeps off the heap.
static LOADED: [[AtomicU64; LONGEST / 8]; PAGES] =
    [const { [const { AtomicU64::new(0) }; LONGEST / 8] }; PAGES];

impl<W: World> Runner<'_, W> {
    /// Compares how far a device got with its accesses, and notes what that tells of the pages.
    /// Answers how many touches were done.
    ///
    /// A device gets every page that may be accessed so, and stops at the first that may not. Where
    /// nobody told that it may not any more it can go on.
    fn reached(
        &mut self,
        which: Which,
        cells: &Cells,
        write: bool,
        result: Result<(), RunError>,
    ) -> Result<usize, Failure> {
        let refused_by_peer = matches!(
            result,
            Err(RunError::Item {
                error: AccessError::Map(MapError { error: PageError::PeerRefuses, .. }),
                ..
            })
        );
        let stops = |touch: &Touch| {
            let page = self.oracle.page(touch.page);
            let here = matches!(
                result,
                Err(RunError::Item { item, error: AccessError::Map(MapError { address, .. }) })
                    if (item, address) == (touch.item, self.place().byte(touch.bytes.start))
            );
            if here && refused_by_peer {
                return true;
            }
            !page.allows(write) && (!page.mapped || !page.stale || here)
        };
        let stop = cells.touches().enumerate().find(|(_, touch)| stops(touch));
        let peer = [which.other()];
        match &stop {
            Some((_, touch)) if refused_by_peer => {
                let may = self.oracle.may_refuse(touch.page, &peer);
                ensure!(may, "device: {result:?}, where no peer may refuse");
                self.oracle.mapped_around(which, touch.page);
            }
            Some((_, touch)) if self.oracle.page(touch.page).mapped => {
                self.forbidden(which, touch, result)?;
            }
            Some((_, touch)) => self.refused(which, touch, result)?,
            None => ensure!(result.is_ok(), "device: {result:?} where all may be done"),
        }
        let all = cells.touches().count();
        let done = stop.map_or(all, |(done, _)| done);
        // What the last access needed is there still, unless one that failed took its place.
        let mut came = None;
        for touch in cells.touches().take(done) {
            let goes = done == all && self.oracle.goes(which, touch.page);
            came = goes.then_some(touch.page);
            self.oracle.used(which, touch.page);
        }
        if !self.alone {
            return Ok(done);
        }
        let here = PageLocation::Device(self.machine.device(which).index());
        for touch in cells.touches().take(done) {
            let page = touch.page;
            let location = self.machine.locate(page);
            let at_peer = PageLocation::Device(self.machine.device(which.other()).index());
            if location == here {
                self.machine.check_away(&self.oracle, page)?;
            } else if location == at_peer && self.oracle.may_be_peers(page, &peer) {
                self.machine.check_away(&self.oracle, page)?;
                ensure!(Some(page) != came, "device: page {page} stayed at the other");
            } else {
                let good = self.machine.may_be_mapped(page);
                ensure!(good, "device: page {page} at {location:?}");
                ensure!(Some(page) != came, "device: page {page} did not come");
            }
        }
        Ok(done)
    }

    /// A device was to stop at a touch of a page with which that may not be done.
    fn forbidden(
        &mut self,
        which: Which,
        touch: &Touch,
        result: Result<(), RunError>,
    ) -> Result<(), Failure> {
        let error = MapError {
            address: self.place().byte(touch.bytes.start),
            error: PageError::Protection,
        };
        let expected = Err(RunError::Item { item: touch.item, error: AccessError::Map(error) });
        ensure!(result == expected, "device: {result:?}, not {expected:?}, at page {}", touch.page);
        self.oracle.mapped_around(which, touch.page);
        self.met(touch.page);
        Ok(())
    }

    /// The core met a page with which not everything may be done: from here on that holds for its area,
    /// whatever devices had before.
    pub(crate) fn met(&mut self, page: usize) {
        let alike = self.oracle.alike(page);
        if alike.clone().any(|page| self.oracle.page(page).stale) {
            let areas = self.machine.world.areas(alike);
            if let Some(area) = areas.into_iter().find(|area| area.contains(&page)) {
                self.oracle.knows(area);
            }
        }
    }

    /// A device was to stop at a touch of a page that is not mapped.
    fn refused(
        &mut self,
        which: Which,
        touch: &Touch,
        result: Result<(), RunError>,
    ) -> Result<(), Failure> {
        let Touch { item: of, page, .. } = *touch;
        let at = self.place().byte(touch.bytes.start);
        let in_place = self.oracle.is_in_place(which, page);
        let adopted = self.oracle.page(page).adopted;
        let found = match result {
            Err(RunError::Item {
                item,
                error: AccessError::Fault(DeviceFaultError { address, cause: StayCause::NoArea }),
            }) if (item, address) == (of, at) && adopted != Adopted::No && !in_place => {
                Adopted::Yes
            }
            Err(RunError::Item {
                item,
                error: AccessError::Map(MapError { address, error: PageError::NoArea }),
            }) if (item, address) == (of, at) && in_place => adopted,
            Err(RunError::Item {
                item,
                error: AccessError::Map(MapError { address, error: PageError::NoArea }),
            }) if (item, address) == (of, at) && adopted != Adopted::Yes => Adopted::No,
            result => {
                return Err(format!(
                    "device: {result:?} at page {page}, which is not mapped, and adopted: \
                     {adopted:?}"
                ));
            }
        };
        if matches!(result, Err(RunError::Item { error: AccessError::Map(_), .. })) {
            self.oracle.mapped_around(which, page);
        }
        self.oracle.found(page, found);
        Ok(())
    }

    pub(crate) fn device_read(&mut self, which: Which, cells: &Cells) -> Result<(), Failure> {
        let (place, &Cells { offset, len, .. }) = (self.place(), cells);
        // SAFETY: the kernel uses its worker and a static that is no memory that devices take; what
        // it reads nobody writes meanwhile.
        let result = unsafe {
            self.machine.device(which).run(cells.pages.clone(), move |worker, page| {
                let mut bytes = [0; LONGEST];
                for (address, first, len) in place.pieces(page * CELL + offset, len) {
                    worker.read(address, &mut bytes[first..first + len])?;
                }
                for (word, loaded) in bytes.chunks_exact(8).zip(&LOADED[page]) {
                    let mut own = [0; 8];
                    own.copy_from_slice(word);
                    loaded.store(u64::from_ne_bytes(own), Relaxed);
                }
                Ok(())
            })
        };
        let done = self.reached(which, cells, false, result)?;
        let not_done = cells.touches().nth(done).map(|touch| touch.item);
        let end = not_done.unwrap_or(cells.pages.end);
        for (page, words) in (cells.pages.start..end).zip(&LOADED[cells.pages.start..]) {
            let loaded: Vec<u8> =
                words.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
            let expected = self.oracle.bytes(cells.bytes(page));
            ensure!(
                loaded[..len] == expected,
                "device load at {page}: {:?}, not {expected:?}",
                &loaded[..len]
            );
        }
        Ok(())
    }

    pub(crate) fn device_write(
        &mut self,
        which: Which,
        cells: &Cells,
        value: u64,
    ) -> Result<(), Failure> {
        let (place, &Cells { offset, len, .. }) = (self.place(), cells);
        // SAFETY: the kernel uses its worker alone; what it writes nobody touches meanwhile.
        let result = unsafe {
            self.machine.device(which).run(cells.pages.clone(), move |worker, page| {
                let pattern = pattern(value, page);
                for (address, first, len) in place.pieces(page * CELL + offset, len) {
                    worker.write(address, &pattern[first..first + len])?;
                }
                Ok(())
            })
        };
        let done = self.reached(which, cells, true, result)?;
        for touch in cells.touches().take(done) {
            self.oracle.store(&touch, value, cells.bytes(touch.item).start);
        }
        Ok(())
    }

    /// A device adds to a number of each page.
    pub(crate) fn device_add(
        &mut self,
        which: Which,
        cells: &Cells,
        value: u64,
    ) -> Result<(), Failure> {
        let (place, offset) = (self.place(), cells.offset);
        // SAFETY: the kernel uses its worker and a static that is no memory that devices take;
        // nobody touches the numbers meanwhile.
        let result = unsafe {
            self.machine.device(which).run(cells.pages.clone(), move |worker, page| {
                let before = worker.fetch_add(place.byte(page * CELL + offset), value)?;
                LOADED[page][0].store(before, Relaxed);
                Ok(())
            })
        };
        let done = self.reached(which, cells, true, result)?;
        for page in cells.pages.clone().take(done) {
            let before = LOADED[page][0].load(Relaxed);
            let expected = self.oracle.add(page, offset, value);
            ensure!(before == expected, "device add at {page}: {before}, not {expected}");
        }
        Ok(())
    }
}
