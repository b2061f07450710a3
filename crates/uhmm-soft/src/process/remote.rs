//! What the core has of a device process: a page table, and a memory behind a bus.

use uhmm::{
    AddressSpace, Begun, CopyingMemory, Device, Entries, Invalidation, PageTable, PrepareError,
    Shared, Ticket, Transfer, TransferError, Translation, Use, copy_bytes,
    engine_memory::EngineMemoryError,
    mm::{Access, Mm},
    ring::Command,
    units::PageRange,
};

use super::{link::Link, pages::PageFrames};
use crate::bus::{Bus, BusLine};

/// The device's page table, which is in the other process: what the core tells goes there.
pub(super) struct Remote {
    link: Shared<Link>,
    frames: PageFrames,
}

impl Remote {
    /// The table of the process at the other end of `link`, which is empty.
    pub(super) fn new<M: Mm>(
        space: &AddressSpace<M>,
        link: Shared<Link>,
    ) -> Result<Self, EngineMemoryError> {
        let frames = PageFrames::new(space.engine_memory(), space.page_limit())?;
        Ok(Self { link, frames })
    }
}

// SAFETY: the device touches its own frames alone, by translations that commits gave it; when an
// invalidation returns it has applied it, or is gone. Nothing here uses the heap or waits for a call of the
// core, and waiting for the device is as long as it has patience.
unsafe impl PageTable for Remote {
    fn prepare(&self, pages: PageRange, _: Access) -> Result<(), PrepareError> {
        Ok(self.frames.prepare(pages)?)
    }

    fn commit(&self, entries: &Entries) {
        // What is elsewhere it cannot reach.
        if let Translation::Copied { frame } = entries.translation
            && self.frames.enter(entries.pages, frame)
        {
            let command = Command::Commit { pages: entries.pages, frame, write: entries.write };
            let _ = self.link.command(&command);
        }
    }

    fn invalidate(&self, invalidation: &Invalidation) {
        if let Some(sent) = self.link.command(&Command::Invalidate { pages: invalidation.pages }) {
            self.link.wait_applied(sent);
        }
    }
}

// SAFETY: as above.
unsafe impl Device for Remote {
    /// The other process applies them in their order, so the last is waited for.
    fn invalidate_all(&self, invalidations: &[Invalidation]) {
        let sent = |invalidation: &Invalidation| {
            self.link.command(&Command::Invalidate { pages: invalidation.pages })
        };
        if let Some(last) = invalidations.iter().map(sent).fold(None, |last, sent| sent.or(last)) {
            self.link.wait_applied(last);
        }
    }

    fn take_use(&self, pages: PageRange) -> Use {
        let notes = self.link.mapping.notes();
        let mut total = Use::default();
        for frame in pages.pages().filter_map(|page| self.frames.frame(page)) {
            let [lately, ever] = notes.take_use(frame);
            total.lately += usize::from(lately);
            total.ever += usize::from(ever);
        }
        total
    }

    /// A page that there was no translation of has not been written, whatever is noted of frames. Of a process
    /// that is gone it is not known how far it came.
    fn take_written(&self, pages: PageRange) -> PageRange {
        if self.link.is_dead() {
            return pages;
        }
        let notes = self.link.mapping.notes();
        let mut written = pages.pages().map(|page| {
            let frame = self.frames.take(page);
            frame.is_some_and(|frame| notes.take_written(frame))
        });
        match written.by_ref().position(|is_written| is_written) {
            Some(first) => {
                let count = 1 + written.take_while(|&is_written| is_written).count();
                PageRange::of(pages.start().plus(first), count)
            }
            None => PageRange::of(pages.end(), 0),
        }
    }
}

/// The frames, which both processes have.
pub(super) struct RemoteMemory {
    link: Shared<Link>,
    bus: BusLine,
}

impl RemoteMemory {
    /// The frames of the process at the other end of `link`, behind such a bus.
    pub(super) fn new(link: Shared<Link>, bus: Bus) -> Self {
        Self { link, bus: BusLine::new(bus) }
    }
}

// SAFETY: a transfer touches the pages before `begin` returns, and no more after; what goes into a frame is
// copied from there, and the other process writes what it has a translation of; nothing here uses the heap, and
// a wait for the bus is as long as its speed says.
unsafe impl CopyingMemory for RemoteMemory {
    fn begin(&self, transfer: &Transfer) -> Result<Begun, TransferError> {
        if self.link.is_dead() {
            return Err(TransferError::Lost);
        }
        let (mapping, frames) = (&self.link.mapping, transfer.frames());
        let (frame, len) = mapping.part(frames.first, frames.count);
        if !matches!(transfer, Transfer::Out { .. }) {
            mapping.notes().clear(frames.first..frames.first + frames.count);
        }
        // SAFETY: the frames are in the mapping, and the pages are as many bytes, are there, and apart
        // from it, as the core says. Another process can write the frames meanwhile only against the
        // protocol: the bytes are then any bytes.
        unsafe {
            match *transfer {
                Transfer::In { from, .. } => copy_bytes(from, frame, len),
                Transfer::Out { to, .. } => copy_bytes(frame, to, len),
                Transfer::Zero { .. } => frame.write_bytes(0, len),
                _ => return Err(TransferError::Failed { code: libc_enosys() }),
            }
        }
        Ok(self.bus.carry(transfer, len))
    }

    fn finish(&self, ticket: Ticket) -> Result<(), TransferError> {
        self.bus.wait(ticket);
        Ok(())
    }

    fn is_far(&self) -> bool {
        self.bus.is_slow()
    }

    fn mapped(&self) -> Option<PageRange> {
        let mapping = &self.link.mapping;
        let (first, _) = mapping.part(0, mapping.frames());
        let first = mapping.page_size().page_of(first.as_ptr().addr());
        Some(PageRange::of(first, mapping.frames()))
    }
}

/// What a transfer of a kind that the device does not know says.
const fn libc_enosys() -> i32 {
    rustix::io::Errno::NOSYS.raw_os_error()
}
