//! What runs on the device's threads: accesses through the page table, and faults.

use core::ptr::NonNull;

use thiserror::Error;
use uhmm::{
    Attachment, DeviceFaultError, Lane,
    mm::{Mm, linux::Linux},
    units::{PageNumber, PageSize},
};

use crate::{
    plain::Plain,
    table::{Leaf, Table},
};

/// Why an access of the device failed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AccessError {
    /// The page cannot be had.
    #[error(transparent)]
    Fault(#[from] DeviceFaultError),
    /// the range wraps around the end of the address space
    #[error("an access of {len} bytes at {address:#x} wraps around the end of the address space")]
    Wraps {
        /// Where it starts.
        address: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// The access was told to fail by the kernel that made it.
    #[error("the kernel gave up at {address:#x}")]
    GivenUp {
        /// An address that the kernel names.
        address: usize,
    },
}

const KNOWN_LEAVES: usize = 64;

/// A thread of the device while it runs a kernel: the kernel's way to memory.
///
/// Addresses are the program's own. An access of a number that is aligned is one access; longer
/// ones are made of pieces, each within one page.
pub struct Worker<'a, M: Mm = Linux> {
    attachment: &'a Attachment<Table, M>,
    lane: Lane<'a>,
    page_size: PageSize,
    /// Leaves found before, by block number. A leaf stays where it is.
    known: [Option<(usize, &'a Leaf)>; KNOWN_LEAVES],
}

impl<'a, M: Mm> Worker<'a, M> {
    pub(crate) fn new(attachment: &'a Attachment<Table, M>, lane: Lane<'a>) -> Self {
        Self { attachment, lane, page_size: attachment.page_size(), known: [None; KNOWN_LEAVES] }
    }

    /// Loads a number.
    ///
    /// # Errors
    /// [`AccessError`] where the page cannot be had.
    pub fn load<T: Plain>(&mut self, address: usize) -> Result<T, AccessError> {
        if address.is_multiple_of(align_of::<T>()) {
            // SAFETY: an aligned number lies within its page, where the closure's pointer is valid.
            return self.access(address, |at| unsafe { T::load(at.as_ptr()) });
        }
        let mut bytes = [0; 16];
        let bytes = &mut bytes[..size_of::<T>()];
        self.read(address, bytes)?;
        Ok(T::from_bytes(bytes))
    }

    /// Stores a number.
    ///
    /// # Errors
    /// [`AccessError`] where the page cannot be had.
    pub fn store<T: Plain>(&mut self, address: usize, value: T) -> Result<(), AccessError> {
        if address.is_multiple_of(align_of::<T>()) {
            // SAFETY: an aligned number lies within its page, where the closure's pointer is valid.
            return self.access(address, |at| unsafe { value.store(at.as_ptr()) });
        }
        let mut bytes = [0; 16];
        let bytes = &mut bytes[..size_of::<T>()];
        value.to_bytes(bytes);
        self.write(address, bytes)
    }

    /// Loads consecutive numbers, from an address that is aligned for them, into `values`.
    ///
    /// # Errors
    /// [`AccessError`]; `values` may be filled in part then.
    pub fn load_slice<T: Plain>(
        &mut self,
        address: usize,
        values: &mut [T],
    ) -> Result<(), AccessError> {
        check(address, size_of_val(values))?;
        if !address.is_multiple_of(align_of::<T>()) {
            for (index, value) in values.iter_mut().enumerate() {
                *value = self.load(address + index * size_of::<T>())?;
            }
            return Ok(());
        }
        let mut done = 0;
        while done < values.len() {
            let at = address + done * size_of::<T>();
            let in_page = (self.left_in_page(at) / size_of::<T>()).min(values.len() - done);
            let part = &mut values[done..done + in_page];
            self.access(at, |from| {
                for (index, value) in part.iter_mut().enumerate() {
                    // SAFETY: `in_page` numbers lie within the page, and are aligned.
                    *value = unsafe { T::load(from.as_ptr().add(index * size_of::<T>())) };
                }
            })?;
            done += in_page;
        }
        Ok(())
    }

    /// Loads bytes into `bytes`.
    ///
    /// # Errors
    /// [`AccessError`]; `bytes` may be filled in part then.
    pub fn read(&mut self, address: usize, bytes: &mut [u8]) -> Result<(), AccessError> {
        self.load_slice(address, bytes)
    }

    /// Stores `bytes`.
    ///
    /// # Errors
    /// [`AccessError`]; they may be stored in part then.
    pub fn write(&mut self, address: usize, bytes: &[u8]) -> Result<(), AccessError> {
        check(address, bytes.len())?;
        let mut done = 0;
        while done < bytes.len() {
            let at = address + done;
            let in_page = self.left_in_page(at).min(bytes.len() - done);
            let part = &bytes[done..done + in_page];
            self.access(at, |to| {
                for (index, &byte) in part.iter().enumerate() {
                    // SAFETY: `in_page` bytes lie within the page.
                    unsafe { byte.store(to.as_ptr().add(index)) };
                }
            })?;
            done += in_page;
        }
        Ok(())
    }

    fn left_in_page(&self, address: usize) -> usize {
        self.page_size.bytes() - address % self.page_size.bytes()
    }

    /// Runs `access` with the place of `address` in the device's memory, after as many faults as it
    /// takes. The place is valid up to the end of its page while `access` runs.
    fn access<R>(
        &mut self,
        address: usize,
        mut access: impl FnMut(NonNull<u8>) -> R,
    ) -> Result<R, AccessError> {
        let page = self.page_size.page_of(address);
        let offset = address % self.page_size.bytes();
        loop {
            if let Some(leaf) = self.leaf(page) {
                let (place, page_size) = (page.in_block(), self.page_size);
                let result = self.lane.access(|| {
                    let memory = leaf.translate(place, page_size)?;
                    // SAFETY: the offset is within the page.
                    Some(access(unsafe { memory.add(offset) }))
                });
                if let Some(result) = result {
                    return Ok(result);
                }
            }
            self.attachment.fault(address)?;
        }
    }

    fn leaf(&mut self, page: PageNumber) -> Option<&'a Leaf> {
        let block = page.block().0;
        let known = &mut self.known[block % KNOWN_LEAVES];
        match known {
            Some((number, leaf)) if *number == block => Some(leaf),
            _ => {
                let leaf = self.attachment.device().leaf(page)?;
                *known = Some((block, leaf));
                Some(leaf)
            }
        }
    }
}

const fn check(address: usize, len: usize) -> Result<(), AccessError> {
    if address.checked_add(len).is_none() {
        return Err(AccessError::Wraps { address, len });
    }
    Ok(())
}
