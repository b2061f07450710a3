//! Accesses of a device in place: as the CPU's own, but that a missing page or a trapped hole ends
//! them as refused.

use core::ops::Range;

use super::Model;
use crate::mm::{Access, Accessor, Refused, Width};

impl Model {
    /// What is reached in place at an address: an alias is where [`staging_pointer`](crate::mm::Mm::staging_pointer) says, as it is for
    /// devices that access it as memory, and all else is the program's.
    pub(super) fn address_in_place(&self, address: usize) -> usize {
        let aliases = self.shared.aliases;
        let start = self.shared.bytes.pointer(aliases.start()).addr().get();
        match address.checked_sub(start) {
            Some(offset) if offset < self.shared.page_size.bytes_in(aliases.len()) => {
                self.shared.page_size.address_of(aliases.start()) + offset
            }
            _ => address,
        }
    }

    /// Has `change` say what to store for what is there, if anything, as one step. Answers what was
    /// there.
    pub(super) fn change_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
        access: Access,
        change: impl FnOnce(u64) -> Option<u64>,
    ) -> Result<u64, Refused> {
        assert!(address.is_multiple_of(width.bytes()), "an access in place is aligned");
        let address = self.address_in_place(address);
        let page = self.shared.page_size.page_of(address);
        let offset = address - self.shared.page_size.address_of(page);
        let held = self.fault_in_for(Some(accessor.number()), page, access);
        let mut held = held.map_err(|_failure| Refused)?;
        let mut bytes = [0; size_of::<u64>()];
        let low = low_bytes(width);
        held.pages.read(page, offset, &mut bytes[low.clone()]);
        let before = u64::from_ne_bytes(bytes);
        if let Some(after) = change(before) {
            held.pages.write(page, offset, &after.to_ne_bytes()[low]);
        }
        Ok(before)
    }
}

/// Where in a word of eight bytes its lowest ones are.
const fn low_bytes(width: Width) -> Range<usize> {
    if cfg!(target_endian = "big") { 8 - width.bytes()..8 } else { 0..width.bytes() }
}
