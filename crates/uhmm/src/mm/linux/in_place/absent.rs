//! Accesses in place where there are no routines for the processor, or under the interpreter: there
//! are none. No accessor can be opened, so nothing else is ever called.

use core::sync::atomic::AtomicU32;

use crate::{
    mm::{Accessor, AccessorNumber, Errno, Refused, Width},
    units::AddressRange,
};

/// The threads that have accessors: none.
#[derive(Debug)]
pub(super) struct Accessors;

#[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the interface of `in_place`")]
impl Accessors {
    pub(super) const fn new() -> Result<Self, Errno> {
        Ok(Self)
    }

    pub(super) const fn range(&self) -> Option<AddressRange> {
        None
    }

    pub(super) const fn open(&self) -> Result<Accessor, Errno> {
        Err(Errno(libc::ENOSYS))
    }

    pub(super) const fn renew(&self) -> Result<(), Errno> {
        Ok(())
    }

    pub(super) fn close(&self, accessor: Accessor) {
        accessor.into_number();
    }

    pub(super) fn busy(&self, _accessor: &Accessor) -> &AtomicU32 {
        static NEVER: AtomicU32 = AtomicU32::new(0);
        &NEVER
    }

    pub(super) const fn refuse(&self, _number: AccessorNumber) {}

    pub(super) const fn refuse_fault_of(&self, _thread: u32) -> bool {
        false
    }
}

pub(super) unsafe fn load(_: &AtomicU32, _: usize, _: Width) -> Result<u64, Refused> {
    Err(Refused)
}

pub(super) unsafe fn store(_: &AtomicU32, _: usize, _: Width, _: u64) -> Result<(), Refused> {
    Err(Refused)
}

pub(super) unsafe fn compare_exchange(
    _: &AtomicU32,
    _: usize,
    _: Width,
    _: u64,
    _: u64,
) -> Result<u64, Refused> {
    Err(Refused)
}

pub(super) unsafe fn fetch_add(_: &AtomicU32, _: usize, _: Width, _: u64) -> Result<u64, Refused> {
    Err(Refused)
}

pub(super) unsafe fn copy(
    _: &AtomicU32,
    _: *mut u8,
    _: *const u8,
    _: usize,
) -> Result<(), Refused> {
    Err(Refused)
}
