//! Accesses to the program's memory in place.
//!
//! They are made by a few routines in assembly. A page that is gone, or may not be touched so, raises
//! a signal, whose handler has the access end as refused. A trapped hole raises none: the thread
//! waits in the kernel, and a message tells of it. So a thread that makes accesses has a place in a
//! table, where it notes, by a plain store, that one is under way. Who reads a message of such a
//! thread passes it on to nobody, and sends the thread a signal, with the same end. And who waits
//! for accesses to end, when nobody may be reading, sends that signal itself.
//!
//! A fault of such a thread outside of its accesses is a fault as any.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
mod processor;
mod routines;
mod signals;

use core::{
    ptr::{self, NonNull},
    sync::atomic::{
        AtomicU32, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use rustix::{
    io::Errno as E,
    mm::{Advice, MapFlags, ProtFlags},
};

use crate::{
    mm::{Accessor, AccessorNumber, Errno},
    sync::{Lock, SignalsBlocked},
    units::AddressRange,
};

pub(super) use self::routines::{compare_exchange, copy, fetch_add, load, store};

/// How many threads can have accessors at once.
const THREADS: usize = 256;

/// The threads that have accessors.
///
/// # Invariants
/// `table` is a mapping of our own, zeros at first, until this is dropped.
#[derive(Debug)]
pub(super) struct Accessors {
    table: NonNull<Table>,
    taking: Lock<()>,
}

// SAFETY: the table is made of atomics and belongs to no thread.
unsafe impl Send for Accessors {}
// SAFETY: as above.
unsafe impl Sync for Accessors {}

/// All places. Zeros are a table without threads.
#[derive(Debug)]
struct Table {
    /// How many places were ever taken.
    taken: AtomicUsize,
    /// The system's number of each place's thread; zero where the place is free.
    threads: [AtomicU32; THREADS],
    places: [Place; THREADS],
}

/// What a thread keeps in its place, on cache lines of its own. It alone writes there.
#[derive(Debug)]
#[repr(align(128))]
struct Place {
    /// Not zero while an access is under way.
    busy: AtomicU32,
    /// How many accessors the thread has of this table.
    accessors: AtomicU32,
}

impl Accessors {
    /// An empty table.
    pub(super) fn new() -> Result<Self, Errno> {
        let protection = ProtFlags::READ.union(ProtFlags::WRITE);
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe {
            let len = size_of::<Table>();
            rustix::mm::mmap_anonymous(ptr::null_mut(), len, protection, MapFlags::SHARED)?
        };
        let Some(table) = NonNull::new(start.cast()) else { return Err(E::NOMEM.into()) };
        let accessors = Self { table, taking: Lock::new(()) };
        // A child has none of the threads.
        // SAFETY: the new mapping, which nobody uses yet.
        unsafe { rustix::mm::madvise(start, size_of::<Table>(), Advice::LinuxDontFork)? };
        Ok(accessors)
    }

    /// Where the table is, which is touched by who serves faults.
    pub(super) fn range(&self) -> Option<AddressRange> {
        AddressRange::new(self.table.as_ptr().addr(), size_of::<Table>()).ok()
    }

    fn table(&self) -> &Table {
        // SAFETY: by the invariant it is mapped; zeros, and what was stored since, are a table.
        unsafe { self.table.as_ref() }
    }

    /// Gives the calling thread an accessor.
    ///
    /// # Errors
    /// `EAGAIN` where as many threads have one as can; those of [`signals::install`] and
    /// [`signals::send`].
    pub(super) fn open(&self) -> Result<Accessor, Errno> {
        let me = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let accessor = Accessor::new(self.take_place(me)?);
        let place = self.place(accessor.number());
        place.accessors.store(place.accessors.load(Relaxed) + 1, Relaxed);
        signals::open();
        // What will end accesses is tried while it is not needed yet.
        if let Err(error) = signals::send(me) {
            self.close(accessor);
            return Err(error);
        }
        Ok(accessor)
    }

    /// The place of the thread `me`, taken for it where it has none.
    fn take_place(&self, me: u32) -> Result<AccessorNumber, Errno> {
        let signals = SignalsBlocked::new();
        let _taking = self.taking.lock(&signals);
        signals::install()?;
        let table = self.table();
        let places = (0_u32..).zip(&table.threads);
        let find = |thread| places.clone().find(|(_, other)| other.load(Relaxed) == thread);
        let Some((number, thread)) = find(me).or_else(|| find(0)) else {
            return Err(E::AGAIN.into());
        };
        let index = number as usize;
        // A place of the number can have been left behind by an earlier thread of that number.
        if signals::none_open() {
            table.places[index].accessors.store(0, Relaxed);
        }
        thread.store(me, Release);
        table.taken.fetch_max(index + 1, Release);
        Ok(AccessorNumber(number))
    }

    /// Sees to it that our handlers are in front, where the program has put its own there since.
    ///
    /// # Errors
    /// Those of [`signals::install`].
    pub(super) fn renew(&self) -> Result<(), Errno> {
        let signals = SignalsBlocked::new();
        let _taking = self.taking.lock(&signals);
        signals::install()
    }

    /// Takes an accessor back, on its thread.
    pub(super) fn close(&self, accessor: Accessor) {
        let number = accessor.into_number();
        let place = self.place(number);
        let left = place.accessors.load(Relaxed).saturating_sub(1);
        place.accessors.store(left, Relaxed);
        if left == 0 {
            self.table().threads[index_of(number)].store(0, Release);
        }
        signals::close();
    }

    fn place(&self, number: AccessorNumber) -> &Place {
        &self.table().places[index_of(number)]
    }

    /// Where an accessor's thread notes that an access is under way.
    pub(super) fn busy(&self, accessor: &Accessor) -> &AtomicU32 {
        &self.place(accessor.number()).busy
    }

    /// Has the access end that is under way through that accessor, if one is.
    pub(super) fn refuse(&self, number: AccessorNumber) {
        let index = index_of(number);
        let table = self.table();
        let thread = table.threads[index].load(Acquire);
        if thread != 0 && table.places[index].busy.load(Acquire) != 0 {
            // Where the thread has gone its access has ended.
            let _ = signals::send(thread);
        }
    }

    /// Has the access end in which `thread` met a trapped hole. Answers whether it was one: else the
    /// fault is as any.
    pub(super) fn refuse_fault_of(&self, thread: u32) -> bool {
        let table = self.table();
        let taken = table.taken.load(Acquire);
        table.threads[..taken]
            .iter()
            .position(|other| other.load(Acquire) == thread)
            .is_some_and(|index| table.places[index].busy.load(Acquire) != 0)
            && signals::send(thread).is_ok()
    }
}

impl Drop for Accessors {
    fn drop(&mut self) {
        // SAFETY: by the invariant the mapping is ours, and whoever used it borrowed this.
        let _ = unsafe { rustix::mm::munmap(self.table.as_ptr().cast(), size_of::<Table>()) };
    }
}

const fn index_of(number: AccessorNumber) -> usize {
    number.0 as usize
}

#[cfg(all(test, not(shuttle)))]
#[expect(clippy::disallowed_methods, reason = "tests are off the fault path")]
mod tests;
