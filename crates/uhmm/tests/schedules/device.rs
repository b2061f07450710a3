//! A small device: a page table of one entry a page, and workers that add to words through it. Its
//! memory is staging, or its own.

use core::{
    ptr::{self, NonNull},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize as PlainCount, Ordering::Relaxed as Plain},
};
use std::sync::Arc;

use uhmm::{
    Attachment, Begun, CopyingMemory, Device, DeviceFaultError, Entries, FaultAccess, FaultBuffer,
    FaultQueue, InFlight, Invalidation, Lane, PageTable, QueueCancelled, QueueNumber, Serve,
    Ticket, Transfer, TransferError, Translation, Use,
    engine_memory::{EngineMemory, EngineVec},
    mm::{Access, model::Model},
    sync::atomic::{
        AtomicPtr, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    units::{PageNumber, PageRange, PageSize},
};

struct Entry {
    memory: AtomicPtr<u8>,
    /// Whether it may be written, if there is memory.
    write: AtomicBool,
    /// Whether the page was used lately. No step of its own to the explorer.
    used: AtomicBool,
    /// Whether it was used since it came.
    ever: AtomicBool,
    /// Whether it was written since the core last asked.
    written: AtomicBool,
}

/// Frames of the device's own, which pages are copied into and out of.
pub(crate) struct TestMemory {
    words: Vec<AtomicU64>,
    page_size: PageSize,
    transfers: PlainCount,
    /// So many transfers after each other one fails; 0 for none.
    fails_every: usize,
    /// A step that the explorer can put another thread before.
    step: AtomicUsize,
}

impl TestMemory {
    /// A memory of `frames` frames, of whose transfers every so many fail.
    pub(crate) fn new(frames: usize, page_size: PageSize, fails_every: usize) -> Self {
        let words = (0..page_size.bytes_in(frames) / 8).map(|_| AtomicU64::new(!0)).collect();
        let (transfers, step) = (PlainCount::new(0), AtomicUsize::new(0));
        Self { words, page_size, transfers, fails_every, step }
    }

    fn frame(&self, number: usize) -> *mut u8 {
        let per_page = self.page_size.bytes() / 8;
        assert!(number * per_page < self.words.len(), "a frame of the device");
        // A pointer to the words of this frame and of those behind it, which a commit can be of.
        self.words[number * per_page..].as_ptr().cast_mut().cast()
    }
}

/// The memory, as the core has it.
pub(crate) struct Lent(pub(crate) Arc<TestMemory>);

// SAFETY: pages are touched within `begin` alone, and what goes into a frame comes from there.
unsafe impl CopyingMemory for Lent {
    fn begin(&self, transfer: &Transfer) -> Result<Begun, TransferError> {
        let memory = &self.0;
        let number = memory.transfers.fetch_add(1, Plain) + 1;
        let frames = transfer.frames();
        let per_page = memory.page_size.bytes() / 8;
        let words = &memory.words[frames.first * per_page..][..frames.count * per_page];
        let fails = memory.fails_every > 0 && number.is_multiple_of(memory.fails_every);
        for (place, word) in words.iter().enumerate() {
            match *transfer {
                // What fails has done something.
                _ if fails && place > 0 => break,
                Transfer::In { from, .. } => {
                    // SAFETY: there are as many words from there on, as the core says.
                    word.store(unsafe { from.cast::<u64>().add(place).read() }, Plain);
                }
                // SAFETY: as above.
                Transfer::Out { to, .. } => unsafe {
                    to.cast::<u64>().add(place).write(word.load(Plain));
                },
                Transfer::Zero { .. } => word.store(0, Plain),
                _ => return Err(TransferError::Failed { code: 2 }),
            }
        }
        let ticket = Ticket(u64::from(fails));
        // Others go on meanwhile.
        Ok(Begun::UnderWay(ticket))
    }

    fn is_far(&self) -> bool {
        true
    }

    fn finish(&self, Ticket(fails): Ticket) -> Result<(), TransferError> {
        self.0.step.load(Relaxed);
        if fails == 0 { Ok(()) } else { Err(TransferError::Failed { code: 1 }) }
    }
}

/// The device.
pub(crate) struct TestDevice {
    own: Option<Arc<TestMemory>>,
    page_size: PageSize,
    entries: EngineVec<Entry>,
    in_flight: InFlight,
    /// Whether it says what it has written.
    tells_writes: AtomicBool,
    /// A step that the explorer can put another thread before.
    step: AtomicUsize,
}

impl TestDevice {
    /// A device for the pages below `limit`, with `workers` workers.
    pub(crate) fn new(
        memory: &EngineMemory,
        page_size: PageSize,
        limit: PageNumber,
        workers: usize,
        own: Option<Arc<TestMemory>>,
    ) -> Self {
        let mut entries = EngineVec::try_with_capacity(memory, limit.0).unwrap();
        for _ in 0..limit.0 {
            let entry = Entry {
                memory: AtomicPtr::new(ptr::null_mut()),
                write: AtomicBool::new(false),
                used: AtomicBool::new(false),
                ever: AtomicBool::new(false),
                written: AtomicBool::new(false),
            };
            entries.try_push(entry).unwrap();
        }
        let in_flight = InFlight::new(memory, workers).unwrap();
        let tells_writes = AtomicBool::new(true);
        Self { own, page_size, entries, in_flight, tells_writes, step: AtomicUsize::new(0) }
    }

    /// Has it not say any more what it has written.
    #[cfg_attr(shuttle, expect(dead_code, reason = "for tests without schedules"))]
    pub(crate) fn hide_writes(&self) {
        self.tells_writes.store(false, Plain);
    }

    fn entries(&self, pages: PageRange) -> &[Entry] {
        &self.entries[pages.start().0..pages.end().0]
    }
}

// SAFETY: entries are made by `commit` alone; `invalidate` clears them and waits for the accesses
// in flight, which are the only use of a translation; nothing here waits for a call of the core.
unsafe impl PageTable for TestDevice {
    fn commit(&self, entries: &Entries) {
        // What is in place it faults on again, to have it in its memory.
        let memory = match (entries.translation, &self.own) {
            // Memory of the model does not go.
            (
                Translation::Frames { memory }
                | Translation::Alias { memory }
                | Translation::Peer { memory, .. },
                _,
            ) => memory.as_ptr(),
            (Translation::Copied { frame }, Some(own)) => own.frame(frame),
            _ => return,
        };
        for (place, entry) in self.entries(entries.pages).iter().enumerate() {
            let at = memory.wrapping_add(self.page_size.bytes_in(place));
            entry.ever.store(false, Plain);
            entry.write.store(entries.write, Plain);
            entry.memory.store(at, Release);
        }
    }

    fn invalidate(&self, invalidation: &Invalidation) {
        for entry in self.entries(invalidation.pages) {
            entry.memory.store(ptr::null_mut(), Relaxed);
        }
        self.in_flight.wait_for_accesses();
    }
}

// SAFETY: as above.
unsafe impl Device for TestDevice {
    fn has(&self, page: PageNumber, access: FaultAccess) -> bool {
        let entry = &self.entries[page.0];
        let write = access.access() == Access::Write;
        !entry.memory.load(Acquire).is_null() && (!write || entry.write.load(Plain))
    }

    fn take_written(&self, pages: PageRange) -> PageRange {
        if !self.tells_writes.load(Plain) {
            return pages;
        }
        let written = |entry: &&Entry| entry.written.swap(false, Plain);
        let mut entries = self.entries(pages).iter();
        match entries.position(|entry| written(&entry)) {
            None => PageRange::new(pages.end(), pages.end()),
            Some(place) => {
                let len = 1 + entries.take_while(written).count();
                PageRange::of(pages.start().plus(place), len)
            }
        }
    }

    fn take_use(&self, pages: PageRange) -> Use {
        let count = |flag: fn(&Entry) -> bool| {
            self.entries(pages).iter().filter(|&entry| flag(entry)).count()
        };
        Use {
            lately: count(|entry| entry.used.swap(false, Plain)),
            ever: count(|entry| entry.ever.load(Plain)),
        }
    }
}

/// A thread of the device while it runs.
pub(crate) struct Worker<'a> {
    attachment: &'a Attachment<TestDevice, Model>,
    lane: Lane<'a>,
}

impl<'a> Worker<'a> {
    /// The worker with this number, which no other thread is, for work that the program gives the
    /// device now.
    pub(crate) fn new(attachment: &'a Attachment<TestDevice, Model>, number: usize) -> Self {
        attachment.settle();
        // SAFETY: as the caller says, nobody else has the lane.
        let lane = unsafe { attachment.device().in_flight.open(number) };
        Self { attachment, lane }
    }

    /// Adds `value` to the word at `address`, by a load and a store: whoever else has the page at
    /// the same time loses an addition. Answers what was there.
    pub(crate) fn add(&mut self, address: usize, value: u64) -> Result<u64, DeviceFaultError> {
        let attachment = self.attachment;
        self.add_by(address, value, |address, access| attachment.fault(address, access))
    }

    /// As [`add`](Self::add), with `fault` for what the device has no translation of.
    fn add_by<E>(
        &mut self,
        address: usize,
        value: u64,
        fault: impl FnMut(usize, Access) -> Result<(), E>,
    ) -> Result<u64, E> {
        let step = &self.attachment.device().step;
        let add = |word: &AtomicU64| {
            let before = word.load(Plain);
            step.load(Relaxed);
            word.store(before.wrapping_add(value), Plain);
            before
        };
        self.access(address, Access::Write, add, fault)
    }

    /// Loads the word at `address`.
    pub(crate) fn load(&mut self, address: usize) -> Result<u64, DeviceFaultError> {
        let attachment = self.attachment;
        let fault = |address, access| attachment.fault(address, access);
        self.access(address, Access::Read, |word| word.load(Plain), fault)
    }

    fn access<R, E>(
        &mut self,
        address: usize,
        kind: Access,
        access: impl Fn(&AtomicU64) -> R,
        mut fault: impl FnMut(usize, Access) -> Result<(), E>,
    ) -> Result<R, E> {
        let device = self.attachment.device();
        let page = device.page_size.page_of(address);
        let offset = address - device.page_size.address_of(page);
        assert!(offset.is_multiple_of(8), "a word is aligned");
        let entry = &device.entries[page.0];
        loop {
            let result = self.lane.access(|| {
                let memory = NonNull::new(entry.memory.load(Acquire))?;
                if kind == Access::Write && !entry.write.load(Plain) {
                    return None;
                }
                entry.used.store(true, Plain);
                entry.ever.store(true, Plain);
                if kind == Access::Write {
                    entry.written.store(true, Plain);
                }
                // SAFETY: while the lane is entered the page is the device's; the word is aligned
                // and within it, and the device's threads touch it through atomics alone.
                Some(access(unsafe { AtomicU64::from_ptr(memory.as_ptr().add(offset).cast()) }))
            });
            match result {
                Some(result) => return Ok(result),
                None => fault(address, kind)?,
            }
        }
    }
}

/// A thread of the device that leaves what it misses in a fault buffer.
pub(crate) struct QueueWorker<'a, S: Serve> {
    worker: Worker<'a>,
    pub(crate) queue: FaultQueue<'a, S>,
}

impl<'a, S: Serve> QueueWorker<'a, S> {
    /// The worker, and the queue, with this number, which no other thread is. It serves by `serve` where
    /// nobody else does.
    pub(crate) fn new(
        attachment: &'a Attachment<TestDevice, Model>,
        buffer: &'a FaultBuffer,
        number: usize,
        serve: S,
    ) -> Self {
        let queue = buffer.open(QueueNumber(number), serve).unwrap();
        Self { worker: Worker::new(attachment, number), queue }
    }

    /// As [`Worker::add`].
    pub(crate) fn add(&mut self, address: usize, value: u64) -> Result<u64, QueueCancelled> {
        let Self { worker, queue } = self;
        worker.add_by(address, value, |address, access| {
            let access = match access {
                Access::Read => FaultAccess::Read,
                Access::Write => FaultAccess::Write,
            };
            queue.fault(address, access)
        })
    }
}
