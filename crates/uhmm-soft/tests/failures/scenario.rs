//! A short program that meets every call to the system: it migrates, faults, evicts, discards, moves,
//! maps in place. What fails is done again, and has to work then.

use std::{
    fmt::Display,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use uhmm::{
    AddressSpace, CloseError, Device, Entries, Invalidation, Options, PageEntry, PageTable,
    Request,
    engine_memory::Refused,
    mm::injected::{Call, Failure, Injected, Injections},
    units::{AddressRange, BLOCK_PAGES, NumaNode},
};
use uhmm_soft::{Bus, Options as DeviceOptions, Placement, RunError, Soft};

use crate::world::World;

/// The program's memory: parts of two blocks, of which the last pages are not touched at first.
const AREA: core::ops::Range<usize> = 500..524;
const TOUCHED: core::ops::Range<usize> = 500..520;
const DISCARDED: core::ops::Range<usize> = 503..506;
const MOVED: core::ops::Range<usize> = 508..516;
const MOVED_TO: usize = 1100;
const SHARED: core::ops::Range<usize> = 1300..1304;
const COMMON: core::ops::Range<usize> = 1400..1406;
const CONSTANT: core::ops::Range<usize> = 1530..1540;
const FILE: core::ops::Range<usize> = 1700..1704;
const OTHER: core::ops::Range<usize> = 1600..1604;
const WHOLE: core::ops::Range<usize> = 4 * BLOCK_PAGES..5 * BLOCK_PAGES;
const FRAMES: usize = 16;

/// How often what fails is done again. A failure comes once.
const TRIES: usize = 3;

/// How many calls of each kind there were.
pub(crate) type Calls = [usize; Call::ALL.len()];

/// Pages at which a kernel saw something else than it should.
static WRONG: AtomicU64 = AtomicU64::new(0);

const fn written_by_cpu(page: usize) -> u64 {
    page as u64 * 3 + 1
}

const fn written_by_device(page: usize) -> u64 {
    page as u64 * 5 + 2
}

/// Whether the system knows of NUMA nodes.
pub(crate) fn has_nodes() -> bool {
    std::path::Path::new("/sys/devices/system/node/node0").exists()
}

/// Does `what` until it succeeds, a few times.
fn again<T, E: Display>(what: &str, mut step: impl FnMut() -> Result<T, E>) -> Result<T, String> {
    let mut errors = Vec::new();
    for _ in 0..TRIES {
        match step() {
            Ok(done) => return Ok(done),
            Err(error) => errors.push(error.to_string()),
        }
    }
    Err(format!("{what} fails again and again: {}", errors.join("; ")))
}

/// A device that does nothing, and is believed to hold on to the memory behind pages.
struct Pinning;

// SAFETY: it has no translations and touches no frame.
unsafe impl PageTable for Pinning {
    fn commit(&self, _: &Entries) {}

    fn invalidate(&self, _: &Invalidation) {}

    fn pins(&self) -> bool {
        true
    }
}

// SAFETY: as above.
unsafe impl Device for Pinning {}

/// What memory devices have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Pages move into it.
    Staging,
    /// Pages are copied into it and out of it.
    Copying,
    /// Pages are copied into it, and the processor maps it.
    Coherent,
}

struct Run<W: World> {
    world: W,
    space: AddressSpace<Injected<W::Mm>>,
    injections: Injections,
    /// What memory the devices have.
    memory: Memory,
    /// The transfer of the first device that is to fail; 0 for none.
    fails: usize,
    /// How many transfers the first device made.
    transfers: usize,
    /// Whether somebody held a page.
    pinned: bool,
    /// Whether a huge page went to a device that copies it.
    whole: bool,
    /// What the program has at each page of the arena.
    content: Vec<Option<u64>>,
}

type SoftDevice<W> = Soft<Injected<<W as World>::Mm>>;

impl<W: World> Run<W> {
    fn range(&self, pages: core::ops::Range<usize>) -> AddressRange {
        let start = self.world.address(pages.start);
        AddressRange::new(start, self.world.address(pages.end) - start).unwrap()
    }

    /// The processor reads all that is mapped. An access that fails for a failure of the system can be
    /// done again after what is away was brought back, or, of a page that never was there, after it was
    /// discarded.
    fn check(&self, when: &str) -> Result<(), String> {
        for (page, content) in self.content.iter().enumerate() {
            let Some(expected) = *content else { continue };
            let mut seen = self.world.load(page);
            if seen.is_none() {
                let all = self.range(page..page + 1);
                again("bringing back", || match self.space.bring_back(all) {
                    Ok(report) if report.stayed() > 0 => Err(format!("{report:?}")),
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.to_string()),
                })?;
                seen = self.world.load(page);
                if seen.is_none() && expected == 0 {
                    self.world.discard(page..page + 1);
                    seen = self.world.load(page);
                }
            }
            if seen != Some(expected) {
                return Err(format!("{when}: page {page} is {seen:?}, not {expected}"));
            }
        }
        Ok(())
    }

    fn migrate(
        &self,
        device: &SoftDevice<W>,
        pages: core::ops::Range<usize>,
    ) -> Result<(), String> {
        again("migrating", || match device.migrate(self.range(pages.clone())) {
            Ok(report) if report.stayed() > 0 => Err(format!("{report:?}")),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// As [`migrate`](Self::migrate), of shared memory, which goes to memory alone that pages move into.
    fn migrate_shared(
        &self,
        device: &SoftDevice<W>,
        pages: core::ops::Range<usize>,
    ) -> Result<(), String> {
        if self.memory == Memory::Staging {
            return self.migrate(device, pages);
        }
        let report = device.migrate(self.range(pages)).map_err(|error| error.to_string())?;
        if report.moved() == 0 {
            Ok(())
        } else {
            Err(format!("shared memory was copied: {report:?}"))
        }
    }

    /// The device writes to pages.
    fn write(
        &mut self,
        device: &SoftDevice<W>,
        pages: core::ops::Range<usize>,
    ) -> Result<(), String> {
        let (base, size) = (self.world.address(0), self.world.address(1) - self.world.address(0));
        again("a kernel that writes", || -> Result<(), RunError> {
            // SAFETY: nobody else touches the arena meanwhile.
            unsafe {
                device.run(pages.clone(), move |worker, page| {
                    worker.store(base + page * size, written_by_device(page))
                })
            }
        })?;
        for page in pages {
            self.content[page] = Some(written_by_device(page));
        }
        Ok(())
    }

    /// The device reads pages, which hold what the processor or a device wrote to page `page - offset`,
    /// or nothing.
    fn read(
        &self,
        device: &SoftDevice<W>,
        pages: core::ops::Range<usize>,
        offset: usize,
    ) -> Result<(), String> {
        let (base, size) = (self.world.address(0), self.world.address(1) - self.world.address(0));
        WRONG.store(0, Relaxed);
        again("a kernel that reads", || -> Result<(), RunError> {
            // SAFETY: nobody else touches the arena meanwhile.
            unsafe {
                device.run(pages.clone(), move |worker, page| {
                    let seen: u64 = worker.load(base + page * size)?;
                    let from = page - offset;
                    if ![0, written_by_cpu(from), written_by_device(from)].contains(&seen) {
                        WRONG.store(page as u64, Relaxed);
                    }
                    Ok(())
                })
            }
        })?;
        match WRONG.load(Relaxed) {
            0 => Ok(()),
            page => Err(format!("the device sees something else at page {page}")),
        }
    }

    /// The processor writes to pages.
    fn fill(&mut self, pages: core::ops::Range<usize>) -> Result<(), String> {
        for page in pages {
            self.world.store(page, written_by_cpu(page)).ok_or("a store fails")?;
            self.content[page] = Some(written_by_cpu(page));
        }
        Ok(())
    }

    /// Pages go to a device and come back, are discarded and moved.
    fn go_there_and_back(&mut self, device: &SoftDevice<W>) -> Result<(), String> {
        // There and back, with evictions.
        self.migrate(device, TOUCHED)?;
        self.read(device, TOUCHED, 0)?;
        self.check("after a migration")?;
        self.write(device, AREA.start..AREA.start + FRAMES)?;
        self.write(device, TOUCHED.end - 4..TOUCHED.end)?;
        self.check("after the device wrote")?;

        // A hole is first touched by the processor, and by the device.
        self.world.discard(DISCARDED);
        for page in DISCARDED {
            self.content[page] = Some(0);
        }
        self.read(device, DISCARDED.start..DISCARDED.start + 1, 0)?;
        self.check("after a discard")?;

        // What is away moves with its addresses.
        self.migrate(device, MOVED)?;
        self.world.remap(MOVED, MOVED_TO);
        for (page, to) in MOVED.zip(MOVED_TO..) {
            self.content[to] = self.content[page].take();
        }
        let moved = MOVED_TO..MOVED_TO + MOVED.len();
        self.read(device, moved.clone(), MOVED_TO - MOVED.start)?;
        self.check("after a move")?;
        Ok(())
    }

    /// Memory that others have a share of.
    fn share(&mut self, device: &SoftDevice<W>) -> Result<(), String> {
        // Memory that is shared with others is mapped a second time, and used there.
        self.world.map_shared(COMMON);
        for page in COMMON {
            self.content[page] = Some(0);
        }
        self.fill(COMMON.start..COMMON.end - 2)?;
        again("adopting", || self.space.adopt(self.range(COMMON)).map(drop))?;
        self.migrate_shared(device, COMMON)?;
        self.read(device, COMMON, 0)?;
        self.check("after shared memory was away")?;
        self.write(device, COMMON)?;
        self.check("after the device wrote to shared memory")?;
        self.migrate_shared(device, COMMON)?;
        self.world.unmap(COMMON);
        for page in COMMON {
            self.content[page] = None;
        }

        // A child shares pages, which have to be unshared before they go.
        self.world.map(SHARED);
        self.fill(SHARED)?;
        self.world.share(SHARED);
        again("adopting", || self.space.adopt(self.range(SHARED)).map(drop))?;
        self.migrate(device, SHARED)?;
        self.check("after a fork")?;
        Ok(())
    }

    /// Memory that cannot be written.
    fn go_unwritten(&mut self, device: &SoftDevice<W>) -> Result<(), String> {
        // What cannot be written goes too, but for a page that somebody holds.
        self.world.map(CONSTANT);
        self.fill(CONSTANT)?;
        again("adopting", || self.space.adopt(self.range(CONSTANT)).map(drop))?;
        self.pinned = self.world.pin(CONSTANT.start + 3);
        let held = usize::from(self.pinned);
        self.world.protect(CONSTANT, false);
        let range = self.range(CONSTANT);
        let others = device.migrate(range).map_err(|error| error.to_string())?;
        if others.stayed() < CONSTANT.len() {
            return Err(format!("there are others: {others:?}"));
        }
        again("migrating what cannot be written", || {
            // SAFETY: nobody changes the address space meanwhile.
            match unsafe { device.migrate_undisturbed(range) } {
                Ok(report) if report.stayed() != held => Err(format!("{report:?}")),
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        })?;
        self.check("after pages that cannot be written were away")?;
        self.read(device, CONSTANT, 0)?;
        self.world.protect(CONSTANT, true);
        self.check("after they could be written again")?;
        self.world.unmap(CONSTANT);
        for page in CONSTANT {
            self.content[page] = None;
        }
        Ok(())
    }

    /// A private mapping of a file.
    fn leave_a_file(&mut self, device: &SoftDevice<W>) -> Result<(), String> {
        // A file's private mapping that was written becomes anonymous, and goes.
        self.world.map_file(FILE);
        self.fill(FILE)?;
        let range = self.range(FILE);
        again("making a mapping anonymous", || {
            // SAFETY: nobody changes or writes it meanwhile.
            match unsafe { self.space.make_anonymous_undisturbed(range) } {
                Ok(pages) if pages == FILE.len() => Ok(()),
                Ok(pages) => Err(format!("{pages} pages were made anonymous")),
                Err(error) => Err(error.to_string()),
            }
        })?;
        again("adopting", || self.space.adopt(range).map(drop))?;
        self.migrate(device, FILE)?;
        self.check("after a file's mapping was away")?;
        self.world.unmap(FILE);
        for page in FILE {
            self.content[page] = None;
        }
        Ok(())
    }

    /// Memory where the program has it.
    fn use_in_place(&mut self, other: &SoftDevice<W>) -> Result<(), String> {
        // Another device maps in place.
        let place = |pages| other.place(self.range(pages), Placement::InPlace);
        again("a placement", || place(TOUCHED.start..TOUCHED.start + 4))?;
        self.read(other, TOUCHED.start..TOUCHED.start + 3, 0)?;
        self.write(other, TOUCHED.start..TOUCHED.start + 3)?;
        self.check("after accesses in place")?;

        // Memory that nobody adopted is watched, and used where it is.
        self.world.map(OTHER);
        self.fill(OTHER)?;
        self.read(other, OTHER, 0)?;
        let range = self.range(OTHER);
        let mirror = again("a mirror", || self.space.mirror(range, Pinning))?;
        for request in [Request::read(range), Request::write(range)] {
            again("a range fault", || match mirror.fault(&request) {
                Ok(report) if report.failed() > 0 => Err(format!("{report:?}")),
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            })?;
        }
        let mut entries = [PageEntry::default(); OTHER.end - OTHER.start];
        again("a look", || mirror.snapshot(range, &mut entries))?;
        drop(mirror);
        self.write(other, OTHER.start + 1..OTHER.end)?;
        self.check("after accesses to memory that nobody adopted")?;
        Ok(())
    }

    /// A huge page goes to a device that copies it, and comes back: from copying memory by way of another
    /// device, so that nothing of it is kept on the way.
    fn go_whole(&mut self) -> Result<(), String> {
        self.world.map(WHOLE);
        let mut filled = Ok(());
        let world = &self.world;
        let content = &mut self.content;
        self.whole = world.make_huge(WHOLE, || {
            for page in WHOLE.step_by(BLOCK_PAGES / 8 - 1) {
                filled = world.store(page, written_by_cpu(page)).ok_or("a store fails".to_owned());
                content[page] = Some(written_by_cpu(page));
            }
        });
        filled?;
        again("adopting", || self.space.adopt(self.range(WHOLE)).map(drop))?;
        let bytes = self.space.page_size().bytes_in(WHOLE.len());
        let frames = DeviceOptions::new(bytes).workers(1);
        let frames = match self.memory {
            Memory::Copying => frames.behind_bus(Bus::new()),
            _ if has_nodes() => frames.coherent_on(NumaNode(0)),
            _ => frames.coherent(),
        };
        let start = || again("a device for a huge page", || Soft::start(&self.space, frames));
        let mut device = start()?;
        if self.memory == Memory::Coherent {
            // One page goes there and back, so that the frames are a huge page no more.
            let one = AREA.start..AREA.start + 1;
            self.migrate(&device, one.clone())?;
            again("bringing a page back", || match device.bring_back(self.range(one.clone())) {
                Ok(report) if report.stayed() > 0 => Err(format!("{report:?}")),
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            })?;
        }
        self.migrate(&device, WHOLE)?;
        if self.memory == Memory::Copying {
            let next = start()?;
            self.migrate(&next, WHOLE)?;
            device = next;
        }
        self.check("after a huge page went to a device")?;
        again("bringing a huge page back", || match device.bring_back(self.range(WHOLE)) {
            Ok(report) if report.stayed() > 0 => Err(format!("{report:?}")),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        })?;
        self.check("after a huge page came back")?;
        self.world.unmap(WHOLE);
        self.content[WHOLE].fill(None);
        Ok(())
    }

    fn work(&mut self) -> Result<(), String> {
        self.world.map(AREA);
        for page in AREA {
            self.content[page] = Some(0);
        }
        self.fill(TOUCHED)?;
        again("adopting", || self.space.adopt(self.range(AREA)).map(drop))?;
        let page = self.space.page_size().bytes();
        let frames = DeviceOptions::new(FRAMES * page).workers(1);
        let frames = match self.memory {
            Memory::Staging => frames,
            Memory::Copying => frames.behind_bus(Bus::new()),
            Memory::Coherent => frames.coherent(),
        };
        let device = again("a device", || Soft::start(&self.space, frames))?;
        if self.fails > 0 {
            device.fail_transfer(self.fails);
        }

        self.go_there_and_back(&device)?;
        self.share(&device)?;
        self.go_unwritten(&device)?;
        self.leave_a_file(&device)?;
        let other = again("a second device", || Soft::start(&self.space, frames))?;
        self.use_in_place(&other)?;
        if self.memory != Memory::Staging {
            self.go_whole()?;
        }

        let attached = again("a device without workers", || self.space.attach(Pinning, FRAMES))?;
        drop(again("a reservation", || attached.reserve_area(FRAMES / 2))?);
        drop(attached);

        self.world.unmap(MOVED_TO..MOVED_TO + 2);
        self.content[MOVED_TO..MOVED_TO + 2].fill(None);
        self.check("after an unmapping")?;
        self.migrate(&device, AREA.start..MOVED.start)?;
        again("bringing all back", || match device.bring_all_back() {
            report if report.stayed() > 0 => Err(format!("{report:?}")),
            _ => Ok(()),
        })?;
        self.transfers = device.transfers();
        drop((other, device));
        self.check("after the devices ended")
    }
}

/// What is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    Nothing,
    /// The call of a kind with that number.
    Call(Call, usize, Failure),
    /// The time with that number, of those after opening, that engine memory is asked for.
    Memory(usize, Refused),
    /// The transfer of the first device with that number.
    Transfer(usize),
}

/// What there was to refuse.
pub(crate) struct Asked {
    pub(crate) calls: Calls,
    pub(crate) memory: usize,
    pub(crate) transfers: usize,
    /// Whether somebody held a page.
    pub(crate) pinned: bool,
    /// Whether a huge page went to a device that copies it.
    pub(crate) whole: bool,
    /// Whether the refusal came: how much is asked for depends on the order of threads.
    pub(crate) came: bool,
}

/// Runs it, where something is refused.
pub(crate) fn run<W: World>(kind: Memory, refusal: Refusal) -> Result<Asked, String> {
    let (world, mm) = W::start();
    let mm = Injected::new(mm);
    let injections = mm.injections();
    if let Refusal::Call(call, nth, failure) = refusal {
        injections.inject(call, nth, failure);
    }
    let content = vec![None; crate::world::PAGES];
    let options = Options::new().engine_memory(Options::LEAST_ENGINE_MEMORY);
    let opened = options.open_on(mm);
    if matches!(refusal, Refusal::Call(Call::TellForks, ..)) {
        return match (opened, world.end()) {
            (Ok(_), _) => Err("it is open though forks are not told".into()),
            (Err(_), Some(wrong)) => Err(wrong),
            (Err(_), None) => {
                let calls = Call::ALL.map(|call| injections.calls(call));
                let came = injections.clear() == 0;
                Ok(Asked { calls, memory: 0, transfers: 0, pinned: false, whole: false, came })
            }
        };
    }
    let space = opened.map_err(|error| format!("opening: {error}"))?;
    let memory = space.engine_memory().clone();
    let before = memory.times_asked();
    if let Refusal::Memory(nth, whose) = refusal {
        memory.inject_refusal(nth, whose);
    }
    let fails = if let Refusal::Transfer(nth) = refusal { nth } else { 0 };
    let mut run = Run::<W> {
        world,
        space,
        injections,
        memory: kind,
        fails,
        transfers: 0,
        pinned: false,
        whole: false,
        content,
    };
    run.work()?;
    let Run { world, mut space, injections, transfers, pinned, whole, .. } = run;
    let mut tries = 0;
    loop {
        match space.close() {
            Ok(()) => break,
            Err(error) if tries == TRIES => return Err(format!("closing: {error}")),
            Err(
                CloseError::Stayed { space: open, .. } | CloseError::Release { space: open, .. },
            ) => {
                space = open;
            }
        }
        tries += 1;
    }
    let came = injections.clear() == 0 && !memory.clear_refusal() && transfers >= fails;
    let asked = memory.times_asked() - before;
    match world.end() {
        None => {
            let calls = Call::ALL.map(|call| injections.calls(call));
            Ok(Asked { calls, memory: asked, transfers, pinned, whole, came })
        }
        Some(wrong) => Err(wrong),
    }
}
