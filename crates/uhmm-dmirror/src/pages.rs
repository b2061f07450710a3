//! `gup_test`, by emulation: the kernel's tester of how drivers get a program's pages.
//!
//! The kernel's gets pages by `get_user_pages` and lets go of them. A program cannot call that. What it
//! does to pages is what counts for who looks after: each is made present and the program's own, as by a
//! store, and what a device holds privately comes back for it. So that is what is done here, and no pin is
//! taken.
//!
//! Source: `mm/gup_test.c` and `mm/gup_test.h` of Linux 6.12.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{node::Error, program};

/// What a call is given.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Argument {
    get_microseconds: u64,
    put_microseconds: u64,
    address: u64,
    bytes: u64,
    pages_per_call: u32,
    flags: u32,
    test_flags: u32,
    which_pages: [u32; 8],
    padding: u32,
}

/// `_IOWR('g', 1, struct gup_test)`.
const FIRST: u64 = 3 << 30 | (size_of::<Argument>() as u64) << 16 | (b'g' as u64) << 8 | 1;
/// How many calls there are that get pages and let them go: by `get_user_pages` and `pin_user_pages`, fast
/// or not, for long or not.
const CALLS: u64 = 5;

/// Does what a call of `ioctl` on the tester asks for; `argument` is the address of its structure.
///
/// # Errors
/// [`Error::Invalid`] where there is no such call, [`Error::Fault`] where a page cannot be had.
pub fn get_pages(request: u64, argument: usize) -> Result<(), Error> {
    if !(FIRST..FIRST + CALLS).contains(&(request & u64::from(u32::MAX))) {
        return Err(Error::Invalid);
    }
    let mut wanted = Argument::default();
    program::copy_from_program(argument, wanted.as_mut_bytes())?;
    let number = |number| usize::try_from(number).map_err(|_| Error::Invalid);
    let address = core::ptr::with_exposed_provenance_mut(number(wanted.address)?);
    // SAFETY: no content changes.
    let done = unsafe { libc::madvise(address, number(wanted.bytes)?, libc::MADV_POPULATE_WRITE) };
    if done != 0 {
        return Err(Error::Fault);
    }
    program::copy_to_program(argument, wanted.as_bytes())
}
