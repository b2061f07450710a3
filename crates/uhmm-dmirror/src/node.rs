//! A node: one device of an address space, and what its calls do.
//!
//! Calls that go through the page table come one at a time. Each page is read or written by one access;
//! where there is no entry for it, the rest of the range is faulted, which counts as one fault.

use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use uhmm::{
    AddressSpace, AdoptError, AttachError, Attachment, DeviceIndex, Migration, PageEntry,
    PageError, PageState, Request, Want,
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    units::{AddressRange, PageNumber, PageRange, PageSize, RangeError},
};
use zerocopy::IntoBytes;

use crate::{
    command::{Command, Function, seen},
    error::Error,
    large::Large,
    program::{self, Area},
    table::{Accesses, Table},
};

/// Why there is no node.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NodeError {
    /// No engine memory.
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
    /// It cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// A device of one address space, with private memory or with coherent. Dropping it brings back what it
/// holds.
pub struct Node<'s> {
    space: &'s AddressSpace,
    attachment: Attachment<Table>,
    /// Held by the call that goes through the page table.
    through: Mutex<()>,
    large: Large,
}

impl core::fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Node").field("attachment", &self.attachment).finish_non_exhaustive()
    }
}

impl<'s> Node<'s> {
    /// Attaches a device with a private memory of `memory` bytes, rounded down to pages.
    ///
    /// # Errors
    /// [`NodeError`]; nothing is left behind then.
    pub fn attach(space: &'s AddressSpace, memory: usize) -> Result<Self, NodeError> {
        let frames = memory / space.page_size().bytes();
        let attachment = space.attach(Table::new(space)?, frames)?;
        Ok(Self { space, attachment, through: Mutex::new(()), large: Large::default() })
    }

    /// Attaches a device with a coherent memory of `memory` bytes, rounded down to pages: the program
    /// maps it too. It is set aside, so that much memory is in use as long as the node is there.
    ///
    /// # Errors
    /// [`NodeError`]; nothing is left behind then.
    pub fn attach_coherent(space: &'s AddressSpace, memory: usize) -> Result<Self, NodeError> {
        let frames = memory / space.page_size().bytes();
        let attachment = space.attach_coherent(Table::new(space)?, frames)?;
        Ok(Self { space, attachment, through: Mutex::new(()), large: Large::default() })
    }

    /// Moves `range` to the device, as far as it will go.
    ///
    /// # Errors
    /// [`RangeError`] where the range is not one of whole pages. What stays is in the report.
    pub fn migrate(&self, range: AddressRange) -> Result<Migration, RangeError> {
        self.attachment.migrate(range)
    }

    /// Brings back what of `range` is on the device.
    ///
    /// # Errors
    /// [`RangeError`] where the range is not one of whole pages. What stays is in the report.
    pub fn bring_back(&self, range: AddressRange) -> Result<Migration, RangeError> {
        self.attachment.bring_back(range)
    }

    /// Does what a call of `ioctl` asks for, with the address of its structure.
    ///
    /// # Errors
    /// [`enum@Error`]; [`Error::Invalid`] where there is no such call, [`Error::Fault`] where the structure
    /// cannot be read or written.
    ///
    /// # Safety
    /// As of [`run`](Self::run), for what the structure says.
    pub unsafe fn call(&self, request: u64, argument: usize) -> Result<(), Error> {
        let function = Function::of_request(request).ok_or(Error::Invalid)?;
        let mut command = Command::default();
        program::copy_from_program(argument, command.as_mut_bytes())?;
        // SAFETY: the caller's promise.
        unsafe { self.run(function, &mut command) }?;
        program::copy_to_program(argument, command.as_bytes())
    }

    /// Does what a call asks for. What it answers is in `command` where it does not fail.
    ///
    /// # Errors
    /// [`enum@Error`], as of the kernel's device. What was moved, read or written before stays so.
    ///
    /// # Safety
    /// The range and the buffer are memory that the program lets its device have for this call: what is
    /// read nobody writes meanwhile, what is written nobody else uses meanwhile, but as a device.
    pub unsafe fn run(&self, function: Function, command: &mut Command) -> Result<(), Error> {
        if function == Function::Flags {
            self.large.set(command.pages);
            return Ok(());
        }
        let mut call = Call::new(self, command)?;
        // What the program unmapped or moved before, the device has no entry of.
        self.attachment.settle();
        match function {
            Function::Read => call.access(Want::Read),
            Function::Write => call.access(Want::Write),
            Function::MigrateToDevice => call.migrate_to_device(),
            Function::MigrateToSystem => call.migrate_to_system(),
            Function::Snapshot => call.snapshot(),
            Function::Exclusive => call.make_exclusive(),
            Function::CheckExclusive => call.check_exclusive(),
            Function::Release => {
                self.attachment.bring_all_back();
                Ok(())
            }
            // They were set above.
            Function::Flags => Ok(()),
        }?;
        (command.done, command.faults) = (call.done as u64, call.faults);
        Ok(())
    }
}

/// A call under way.
struct Call<'n, 's> {
    node: &'n Node<'s>,
    range: AddressRange,
    pages: PageRange,
    page_size: PageSize,
    /// Where the buffer starts.
    buffer: usize,
    done: usize,
    faults: u64,
}

impl<'n, 's> Call<'n, 's> {
    fn new(node: &'n Node<'s>, command: &Command) -> Result<Self, Error> {
        let page_size = node.space.page_size();
        let number = |number| usize::try_from(number).map_err(|_| Error::Invalid);
        let bytes = number(command.pages)?.checked_mul(page_size.bytes()).ok_or(Error::Invalid)?;
        let range =
            AddressRange::new(number(command.address)?, bytes).map_err(|_| Error::Invalid)?;
        let pages = range.pages(page_size).map_err(|_| Error::Invalid)?;
        if pages.end() > node.space.page_limit() {
            return Err(Error::Invalid);
        }
        Ok(Self {
            node,
            range,
            pages,
            page_size,
            buffer: number(command.data)?,
            done: 0,
            faults: 0,
        })
    }

    fn memory(&self) -> &'n EngineMemory {
        self.node.attachment.engine_memory()
    }

    /// The addresses of some of the pages.
    fn addresses(&self, pages: PageRange) -> Result<AddressRange, Error> {
        AddressRange::of_pages(pages, self.page_size).map_err(|_| Error::Invalid)
    }

    /// Where in the buffer a page of the range is.
    fn in_buffer(&self, page: PageNumber) -> usize {
        self.buffer.wrapping_add(self.page_size.bytes_in(page.since(self.pages.start())))
    }

    /// A page's worth of bytes.
    fn page_buffer(&self) -> Result<EngineVec<u8>, Error> {
        let mut bytes = EngineVec::try_with_capacity(self.memory(), self.page_size.bytes())?;
        for _ in 0..self.page_size.bytes() {
            bytes.try_push(0)?;
        }
        Ok(bytes)
    }

    /// Accesses through the page table, of this call alone.
    fn accesses(&self) -> Result<(Accesses<'n>, MutexGuard<'n, ()>), Error> {
        let guard = self.node.through.lock().unwrap_or_else(PoisonError::into_inner);
        let in_place = self.node.attachment.in_place().map_err(|_| Error::NoMemory)?;
        // SAFETY: the lock is held for as long as they last.
        Ok((unsafe { self.node.attachment.device().accesses(in_place) }, guard))
    }

    /// The device reads the range to the buffer, or writes it from there.
    fn access(&mut self, want: Want) -> Result<(), Error> {
        let mut bytes = self.page_buffer()?;
        let (mut accesses, _guard) = self.accesses()?;
        for page in self.pages.pages() {
            let buffer = self.in_buffer(page);
            if want == Want::Write {
                program::copy_from_program(buffer, &mut bytes)?;
            }
            loop {
                let done = match want {
                    Want::Write => accesses.write(page, &bytes),
                    _ => accesses.read(page, &mut bytes),
                };
                if done {
                    break;
                }
                // It may be taken away again before it is used, by who needs it more: each fault is
                // served, or an error.
                self.fault(PageRange::new(page, self.pages.end()), want)?;
                self.faults += 1;
            }
            if want != Want::Write {
                program::copy_to_program(buffer, &bytes)?;
            }
            self.done += 1;
        }
        Ok(())
    }

    /// Has the rest of the range made accessible to the device.
    fn fault(&self, rest: PageRange, want: Want) -> Result<(), Error> {
        let attachment = &self.node.attachment;
        let report = attachment
            .fault_range(&Request::new(self.addresses(rest)?, want).anew())
            .map_err(|_| Error::Invalid)?;
        let Some(failure) = report.failures().next() else {
            // Where the list was too long for memory.
            return if report.failed() > 0 { Err(Error::NoMemory) } else { Ok(()) };
        };
        match failure.error {
            PageError::NoMemory => Err(Error::NoMemory),
            PageError::Protection if want == Want::Write => {
                let mut entry = [PageEntry::default()];
                let one = PageRange::of(failure.pages.start(), 1);
                attachment.snapshot(self.addresses(one)?, &mut entry).map_err(|_| Error::Fault)?;
                // It can be read, so what is lacking is the right to write.
                let readable = !matches!(entry[0].state, PageState::Error(_));
                Err(if readable { Error::NotPermitted } else { Error::Fault })
            }
            _ => Err(Error::Fault),
        }
    }

    /// What the device would see.
    fn look(&self) -> Result<EngineVec<PageEntry>, Error> {
        let mut entries = EngineVec::try_with_capacity(self.memory(), self.pages.len())?;
        for _ in 0..self.pages.len() {
            entries.try_push(PageEntry::default())?;
        }
        self.node.attachment.snapshot(self.range, &mut entries).map_err(|_| Error::Invalid)?;
        Ok(entries)
    }

    /// The areas of the range, all of which can be read.
    fn readable_areas(&self) -> Result<Vec<Area>, Error> {
        let areas = program::areas(self.range)?;
        if areas.iter().all(|area| area.readable) { Ok(areas) } else { Err(Error::Invalid) }
    }

    fn migrate_to_device(&mut self) -> Result<(), Error> {
        let areas = self.readable_areas()?;
        if areas.iter().any(|area| area.file && !area.shared && !area.hugetlb) {
            // Where there are other threads, or the system refuses, they stay.
            let _ = self.node.space.make_anonymous(self.range);
        }
        // What is on another device stays there, as with the kernel, which takes from the system alone.
        let entries = self.look()?;
        let own = self.node.attachment.index();
        let may_go = |entry: &PageEntry| {
            !matches!(entry.state, PageState::Peer(_))
                && entry.coherent.is_none_or(|device| device == own)
        };
        let mut at = self.pages.start();
        for run in entries.chunk_by(|one, next| may_go(one) == may_go(next)) {
            let pages = PageRange::of(at, run.len());
            at = pages.end();
            if !may_go(&run[0]) {
                continue;
            }
            for part in self.private_parts(&areas, pages) {
                // What cannot be adopted cannot go; what of it went is told by what the device has.
                if self.adopt(part)? {
                    let part = part.pages_touched(self.page_size);
                    for part in self.node.large.parts(part, (self.pages, &entries)) {
                        let part = self.addresses(part)?;
                        self.node.attachment.migrate(part).map_err(|_| Error::Invalid)?;
                    }
                }
            }
        }
        self.copy_out()?;
        if self.done > 0 { Ok(()) } else { Err(Error::NothingMoved) }
    }

    /// The parts of `pages` that lie in areas whose pages can be the device's alone.
    fn private_parts(
        &self,
        areas: &[Area],
        pages: PageRange,
    ) -> impl Iterator<Item = AddressRange> {
        let page_size = self.page_size;
        areas.iter().filter(|area| !area.shared && !area.hugetlb).filter_map(move |area| {
            let first = page_size.page_of(area.addresses.start);
            let end = page_size.page_of(area.addresses.end);
            let part = PageRange::new(first, end).intersection(pages);
            AddressRange::of_pages(part, page_size).ok()
        })
    }

    /// Lets the device have a part of an area. Answers whether it may.
    fn adopt(&self, part: AddressRange) -> Result<bool, Error> {
        match self.node.space.adopt(part) {
            Ok(_) => Ok(true),
            Err(AdoptError::Memory(_)) => Err(Error::NoMemory),
            Err(_) => Ok(false),
        }
    }

    /// Copies to the buffer what of the range is in the device's memory.
    fn copy_out(&mut self) -> Result<(), Error> {
        let mut bytes = self.page_buffer()?;
        let table = self.node.attachment.device();
        let (mut accesses, _guard) = self.accesses()?;
        for page in self.pages.pages() {
            if table.is_in_frame(page) && accesses.read(page, &mut bytes) {
                program::copy_to_program(self.in_buffer(page), &bytes)?;
                self.done += 1;
            }
        }
        Ok(())
    }

    fn migrate_to_system(&mut self) -> Result<(), Error> {
        self.readable_areas()?;
        let large = &self.node.large;
        let entries = if large.may_fail() { Some(self.look()?) } else { None };
        for part in large.parts(self.pages, (self.pages, entries.as_deref().unwrap_or_default())) {
            let part = self.addresses(part)?;
            let report = self.node.attachment.bring_back(part).map_err(|_| Error::Invalid)?;
            self.done += report.moved();
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<(), Error> {
        let entries = self.look()?;
        let mut bytes = EngineVec::try_with_capacity(self.memory(), entries.len())?;
        for entry in entries.iter() {
            bytes.try_push(as_seen(entry, self.node.attachment.index(), self.page_size))?;
        }
        program::copy_to_program(self.buffer, &bytes)?;
        self.done = entries.len();
        Ok(())
    }

    fn make_exclusive(&mut self) -> Result<(), Error> {
        let areas = program::areas(self.range)?;
        for part in self.private_parts(&areas, self.pages) {
            if !self.adopt(part)? {
                return Err(Error::Busy);
            }
            let made = self.node.attachment.make_exclusive(part).map_err(|_| Error::Invalid)?;
            if made.stayed() > 0 {
                return Err(Error::Busy);
            }
        }
        self.copy_out()?;
        // The processor may have taken one back meanwhile.
        if self.done == self.pages.len() { Ok(()) } else { Err(Error::Busy) }
    }

    fn check_exclusive(&self) -> Result<(), Error> {
        let still =
            self.look()?.iter().any(|entry| entry.exclusive && entry.state == PageState::Own);
        if still { Err(Error::NotPermitted) } else { Ok(()) }
    }
}

/// The byte of a page in a snapshot.
fn as_seen(entry: &PageEntry, own: DeviceIndex, page_size: PageSize) -> u8 {
    let may = if entry.write { seen::WRITE } else { seen::READ };
    let place = match entry.state {
        PageState::Error(_) => return seen::ERROR,
        // A page on another device is none of this one's.
        PageState::None | PageState::Peer(_) => return seen::NONE,
        PageState::InPlace => match entry.coherent {
            Some(device) if device == own => seen::COHERENT_OWN,
            Some(_) => seen::COHERENT_OTHER,
            None if entry.zero => seen::ZERO,
            None => 0,
        },
        PageState::Own => seen::PRIVATE_OWN,
    };
    let size = match page_size.bytes() << entry.order {
        0x20_0000 => seen::ENTRY_2M,
        0x4000_0000 => seen::ENTRY_1G,
        _ => 0,
    };
    place | may | size
}
