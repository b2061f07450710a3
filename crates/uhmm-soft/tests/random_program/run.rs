//! A program runs in a world, beside the oracle.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use uhmm::{
    AddressSpace, AdoptError, CounterValues, DeviceIndex, Migration, Mirror, PageLocation,
    StayCause,
    mm::injected::{Call, Failure as CallFailure},
    units::{PageNumber, PageRange, RangeError},
};
use uhmm_soft::{Bus, Options, Placement, Soft};

use crate::{
    areas::Areas,
    oracle::{Oracle, pattern},
    recorder::{Recorder, Records},
    step::{CELL, Cells, LONGEST, Leave, Make, Memory, PAGES, Program, Step, Which},
    watchdog,
    world::{Allowed, Place, World},
};

/// Why a program did not do what the oracle says.
pub(crate) type Failure = String;

/// Fails where a condition does not hold.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}

pub(crate) use ensure;

/// What of the state of a world is the same in every world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Which device each page is on.
    locations: Vec<Option<u8>>,
    /// Counters that depend on what moved, and not on how the system formed areas.
    counts: [u64; 10],
}

impl Snapshot {
    /// What is not as in another.
    pub(crate) fn difference(&self, other: &Self) -> String {
        let locations = self.locations.iter().zip(&other.locations);
        let pages: Vec<_> =
            locations.enumerate().filter(|(_, (one, other))| one != other).collect();
        format!("{pages:?}, counted {:?} and {:?}", self.counts, other.counts)
    }
}

/// A world with an address space, two devices, and one without memory.
pub(crate) struct Machine<W: World> {
    pub(crate) world: W,
    pub(crate) devices: [Soft<W::Mm>; 2],
    /// Whether the processor maps the memory of each.
    coherent: [bool; 2],
    /// The device without memory, which spans the arena.
    pub(crate) mirror: Mirror<Recorder, W::Mm>,
    pub(crate) records: Arc<Records>,
    pub(crate) areas: Areas<W::Mm>,
    /// Whether what is in a device's memory is reached by copies.
    pub(crate) copying: [bool; 2],
    pub(crate) space: AddressSpace<W::Mm>,
}

impl<W: World> Machine<W> {
    pub(crate) fn start(devices: [Make; 2], huge: bool) -> Self {
        let (world, space) = W::open(huge);
        let copying = devices.map(|make| make.memory == Memory::Copying);
        let coherent = devices.map(|make| make.memory == Memory::Coherent);
        let devices = devices.map(|Make { frames, memory }| {
            let options = Options::new(frames * world.place().page).keep_pages();
            let options = match memory {
                Memory::Staging => options,
                Memory::Copying => options.behind_bus(Bus::new()),
                Memory::Coherent => options.coherent(),
            };
            Soft::start(&space, options).expect("a device")
        });
        let place = world.place();
        let records = Arc::new(Records::new(place.base / place.page));
        let recorder = Recorder(Arc::clone(&records));
        let mirror = space.mirror(place.range(&(0..PAGES)), recorder).expect("a mirror");
        let areas = Areas::default();
        Self { world, devices, coherent, mirror, records, areas, copying, space }
    }

    /// Whether the CPU maps the memory of a device.
    pub(crate) fn is_coherent(&self, device: DeviceIndex) -> bool {
        let devices = self.devices.iter().zip(self.coherent);
        devices.into_iter().any(|(other, coherent)| coherent && other.index() == device)
    }

    /// Whether the processor maps a page: in system memory, or in a device's.
    pub(crate) fn may_be_mapped(&self, page: usize) -> bool {
        match self.locate(page) {
            PageLocation::System => true,
            PageLocation::Device(device) => self.is_coherent(device),
            PageLocation::Poisoned => false,
        }
    }

    pub(crate) fn device(&self, which: Which) -> &Soft<W::Mm> {
        match which {
            Which::First => &self.devices[0],
            Which::Second => &self.devices[1],
        }
    }

    /// Ends the devices and the address space, and has `check` look at what is there then.
    pub(crate) fn end(self, check: impl FnOnce(&W) -> Result<(), Failure>) -> Result<(), Failure> {
        let Self { world, devices, mirror, records, areas, space, .. } = self;
        drop(areas);
        drop(devices);
        space.close().map_err(|error| format!("closing: {error}"))?;
        let left = (0..PAGES).find(|&page| records.translation(page).is_some());
        let wrong = records.wrong();
        drop(mirror);
        let checked = check(&world);
        let violations = world.violations();
        world.end();
        checked?;
        ensure!(left.is_none(), "after closing a translation of page {left:?} is left");
        ensure!(wrong == 0, "{wrong} calls of the device without memory that must not be");
        violations.map_or(Ok(()), |violations| Err(format!("violations: {violations}")))
    }

    pub(crate) fn locate(&self, page: usize) -> PageLocation {
        self.space.locate(self.world.place().page(page))
    }

    /// Pages that are on devices, by the counters.
    fn away_by_counters(counters: &CounterValues) -> u64 {
        let gone_out =
            counters.to_device_fault + counters.to_device_neighbour + counters.to_device_request
                - counters.between_devices;
        let come_back = counters.to_system_fault
            + counters.to_system_neighbour
            + counters.to_system_eviction
            + counters.to_system_coherence
            + counters.to_system_request;
        gone_out.wrapping_sub(come_back + counters.ended_by_unmap + counters.ended_by_discard)
    }

    /// Compares the counters with what the devices hold. The thread that a handler serves goes on a
    /// moment before the handler has counted.
    pub(crate) fn balance(&self) -> Result<(), Failure> {
        let since = Instant::now();
        loop {
            let used: usize = self.devices.iter().map(Soft::memory_used).sum();
            let used = used / self.world.place().page - self.areas.pages();
            let used = used as u64;
            let counted = Self::away_by_counters(&self.space.counters());
            if used == counted {
                break;
            }
            ensure!(
                since.elapsed() < Duration::from_secs(2),
                "{used} frames are in use, {counted} pages are away by the counters: {:?}",
                self.space.counters()
            );
            std::thread::yield_now();
        }
        for device in &self.devices {
            let (used, memory) = (device.memory_used(), device.memory());
            ensure!(used <= memory, "{used} bytes of {memory} are in use");
        }
        Ok(())
    }

    /// Compares what is so of a page that is on a device.
    pub(crate) fn check_away(&self, oracle: &Oracle, page: usize) -> Result<(), Failure> {
        let mapped = self.may_be_mapped(page);
        let good = oracle.may_be_away(page) || mapped && oracle.may_be_there(page);
        ensure!(good, "page {page} is on a device: {:?}", oracle.page(page));
        let translation = self.records.translation(page);
        let peers = oracle.may_be_peers(page, &[Which::First, Which::Second]);
        let good = mapped || translation.is_none_or(|mapped| mapped.peer && peers);
        ensure!(good, "page {page} is on a device and has {translation:?}");
        Ok(())
    }

    /// Where every page is, compared with what the devices hold. Nothing else goes on.
    fn look(&self, oracle: &Oracle) -> Result<Snapshot, Failure> {
        self.balance()?;
        let mut locations = Vec::with_capacity(PAGES);
        let mut held = [0; 2];
        for page in 0..PAGES {
            let location = self.locate(page);
            locations.push(match location {
                PageLocation::System => None,
                PageLocation::Poisoned => return Err(format!("page {page} is lost")),
                PageLocation::Device(device) => {
                    let number = usize::from(device == self.devices[1].index());
                    held[number] += 1;
                    u8::try_from(number).ok()
                }
            });
            if location == PageLocation::System {
                let translation = self.records.translation(page);
                let mapped = oracle.page(page).mapped;
                let good = translation.is_none_or(|translation| mapped && !translation.peer);
                ensure!(good, "page {page}, mapped: {mapped}, is here and has {translation:?}");
            } else {
                self.check_away(oracle, page)?;
            }
        }
        for ((device, held), which) in
            self.devices.iter().zip(held).zip([Which::First, Which::Second])
        {
            let used = device.memory_used() / self.world.place().page;
            let held = held + self.areas.pages_of(which);
            ensure!(used == held, "{used} frames are in use, {held} pages are there");
        }
        let counters = self.space.counters();
        let counts = [
            counters.device_faults,
            counters.to_device_fault,
            counters.to_device_neighbour,
            counters.to_device_request,
            counters.between_devices,
            counters.to_system_eviction,
            counters.to_system_coherence,
            counters.to_system_request,
            counters.cpu_faults,
            counters.made_exclusive,
        ];
        Ok(Snapshot { locations, counts })
    }
}

/// One thread of a program, with the oracle of its part.
pub(crate) struct Runner<'m, W: World> {
    pub(crate) machine: &'m Machine<W>,
    pub(crate) oracle: Oracle,
    /// Whether no other thread runs, so that nothing moves but by this one's steps.
    pub(crate) alone: bool,
}

impl<'m, W: World> Runner<'m, W> {
    pub(crate) fn new(machine: &'m Machine<W>, part: Range<usize>, alone: bool) -> Self {
        Self { machine, oracle: Oracle::new(part), alone }
    }

    pub(crate) fn place(&self) -> Place {
        self.machine.world.place()
    }

    fn migrate_undisturbed(&mut self, which: Which, pages: &Range<usize>) -> Result<(), Failure> {
        let (device, range) = (self.machine.device(which), self.place().range(pages));
        // Others fork by the bare system call.
        let report = if self.alone {
            // SAFETY: nobody else changes the address space.
            unsafe { device.migrate_undisturbed(range) }
        } else {
            device.migrate(range)
        };
        self.went("migrate undisturbed", pages, report, self.alone).map(drop)
    }

    /// Runs one step, in the world and in the oracle, and compares.
    pub(crate) fn step(&mut self, step: &Step) -> Result<(), Failure> {
        watchdog::alive();
        match step {
            Step::Failing { call, nth, failure, step } => {
                self.failing(*call, *nth, *failure, step)?;
            }
            Step::Fork(child) => {
                self.machine.world.fork(child, &self.oracle)?;
                if self.machine.world.has_huge_pages() {
                    self.oracle.forked();
                }
            }
            Step::Free(pages) => self.free(pages)?,
            Step::Remove(pages) => {
                let mapped = pages.clone().any(|page| self.oracle.page(page).mapped);
                let expected = Err(if mapped { libc::EINVAL } else { libc::ENOMEM });
                let removed = self.machine.world.remove(pages.clone());
                ensure!(removed == expected, "remove: {removed:?}, not {expected:?}");
            }
            Step::AdviseHuge(pages) => {
                let all = self.oracle.first_gap(pages.clone()).is_none();
                let expected = if all { Ok(()) } else { Err(libc::ENOMEM) };
                let advised = self.machine.world.advise_huge(pages.clone());
                ensure!(advised == expected, "advice: {advised:?}, not {expected:?}");
            }
            Step::Adopt(pages) => self.adopt(pages)?,
            Step::Release(pages) => {
                let released = self.machine.space.release(self.place().range(pages));
                ensure!(released.is_ok(), "release: {released:?}");
                self.oracle.release(pages.clone());
            }
            Step::Write(cells, value) => self.write(cells, *value)?,
            Step::Read(cells) => self.read(cells)?,
            Step::Migrate(which, pages) => {
                let report = self.machine.device(*which).migrate(self.place().range(pages));
                self.went("migrate", pages, report, false)?;
            }
            Step::MigrateUndisturbed(which, pages) => {
                self.migrate_undisturbed(*which, pages)?;
            }
            Step::Exclusive(which, pages) => self.make_exclusive(*which, pages)?,
            Step::BringBack(which, pages) => self.bring_back(*which, pages)?,
            Step::DeviceRead(which, cells) => self.device_read(*which, cells)?,
            Step::DeviceWrite(which, cells, value) => self.device_write(*which, cells, *value)?,
            Step::Add(cells, value) => self.add(cells, *value)?,
            Step::DeviceAdd(which, cells, value) => self.device_add(*which, cells, *value)?,
            Step::Place(which, pages, placement) => {
                let placed =
                    self.machine.device(*which).place(self.place().range(pages), *placement);
                ensure!(placed.is_ok(), "place: {placed:?}");
                self.oracle.place(*which, pages.clone(), *placement == Placement::InPlace);
            }
            Step::Export(which, pages, export) => {
                let exported =
                    self.machine.device(*which).export(self.place().range(pages), *export);
                ensure!(exported.is_ok(), "export: {exported:?}");
                self.oracle.export(*which, pages.clone(), *export);
            }
            // An area takes frames that others may be waiting for.
            Step::Reserve { .. } | Step::EndArea(_) | Step::UseArea { .. } if !self.alone => {}
            Step::Reserve { of, pages, export } => self.reserve(*of, *pages, *export)?,
            Step::EndArea(of) => self.machine.areas.end(*of),
            Step::UseArea { by, of, page, value } => self.use_area(*by, *of, *page, *value)?,
            Step::RangeFault(ask) => self.range_fault(ask)?,
            Step::Snapshot(pages) => self.snapshot(pages)?,
            Step::ProtectionChanged(pages) => self.protection_changed(pages)?,
            Step::Protect { pages, allowed, told } => self.protect(pages, *allowed, *told)?,
            Step::Map(pages) => {
                let mapped = self.machine.world.map(pages.clone());
                ensure!(mapped == Ok(()), "map: {mapped:?}");
                self.oracle.map(pages.clone(), true);
                self.ended(pages.clone())?;
            }
            Step::Unmap(pages) => {
                let unmapped = self.machine.world.unmap(pages.clone());
                ensure!(unmapped == Ok(()), "unmap: {unmapped:?}");
                self.oracle.map(pages.clone(), false);
                self.ended(pages.clone())?;
            }
            Step::Remap { from, to, more, leave } => self.remap(from, *to, *more, *leave)?,
            Step::Grow { page, more } => self.grow(*page, *more)?,
            Step::Break(to) => {
                if let Some((pages, mapped)) = self.machine.world.set_break(*to) {
                    self.oracle.map(pages.clone(), mapped);
                    self.ended(pages)?;
                }
            }
            Step::Discard(pages) => self.discard(pages)?,
            Step::Collapse(block) => {
                let pages = PAGES / 4;
                self.machine.world.collapse(block * pages..(block + 1) * pages);
            }
        }
        if !self.alone {
            return Ok(());
        }
        if let Step::Read(cells) | Step::Write(cells, _) | Step::Add(cells, _) = step {
            // Looking at a page waits for the handler that served a fault on its block: it has freed
            // the frame and counted then.
            for page in [cells.pages.start, cells.pages.end - 1, cells.pages.end] {
                self.machine.locate(page);
            }
        }
        self.machine.balance()
    }

    /// Makes a step in which a call to the system fails. Where it did, and the step went wrong, it is to
    /// go right the next time.
    fn failing(
        &mut self,
        call: Call,
        nth: usize,
        failure: CallFailure,
        step: &Step,
    ) -> Result<(), Failure> {
        // What was added in part cannot be added again.
        let again = !matches!(step, Step::DeviceAdd(..) | Step::UseArea { .. });
        // To memory that cannot be written pages come back by a copy alone. Where that fails the access ends
        // with a signal.
        let part = self.oracle.part.clone();
        let forbidden =
            |page| self.oracle.page(page).mapped && !self.oracle.page(page).allows(true);
        let ends = call == Call::Copy && part.into_iter().any(forbidden);
        let Some(injections) = self.machine.world.injections().filter(|_| again && !ends) else {
            return self.step(step);
        };
        injections.inject(call, nth, failure);
        let result = self.step(step);
        let came = injections.clear() == 0;
        if came {
            // What it did to pages around those of the step is not known.
            self.oracle.disturbed(self.oracle.part.clone());
        }
        match result {
            Err(_) if came => self.step(step).map_err(|wrong| format!("the second time: {wrong}")),
            result => result,
        }
    }

    fn discard(&mut self, pages: &Range<usize>) -> Result<(), Failure> {
        let all = self.oracle.first_gap(pages.clone()).is_none();
        let expected = if all { Ok(()) } else { Err(libc::ENOMEM) };
        let discarded = self.machine.world.discard(pages.clone());
        ensure!(discarded == expected, "discard: {discarded:?}, not {expected:?}");
        self.oracle.discard(pages.clone());
        if self.machine.world.injections().is_some() {
            self.oracle.unseen(pages.clone());
        }
        self.ended(pages.clone())
    }

    /// The content of what may be written is given up, and it is looked which the system has dropped. A
    /// store to each page then keeps what it has.
    fn free(&mut self, pages: &Range<usize>) -> Result<(), Failure> {
        let world = &self.machine.world;
        let place = world.place();
        let writable = |&page: &usize| self.oracle.page(page).allows(true);
        let Some(start) = pages.clone().find(writable) else { return Ok(()) };
        let end = (start..pages.end).find(|page| !writable(page)).unwrap_or(pages.end);
        let freed = world.free(start..end);
        ensure!(freed == Ok(()), "free: {freed:?}");
        let mut loaded = vec![0; place.page];
        for page in start..end {
            let at = place.page(page);
            let result = world.load(at, &mut loaded);
            ensure!(result.is_ok(), "a page that was freed cannot be read: {result:?}");
            let result = world.store(at, &loaded[..1]);
            ensure!(result.is_ok(), "a page that was freed cannot be written: {result:?}");
            let mut found = [0; CELL];
            found[..CELL / 2].copy_from_slice(&loaded[..CELL / 2]);
            found[CELL / 2..].copy_from_slice(&loaded[place.page - CELL / 2..]);
            let before = self.oracle.page(page).bytes;
            let dropped = found != before;
            ensure!(
                !dropped || loaded.iter().all(|&byte| byte == 0),
                "page {page} was freed, and is {found:?}, not {before:?} nor zeros"
            );
            self.oracle.free(page, dropped);
        }
        Ok(())
    }

    fn adopt(&mut self, pages: &Range<usize>) -> Result<(), Failure> {
        let range = self.place().range(pages);
        let adopted = self.machine.space.adopt(range).map(|adopted| adopted.pages());
        let expected = match self.oracle.first_gap(pages.clone()) {
            None => Ok(pages.len()),
            Some(gap) => Err(AdoptError::Refused {
                range,
                pages: self.page_range(&gap),
                cause: StayCause::NoArea,
            }),
        };
        ensure!(adopted == expected, "adopt: {adopted:?}, not {expected:?}");
        if adopted.is_ok() {
            self.oracle.adopt(pages.clone());
        }
        Ok(())
    }

    pub(crate) fn page_range(&self, pages: &Range<usize>) -> PageRange {
        let place = self.place();
        PageRange::of(PageNumber(place.page(pages.start) / place.page), pages.len())
    }

    /// The first touch of an access by the processor that ends with a signal.
    fn signal(&self, cells: &Cells, item: usize, write: bool) -> Option<usize> {
        cells
            .touches()
            .find(|touch| touch.item == item && !self.oracle.page(touch.page).allows(write))
            .map(|touch| touch.page)
    }

    fn write(&mut self, cells: &Cells, value: u64) -> Result<(), Failure> {
        for item in cells.pages.clone() {
            let bytes = cells.bytes(item);
            let pattern = pattern(value, item);
            let stored = self.place().pieces(bytes.start, bytes.len()).try_for_each(
                |(address, first, len)| {
                    self.machine.world.store(address, &pattern[first..first + len])
                },
            );
            let stored = stored.err().map(|signal| signal.0);
            let expected = self.signal(cells, item, true);
            ensure!(stored == expected, "store at {item}: {stored:?}, not {expected:?}");
            for touch in cells.touches().filter(|touch| touch.item == item) {
                if Some(touch.page) == expected {
                    break;
                }
                self.oracle.store(&touch, value, bytes.start);
                self.oracle.is_back(touch.page..touch.page + 1);
            }
        }
        Ok(())
    }

    fn read(&mut self, cells: &Cells) -> Result<(), Failure> {
        for item in cells.pages.clone() {
            let bytes = cells.bytes(item);
            let mut loaded = vec![0; bytes.len()];
            let result = self.place().pieces(bytes.start, bytes.len()).try_for_each(
                |(address, first, len)| {
                    self.machine.world.load(address, &mut loaded[first..first + len])
                },
            );
            let signal = result.err().map(|signal| signal.0);
            let expected = self.signal(cells, item, false);
            ensure!(signal == expected, "load at {item}: {signal:?}, not {expected:?}");
            if signal.is_none() {
                let expected = self.oracle.bytes(bytes);
                ensure!(loaded == expected, "load at {item}: {loaded:?}, not {expected:?}");
                for touch in cells.touches().filter(|touch| touch.item == item) {
                    self.oracle.is_back(touch.page..touch.page + 1);
                }
            }
        }
        Ok(())
    }

    /// The processor adds to a number of each page.
    fn add(&mut self, cells: &Cells, value: u64) -> Result<(), Failure> {
        for page in cells.pages.clone() {
            let address = self.place().byte(page * CELL + cells.offset);
            let added = self.machine.world.fetch_add(address, value).map_err(|signal| signal.0);
            if self.oracle.page(page).allows(true) {
                let before = self.oracle.add(page, cells.offset, value);
                ensure!(added == Ok(before), "add at {page}: {added:?}, not {before}");
                self.oracle.is_back(page..page + 1);
            } else {
                ensure!(added == Err(page), "add at {page}, which is not allowed: {added:?}");
            }
        }
        Ok(())
    }

    /// A device is to have pages alone: those that it got and has still are its own.
    fn make_exclusive(&mut self, which: Which, pages: &Range<usize>) -> Result<(), Failure> {
        let device = self.machine.device(which);
        let report = device.make_exclusive(self.place().range(pages));
        let went = self.went("exclusive", pages, report, false)?;
        self.oracle.exclusive(pages.clone());
        if !self.alone || pages.len() >= 80 {
            return Ok(());
        }
        for page in pages.clone().zip(went).filter_map(|(page, went)| went.then_some(page)) {
            // A page may have been sent back for another of the range.
            let here = self.machine.locate(page) == PageLocation::Device(device.index());
            let exclusive = device.is_exclusive(self.place().range(&(page..page + 1)));
            ensure!(exclusive == Ok(here), "exclusive: page {page}: {exclusive:?}, not {here}");
        }
        Ok(())
    }

    /// Compares what came of a request that pages go to a device. Answers of each whether it did.
    fn went(
        &mut self,
        what: &str,
        pages: &Range<usize>,
        report: Result<Migration, RangeError>,
        undisturbed: bool,
    ) -> Result<Vec<bool>, Failure> {
        let report = report.map_err(|error| format!("{what}: {error}"))?;
        let dealt = report.moved() + report.already() + report.stayed();
        ensure!(dealt == pages.len(), "{what}: {dealt} of {} pages: {report:?}", pages.len());
        let mut causes = vec![None; pages.len()];
        for stayed in report.causes() {
            for page in stayed.pages.pages() {
                let page = page.0 - self.place().base / self.place().page;
                causes[page - pages.start] = Some(stayed.cause);
            }
        }
        for (page, &cause) in pages.clone().zip(&causes) {
            if let Some(cause) = cause {
                // Another thread may have forked since the page was unshared.
                let shared = cause == StayCause::Busy && !self.alone;
                let may = shared || self.oracle.may_stay(page, cause);
                ensure!(may, "{what}: page {page} stayed: {cause:?}");
                self.oracle.stayed(page, cause);
                if cause == StayCause::Protection {
                    self.met(page);
                }
            } else {
                let may = self.oracle.may_go(page) || undisturbed && self.oracle.may_be_taken(page);
                ensure!(may, "{what}: page {page} went");
                if undisturbed && !self.oracle.page(page).allows(true) {
                    self.met(page);
                }
                // It can have been there already, and mapped there. A device that faults beside it can
                // take it meanwhile: a translation then ended before the page is found there.
                let mapped = self.machine.may_be_mapped(page);
                self.oracle.went(page, mapped);
                let translation = self.machine.records.translation(page);
                let good = mapped || translation.is_none_or(|mapped| mapped.peer);
                ensure!(good, "{what}: page {page} went, with {translation:?}");
            }
        }
        Ok(causes.iter().map(Option::is_none).collect())
    }

    fn bring_back(&mut self, which: Option<Which>, pages: &Range<usize>) -> Result<(), Failure> {
        let machine = self.machine;
        let only: Option<DeviceIndex> = which.map(|which| machine.device(which).index());
        let away = || {
            let there = |page: &usize| match machine.locate(*page) {
                PageLocation::Device(device) => only.is_none_or(|only| only == device),
                PageLocation::System | PageLocation::Poisoned => false,
            };
            pages.clone().filter(there).count()
        };
        // Looking at each page takes longer than bringing back many.
        let looked = (self.alone && pages.len() < 80).then(away);
        let range = self.place().range(pages);
        let report = match which {
            Some(which) => machine.device(which).bring_back(range),
            None => machine.space.bring_back(range),
        };
        let report: Migration = report.map_err(|error| format!("bring back: {error}"))?;
        ensure!(report.stayed() == 0, "bring back: {report:?}");
        if which.is_none() {
            self.oracle.was_brought_back(pages.clone());
        }
        if let Some(looked) = looked {
            let moved = report.moved();
            ensure!(moved == looked, "bring back: {moved} pages, {looked} were away");
            let left = away();
            ensure!(left == 0, "bring back: {left} pages are away still");
        }
        Ok(())
    }

    fn remap(
        &mut self,
        from: &Range<usize>,
        to: usize,
        more: usize,
        leave: Leave,
    ) -> Result<(), Failure> {
        let world = &self.machine.world;
        for run in self.oracle.mapped_runs(from.clone()) {
            let areas = world.areas(run.clone());
            let covered = areas.iter().map(ExactSizeIterator::len).sum::<usize>();
            ensure!(covered == run.len(), "remap: the areas of {run:?} are {areas:?}");
            for area in areas {
                let target = to + (area.start - from.start);
                let more = if area.end == from.end { more } else { 0 };
                let moved = match leave {
                    Leave::Nothing => world.remap(area.clone(), target, area.len() + more),
                    Leave::Holes => world.remap_content(area.clone(), target),
                };
                ensure!(moved == Ok(()), "remap of {area:?} to {target}: {moved:?}");
                self.oracle.remap(area.clone(), target, leave);
                let grown = target + area.len();
                self.oracle.grow(grown..grown + more, grown - 1);
                self.ended(area)?;
                self.ended(target..grown + more)?;
            }
        }
        Ok(())
    }

    fn grow(&mut self, page: usize, more: usize) -> Result<(), Failure> {
        let world = &self.machine.world;
        let part = self.oracle.part.clone();
        let Some(hole) = self.oracle.first_gap(page..part.end) else { return Ok(()) };
        let more = more.min(hole.len());
        if hole.start == page {
            return Ok(());
        }
        let Some(area) = world.areas(page..hole.start).pop() else {
            return Err(format!("grow: there is no area at {page}"));
        };
        let grown = world.grow(area.clone(), area.len() + more);
        ensure!(grown == Ok(()), "grow of {area:?} by {more}: {grown:?}");
        self.oracle.grow(hole.start..hole.start + more, hole.start - 1);
        Ok(())
    }

    /// Has the devices read all, one half each.
    fn read_by_devices(&mut self) -> Result<(), Failure> {
        for page in self.oracle.part.clone() {
            if self.oracle.page(page).mapped {
                let which = if page % 2 == 0 { Which::First } else { Which::Second };
                let cells = Cells { pages: page..page + 1, offset: 20, len: LONGEST };
                self.device_read(which, &cells)?;
            }
        }
        Ok(())
    }
}

/// Reads every page that is mapped by the processor, and the bytes that the program never used.
pub(crate) fn read_all<W: World>(world: &W, oracle: &Oracle) -> Result<(), Failure> {
    let place = world.place();
    let mut loaded = vec![0; place.page];
    for page in oracle.part.clone() {
        if oracle.page(page).mapped {
            let allowed = world.protect(page..page + 1, Allowed::All);
            ensure!(allowed == Ok(()), "page {page} cannot be made accessible: {allowed:?}");
        }
        let result = world.load(place.page(page), &mut loaded);
        ensure!(result.is_ok() == oracle.page(page).mapped, "page {page}: {result:?}");
        if result.is_ok() {
            let (start, rest) = loaded.split_at(CELL / 2);
            let (middle, end) = rest.split_at(place.page - CELL);
            let used = [start, end].concat();
            let expected = &oracle.page(page).bytes[..];
            ensure!(used == expected, "page {page} is {used:?}, not {expected:?}");
            ensure!(middle.iter().all(|&byte| byte == 0), "page {page}: unused bytes changed");
        }
    }
    Ok(())
}

/// Runs a program, and looks at where the pages are after every so many steps.
pub(crate) fn run<W: World>(program: &Program, every: usize) -> Result<Vec<Snapshot>, Failure> {
    watchdog::start();
    let _alone = watchdog::alone(W::ALONE);
    let machine: Machine<W> = Machine::start(program.devices, program.huge);
    let mut runner = Runner::new(&machine, 0..PAGES, true);
    let mut snapshots = Vec::new();
    for (number, step) in program.steps.iter().enumerate() {
        watchdog::trace(number, step);
        let in_step = |failure| format!("step {number}, {step:?}: {failure}");
        runner.step(step).map_err(in_step)?;
        if number % every == every - 1 {
            snapshots.push(machine.look(&runner.oracle).map_err(in_step)?);
        }
    }
    if program.steps.len().is_multiple_of(2) {
        runner.read_by_devices()?;
        machine.look(&runner.oracle)?;
    }
    let oracle = runner.oracle;
    machine.end(|world| read_all(world, &oracle))?;
    Ok(snapshots)
}
