//! What the core keeps of a device: its memory, its clock, and the device itself.

use core::ptr::NonNull;

use super::{
    Ahead, Clock, Coherent, Copying, FrameMemory, FramePool, FrameRun, GivenBack, Grants, Place,
    Transit,
};
use crate::{
    driver::{Device, DeviceIndex, FrameNumber, MAX_DEVICES, Translation},
    engine_memory::{EngineBox, EngineMemory, EngineMemoryError},
    mm::{Done, Mm, Stop},
    policy::{self, DeviceStream, Reach, Scans},
    report::StayCause,
    shared::Shared,
    sync::{
        Lock, SignalsBlocked,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    units::{PageNumber, PageRange},
};

/// A device that is attached.
pub(crate) struct DeviceState {
    pub(crate) index: DeviceIndex,
    pub(crate) memory: FrameMemory,
    pub(crate) frames: usize,
    pub(crate) device: EngineBox<dyn Device>,
    pub(crate) clock: Lock<Clock>,
    pool: Lock<FramePool>,
    /// Who waits for frames.
    given_back: GivenBack,
    /// Frames that are handed out for a migration under way, which will use them or give them back.
    reserved: AtomicUsize,
    /// Frames that reservations hold.
    pub(crate) reserved_frames: AtomicUsize,
    pub(crate) reach: Reach,
    /// Its streams of faults.
    scans: Scans,
    /// What its thread is to do.
    pub(crate) ahead: Ahead,
    /// What its peers may map of it.
    pub(crate) grants: Grants,
    /// Whether the device is going: no page goes to it any more.
    pub(crate) leaving: AtomicBool,
    /// Whether its memory is gone, with all content. It is leaving then, too.
    lost: AtomicBool,
    /// Pages that were marked for that.
    pub(crate) lost_pages: AtomicUsize,
    /// Pages of shared memory that are on it, which take no frames.
    shared: AtomicUsize,
}

impl DeviceState {
    pub(crate) fn new(
        index: DeviceIndex,
        device: EngineBox<dyn Device>,
        memory: FrameMemory,
        frames: usize,
        engine_memory: &EngineMemory,
    ) -> Result<Self, EngineMemoryError> {
        Ok(Self {
            index,
            memory,
            frames,
            device,
            clock: Lock::new(Clock::new(engine_memory)),
            pool: Lock::new(FramePool::new(frames, engine_memory)?),
            given_back: GivenBack::default(),
            reserved: AtomicUsize::new(0),
            reserved_frames: AtomicUsize::new(0),
            reach: Reach::default(),
            scans: Scans::new(),
            ahead: Ahead::default(),
            grants: Grants::new(engine_memory),
            leaving: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            lost_pages: AtomicUsize::new(0),
            shared: AtomicUsize::new(0),
        })
    }

    /// From here on its memory counts as gone, and no page goes there.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Release);
        self.leaving.store(true, Release);
    }

    /// Whether its memory is gone.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Acquire)
    }

    /// Why no page goes there any more, if that is so.
    pub(crate) fn refusal(&self) -> Option<StayCause> {
        if !self.leaving.load(Acquire) {
            None
        } else if self.is_lost() {
            Some(StayCause::DeviceLost)
        } else {
            Some(StayCause::Closed)
        }
    }

    /// Pages of shared memory came.
    pub(crate) fn shared_came(&self, pages: usize) {
        self.shared.fetch_add(pages, Relaxed);
    }

    /// Pages of shared memory left.
    pub(crate) fn shared_left(&self, pages: usize) {
        self.shared.fetch_sub(pages, Relaxed);
    }

    /// How many pages of shared memory are on it.
    pub(crate) fn shared(&self) -> usize {
        self.shared.load(Relaxed)
    }

    /// Where a frame is, which is one of the device's, or a page in transit.
    #[inline]
    pub(crate) fn place_of(&self, frame: FrameNumber) -> Place<'_> {
        match &self.memory {
            FrameMemory::Staging(staging) => Place::Staging(staging.start().plus(frame.0 as usize)),
            FrameMemory::Copying(copying) => match self.in_transit(frame) {
                Some(number) => Place::Staging(copying.transit.page(number)),
                None => Place::Copying(copying, frame),
            },
            FrameMemory::Coherent(coherent) => Place::Staging(match self.in_transit(frame) {
                Some(number) => coherent.transit.page(number),
                None => coherent.page(frame),
            }),
        }
    }

    /// The page of transit that a record calls by this number, if it is none of a frame.
    fn in_transit(&self, frame: FrameNumber) -> Option<FrameNumber> {
        let number = frame.0.checked_sub(self.first_in_transit().0).map(FrameNumber);
        // Pages of aliases are numbered behind them.
        number.filter(|_| !frame.is_shared())
    }

    /// Whether a record says by this number that the content is in transit.
    pub(crate) fn is_in_transit(&self, frame: FrameNumber) -> bool {
        self.in_transit(frame).is_some()
    }

    /// The number that a record has for the first page of transit. The one before it is nothing's, so
    /// that no run goes from a frame on to transit.
    fn first_in_transit(&self) -> FrameNumber {
        FrameNumber(0).plus(self.frames + 1)
    }

    /// The number that a record has for a page of transit.
    pub(crate) fn number_in_transit(&self, page: FrameNumber) -> FrameNumber {
        self.first_in_transit().plus(page.0 as usize)
    }

    /// The number that no frame and no page of transit has.
    pub(crate) fn number_of_nothing(&self) -> FrameNumber {
        FrameNumber(0).plus(self.frames)
    }

    /// Whether the content of a frame is the device's: its memory's, and gone with it.
    pub(crate) fn is_of_device(&self, frame: FrameNumber) -> bool {
        frame.0 as usize <= self.frames
    }

    /// Where the content of frames from `first` on is, where they are staging.
    pub(crate) fn pointer_of<M: Mm>(&self, first: FrameNumber, mm: &M) -> Option<NonNull<u8>> {
        match self.place_of(first) {
            Place::Staging(page) if !self.is_in_transit(first) => Some(mm.staging_pointer(page)),
            Place::Staging(_) | Place::Copying(..) => None,
        }
    }

    /// The device's own translation of frames from `first` on; none where the content is in transit,
    /// which the device cannot reach.
    #[inline]
    pub(crate) fn translation_of<M: Mm>(&self, first: FrameNumber, mm: &M) -> Option<Translation> {
        match self.place_of(first) {
            Place::Staging(_) => {
                self.pointer_of(first, mm).map(|memory| Translation::Frames { memory })
            }
            Place::Copying(_, frame) => Some(Translation::Copied { frame: frame.0 as usize }),
        }
    }

    /// Its memory, where that is reached by copies.
    pub(crate) fn copying(&self) -> Option<&Copying> {
        match &self.memory {
            FrameMemory::Copying(copying) => Some(copying),
            FrameMemory::Staging(_) | FrameMemory::Coherent(_) => None,
        }
    }

    /// Notes that it gets a translation of frames by which it may write.
    pub(crate) fn note_writable(&self, frames: FrameRun, signals: &SignalsBlocked) {
        if let Some(copying) = self.copying()
            && self.is_of_device(frames.first)
        {
            copying.transit.note_writable(frames, signals);
        }
    }

    /// Its memory, where the CPU maps that too.
    pub(crate) fn coherent(&self) -> Option<&Coherent> {
        match &self.memory {
            FrameMemory::Coherent(coherent) => Some(coherent),
            FrameMemory::Staging(_) | FrameMemory::Copying(_) => None,
        }
    }

    /// Whether the CPU maps its memory too.
    pub(crate) fn is_coherent(&self) -> bool {
        self.coherent().is_some()
    }

    /// The way to its memory, where that is by copies.
    pub(crate) fn transit(&self) -> Option<&Transit> {
        match &self.memory {
            FrameMemory::Staging(_) => None,
            FrameMemory::Copying(copying) => Some(&copying.transit),
            FrameMemory::Coherent(coherent) => Some(&coherent.transit),
        }
    }

    /// The staging that it has: its frames, or its transit.
    pub(crate) fn staging(&self) -> PageRange {
        match &self.memory {
            FrameMemory::Staging(staging) => *staging,
            FrameMemory::Copying(copying) => copying.transit.pages,
            FrameMemory::Coherent(coherent) => coherent.staging(),
        }
    }

    /// Whether some of `pages` is its memory, or on the way there.
    pub(crate) fn overlaps(&self, pages: PageRange) -> bool {
        let mapped = self.copying().and_then(Copying::mapped);
        self.staging().overlaps(pages) || mapped.is_some_and(|mapped| mapped.overlaps(pages))
    }

    /// Whether content of pages is here.
    pub(crate) fn holds_pages(&self, signals: &SignalsBlocked) -> bool {
        self.free(signals) + self.reserved_frames.load(Relaxed) < self.frames
            || self.shared() > 0
            || self.transit().is_some_and(|transit| transit.recorded() > 0)
    }

    /// How many frames are free.
    pub(crate) fn free(&self, signals: &SignalsBlocked) -> usize {
        self.pool.lock(signals).free()
    }

    /// Takes frames back that a page has left: by a move, which leaves holes, or by a copy, which
    /// leaves them full.
    #[inline]
    #[unsafe(link_section = ".text.hot.moving")]
    pub(crate) fn give_back(&self, run: FrameRun, full: bool, signals: &SignalsBlocked) {
        if let Some(transit) = self.transit()
            && let Some(first) = self.in_transit(run.first)
        {
            let run = FrameRun { first, ..run };
            return transit.give_back_recorded(run, full, signals);
        }
        let stale = match &self.memory {
            FrameMemory::Staging(_) => full,
            // What is copied over needs no emptying.
            FrameMemory::Copying(_) => false,
            FrameMemory::Coherent(_) => !full,
        };
        if let Some(copying) = self.copying() {
            copying.transit.part_twins(run, signals);
        }
        self.pool.lock(signals).give_back(run, stale);
        self.given_back.tell();
    }

    /// The pages to bring for its fault on one, whose block has such a stream, where there are `frames`
    /// frames for it.
    pub(crate) fn window(
        &self,
        page: PageNumber,
        stream: &DeviceStream,
        frames: usize,
    ) -> PageRange {
        let block = page.block();
        let places = stream.window(page.in_block(), block, frames, &self.reach, &self.scans);
        PageRange::of(block.first_page().plus(places.start), places.len())
    }

    /// Takes frames back that were handed out and are as they were then.
    #[inline]
    pub(crate) fn give_back_unused(&self, run: FrameRun, signals: &SignalsBlocked) {
        self.give_back(run, self.is_coherent(), signals);
    }

    /// Hands frames out for a migration: up to `want` consecutive ones that are ready, none where fewer
    /// than `least` frames are free. Those are holes, or of coherent memory full.
    #[inline]
    pub(super) fn take(
        &self,
        want: usize,
        least: usize,
        signals: &SignalsBlocked,
    ) -> Option<FrameRun> {
        let mut pool = self.pool.lock(signals);
        if pool.free() < least {
            return None;
        }
        let run = pool.take(want)?;
        self.reserved.fetch_add(run.frames, Relaxed);
        let is_few = pool.free() < policy::evict_ahead(self.frames) / 2;
        drop(pool);
        if is_few {
            self.ahead.note_few();
        }
        Some(run)
    }

    /// Makes a run of stale frames ready: of coherent memory up to `want`, as each takes memory. Returns
    /// whether some are.
    ///
    /// # Errors
    /// What the system stopped at, where it has no memory for any, or changes. Frames that are not ready stay
    /// stale, and who asked goes without.
    pub(super) fn make_ready<M: Mm>(
        &self,
        want: usize,
        mm: &M,
        signals: &SignalsBlocked,
    ) -> Result<bool, Stop> {
        let want = if self.is_coherent() { want } else { usize::MAX };
        self.make_these_ready(|pool| pool.take_stale(want), mm, signals)
    }

    /// Makes a chunk ready that is free and has stale frames. Returns whether one is. Not of coherent
    /// memory: no memory is taken there as long as frames are ready.
    #[cold]
    #[inline(never)]
    pub(super) fn make_chunk_ready<M: Mm>(&self, mm: &M, signals: &SignalsBlocked) -> bool {
        !self.is_coherent()
            && self.make_these_ready(FramePool::take_free_chunk, mm, signals) == Ok(true)
    }

    /// Makes frames ready that `take` takes of those that are free.
    fn make_these_ready<M: Mm>(
        &self,
        take: impl FnOnce(&mut FramePool) -> Option<FrameRun>,
        mm: &M,
        signals: &SignalsBlocked,
    ) -> Result<bool, Stop> {
        let mut pool = self.pool.lock(signals);
        let Some(run) = take(&mut pool) else { return Ok(false) };
        self.reserved.fetch_add(run.frames, Relaxed);
        drop(pool);
        let made = match &self.memory {
            FrameMemory::Staging(staging) => {
                let pages = PageRange::of(staging.start().plus(run.first.0 as usize), run.frames);
                // SAFETY: the frames are handed out to this call alone, and no translation leads to them.
                let emptied = unsafe { mm.empty_staging(pages) }.is_ok();
                Done { pages: if emptied { run.frames } else { 0 }, stop: None }
            }
            FrameMemory::Coherent(coherent) => coherent.fill(run, mm),
            // None of them is ever stale.
            FrameMemory::Copying(_) => Done { pages: 0, stop: None },
        };
        let (ready, rest) = run.split(made.pages);
        let mut pool = self.pool.lock(signals);
        pool.give_back(ready, false);
        pool.give_back(rest, true);
        drop(pool);
        self.given_back.tell();
        self.reserved.fetch_sub(run.frames, Release);
        match made.stop {
            Some(stop) if made.pages == 0 => Err(stop),
            _ => Ok(made.pages > 0),
        }
    }

    /// A migration that `frames` frames were handed out for has used them or given them back.
    #[inline]
    pub(super) fn used(&self, frames: usize) {
        // In this order: who sees that nothing is reserved sees that it has to look again.
        self.given_back.tell();
        self.reserved.fetch_sub(frames, Release);
    }

    /// How often frames were given back so far, to [wait](Self::wait_given_back) for the next time.
    pub(crate) fn times_given_back(&self) -> u32 {
        self.given_back.times()
    }

    /// Waits for frames to come back after `times` were counted, if any are reserved; returns
    /// whether any were.
    pub(crate) fn wait_given_back(&self, times: u32) -> bool {
        if self.reserved.load(Acquire) == 0 {
            return self.times_given_back() != times;
        }
        self.given_back.wait(times);
        true
    }
}

/// The devices of an address space, by index.
///
/// An entry of a block's record that names a device keeps the device: it detaches only after all
/// its pages are gone. So the holder of a block's lock may use the device of any of its entries.
pub(crate) struct Devices {
    slots: [Lock<Option<Shared<DeviceState>>>; MAX_DEVICES],
    pointers: [crate::sync::atomic::AtomicPtr<DeviceState>; MAX_DEVICES],
}

impl Devices {
    pub(crate) fn new() -> Self {
        Self {
            slots: core::array::from_fn(|_| Lock::new(None)),
            pointers: core::array::from_fn(|_| {
                crate::sync::atomic::AtomicPtr::new(core::ptr::null_mut())
            }),
        }
    }

    /// Puts a device at a free index that `make` is told. `None` where all are taken.
    pub(crate) fn add<E>(
        &self,
        signals: &SignalsBlocked,
        make: impl FnOnce(DeviceIndex) -> Result<Shared<DeviceState>, E>,
    ) -> Option<Result<Shared<DeviceState>, E>> {
        for (number, slot) in self.slots.iter().enumerate() {
            let mut slot = slot.lock(signals);
            if slot.is_none() {
                let index = DeviceIndex(u8::try_from(number).ok()?);
                let made = make(index);
                if let Ok(state) = &made {
                    self.pointers[number].store(NonNull::from(&**state).as_ptr(), Release);
                    *slot = Some(state.clone());
                }
                return Some(made);
            }
        }
        None
    }

    /// Whether there is room for another.
    pub(crate) fn have_room(&self, signals: &SignalsBlocked) -> bool {
        self.slots.iter().any(|slot| slot.lock(signals).is_none())
    }

    /// Takes a device out, none of whose frames is named by any record.
    pub(crate) fn remove(&self, index: DeviceIndex, signals: &SignalsBlocked) {
        let number = usize::from(index.0);
        let state = self.slots[number].lock(signals).take();
        self.pointers[number].store(core::ptr::null_mut(), Release);
        drop(state);
    }

    /// All that are attached now.
    pub(crate) fn attached(
        &self,
        signals: &SignalsBlocked,
    ) -> impl Iterator<Item = Shared<DeviceState>> {
        self.slots.iter().filter_map(|slot| slot.lock(signals).clone())
    }

    /// The device that an entry names.
    ///
    /// # Safety
    /// The caller holds the lock of a block with such an entry, or a reference to the device, for
    /// as long as it uses the answer.
    #[inline]
    pub(crate) unsafe fn of_entry(&self, index: DeviceIndex) -> &DeviceState {
        // SAFETY: as the caller says, the device is attached, so the pointer is to what its slot
        // keeps alive.
        match unsafe { self.pointers[usize::from(index.0)].load(Acquire).as_ref() } {
            Some(state) => state,
            None => crate::abort::abort(b"a page's record names a device that is gone"),
        }
    }
}
